//! The catalog: what the snapshots of a repository are chosen by, in memory.
//!
//! A snapshot is named by the hash of its bytes, and they are sealed with the repository's key: what one said when it was
//! opened, it says for as long as it has that name. So names are listed every time, what is new among them is opened,
//! what is gone is dropped, and the rest is looked up by tag. Nothing of it is written anywhere.
//!
//! That a snapshot is in the catalog says nothing of the state that its bytes are in now: what is used of one is read from
//! the bank and compared with its name ([`Vault::snapshot`](crate::Vault::snapshot)), and a verification opens a vault of
//! its own, whose catalog is empty.
//!
//! **Memory**: of a snapshot with three tags some 300 bytes, however many paths and patterns it names: 64 of its entry, 8
//! and 24 for each tag, 40 to find it by its id, and the slack of allocator and tables.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, RwLock},
};

use futures::{StreamExt, stream};

use crate::{
    Snapshot, SnapshotId, VaultError,
    id::Id,
    index::{IdMap, IdSet},
    latest::Latest,
    repository::{FileKind, Repository, read, write},
};

/// How many snapshots are opened at once: most have 1 KiB.
pub(crate) const AT_ONCE: usize = 16;

/// What a snapshot is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotBrief {
    /// Its id.
    pub id: SnapshotId,
    /// How many files it holds; 0 if its maker did not record that.
    pub files: u64,
}

/// The snapshots that were in the repository when it was listed.
#[derive(Clone)]
pub struct Catalog(Arc<RwLock<Entries>>);

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalog({} snapshots)", read(&self.0).by_id.len())
    }
}

impl Catalog {
    /// The snapshots that have all of the tags, newest first. Looks at those with the first of them: that is the
    /// rarest.
    #[must_use]
    pub fn with_tags(&self, tags: &[String]) -> Vec<SnapshotBrief> {
        read(&self.0).with_tags(tags)
    }
}

/// The catalog of a vault, which follows the bank.
#[derive(Default)]
pub(crate) struct Following {
    entries: Arc<RwLock<Entries>>,
    listing: Latest,
}

impl Following {
    /// The catalog as the bank is now.
    ///
    /// # Errors
    /// Failures of the bank. Damaged snapshots are passed over; each time, for they may have been spoilt on the way.
    pub(crate) async fn now(&self, repository: &Repository) -> Result<Catalog, VaultError> {
        self.listing.look(|| self.follow(repository)).await?;
        Ok(Catalog(self.entries.clone()))
    }

    async fn follow(&self, repository: &Repository) -> Result<(), VaultError> {
        let listed = repository.list(FileKind::Snapshot).await?;
        let listed: IdSet = listed.into_iter().map(|(id, _)| id).collect();
        let unknown: Vec<Id> = {
            let mut entries = write(&self.entries);
            entries.keep(&listed);
            let is_new = |id: &&Id| !entries.by_id.contains_key(id);
            listed.iter().filter(is_new).copied().collect()
        };
        let mut opened = stream::iter(unknown)
            .map(|id| async move { (id, open(repository, &SnapshotId(id)).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((id, snapshot)) = opened.next().await {
            match snapshot {
                Ok(snapshot) => write(&self.entries).add(&snapshot),
                Err(error @ VaultError::Damaged { .. }) => {
                    tracing::warn!(%error, snapshot = %id, "a snapshot is passed over");
                }
                // Forgotten since it was listed.
                Err(VaultError::NoSuchSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads a snapshot from the bank.
///
/// # Errors
/// [`VaultError::NoSuchSnapshot`], [`VaultError::Damaged`], and failures of the bank.
pub(crate) async fn open(repository: &Repository, id: &SnapshotId) -> Result<Snapshot, VaultError> {
    let json = repository.load(FileKind::Snapshot, &id.0).await?;
    let json = json.ok_or_else(|| VaultError::NoSuchSnapshot(id.to_string()))?;
    Snapshot::from_json(id.0, &json)
        .map_err(|reason| VaultError::damaged(FileKind::Snapshot.object(&id.0), reason))
}

/// What is kept of a snapshot.
struct Entry {
    id: Id,
    /// When it was made, microseconds since 1970, UTC.
    made_at: i64,
    files: u64,
    /// Hashes of its tags.
    tags: Box<[u64]>,
}

/// Numbers of entries by the hash of a tag, newest first.
type ByTag = BTreeSet<(u64, Reverse<i64>, u32)>;

#[derive(Default)]
struct Entries {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_id: IdMap<u32>,
    by_tag: ByTag,
    /// All of them, newest first.
    all: BTreeSet<(Reverse<i64>, u32)>,
    /// Another one in each process: nobody can choose tags of one hash.
    hasher: RandomState,
}

impl Entries {
    /// Drops what is not listed.
    fn keep(&mut self, listed: &IdSet) {
        let gone = self.by_id.keys().filter(|id| !listed.contains(id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &Id) {
        let Some(number) = self.by_id.remove(id) else {
            return;
        };
        let place = self.entries.get_mut(number as usize);
        let Some(entry) = place.and_then(Option::take) else {
            return;
        };
        let made_at = Reverse(entry.made_at);
        for tag in &entry.tags {
            self.by_tag.remove(&(*tag, made_at, number));
        }
        self.all.remove(&(made_at, number));
        self.free.push(number);
    }

    fn add(&mut self, snapshot: &Snapshot) {
        let number = match self.free.pop() {
            Some(number) => number,
            None => match u32::try_from(self.entries.len()) {
                Ok(number) => {
                    self.entries.push(None);
                    number
                }
                // Not kept: it is opened again at the next listing.
                Err(_) => return,
            },
        };
        let tags: Box<[u64]> = snapshot.tags.iter().map(|tag| self.hash(tag)).collect();
        let made_at = Reverse(snapshot.time.timestamp_micros());
        self.by_tag
            .extend(tags.iter().map(|tag| (*tag, made_at, number)));
        self.all.insert((made_at, number));
        self.by_id.insert(snapshot.id.0, number);
        if let Some(place) = self.entries.get_mut(number as usize) {
            let numbers = snapshot.numbers.as_ref();
            *place = Some(Entry {
                id: snapshot.id.0,
                made_at: made_at.0,
                files: numbers.map_or(0, |numbers| numbers.total_files_processed),
                tags,
            });
        }
    }

    fn hash(&self, tag: &str) -> u64 {
        self.hasher.hash_one(tag)
    }

    fn with_tags(&self, tags: &[String]) -> Vec<SnapshotBrief> {
        let tags: Vec<u64> = tags.iter().map(|tag| self.hash(tag)).collect();
        let brief = |number: u32| {
            let entry = self.entries.get(number as usize)?.as_ref()?;
            let has_all = tags.iter().all(|tag| entry.tags.contains(tag));
            has_all.then_some(SnapshotBrief {
                id: SnapshotId(entry.id),
                files: entry.files,
            })
        };
        match tags.first() {
            None => self.all.iter().filter_map(|at| brief(at.1)).collect(),
            Some(&tag) => {
                let of_tag = (tag, Reverse(i64::MAX), 0)..=(tag, Reverse(i64::MIN), u32::MAX);
                let of_tag = self.by_tag.range(of_tag);
                of_tag.filter_map(|at| brief(at.2)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(id: u8, second: u32, tags: &[&str]) -> Snapshot {
        let json = serde_json::json!({
            "time": format!("2026-11-30T00:00:{second:02}Z"),
            "tree": Id([0; 32]),
            "tags": tags,
            "summary": {"total_files_processed": id},
        });
        Snapshot::from_json(Id([id; 32]), json.to_string().as_bytes()).unwrap()
    }

    fn ids(found: &[SnapshotBrief]) -> Vec<u8> {
        found.iter().map(|brief| brief.id.0.0[0]).collect()
    }

    #[test]
    fn a_snapshot_is_found_by_all_of_its_tags_newest_first() {
        let mut entries = Entries::default();
        entries.add(&snapshot(1, 1, &["a", "b"]));
        entries.add(&snapshot(3, 3, &["a"]));
        entries.add(&snapshot(2, 2, &["a", "b"]));
        let found = |entries: &Entries, tags: &[&str]| {
            let tags: Vec<_> = tags.iter().map(|&tag| tag.to_owned()).collect();
            entries.with_tags(&tags)
        };
        assert_eq!(ids(&found(&entries, &["a"])), [3, 2, 1]);
        assert_eq!(ids(&found(&entries, &["b", "a"])), [2, 1]);
        assert_eq!(ids(&found(&entries, &[])), [3, 2, 1]);
        assert_eq!(found(&entries, &["a"])[0].files, 3);
        assert!(found(&entries, &["c"]).is_empty());
        entries.keep(&[Id([2; 32])].into_iter().collect());
        assert_eq!(ids(&found(&entries, &["a"])), [2]);
        assert_eq!((entries.by_tag.len(), entries.all.len()), (2, 1));
    }

    #[test]
    fn an_entry_is_as_small_as_it_says() {
        assert!(size_of::<Option<Entry>>() <= 64);
        assert!(size_of::<(u64, Reverse<i64>, u32)>() <= 24);
        assert!(size_of::<(Id, u32)>() <= 40);
    }

    proptest! {
        /// However they come and go, what is found is what there is.
        #[test]
        fn the_index_by_tag_follows(steps in proptest::collection::vec((0_u8..12, 0_u32..4, 0_usize..4, any::<bool>()), 0..60)) {
            const TAGS: [&[&str]; 4] = [&[], &["a"], &["b"], &["a", "b"]];
            let mut entries = Entries::default();
            let mut there = std::collections::BTreeMap::new();
            for (id, second, tags, comes) in steps {
                let is_there = there.contains_key(&id);
                if comes && !is_there {
                    entries.add(&snapshot(id, second, TAGS[tags]));
                    there.insert(id, (second, tags));
                } else if !comes {
                    there.remove(&id);
                    entries.keep(&there.keys().map(|id| Id([*id; 32])).collect());
                }
            }
            for wanted in TAGS {
                let tags: Vec<_> = wanted.iter().map(|&tag| tag.to_owned()).collect();
                let found = ids(&entries.with_tags(&tags));
                let seconds: Vec<_> = found.iter().map(|id| Reverse(there[id].0)).collect();
                prop_assert!(seconds.is_sorted());
                let mut found = found;
                found.sort_unstable();
                let has_all = |has: &[&str]| wanted.iter().all(|tag| has.contains(tag));
                let expected: Vec<_> = there.iter().filter(|(_, (_, tags))| has_all(TAGS[*tags])).map(|(id, _)| *id).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
