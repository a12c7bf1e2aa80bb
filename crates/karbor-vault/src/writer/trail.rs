//! The directories that a walk has gone through: what it takes to look at each of them once more.

use std::ffi::OsStr;

use chrono::Utc;
use rustix::fs::Stat;

use super::parent::is_settled;
use crate::{fsio, time::Time};

/// What a directory looked like just before it was listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    times: (Time, Time),
    /// A change after the listing shows in the times. It does not in one that was changed just before: time
    /// stamps are coarse.
    is_settled: bool,
}

impl Listed {
    /// A directory that is listed now.
    pub(super) fn now(stat: &Stat) -> Self {
        Self {
            times: times(stat),
            is_settled: is_settled(fsio::ctime(stat), Utc::now().into()),
        }
    }

    /// Do the times say that it was changed since?
    pub(super) fn is_before(&self, stat: &Stat) -> bool {
        self.times != times(stat)
    }

    /// May it have been changed since?
    fn may_be_before(&self, stat: &Stat) -> bool {
        !self.is_settled || self.is_before(stat)
    }
}

fn times(stat: &Stat) -> (Time, Time) {
    (fsio::mtime(stat), fsio::ctime(stat))
}

/// Device and inode.
pub(super) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// A directory that was gone through: some hundred bytes and its name. Others are told by their number.
pub(super) struct Past {
    pub(super) name: Box<OsStr>,
    pub(super) id: (u64, u64),
    pub(super) listed: Listed,
    /// The last one that was found in it.
    pub(super) inner: Option<u32>,
    /// The one that was found beside it before.
    pub(super) beside: Option<u32>,
    /// It is to be listed again.
    pub(super) is_changed: bool,
    /// So is one somewhere below it.
    pub(super) leads_to_changed: bool,
}

/// All of them; the first is the root.
#[derive(Default)]
pub(super) struct Trail(Vec<Past>);

impl Trail {
    /// Adds a directory that is about to be listed; answers with its number. `None`: there are too many.
    pub(super) fn add(
        &mut self,
        above: Option<u32>,
        name: &OsStr,
        id: (u64, u64),
        listed: Listed,
    ) -> Option<u32> {
        let number = u32::try_from(self.0.len()).ok()?;
        let beside = above
            .and_then(|above| self.get_mut(above))
            .and_then(|above| above.inner.replace(number));
        self.0.push(Past {
            name: name.into(),
            id,
            listed,
            inner: None,
            beside,
            is_changed: false,
            leads_to_changed: false,
        });
        Some(number)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Past> {
        self.0.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Past> {
        self.0.get_mut(number as usize)
    }

    /// The directories in one.
    pub(super) fn inside(&self, number: u32) -> impl Iterator<Item = (u32, &Past)> {
        let first = self.get(number).and_then(|past| past.inner);
        std::iter::successors(first, |number| self.get(*number)?.beside)
            .filter_map(|number| Some((number, self.get(number)?)))
    }

    /// A directory is gone through once more, with all that is in it.
    pub(super) fn begin_again(&mut self, number: u32) {
        if let Some(past) = self.get_mut(number) {
            past.inner = None;
        }
    }

    /// Nothing is marked any more.
    pub(super) fn clear_marks(&mut self) {
        for past in &mut self.0 {
            (past.is_changed, past.leads_to_changed) = (false, false);
        }
    }

    /// Marks a directory that may have been changed since it was listed, and those on the way to it.
    /// Says whether it is marked.
    pub(super) fn mark(
        &mut self,
        number: u32,
        stat: &Stat,
        way: impl DoubleEndedIterator<Item = u32>,
    ) -> bool {
        let Some(past) = self.get_mut(number) else {
            return false;
        };
        past.is_changed = past.listed.may_be_before(stat);
        if !past.is_changed {
            return false;
        }
        for above in way.rev() {
            match self.get_mut(above) {
                Some(above) if !above.leads_to_changed => above.leads_to_changed = true,
                _ => break,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change in the same tick of the clock leaves the times as they are.
    #[test]
    fn what_was_changed_just_before_it_was_listed_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut stat = rustix::fs::stat(dir.path()).unwrap();
        let just_now = Listed::now(&stat);
        assert!(just_now.may_be_before(&stat) && !just_now.is_before(&stat));
        stat.st_ctime -= 10;
        let long_ago = Listed::now(&stat);
        assert!(!long_ago.may_be_before(&stat));
        stat.st_mtime += 1;
        assert!(long_ago.may_be_before(&stat) && long_ago.is_before(&stat));
    }

    #[test]
    fn the_way_to_a_changed_directory_is_marked_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let stat = rustix::fs::stat(dir.path()).unwrap();
        let listed = Listed::now(&stat);
        let mut trail = Trail::default();
        let mut add = |above, name: &str| {
            let added = trail.add(above, OsStr::new(name), (0, 0), listed);
            added.unwrap()
        };
        let root = add(None, "");
        let (a, b) = (add(Some(root), "a"), add(Some(root), "b"));
        let (c, d) = (add(Some(a), "c"), add(Some(a), "d"));
        assert!(trail.mark(d, &stat, [root, a].into_iter()));
        let marked = |number: u32| {
            let past = trail.get(number).unwrap();
            (past.is_changed, past.leads_to_changed)
        };
        assert_eq!([root, a].map(marked), [(false, true); 2]);
        assert_eq!([b, c].map(marked), [(false, false); 2]);
        assert_eq!(marked(d), (true, false));
        let inside = |number| -> Vec<u32> { trail.inside(number).map(|(n, _)| n).collect() };
        assert_eq!((inside(root), inside(a)), (vec![b, a], vec![d, c]));
        trail.clear_marks();
        let past = trail.get(root).unwrap();
        assert!(!past.leads_to_changed);
    }
}
