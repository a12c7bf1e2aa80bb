//! A note that a restore found its place free, made before it writes there. Run again after a
//! crash, it then knows that what lies there is its own half. The note goes with `complete` or
//! `undo`.

use std::{fs, io, io::Write as _, path::PathBuf};

use karbor_plugin::{OperationContext, PluginError};
use serde::{Deserialize, Serialize};

use super::{Host, blocking};

/// What is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// A path or the name of a database.
    pub(crate) target: String,
    /// Did not exist at all, so that undo may remove it.
    pub(crate) made: bool,
}

/// The file that holds the note.
#[derive(Debug, Clone)]
pub(crate) struct Marker {
    file: PathBuf,
}

impl Marker {
    pub(crate) fn of(host: &Host, context: &OperationContext) -> Self {
        let name = format!(
            "restore-{}-{}.json",
            context.operation_id, context.resource.id
        );
        Self {
            file: host.scratch.join(name),
        }
    }

    pub(crate) async fn read(&self) -> Result<Option<Mark>, PluginError> {
        let file = self.file.clone();
        blocking(move || match fs::read(&file) {
            // A note that was cut short by a crash was not yet acted on.
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        })
        .await
    }

    pub(crate) async fn set(&self, mark: &Mark) -> Result<(), PluginError> {
        let (file, mark) = (self.file.clone(), mark.clone());
        blocking(move || {
            let write = || -> io::Result<()> {
                if let Some(dir) = file.parent() {
                    scratch(dir)?;
                }
                let mut to = fs::File::create(&file)?;
                to.write_all(&serde_json::to_vec(&mark)?)?;
                to.sync_all()
            };
            write().map_err(failed)
        })
        .await
    }

    pub(crate) async fn clear(&self) -> Result<(), PluginError> {
        let file = self.file.clone();
        blocking(move || match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        })
        .await
    }
}

/// Makes the scratch directory, for nobody else to look into.
pub(crate) fn scratch(dir: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn failed(error: io::Error) -> PluginError {
    PluginError::new(format!(
        "the service's scratch directory cannot be used: {error}; the operator has to look at its state directory"
    ))
}
