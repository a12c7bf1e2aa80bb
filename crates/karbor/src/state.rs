//! The state directory of `karbor serve`: everything that a service on one machine keeps.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Where a service keeps its state.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the service would obey others: {0}")]
    Open(#[from] karbor_fs::Refused),
    #[error("the state directory {0} cannot be used: {1}")]
    Io(PathBuf, io::Error),
    #[error(
        "another karbor service runs on the state directory {0}; stop it first, or give --state-dir another"
    )]
    InUse(PathBuf),
}

/// Makes a folder for its owner only, if it is not there; answers its mode. What lies in it is obeyed
/// (commands among it), so one that others may write to, or exchange, is refused.
fn make_private(folder: &Path) -> Result<u32, StateError> {
    let failed = |error| StateError::Io(folder.to_owned(), error);
    karbor_fs::make_closed(folder).map_err(|refused| match refused.errno() {
        Some(errno) => failed(errno.into()),
        None => refused.into(),
    })?;
    Ok(fs::metadata(folder).map_err(failed)?.permissions().mode())
}

/// Held while a service runs; the kernel lets go of it when the process dies.
pub(crate) struct StateLock(#[allow(dead_code, reason = "the open file is the lock")] File);

impl StateDir {
    /// `path`, or the default place of this user.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        let path = path.unwrap_or_else(karbor_cli::default_state_dir);
        let path = std::path::absolute(&path).unwrap_or(path);
        Self(karbor_fs::without_parents(&path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Something in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes it, for its owner only, if it is not there.
    pub(crate) fn create(&self) -> Result<(), StateError> {
        let mode = make_private(&self.0)?;
        if mode & 0o077 != 0 {
            tracing::warn!(path = %self.0.display(), "others may look into the state directory; run chmod 700 on it");
        }
        Ok(())
    }

    /// Makes a folder that the operator is going to put files into, if it is not there.
    pub(crate) fn create_folder(&self, folder: &Path) -> Result<(), StateError> {
        make_private(folder).map(|_| ())
    }

    /// Takes it for this process.
    pub(crate) fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.join("lock");
        let failed = |error| StateError::Io(path.clone(), error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateLock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(self.0.clone())),
            Err(error) => Err(StateError::Io(path, error.into())),
        }
    }

    /// Tells clients on this machine where the service answers.
    pub(crate) fn write_endpoint(&self, endpoint: &str) -> Result<(), StateError> {
        let (path, temporary) = (self.join("endpoint"), self.join(".endpoint.new"));
        let write = || {
            let mut file = File::create(&temporary)?;
            writeln!(file, "{endpoint}")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| StateError::Io(path.clone(), error))
    }

    /// The service does not answer any more.
    pub(crate) fn remove_endpoint(&self) {
        if let Err(error) = fs::remove_file(self.join("endpoint")) {
            tracing::warn!(%error, "the endpoint file could not be removed");
        }
    }
}
