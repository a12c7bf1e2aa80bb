//! The index: in which pack every blob is. In memory 48 bytes a blob (and the hash table's slack); in
//! the bank, JSON files.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use serde::{Deserialize, Serialize};

use crate::{
    id::Id,
    pack::{BlobKind, PackEntry},
};

/// Ids are hashes already.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    // The length of an array, which says nothing.
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type IdMap<V> = HashMap<Id, V, BuildHasherDefault<IdHasher>>;
pub(crate) type IdSet = HashSet<Id, BuildHasherDefault<IdHasher>>;

/// Where a blob is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    pub(crate) pack: Id,
    pub(crate) offset: u32,
    /// Sealed length.
    pub(crate) length: u32,
    /// Plain length if compressed.
    pub(crate) plain: Option<u32>,
    /// The pack is at least so long.
    pub(crate) pack_end: u32,
}

impl Location {
    /// The length of the blob itself.
    pub(crate) fn plain_length(&self) -> u32 {
        let overhead = crate::crypto::OVERHEAD as u32;
        self.plain.unwrap_or(self.length.saturating_sub(overhead))
    }
}

#[derive(Clone, Copy)]
struct Entry {
    pack: u32,
    offset: u32,
    length: u32,
    /// Plain length; `u32::MAX` when the blob is not compressed.
    plain: u32,
}

const NOT_COMPRESSED: u32 = u32::MAX;

struct Pack {
    id: Id,
    /// Where its last known blob ends.
    end: u32,
    blobs: u32,
}

/// All index files of a repository.
#[derive(Default)]
pub(crate) struct Index {
    files: IdSet,
    packs: Vec<Pack>,
    pack_numbers: IdMap<u32>,
    blobs: [IdMap<Entry>; 2],
    /// Of blobs that are in several packs, the other places.
    others: [IdMap<Vec<Entry>>; 2],
    /// Packs that were looked for in the bank since writing began, whatever was found.
    looked_for: IdSet,
    /// How often looks were forgotten: a look that began before is not noted.
    era: u64,
    /// Packs that are not in the bank, or too short, by the latest look.
    lost: IdSet,
    /// Packs in which something was read that is not what was written.
    damaged: IdSet,
}

impl Index {
    pub(crate) fn files(&self) -> &IdSet {
        &self.files
    }

    /// One without files that knows the same packs as looked for, lost and damaged.
    pub(crate) fn emptied(&self) -> Self {
        Self {
            looked_for: self.looked_for.clone(),
            era: self.era,
            lost: self.lost.clone(),
            damaged: self.damaged.clone(),
            ..Self::default()
        }
    }

    /// Is a blob in a pack that was found in the bank since writing began, and is good as far as is known? What was not
    /// looked for counts as not there: see [`Index::to_look_for`].
    pub(crate) fn has(&self, kind: BlobKind, id: &Id) -> bool {
        self.places(kind, id)
            .any(|at| self.looked_for.contains(&at.pack) && self.is_good(&at.pack))
    }

    /// The era in which a look begins.
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// A pack to look for in the bank before a blob counts as there.
    pub(crate) fn to_look_for(&self, kind: BlobKind, id: &Id) -> Option<Id> {
        if self.has(kind, id) {
            return None;
        }
        let mut packs = self.places(kind, id).map(|at| at.pack);
        packs.find(|pack| !self.looked_for.contains(pack) && !self.damaged.contains(pack))
    }

    /// Notes what a look that began in `era` found where a pack should be; answers with whether it is as large as it
    /// should be.
    pub(crate) fn note_looked_for(&mut self, era: u64, pack: Id, size: Option<u64>) -> bool {
        let is_there = size.is_some_and(|size| size >= self.smallest_size(&pack));
        if era != self.era {
            return is_there;
        }
        self.looked_for.insert(pack);
        match is_there {
            true => self.lost.remove(&pack),
            false => self.lost.insert(pack),
        };
        is_there
    }

    /// From now on every pack has to be looked for again: while nobody wrote, anybody may have removed some.
    pub(crate) fn forget_looks(&mut self) {
        self.looked_for.clear();
        self.era += 1;
    }

    fn is_good(&self, pack: &Id) -> bool {
        !self.lost.contains(pack) && !self.damaged.contains(pack)
    }

    /// Where a blob is; in a lost or damaged pack only if it is nowhere else.
    pub(crate) fn find(&self, kind: BlobKind, id: &Id) -> Option<Location> {
        let mut first = None;
        for at in self.places(kind, id) {
            if self.is_good(&at.pack) {
                return Some(at);
            }
            first = first.or(Some(at));
        }
        first
    }

    /// All places where a blob is.
    pub(crate) fn places(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = Location> {
        let others = self.others[kind as usize].get(id).into_iter().flatten();
        let first = self.blobs[kind as usize].get(id).into_iter();
        first
            .chain(others)
            .filter_map(|entry| self.location(*entry))
    }

    pub(crate) fn packs(&self) -> Vec<Id> {
        self.packs.iter().map(|pack| pack.id).collect()
    }

    /// Looks which of the `known` packs are in the bank as they should be; answers with how many are not.
    pub(crate) fn note_lost(&mut self, era: u64, known: &[Id], sizes: &IdMap<u64>) -> usize {
        for pack in known {
            self.note_looked_for(era, *pack, sizes.get(pack).copied());
        }
        self.lost.len()
    }

    /// Packs that were found damaged and are not mended.
    pub(crate) fn damaged(&self) -> IdSet {
        self.damaged.clone()
    }

    pub(crate) fn note_damaged(&mut self, pack: Id) {
        self.damaged.insert(pack);
    }

    /// A damaged pack is mended, or was not damaged after all.
    pub(crate) fn note_mended(&mut self, pack: &Id) {
        self.damaged.remove(pack);
    }

    fn location(&self, entry: Entry) -> Option<Location> {
        let pack = self.packs.get(entry.pack as usize)?;
        Some(Location {
            pack: pack.id,
            offset: entry.offset,
            length: entry.length,
            plain: (entry.plain != NOT_COMPRESSED).then_some(entry.plain),
            pack_end: pack.end,
        })
    }

    /// What a pack must measure in the bank, at least.
    pub(crate) fn smallest_size(&self, pack: &Id) -> u64 {
        let pack = self
            .pack_numbers
            .get(pack)
            .and_then(|number| self.packs.get(*number as usize));
        pack.map_or(0, |pack| {
            u64::from(pack.end) + crate::pack::smallest_header(pack.blobs.into())
        })
    }

    /// Takes in the index file `file`.
    pub(crate) fn add<'a>(
        &mut self,
        file: Id,
        packs: impl IntoIterator<Item = (Id, &'a [PackEntry])>,
    ) {
        self.files.insert(file);
        for (id, entries) in packs {
            self.add_pack(id, entries);
        }
    }

    /// Takes in the index file `file` of packs that were written just now.
    pub(crate) fn add_written<'a>(
        &mut self,
        file: Id,
        packs: impl IntoIterator<Item = (Id, &'a [PackEntry])>,
    ) {
        self.files.insert(file);
        for (id, entries) in packs {
            self.add_pack(id, entries);
            self.looked_for.insert(id);
            self.lost.remove(&id);
        }
    }

    fn add_pack(&mut self, id: Id, entries: &[PackEntry]) {
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        let number = *self.pack_numbers.entry(id).or_insert(next);
        if number == next {
            self.packs.push(Pack {
                id,
                end: 0,
                blobs: 0,
            });
        }
        let Some(pack) = self.packs.get_mut(number as usize) else {
            return;
        };
        let mut seen = 0;
        for entry in entries {
            seen += 1;
            pack.end = pack.end.max(entry.offset.saturating_add(entry.length));
            let place = Entry {
                pack: number,
                offset: entry.offset,
                length: entry.length,
                plain: entry.plain.unwrap_or(NOT_COMPRESSED),
            };
            let first = self.blobs[entry.kind as usize]
                .entry(entry.id)
                .or_insert(place);
            if first.pack == number {
                *first = place;
                continue;
            }
            let others = self.others[entry.kind as usize]
                .entry(entry.id)
                .or_default();
            others.retain(|other| other.pack != number);
            others.push(place);
        }
        pack.blobs = pack.blobs.max(seen);
    }
}

#[derive(Serialize, Deserialize)]
struct BlobJson {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct PackJson {
    id: Id,
    blobs: Vec<BlobJson>,
}

#[derive(Serialize, Deserialize)]
struct IndexJson {
    packs: Vec<PackJson>,
}

/// The JSON of an index file.
pub(crate) fn to_json<'a>(
    packs: impl IntoIterator<Item = (Id, &'a [PackEntry])>,
) -> Result<Vec<u8>, String> {
    let blob = |entry: &PackEntry| BlobJson {
        id: entry.id,
        kind: entry.kind,
        offset: entry.offset,
        length: entry.length,
        uncompressed_length: entry.plain,
    };
    let packs = packs.into_iter().map(|(id, entries)| PackJson {
        id,
        blobs: entries.iter().map(blob).collect(),
    });
    let json = IndexJson {
        packs: packs.collect(),
    };
    serde_json::to_vec(&json).map_err(|error| error.to_string())
}

/// Reads the JSON of an index file.
pub(crate) fn from_json(json: &[u8]) -> Result<Vec<(Id, Vec<PackEntry>)>, String> {
    let index: IndexJson =
        serde_json::from_slice(json).map_err(|error| format!("it is not an index: {error}"))?;
    let entry = |blob: BlobJson| PackEntry {
        id: blob.id,
        kind: blob.kind,
        offset: blob.offset,
        length: blob.length,
        // restic 0.14 writes 0 for "not compressed" in some versions; no compressed blob is empty.
        plain: blob.uncompressed_length.filter(|length| *length != 0),
    };
    let packs = index.packs.into_iter();
    Ok(packs
        .map(|pack| (pack.id, pack.blobs.into_iter().map(entry).collect()))
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_file_survives_and_is_found_in() {
        let entries = [
            PackEntry {
                id: Id([1; 32]),
                kind: BlobKind::Data,
                offset: 0,
                length: 40,
                plain: None,
            },
            PackEntry {
                id: Id([1; 32]),
                kind: BlobKind::Tree,
                offset: 40,
                length: 50,
                plain: Some(99),
            },
        ];
        let json = to_json([(Id([9; 32]), &entries[..])]).unwrap();
        let packs = from_json(&json).unwrap();
        assert_eq!(packs, [(Id([9; 32]), entries.to_vec())]);
        let mut index = Index::default();
        index.add(Id([5; 32]), packs.iter().map(|(id, e)| (*id, &e[..])));
        assert_eq!(
            index
                .find(BlobKind::Data, &Id([1; 32]))
                .unwrap()
                .plain_length(),
            8
        );
        let tree = index.find(BlobKind::Tree, &Id([1; 32])).unwrap();
        assert_eq!((tree.plain_length(), tree.pack_end), (99, 90));
        assert!(!index.has(BlobKind::Tree, &Id([2; 32])));
        assert_eq!(index.smallest_size(&Id([9; 32])), 90 + 2 * 37 + 32 + 4);
    }

    /// The answer of a bank may come when its asker, and all that wrote with it, are gone.
    #[test]
    fn a_look_that_began_before_looks_were_forgotten_is_not_relied_on() {
        let entry = PackEntry {
            id: Id([1; 32]),
            kind: BlobKind::Data,
            offset: 0,
            length: 40,
            plain: None,
        };
        let mut index = Index::default();
        index.add(Id([5; 32]), [(Id([9; 32]), &[entry][..])]);
        let begun = index.era();
        index.forget_looks();
        assert!(index.note_looked_for(begun, Id([9; 32]), Some(4_000)));
        assert!(!index.has(BlobKind::Data, &Id([1; 32])));
        assert_eq!(
            index.to_look_for(BlobKind::Data, &Id([1; 32])),
            Some(Id([9; 32]))
        );
        assert!(index.note_looked_for(index.era(), Id([9; 32]), Some(4_000)));
        assert!(index.has(BlobKind::Data, &Id([1; 32])));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_json(&bytes);
        }
    }
}
