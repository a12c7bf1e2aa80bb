//! Packs: blobs one after the other, then a sealed header that lists them, then the header's length.

use sha2::{Digest, Sha256};

use crate::{
    VaultError,
    crypto::{self, Crypto},
    id::Id,
    index::Location,
};

/// Which of the two sorts of blobs; they never share a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BlobKind {
    Data = 0,
    Tree = 1,
}

impl BlobKind {
    /// How large a blob may be, in bytes: what an index says of one is no reason to allocate. Chunks of data
    /// are far smaller; a tree is as large as its directory.
    pub(crate) fn most(self) -> u32 {
        match self {
            Self::Data => 128 << 20,
            Self::Tree => 1 << 30,
        }
    }

    /// How large a blob may be, in bytes, that will be read again, also if it cannot be compressed.
    pub(crate) fn largest(self) -> usize {
        self.most() as usize - crypto::OVERHEAD
    }
}

/// Where in its pack a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackEntry {
    pub(crate) id: Id,
    pub(crate) kind: BlobKind,
    pub(crate) offset: u32,
    /// Sealed, as in the pack.
    pub(crate) length: u32,
    /// Plain length if the blob is compressed.
    pub(crate) plain: Option<u32>,
}

const PLAIN_ENTRY: usize = 1 + 4 + 32;
const COMPRESSED_ENTRY: usize = PLAIN_ENTRY + 4;
/// A header may not be longer, in bytes.
pub(crate) const MAX_HEADER: u32 = 16 << 20;
/// So many blobs have room in it.
const MOST_BLOBS: usize = (MAX_HEADER as usize - crypto::OVERHEAD) / COMPRESSED_ENTRY;
/// The length field at the end.
pub(crate) const TRAILER: u64 = 4;

/// What a header takes for so many blobs, at least.
pub(crate) fn smallest_header(blobs: u64) -> u64 {
    blobs * PLAIN_ENTRY as u64 + crypto::OVERHEAD as u64 + TRAILER
}

/// A pack being filled.
pub(crate) struct PackBuilder {
    kind: BlobKind,
    data: Vec<u8>,
    entries: Vec<PackEntry>,
}

/// A pack, ready for the bank.
pub(crate) struct SealedPack {
    pub(crate) id: Id,
    pub(crate) data: Vec<u8>,
    pub(crate) entries: Vec<PackEntry>,
}

impl PackBuilder {
    pub(crate) fn new(kind: BlobKind, capacity: usize) -> Self {
        Self {
            kind,
            data: Vec::with_capacity(capacity),
            entries: Vec::new(),
        }
    }

    pub(crate) fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Is it as large as packs are to be, or would its header be longer than is read?
    pub(crate) fn is_full(&self, size: usize) -> bool {
        self.data.len() >= size || self.entries.len() >= MOST_BLOBS
    }

    /// A sealed blob that is in it, and where, if it is the one at this place in the list.
    pub(crate) fn blob(&self, at: usize, id: &Id) -> Option<(Vec<u8>, Location)> {
        let entry = self.entries.get(at).filter(|entry| entry.id == *id)?;
        let end = entry.offset.checked_add(entry.length)?;
        let sealed = self.data.get(entry.offset as usize..end as usize)?;
        let at = Location {
            pack: Id([0; 32]),
            offset: entry.offset,
            length: entry.length,
            plain: entry.plain,
            pack_end: end,
        };
        Some((sealed.to_vec(), at))
    }

    /// Adds a sealed blob. `plain` is its plain length if it is compressed.
    pub(crate) fn add(
        &mut self,
        id: Id,
        sealed: &[u8],
        plain: Option<u32>,
    ) -> Result<(), VaultError> {
        let too_large = |_| VaultError::Internal("a pack grew beyond 4 GiB".to_owned());
        self.entries.push(PackEntry {
            id,
            kind: self.kind,
            offset: u32::try_from(self.data.len()).map_err(too_large)?,
            length: u32::try_from(sealed.len()).map_err(too_large)?,
            plain,
        });
        self.data.extend_from_slice(sealed);
        Ok(())
    }

    pub(crate) fn seal(mut self, crypto: &Crypto) -> Result<SealedPack, VaultError> {
        let header = crypto.seal(&header_to_bytes(&self.entries))?;
        let length = u32::try_from(header.len())
            .map_err(|_| VaultError::Internal("a pack header grew beyond 4 GiB".to_owned()))?;
        self.data.extend_from_slice(&header);
        self.data.extend_from_slice(&length.to_le_bytes());
        Ok(SealedPack {
            id: Id(Sha256::digest(&self.data).into()),
            data: self.data,
            entries: self.entries,
        })
    }
}

fn header_to_bytes(entries: &[PackEntry]) -> Vec<u8> {
    let mut header = Vec::with_capacity(entries.len() * COMPRESSED_ENTRY);
    for entry in entries {
        let compressed = if entry.plain.is_some() { 2 } else { 0 };
        header.push(entry.kind as u8 | compressed);
        header.extend_from_slice(&entry.length.to_le_bytes());
        if let Some(plain) = entry.plain {
            header.extend_from_slice(&plain.to_le_bytes());
        }
        header.extend_from_slice(&entry.id.0);
    }
    header
}

/// Reads an opened header.
pub(crate) fn header_from_bytes(mut bytes: &[u8]) -> Result<Vec<PackEntry>, String> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
        let (head, rest) = bytes.split_first_chunk().ok_or("its header is cut short")?;
        *bytes = rest;
        Ok(*head)
    }
    let mut entries = Vec::new();
    let mut offset = 0_u32;
    while !bytes.is_empty() {
        let [tag] = take(&mut bytes)?;
        if tag > 3 {
            return Err(format!("its header has a blob of the unknown type {tag}"));
        }
        let length = u32::from_le_bytes(take(&mut bytes)?);
        let plain = match tag & 2 {
            0 => None,
            _ => Some(u32::from_le_bytes(take(&mut bytes)?)),
        };
        entries.push(PackEntry {
            id: Id(take(&mut bytes)?),
            kind: if tag & 1 == 0 {
                BlobKind::Data
            } else {
                BlobKind::Tree
            },
            offset,
            length,
            plain,
        });
        offset = offset
            .checked_add(length)
            .ok_or("its header speaks of more than 4 GiB")?;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::RawKey;

    #[test]
    fn a_pack_says_what_is_in_it() {
        let crypto = Crypto::new(&RawKey::random().unwrap());
        let mut pack = PackBuilder::new(BlobKind::Data, 0);
        pack.add(Id([1; 32]), &[1; 100], None).unwrap();
        pack.add(Id([2; 32]), &[2; 50], Some(70)).unwrap();
        let pack = pack.seal(&crypto).unwrap();
        assert_eq!(pack.id, Id::of(&pack.data));
        let (rest, length) = pack.data.split_last_chunk::<4>().unwrap();
        let length = u32::from_le_bytes(*length) as usize;
        let header = crypto.open(&rest[rest.len() - length..]).unwrap();
        assert_eq!(header_from_bytes(&header).unwrap(), pack.entries);
        assert_eq!(pack.entries[1].offset, 100);
        assert!(pack.data.len() as u64 >= 150 + smallest_header(2));
        assert!(header_from_bytes(&header[1..]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = header_from_bytes(&bytes);
        }

        #[test]
        fn a_small_tag_does_not_either(mut bytes in proptest::collection::vec(any::<u8>(), 1..300), tag in 0_u8..4) {
            bytes[0] = tag;
            let _ = header_from_bytes(&bytes);
        }
    }
}
