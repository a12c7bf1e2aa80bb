//! Packs whose content is not what was written.
//!
//! A reader of one notes it in the index in memory: from then on nothing that is written relies on it.
//! When a verification ends or a writer begins, and so for other processes and later starts, such packs
//! are taken out of the index in the bank, as `restic repair packs` does: what is whole in them goes into
//! new packs first, then index files that name them are replaced. A blob that no index knows is stored
//! anew as soon as it comes along, and every snapshot that needs it is whole again.
//!
//! Dying between any two steps leaves blobs that are in two packs, or an index file that another says
//! the same as; the next verification goes on. Damaged packs themselves stay in the bank until a prune.
//! Packs that are missing stay in the index: their disk may come back, and a listing shows them.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Control, Vault, VaultError,
    engine::{Decoder, Known, Shared, WriterState},
    id::Id,
    index::{self, IdMap, IdSet, Location},
    lock::HeldLock,
    pack::PackEntry,
    repository::{FileKind, Repository, blocking, read, write},
};

impl Vault {
    /// Takes packs that were found damaged out of the index. If that fails, they are still known as
    /// damaged to this process.
    pub(crate) async fn mend_or_warn(&self, held: &Arc<HeldLock>) {
        if let Err(error) = self.mend(held).await {
            tracing::warn!(
                repository = %self.inner.repository.place(),
                %error,
                "damaged packs could not be taken out of the index; the next verification tries again"
            );
        }
    }

    async fn mend(&self, held: &Arc<HeldLock>) -> Result<(), VaultError> {
        let repository = &self.inner.repository;
        let damaged = read(&repository.index).damaged();
        if damaged.is_empty() {
            return Ok(());
        }
        let Some(mut named) = entries(repository, &damaged).await? else {
            // Somebody else mends: the next verification goes on.
            return Ok(());
        };
        let engine = self.engine()?;
        let writer = Arc::new(WriterState::new(Control::default()));
        engine.register(&writer);
        let mut mended = IdSet::default();
        for pack in damaged {
            let data = match repository.get(FileKind::Pack, &pack).await {
                Ok(data) => data,
                Err(VaultError::Bank(karbor_plugin::BankError::NotFound(_))) => continue,
                Err(error) => return Err(error),
            };
            let salvage = Salvage {
                pack,
                data,
                entries: named.remove(&pack).unwrap_or_default(),
                repository: repository.clone(),
                shared: engine.shared().clone(),
                writer: writer.clone(),
            };
            match blocking(move || salvage.run()).await? {
                true => mended.insert(pack),
                false => continue,
            };
        }
        writer.until_idle().await;
        engine.shared().flush(held.clone()).await?;
        writer.check()?;
        // A prune may have begun if it was lost.
        held.check_held().await?;
        // Another that mends beside us may put back what we took out: what it wrote was read before.
        while take_out(repository, &mended).await? {}
        repository.refresh_index().await?;
        let mut index = write(&repository.index);
        mended.iter().for_each(|pack| index.note_mended(pack));
        Ok(())
    }
}

/// What index files place in these packs; `None` if index files are replaced just now.
async fn entries(
    repository: &Repository,
    wanted: &IdSet,
) -> Result<Option<IdMap<Vec<PackEntry>>>, VaultError> {
    let mut found: IdMap<Vec<PackEntry>> = IdMap::default();
    for (file, _) in repository.list(FileKind::Index).await? {
        let Some(packs) = repository.index_file(&file).await? else {
            return Ok(None);
        };
        for (pack, entries) in packs {
            if wanted.contains(&pack) {
                found.entry(pack).or_default().extend(entries);
            }
        }
    }
    Ok(Some(found))
}

/// Replaces index files that name these packs by such as do not. Is there anything to look at again?
async fn take_out(repository: &Repository, packs: &IdSet) -> Result<bool, VaultError> {
    let mut found = false;
    for (file, _) in repository.list(FileKind::Index).await? {
        let Some(mut kept) = repository.index_file(&file).await? else {
            // Replaced just now, perhaps by one that names them.
            found = true;
            continue;
        };
        let before = kept.len();
        kept.retain(|(pack, _)| !packs.contains(pack));
        if kept.len() == before {
            continue;
        }
        found = true;
        if !kept.is_empty() {
            let kept = kept.iter().map(|(pack, entries)| (*pack, &entries[..]));
            let json = index::to_json(kept).map_err(VaultError::Internal)?;
            repository.save(FileKind::Index, &json).await?;
        }
        repository.delete(FileKind::Index, &file).await?;
    }
    Ok(found)
}

/// Stores anew what is whole in a pack.
struct Salvage {
    pack: Id,
    data: Bytes,
    entries: Vec<PackEntry>,
    repository: Arc<Repository>,
    shared: Arc<Shared>,
    writer: Arc<WriterState>,
}

impl Salvage {
    /// `false`: the pack is whole, and what was read before was spoilt on the way.
    fn run(self) -> Result<bool, VaultError> {
        if Id::of(&self.data) == self.pack {
            write(&self.repository.index).note_mended(&self.pack);
            return Ok(false);
        }
        let mut decoder = Decoder::new()?;
        let mut lost = 0;
        for entry in &self.entries {
            match self.decode(entry, &mut decoder) {
                Some(data) => {
                    let sink = Arc::new(Known);
                    self.shared
                        .submit(entry.kind, data, sink, 0, &self.writer)?;
                }
                None => lost += 1,
            }
        }
        tracing::warn!(
            repository = %self.repository.place(),
            pack = %self.pack,
            lost,
            "a pack is damaged and is taken out of the index; what is lost of it is stored again when it comes along"
        );
        Ok(true)
    }

    fn decode(&self, entry: &PackEntry, decoder: &mut Decoder) -> Option<Vec<u8>> {
        let start = entry.offset as usize;
        let sealed = self
            .data
            .get(start..start.checked_add(entry.length as usize)?)?;
        let at = Location {
            pack: self.pack,
            offset: entry.offset,
            length: entry.length,
            plain: entry.plain,
            pack_end: entry.offset.checked_add(entry.length)?,
        };
        let most = entry.kind.most();
        if at.length > most || at.plain_length() > most {
            return None;
        }
        let crypto = &self.repository.crypto;
        decoder.decode(&entry.id, sealed, &at, crypto).ok()
    }
}
