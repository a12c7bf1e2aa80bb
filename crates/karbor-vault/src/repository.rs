//! The files of a repository in a bank: where they are, how they are sealed, who has read them.

use std::{
    io::Read,
    sync::{
        RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt, stream};
use karbor_plugin::{BankError, BankKey, BankSection, ListRequest, MAX_OBJECT, Secret};
use serde::{Deserialize, Serialize};

use crate::{
    VaultError, VaultOptions,
    crypto::{self, Crypto, RawKey},
    id::Id,
    index::{self, IdMap, Index},
    keyfile::{self, KeyFile},
    latest::Latest,
    pack::{BlobKind, PackEntry},
    polynomial,
    time::Time,
};

/// The sorts of files there are; each has its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Key,
    Lock,
    Snapshot,
    Index,
    Pack,
}

impl FileKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Lock => "locks",
            Self::Snapshot => "snapshots",
            Self::Index => "index",
            Self::Pack => "data",
        }
    }

    /// How many bytes a file may have, and unpack to. What a file says of itself is no reason to allocate.
    pub(crate) fn most(self) -> u64 {
        match self {
            Self::Key => 64 << 10,
            Self::Lock => 1 << 20,
            // Paths and patterns of a snapshot.
            Self::Snapshot => 16 << 20,
            // restic's hold some 10 MB.
            Self::Index => 256 << 20,
            Self::Pack => MAX_OBJECT,
        }
    }

    /// Fails if a file would be written that is not read again.
    fn check_size(self, size: usize) -> Result<(), VaultError> {
        match size as u64 > self.most() {
            true => Err(VaultError::Invalid(format!(
                "a file of {size} bytes is not written to '{}' of the repository, for none is read with more than {}",
                self.folder(),
                self.most()
            ))),
            false => Ok(()),
        }
    }

    fn path(self, id: &Id) -> String {
        let name = id.to_hex();
        match self {
            Self::Pack => format!("data/{}/{name}", &name[..2]),
            _ => format!("{}/{name}", self.folder()),
        }
    }

    /// For messages.
    pub(crate) fn object(self, id: &Id) -> String {
        let word = match self {
            Self::Key => "key",
            Self::Lock => "lock",
            Self::Snapshot => "snapshot",
            Self::Index => "index",
            Self::Pack => "pack",
        };
        format!("{word} {}", self.path(id))
    }
}

#[derive(Serialize, Deserialize)]
struct Config {
    version: u64,
    id: Id,
    chunker_polynomial: String,
}

/// The config may not be larger, in bytes.
const MAX_CONFIG: u64 = 64 << 10;
/// The first byte of a plain text that is compressed.
const COMPRESSED: u8 = 2;

/// How many index files are read at once: they may have 10 MB.
const INDEX_FILES_AT_ONCE: usize = 4;

/// What an index file holds.
pub(crate) type Packs = Vec<(Id, Vec<PackEntry>)>;

/// A repository whose keys are known.
pub(crate) struct Repository {
    section: BankSection,
    /// What it was opened from: the config by the hash of its bytes, and the key.
    opened_from: (Id, Id),
    pub(crate) crypto: Crypto,
    pub(crate) options: VaultOptions,
    /// Of the chunker: secret, the same as long as the repository lives.
    pub(crate) seed: u64,
    /// What the index files say, as of the last [`Repository::refresh_index`], and what we wrote.
    pub(crate) index: RwLock<Index>,
    refreshing: Latest,
    /// How many packs were looked for, one by one, since the latest listing of all.
    looks: AtomicUsize,
}

/// So many packs are looked for one by one; when there are more, all are listed.
const MOST_LOOKS: usize = 256;

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.section.prefix())
    }
}

/// Makes a repository, unless there is one. One that cuts content as another does (`seed`) finds what
/// was copied from there again.
pub(crate) async fn init(
    section: &BankSection,
    password: &Secret,
    hostname: String,
    seed: Option<u64>,
) -> Result<(), VaultError> {
    let config = config_key()?;
    match section.stat(&config).await {
        Ok(_) => return Ok(()),
        Err(BankError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // Keys alone are what an attempt leaves that died before its config.
    for kind in [FileKind::Index, FileKind::Snapshot] {
        if !list(section, kind).await?.is_empty() {
            // Another may have made it meanwhile.
            return match section.stat(&config).await {
                Ok(_) => Ok(()),
                Err(BankError::NotFound(_)) => Err(VaultError::damaged(
                    format!("the repository '{}'", section.prefix()),
                    "its config is missing; put it back from a copy of the bank".to_owned(),
                )),
                Err(error) => Err(error.into()),
            };
        }
    }
    let password = password.clone();
    let created = Time::from(Utc::now()).to_text();
    let (key_file, sealed) = blocking(move || {
        let master = RawKey::random()?;
        let mut id = [0; 32];
        crypto::random(&mut id)?;
        let seed = match seed {
            Some(seed) => seed,
            None => polynomial::random_irreducible()?,
        };
        let config = Config {
            version: 2,
            id: Id(id),
            chunker_polynomial: format!("{seed:x}"),
        };
        let key_file = KeyFile::make(&master, password.expose(), created, hostname)?;
        let sealed = Crypto::new(&master).seal(&json(&config)?)?;
        Ok((json(&key_file)?, sealed))
    })
    .await?;
    let key = bank_key(FileKind::Key, &Id::of(&key_file))?;
    section.put(&key, key_file.into()).await?;
    // The process that writes the config first has made the repository; a key that opens nothing must go.
    let sealed = Bytes::from(sealed);
    match section.put_new(&config, sealed.clone()).await {
        Ok(()) => Ok(()),
        // A bank that was asked again, as the answer to the first was lost, may find what it wrote itself.
        Err(BankError::AlreadyExists(_)) => {
            match section.get_at_most(&config, MAX_CONFIG).await? == sealed {
                true => Ok(()),
                false => Ok(section.delete(&key).await?),
            }
        }
        // It may have been written all the same: then the key is needed.
        Err(error) => Err(error.into()),
    }
}

impl Repository {
    pub(crate) async fn open(
        section: BankSection,
        password: &Secret,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        let place = section.prefix().to_string();
        let sealed = match section.get_at_most(&config_key()?, MAX_CONFIG).await {
            Ok(sealed) => sealed,
            Err(BankError::NotFound(_)) => return Err(VaultError::NotARepository(place)),
            Err(error) => return Err(error.into()),
        };
        let (key, crypto, plain) = keyfile::find(&section, password, place, &sealed).await?;
        let nonsense = |reason: String| VaultError::damaged("the repository's config", reason);
        let config: Config =
            serde_json::from_slice(&plain).map_err(|error| nonsense(error.to_string()))?;
        if config.version != 2 {
            return Err(VaultError::UnsupportedVersion(config.version));
        }
        let seed = u64::from_str_radix(&config.chunker_polynomial, 16)
            .map_err(|error| nonsense(format!("its polynomial: {error}")))?;
        let repository = Self {
            section,
            opened_from: (Id::of(&sealed), key),
            crypto,
            options,
            seed,
            index: RwLock::default(),
            refreshing: Latest::default(),
            looks: AtomicUsize::new(0),
        };
        Ok(repository)
    }

    /// Are the config and the key that it was opened from in the bank still?
    pub(crate) async fn is_in_place(&self) -> Result<bool, VaultError> {
        let (config, key) = &self.opened_from;
        let there = config_key()?;
        match self.section.get_at_most(&there, MAX_CONFIG).await {
            Ok(found) if Id::of(&found) == *config => self.exists(FileKind::Key, key).await,
            Ok(_) | Err(BankError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails if it is not this repository any more that is in the bank: what is written would lie in another,
    /// which has no key for it.
    pub(crate) async fn check_in_place(&self) -> Result<(), VaultError> {
        match self.is_in_place().await? {
            true => Ok(()),
            false => Err(VaultError::Exchanged(self.place())),
        }
    }

    /// Where it is, for messages.
    pub(crate) fn place(&self) -> String {
        self.section.prefix().to_string()
    }

    /// Files of a kind and their sizes. What is not named as a file of a repository is passed over.
    pub(crate) async fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, VaultError> {
        list(&self.section, kind).await
    }

    pub(crate) async fn get(&self, kind: FileKind, id: &Id) -> Result<Bytes, VaultError> {
        let key = bank_key(kind, id)?;
        Ok(self.section.get_at_most(&key, kind.most()).await?)
    }

    pub(crate) async fn get_range(
        &self,
        pack: &Id,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, VaultError> {
        let key = bank_key(FileKind::Pack, pack)?;
        match self.section.get_range(&key, offset, length).await {
            Ok(data) if data.len() as u64 == length => Ok(data),
            Ok(data) => Err(VaultError::damaged(
                FileKind::Pack.object(pack),
                format!("only {} of {length} bytes came from {offset}", data.len()),
            )),
            Err(BankError::NotFound(_)) => Err(VaultError::damaged(
                FileKind::Pack.object(pack),
                "it is missing from the bank",
            )),
            Err(BankError::Corrupt { reason, .. }) => {
                Err(VaultError::damaged(FileKind::Pack.object(pack), reason))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file, if the repository is in its place.
    pub(crate) async fn put(&self, kind: FileKind, id: &Id, data: Bytes) -> Result<(), VaultError> {
        kind.check_size(data.len())?;
        self.check_in_place().await?;
        let key = bank_key(kind, id)?;
        Ok(self.section.put(&key, data).await?)
    }

    /// Removes a file. One that is not there is no error.
    pub(crate) async fn delete(&self, kind: FileKind, id: &Id) -> Result<(), VaultError> {
        let key = bank_key(kind, id)?;
        Ok(self.section.delete(&key).await?)
    }

    pub(crate) async fn exists(&self, kind: FileKind, id: &Id) -> Result<bool, VaultError> {
        let key = bank_key(kind, id)?;
        match self.section.stat(&key).await {
            Ok(_) => Ok(true),
            Err(BankError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a file of JSON; `None`: there is none.
    pub(crate) async fn load(
        &self,
        kind: FileKind,
        id: &Id,
    ) -> Result<Option<Vec<u8>>, VaultError> {
        let data = match self.get(kind, id).await {
            Ok(data) => data,
            Err(VaultError::Bank(BankError::NotFound(_))) => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |reason: &str| VaultError::damaged(kind.object(id), reason);
        if Id::of(&data) != *id {
            return Err(damaged("its content does not match its name"));
        }
        let plain = self.crypto.open(&data);
        let plain = plain.ok_or_else(|| damaged("it is not sealed with the repository's key"))?;
        decode(plain, kind.most())
            .map(Some)
            .map_err(|reason| damaged(&reason))
    }

    /// Writes a file of JSON.
    pub(crate) async fn save(&self, kind: FileKind, json: &[u8]) -> Result<Id, VaultError> {
        let (id, sealed) = self.sealed(kind, json)?;
        self.put(kind, &id, sealed).await?;
        Ok(id)
    }

    /// A file of JSON as it is written, and the id that it will have.
    pub(crate) fn sealed(&self, kind: FileKind, json: &[u8]) -> Result<(Id, Bytes), VaultError> {
        kind.check_size(json.len())?;
        let mut plain = vec![COMPRESSED];
        let level = self.options.compression_level;
        zstd::stream::copy_encode(json, &mut plain, level)
            .map_err(|error| VaultError::Internal(format!("zstd: {error}")))?;
        let sealed = self.crypto.seal(&plain)?;
        Ok((Id::of(&sealed), sealed.into()))
    }

    /// Takes in index files that others wrote since; starts again if some are gone (after a prune).
    pub(crate) async fn refresh_index(&self) -> Result<(), VaultError> {
        self.refreshing.look(|| self.follow_index()).await
    }

    async fn follow_index(&self) -> Result<(), VaultError> {
        // A prune writes the new files before it removes the old: one that vanishes between our
        // listing and reading means that there is a newer listing.
        const ATTEMPTS: u32 = 5;
        for _ in 0..ATTEMPTS {
            if self.try_refresh_index().await? {
                return Ok(());
            }
        }
        Err(VaultError::damaged(
            "the repository's index",
            "its files vanish while they are read",
        ))
    }

    /// Reads an index file; `None`: it is gone.
    pub(crate) async fn index_file(&self, id: &Id) -> Result<Option<Packs>, VaultError> {
        let Some(json) = self.load(FileKind::Index, id).await? else {
            return Ok(None);
        };
        let packs = blocking(move || Ok(index::from_json(&json))).await?;
        let damaged = |reason| VaultError::damaged(FileKind::Index.object(id), reason);
        packs.map(Some).map_err(damaged)
    }

    async fn try_refresh_index(&self) -> Result<bool, VaultError> {
        let listed = self.list(FileKind::Index).await?;
        let (gone, known) = {
            let index = read(&self.index);
            let known = listed
                .iter()
                .filter(|(id, _)| index.files().contains(id))
                .count();
            (known < index.files().len(), known)
        };
        if known == listed.len() && !gone {
            return Ok(true);
        }
        let mut rebuilt = gone.then(|| read(&self.index).emptied());
        let is_new =
            |(id, _): &&(Id, u64)| rebuilt.is_some() || !read(&self.index).files().contains(id);
        let wanted: Vec<Id> = listed.iter().filter(is_new).map(|(id, _)| *id).collect();
        let mut reading = stream::iter(wanted)
            .map(|id| async move { (id, self.index_file(&id).await) })
            .buffer_unordered(INDEX_FILES_AT_ONCE);
        while let Some((id, packs)) = reading.next().await {
            let Some(packs) = packs? else {
                return Ok(false);
            };
            let packs = packs.iter().map(|(id, entries)| (*id, &entries[..]));
            match &mut rebuilt {
                Some(index) => index.add(id, packs),
                None => write(&self.index).add(id, packs),
            }
        }
        if let Some(index) = rebuilt {
            *write(&self.index) = index;
        }
        Ok(true)
    }
}

impl Repository {
    /// Looks whether a blob that the index knows is in the bank, in a pack that is as large as it should be: before
    /// anything that is written relies on it. Each pack is looked for once while the vault is being written to; many are
    /// listed instead.
    pub(crate) async fn look_for(&self, kind: BlobKind, id: &Id) -> Result<(), VaultError> {
        loop {
            // Not over the question, which others may ask meanwhile.
            let (era, pack) = {
                let index = read(&self.index);
                (index.era(), index.to_look_for(kind, id))
            };
            let Some(pack) = pack else {
                return Ok(());
            };
            if self.looks.fetch_add(1, Relaxed) >= MOST_LOOKS {
                self.packs_in_bank().await?;
                continue;
            }
            let key = bank_key(FileKind::Pack, &pack)?;
            let size = match self.section.stat(&key).await {
                Ok(info) => Some(info.size),
                Err(BankError::NotFound(_)) => None,
                Err(error) => return Err(error.into()),
            };
            if !write(&self.index).note_looked_for(era, pack, size) {
                tracing::warn!(
                    repository = %self.place(), %pack,
                    "a pack is missing from the bank or too short; its data are stored again"
                );
            }
        }
    }

    /// The packs in the bank and their sizes. What the index places in others, or in packs that are too
    /// short, is looked for elsewhere from now on, and stored again when it comes along.
    pub(crate) async fn packs_in_bank(&self) -> Result<IdMap<u64>, VaultError> {
        // In this order: packs that come meanwhile are not taken for missing.
        let (era, known) = {
            let index = read(&self.index);
            (index.era(), index.packs())
        };
        let sizes: IdMap<u64> = self.list(FileKind::Pack).await?.into_iter().collect();
        let lost = write(&self.index).note_lost(era, &known, &sizes);
        self.looks.store(0, Relaxed);
        if lost > 0 {
            tracing::warn!(
                repository = %self.place(),
                lost,
                "packs are missing from the bank or too short; their data are stored again when they come along"
            );
        }
        Ok(sizes)
    }
}

pub(crate) async fn list(
    section: &BankSection,
    kind: FileKind,
) -> Result<Vec<(Id, u64)>, VaultError> {
    const PAGE: usize = 10_000;
    let mut request = ListRequest {
        prefix: Some(BankKey::parse(kind.folder()).map_err(BankError::from)?),
        limit: Some(PAGE),
        ..ListRequest::default()
    };
    let mut files = Vec::new();
    loop {
        let page = section.list(&request).await?;
        let named = page.iter().filter_map(|info| {
            let id = Id::parse(info.key.name())?;
            (info.key.as_str() == kind.path(&id)).then_some((id, info.size))
        });
        files.extend(named);
        match page.last() {
            Some(last) if page.len() >= PAGE => request.marker = Some(last.key.clone()),
            _ => return Ok(files),
        }
    }
}

/// Unpacks what has at most `most` bytes, as it comes.
fn decode(plain: Vec<u8>, most: u64) -> Result<Vec<u8>, String> {
    match plain.first() {
        Some(b'{' | b'[') => Ok(plain),
        Some(&COMPRESSED) => {
            let decoder = zstd::stream::Decoder::new(&plain[1..]);
            let decoder = decoder.map_err(|error| format!("zstd: {error}"))?;
            let mut json = Vec::new();
            decoder
                .take(most + 1)
                .read_to_end(&mut json)
                .map_err(|error| format!("zstd: {error}"))?;
            match json.len() as u64 > most {
                true => Err(format!(
                    "it unpacks to more than {most} bytes, which none does"
                )),
                false => Ok(json),
            }
        }
        Some(byte) => Err(format!("it begins with the unknown byte {byte}")),
        None => Err("it is empty".to_owned()),
    }
}

pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>, VaultError> {
    serde_json::to_vec(value).map_err(|error| VaultError::Internal(format!("JSON: {error}")))
}

fn config_key() -> Result<BankKey, BankError> {
    Ok(BankKey::parse("config")?)
}

pub(crate) fn bank_key(kind: FileKind, id: &Id) -> Result<BankKey, VaultError> {
    Ok(BankKey::parse(&kind.path(id)).map_err(BankError::from)?)
}

/// Runs CPU work where it does not hold up other tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| VaultError::Internal(error.to_string()))?
}

/// Locks whose holder panicked are used on: nothing of ours is left half-changed by a panic.
pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn lock<T>(lock: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_be_read_is_not_written() {
        let most = FileKind::Snapshot.most() as usize;
        FileKind::Snapshot.check_size(most).unwrap();
        let refused = FileKind::Snapshot.check_size(most + 1).unwrap_err();
        assert!(refused.to_string().contains("'snapshots'"), "{refused}");
    }

    #[test]
    fn what_unpacks_to_more_than_any_file_has_is_refused() {
        const MOST: u64 = 1 << 20;
        let packed = |size: usize| {
            let mut packed = vec![COMPRESSED];
            zstd::stream::copy_encode(&vec![b' '; size][..], &mut packed, 3).unwrap();
            packed
        };
        let bomb = packed(64 << 20);
        assert!(bomb.len() < 20_000);
        let frames = [packed(1 << 20), packed(1)[1..].to_vec()].concat();
        for (what, plain) in [("a bomb", bomb), ("two frames", frames)] {
            let refused = decode(plain, MOST).unwrap_err();
            assert!(
                refused.contains("unpacks to more than 1048576"),
                "{what}: {refused}"
            );
        }
        assert_eq!(decode(packed(1 << 20), MOST).unwrap().len(), 1 << 20);
    }
}
