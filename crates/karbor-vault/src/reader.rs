//! Reads blobs. Neighbours in a pack are usually needed together (they were written together), so ever
//! larger windows of a pack are read while the reading goes on in order, up to 4 MiB; or against it, as of trees,
//! which are written innermost first. Eight windows are
//! kept, 32 MiB at most for one reader, however many threads use it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use crate::{
    VaultError,
    engine::Decoder,
    id::Id,
    index::Location,
    node::{Node, tree_from_json},
    pack::BlobKind,
    repository::{FileKind, Repository, lock, read, write},
};

const WINDOWS: usize = 8;
const SMALLEST: u64 = 256 << 10;
const LARGEST: u64 = 4 << 20;
/// Reading goes on "in order" if so much is skipped.
const SKIP: u64 = 1 << 20;

pub(crate) struct BlobReader {
    repository: Arc<Repository>,
    runtime: tokio::runtime::Handle,
    windows: Mutex<VecDeque<Arc<Window>>>,
}

/// A part of a pack.
struct Window {
    pack: Id,
    start: u64,
    end: u64,
    /// The thread that makes a window reads it; others wait at the lock.
    data: Mutex<Option<Bytes>>,
}

impl Window {
    fn holds(&self, at: &Location) -> bool {
        let start = u64::from(at.offset);
        self.pack == at.pack && self.start <= start && start + u64::from(at.length) <= self.end
    }

    fn is_just_before(&self, at: &Location) -> bool {
        let start = u64::from(at.offset);
        self.pack == at.pack && (self.start..=self.end + SKIP).contains(&start)
    }

    fn is_just_after(&self, at: &Location) -> bool {
        let end = u64::from(at.offset) + u64::from(at.length);
        self.pack == at.pack && (end..=end + SKIP).contains(&self.start)
    }

    fn cut(&self, data: &Bytes, at: &Location) -> Option<Bytes> {
        let start = usize::try_from(u64::from(at.offset).checked_sub(self.start)?).ok()?;
        let end = start.checked_add(at.length as usize)?;
        (end <= data.len()).then(|| data.slice(start..end))
    }
}

impl BlobReader {
    pub(crate) fn new(repository: Arc<Repository>) -> Self {
        Self {
            repository,
            runtime: tokio::runtime::Handle::current(),
            windows: Mutex::default(),
        }
    }

    pub(crate) fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Looks whether a blob that the index knows is in the bank. Call it from a thread that may block.
    pub(crate) fn look_for(&self, kind: BlobKind, id: &Id) -> Result<(), VaultError> {
        self.runtime.block_on(self.repository.look_for(kind, id))
    }

    /// Where a blob is, or that it is nowhere.
    pub(crate) fn locate(&self, kind: BlobKind, id: &Id) -> Result<Location, VaultError> {
        let found = read(&self.repository.index).find(kind, id);
        found.ok_or_else(|| {
            let kind = match kind {
                BlobKind::Data => "data",
                BlobKind::Tree => "tree",
            };
            VaultError::damaged(
                format!("{kind} blob {id}"),
                "no index file knows it; protecting again stores it anew if its source still has it",
            )
        })
    }

    /// Reads a blob and compares it with its id. Call it from a thread that may block.
    pub(crate) fn load(
        &self,
        kind: BlobKind,
        id: &Id,
        decoder: &mut Decoder,
    ) -> Result<Vec<u8>, VaultError> {
        let at = self.locate(kind, id)?;
        let damage = match self.load_from(kind, &at, id, decoder) {
            Err(error @ VaultError::Damaged { .. }) => error,
            done => return done,
        };
        // It may be in another pack too.
        let places: Vec<_> = read(&self.repository.index).places(kind, id).collect();
        for other in places.iter().filter(|other| other.pack != at.pack) {
            if let Ok(data) = self.load_from(kind, other, id, decoder) {
                return Ok(data);
            }
        }
        Err(damage)
    }

    fn load_from(
        &self,
        kind: BlobKind,
        at: &Location,
        id: &Id,
        decoder: &mut Decoder,
    ) -> Result<Vec<u8>, VaultError> {
        let most = kind.most();
        if at.length > most || at.plain_length() > most {
            let reason = format!(
                "the index says that blob {id} at {} has {} bytes, {} unpacked; none has more than {most}",
                at.offset,
                at.length,
                at.plain_length()
            );
            return Err(VaultError::damaged(FileKind::Pack.object(&at.pack), reason));
        }
        let sealed = self.fetch(at);
        let data =
            sealed.and_then(|sealed| decoder.decode(id, &sealed, at, &self.repository.crypto));
        if let Err(VaultError::Damaged { .. }) = &data {
            // From now on nothing relies on it that is written.
            write(&self.repository.index).note_damaged(at.pack);
        }
        data
    }

    /// Reads a tree. Call it from a thread that may block.
    pub(crate) fn tree(&self, id: &Id, decoder: &mut Decoder) -> Result<Vec<Node>, VaultError> {
        let json = self.load(BlobKind::Tree, id, decoder)?;
        tree_from_json(&json).map_err(|reason| VaultError::damaged(format!("tree {id}"), reason))
    }

    /// Reads one blob, sealed, from its pack.
    fn fetch(&self, at: &Location) -> Result<Bytes, VaultError> {
        let (window, is_new) = self.window(at);
        let mut data = lock(&window.data);
        if is_new && data.is_none() {
            match self.read(&at.pack, window.start, window.end) {
                Ok(read) => *data = Some(read),
                Err(error) => {
                    drop(data);
                    lock(&self.windows).retain(|other| !Arc::ptr_eq(other, &window));
                    // More than this blob was asked for: it alone may be readable.
                    return self.read_alone(at).map_err(|_| error);
                }
            }
        }
        match data.as_ref().and_then(|data| window.cut(data, at)) {
            Some(sealed) => Ok(sealed),
            None => self.read_alone(at),
        }
    }

    fn read_alone(&self, at: &Location) -> Result<Bytes, VaultError> {
        let start = u64::from(at.offset);
        self.read(&at.pack, start, start + u64::from(at.length))
    }

    fn read(&self, pack: &Id, start: u64, end: u64) -> Result<Bytes, VaultError> {
        self.runtime
            .block_on(self.repository.get_range(pack, start, end - start))
    }

    /// The window that holds a blob, and whether it was made just now.
    fn window(&self, at: &Location) -> (Arc<Window>, bool) {
        let mut windows = lock(&self.windows);
        if let Some(found) = windows.iter().position(|window| window.holds(at))
            && let Some(window) = windows.remove(found)
        {
            windows.push_front(window.clone());
            return (window, false);
        }
        let larger =
            |window: &Arc<Window>| ((window.end - window.start) * 2).clamp(SMALLEST, LARGEST);
        let blob_start = u64::from(at.offset);
        let blob_end = blob_start + u64::from(at.length);
        let before = windows.iter().find(|window| window.is_just_before(at));
        let after = windows.iter().find(|window| window.is_just_after(at));
        let (start, end) = match (before, after) {
            (None, Some(after)) => {
                let start = blob_end.saturating_sub(larger(after));
                (start.min(blob_start), blob_end)
            }
            (before, _) => {
                let size = before.map_or(SMALLEST, larger);
                let end = (blob_start + size).min(at.pack_end.into());
                (blob_start, end.max(blob_end))
            }
        };
        let window = Arc::new(Window {
            pack: at.pack,
            start,
            end,
            data: Mutex::default(),
        });
        windows.push_front(window.clone());
        windows.truncate(WINDOWS);
        (window, true)
    }
}

/// The header of a pack, as the pack itself has it.
pub(crate) async fn pack_header(
    repository: &Repository,
    pack: &Id,
    size: u64,
) -> Result<Vec<crate::pack::PackEntry>, VaultError> {
    let damaged = |reason: &str| VaultError::damaged(FileKind::Pack.object(pack), reason);
    let trailer = size.checked_sub(crate::pack::TRAILER);
    let trailer = trailer.ok_or_else(|| damaged("it is shorter than any pack"))?;
    let length = repository
        .get_range(pack, trailer, crate::pack::TRAILER)
        .await?;
    let length = length
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if length > crate::pack::MAX_HEADER {
        return Err(damaged("its header says that it is longer than any"));
    }
    let start = trailer.checked_sub(length.into());
    let start = start.ok_or_else(|| damaged("its header is longer than the pack"))?;
    let sealed = repository.get_range(pack, start, length.into()).await?;
    let header = repository.crypto.open(&sealed);
    let header = header.ok_or_else(|| damaged("its header was changed after it was written"))?;
    crate::pack::header_from_bytes(&header).map_err(|reason| damaged(&reason))
}

#[cfg(test)]
mod tests {
    use karbor_plugin::{BankKey, BankSection, Secret};
    use karbor_testkit::MemoryBank;
    use serde_json::json;

    use super::*;
    use crate::{VaultOptions, repository};

    /// An account that knows the repository's password can write any index.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_claims_gigabytes_is_refused() {
        let section = BankSection::new(
            Arc::new(MemoryBank::new()),
            BankKey::parse("vault").unwrap(),
        );
        let password = Secret::new("password".to_owned());
        repository::init(&section, &password, String::new(), None)
            .await
            .unwrap();
        let opened = Repository::open(section, &password, VaultOptions::default());
        let repository = Arc::new(opened.await.unwrap());
        let (pack, plain, sealed) = ([Id([1; 32]), Id([2; 32]), Id([3; 32])]).into();
        let blob = |id: Id, length: u32, unpacked: u32| json!({"id": id, "type": "data", "offset": 0, "length": length, "uncompressed_length": unpacked});
        let blobs = [
            blob(plain, 100, u32::MAX - 1),
            blob(sealed, u32::MAX - 1, 10),
        ];
        let index = json!({"packs": [{"id": pack, "blobs": blobs}]}).to_string();
        repository
            .save(FileKind::Index, index.as_bytes())
            .await
            .unwrap();
        repository.refresh_index().await.unwrap();
        let reader = BlobReader::new(repository);
        let mut decoder = Decoder::new().unwrap();
        for id in [plain, sealed] {
            let load = || reader.load(BlobKind::Data, &id, &mut decoder);
            let refused = tokio::task::block_in_place(load).unwrap_err();
            assert!(
                refused.to_string().contains("none has more than"),
                "{refused}"
            );
        }
    }
}
