//! What cannot be read, by its path: an entry that is looked at more than once counts once, and not at all
//! if it could be read in the end.

use std::{
    collections::{BTreeMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    path::{Path, PathBuf},
};

use crate::Mishaps;

#[derive(Default)]
pub(super) struct Unreadable {
    /// The first [`Mishaps::MOST`], and why.
    named: BTreeMap<PathBuf, String>,
    /// The others, by the hashes of their paths: there may be millions.
    others: HashSet<u64>,
    hasher: RandomState,
}

impl Unreadable {
    pub(super) fn note(&mut self, relative: &Path, reason: String) {
        let is_named = self.named.contains_key(relative);
        let hash = self.hasher.hash_one(relative);
        if is_named || (self.named.len() < Mishaps::MOST && !self.others.contains(&hash)) {
            self.named.insert(relative.to_owned(), reason);
        } else {
            self.others.insert(hash);
        }
    }

    /// The entry is looked at again.
    pub(super) fn forget(&mut self, relative: &Path) {
        if !self.is_empty() && self.named.remove(relative).is_none() {
            self.others.remove(&self.hasher.hash_one(relative));
        }
    }

    pub(super) fn contains(&self, relative: &Path) -> bool {
        !self.is_empty()
            && (self.named.contains_key(relative)
                || self.others.contains(&self.hasher.hash_one(relative)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.others.is_empty()
    }

    /// All of them, with the paths that people know them by.
    pub(super) fn into_mishaps(self, path: impl Fn(&Path) -> String) -> Mishaps {
        let mut mishaps = Mishaps::default();
        for (relative, reason) in self.named {
            mishaps.note(path(&relative), reason);
        }
        mishaps.total += self.others.len() as u64;
        mishaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(unreadable: Unreadable) -> Mishaps {
        unreadable.into_mishaps(|path| path.to_string_lossy().into_owned())
    }

    #[test]
    fn each_counts_once_however_often_it_is_looked_at() {
        let mut unreadable = Unreadable::default();
        let paths: Vec<_> = (0..300).map(|n| PathBuf::from(format!("{n:03}"))).collect();
        for look in ["first", "second"] {
            for path in &paths {
                unreadable.note(path, look.to_owned());
            }
        }
        assert!(paths.iter().all(|path| unreadable.contains(path)));
        for read in [&paths[0], &paths[299]] {
            unreadable.forget(read);
            assert!(!unreadable.contains(read));
        }
        let mishaps = told(unreadable);
        assert_eq!((mishaps.total, mishaps.named.len()), (298, 99));
        assert!(mishaps.named.iter().all(|named| named.reason == "second"));
    }

    #[test]
    fn where_all_could_be_read_in_the_end_nothing_is_told() {
        let mut unreadable = Unreadable::default();
        unreadable.note(Path::new("a"), "a lease".to_owned());
        unreadable.forget(Path::new("a"));
        assert!(unreadable.is_empty());
        assert_eq!(told(unreadable), Mishaps::default());
    }
}
