//! Notes in the scratch directory, made before something happens that they are about, so that a run
//! after a crash knows of it. They go with `complete` or `undo`.
//!
//! A [`Mark`] says that a restore found its place free: run again, it then knows that what lies there
//! is its own half.

use std::{fs, io, io::Write as _, marker::PhantomData, path::PathBuf};

use karbor_model::OperationId;
use karbor_plugin::{OperationContext, PluginError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::shared::{Host, blocking};

/// What a restore notes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// A path or the name of a database.
    pub(crate) target: String,
    /// Did not exist at all, so that undo may remove it.
    pub(crate) made: bool,
    /// What was restored is in there: run again, it need not be asked whose it is.
    #[serde(default)]
    pub(crate) loaded: bool,
}

/// The file that holds a note of one operation on one resource.
#[derive(Debug)]
pub(crate) struct Note<T> {
    file: PathBuf,
    /// How the names of all notes of this sort on the resource begin and end.
    around: (String, String),
    kind: PhantomData<T>,
}

/// A restore's note.
pub(crate) type Marker = Note<Mark>;

impl Marker {
    pub(crate) fn of(host: &Host, context: &OperationContext) -> Self {
        Self::named("restore", host, context)
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Note<T> {
    pub(crate) fn named(what: &str, host: &Host, context: &OperationContext) -> Self {
        let around = (format!("{what}-"), format!("-{}.json", context.resource.id));
        let name = format!("{}{}{}", around.0, context.operation_id, around.1);
        Self {
            file: host.scratch.join(name),
            around,
            kind: PhantomData,
        }
    }

    pub(crate) async fn read(&self) -> Result<Option<T>, PluginError> {
        let file = self.file.clone();
        blocking(move || match fs::read(&file) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        })
        .await
    }

    /// Durable on return; until then what was noted before stands.
    pub(crate) async fn set(&self, note: &T) -> Result<(), PluginError> {
        let file = self.file.clone();
        let text = serde_json::to_vec(note).map_err(|error| failed(error.into()))?;
        blocking(move || write(&file, &text).map_err(failed)).await
    }

    pub(crate) async fn clear(&self) -> Result<(), PluginError> {
        let file = self.file.clone();
        blocking(move || {
            for file in [file.with_extension("new"), file] {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

impl<T: DeserializeOwned + Send + 'static> Note<T> {
    /// Removes the notes of other operations on the resource that nobody has use for any more.
    pub(crate) async fn clear_others(
        &self,
        is_useless: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<(), PluginError> {
        let (own, around) = (self.file.clone(), self.around.clone());
        blocking(move || {
            let dir = own.parent().unwrap_or(std::path::Path::new("/"));
            let entries = match fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                let file = entry.map_err(failed)?.path();
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let operation = name.strip_prefix(&around.0);
                let operation = operation.and_then(|rest| rest.strip_suffix(&around.1));
                let is_note = operation.is_some_and(|id| id.parse::<OperationId>().is_ok());
                if !is_note || file == own {
                    continue;
                }
                // One that goes meanwhile is gone.
                let text = fs::read(&file).unwrap_or_default();
                if serde_json::from_slice(&text).is_ok_and(|note| is_useless(&note)) {
                    fs::remove_file(&file).map_err(failed)?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn write(file: &std::path::Path, text: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let dir = file.parent().unwrap_or(std::path::Path::new("/"));
    scratch(dir)?;
    let new = file.with_extension("new");
    let mut to = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    to.write_all(text)?;
    to.sync_all()?;
    fs::rename(&new, file)?;
    fs::File::open(dir)?.sync_all()
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
