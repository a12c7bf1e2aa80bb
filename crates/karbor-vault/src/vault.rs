//! The facade.

use std::sync::{Arc, Mutex, Weak};

use futures::{StreamExt, stream};
use karbor_plugin::{BankSection, Secret};

use crate::{
    Catalog, Control, Snapshot, SnapshotId, SnapshotMeta, SnapshotWriter, VaultError, VaultOptions,
    catalog::{self, Following},
    engine::{Engine, WriterState},
    lock::{Locks, hostname},
    repository::{self, FileKind, Repository, lock, write},
    writer::Before,
};

/// An open repository. Cheap to clone; may be used by many tasks at once.
///
/// Opening derives a key with scrypt (tens of milliseconds of CPU, 32 MiB): keep the `Vault` rather than
/// opening it again. What other processes write to the repository meanwhile is noticed.
#[derive(Clone)]
pub struct Vault {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) repository: Arc<Repository>,
    pub(crate) locks: Locks,
    catalog: Following,
    engine: Mutex<Weak<Engine>>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.inner.repository.place())
    }
}

impl Vault {
    /// Opens the repository in `section`, making it if there is none. If two do so at once, one makes it
    /// and both open it.
    ///
    /// # Errors
    /// [`VaultError::WrongPassword`] if there is one that the password does not open, and failures of the bank.
    pub async fn open_or_init(
        section: BankSection,
        password: &Secret,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        repository::init(&section, password, hostname(), None).await?;
        Self::open(section, password, options).await
    }

    /// As [`open_or_init`](Self::open_or_init), for copies from `like`: a repository that is made cuts
    /// content at the same places, so that what is stored into it later finds again what was copied.
    ///
    /// # Errors
    /// As [`open_or_init`](Self::open_or_init).
    pub async fn open_or_init_like(
        section: BankSection,
        password: &Secret,
        options: VaultOptions,
        like: &Self,
    ) -> Result<Self, VaultError> {
        let seed = like.inner.repository.seed;
        repository::init(&section, password, hostname(), Some(seed)).await?;
        Self::open(section, password, options).await
    }

    /// Opens the repository in `section`.
    ///
    /// # Errors
    /// [`VaultError::NotARepository`], [`VaultError::WrongPassword`], and failures of the bank.
    pub async fn open(
        section: BankSection,
        password: &Secret,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        let repository = Repository::open(section, password, options).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                repository: Arc::new(repository),
                locks: Locks::default(),
                catalog: Following::default(),
                engine: Mutex::default(),
            }),
        })
    }

    /// Is it still this repository that is in the bank? It may have been removed or exchanged since it was
    /// opened; what is written to it then is lost to the next one that opens it.
    ///
    /// # Errors
    /// Failures of the bank.
    pub async fn is_in_place(&self) -> Result<bool, VaultError> {
        self.inner.repository.is_in_place().await
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// [`VaultError::Locked`] while somebody prunes, and failures of the bank.
    pub async fn writer(
        &self,
        meta: SnapshotMeta,
        control: Control,
    ) -> Result<SnapshotWriter, VaultError> {
        let repository = &self.inner.repository;
        let held = self.inner.locks.shared(repository).await?;
        repository.refresh_index().await?;
        let before = match &meta.parent {
            None => None,
            Some(id) => self.parent(id).await?,
        };
        self.mend_or_warn(&held).await;
        let engine = self.engine()?;
        let state = Arc::new(WriterState::new(control));
        let repository = repository.clone();
        Ok(SnapshotWriter::new(
            repository, engine, held, state, meta, before,
        ))
    }

    /// A parent only saves work: without it, all is read.
    async fn parent(&self, id: &SnapshotId) -> Result<Option<Before>, VaultError> {
        match self.snapshot(id).await {
            Ok(snapshot) => Ok(Some(Before {
                id: snapshot.id,
                tree: snapshot.tree,
                time: snapshot.time.into(),
            })),
            Err(error @ (VaultError::NoSuchSnapshot(_) | VaultError::Damaged { .. })) => {
                tracing::warn!(%error, "the parent snapshot is not used; all files are read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The engine of all writers there are.
    pub(crate) fn engine(&self) -> Result<Arc<Engine>, VaultError> {
        let mut engine = lock(&self.inner.engine);
        if let Some(running) = engine.upgrade() {
            return Ok(running);
        }
        write(&self.inner.repository.index).forget_looks();
        let started = Arc::new(Engine::start(self.inner.repository.clone())?);
        *engine = Arc::downgrade(&started);
        Ok(started)
    }

    /// All snapshots, newest first, read from the bank.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] names a snapshot that cannot be read; failures of the bank.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, VaultError> {
        let listed = self.inner.repository.list(FileKind::Snapshot).await?;
        let ids = listed.into_iter().map(|(id, _)| SnapshotId(id));
        self.read_snapshots(ids, Err).await
    }

    /// `on_damage` decides whether a snapshot that is damaged ends it.
    async fn read_snapshots(
        &self,
        ids: impl Iterator<Item = SnapshotId>,
        on_damage: impl Fn(VaultError) -> Result<(), VaultError>,
    ) -> Result<Vec<Snapshot>, VaultError> {
        let mut reading = stream::iter(ids)
            .map(|id| async move { self.snapshot(&id).await })
            .buffer_unordered(catalog::AT_ONCE);
        let mut snapshots = Vec::new();
        while let Some(snapshot) = reading.next().await {
            match snapshot {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error @ VaultError::Damaged { .. }) => on_damage(error)?,
                // Forgotten since it was listed.
                Err(VaultError::NoSuchSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by(|a, b| b.time.cmp(&a.time).then(a.id.cmp(&b.id)));
        Ok(snapshots)
    }

    /// The snapshots that there are now, to be chosen among by their tags. What was opened once is not opened again:
    /// read what is chosen.
    ///
    /// # Errors
    /// Failures of the bank. Damaged snapshots, whose tags nobody knows, are passed over.
    pub async fn catalog(&self) -> Result<Catalog, VaultError> {
        self.inner.catalog.now(&self.inner.repository).await
    }

    /// Snapshots that have all of the tags, newest first, read from the bank; the first tag should be the rarest. Damaged
    /// ones are passed over, so that one does not stop what is done with the others.
    ///
    /// # Errors
    /// Failures of the bank.
    pub async fn find(&self, tags: &[String]) -> Result<Vec<Snapshot>, VaultError> {
        let known = self.catalog().await?.with_tags(tags);
        let pass_over = |error: VaultError| {
            tracing::warn!(%error, "a snapshot is passed over");
            Ok(())
        };
        let ids = known.into_iter().map(|brief| brief.id);
        let mut snapshots = self.read_snapshots(ids, pass_over).await?;
        snapshots.retain(|snapshot| snapshot.has_tags(tags));
        Ok(snapshots)
    }

    /// One snapshot, read from the bank.
    ///
    /// # Errors
    /// [`VaultError::NoSuchSnapshot`], [`VaultError::Damaged`], and failures of the bank.
    pub async fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot, VaultError> {
        catalog::open(&self.inner.repository, id).await
    }

    /// Removes a snapshot. One that is not there is no error. The data stay until a prune (`restic prune`
    /// works) finds that nothing refers to them.
    ///
    /// # Errors
    /// Failures of the bank.
    pub async fn forget(&self, id: &SnapshotId) -> Result<(), VaultError> {
        self.inner
            .repository
            .delete(FileKind::Snapshot, &id.0)
            .await
    }
}
