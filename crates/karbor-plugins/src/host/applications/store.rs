//! The declarations as they are now: read again when a file has changed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Applications, Problem, load::declaration_files};

type Loaded = Result<Arc<Applications>, Arc<Problem>>;

/// One file as it was when it was read: path, and inode, size, and change time, which no editor can
/// set back. `None`: it cannot be looked at.
type Print = (PathBuf, Option<(u64, u64, i64, i64)>);

/// Knows where the declarations are and keeps what was last read.
#[derive(Debug)]
pub struct ApplicationStore {
    dir: PathBuf,
    last: Mutex<Option<(Vec<Print>, Loaded)>>,
}

impl ApplicationStore {
    /// The declarations in `dir`; nothing is read yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            last: Mutex::new(None),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The declarations as they are now.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn current(self: &Arc<Self>) -> Loaded {
        let store = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || store.read()).await;
        read.unwrap_or_else(|error| {
            let message = format!("reading the declarations failed: {error}");
            Err(Arc::new(Problem::error(&self.dir, "", message)))
        })
    }

    fn read(&self) -> Loaded {
        let prints = self.prints()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, loaded)) = &*last
            && *of == prints
        {
            return loaded.clone();
        }
        let loaded = Applications::load(&self.dir)
            .map(Arc::new)
            .map_err(Arc::new);
        for problem in loaded.iter().flat_map(|loaded| loaded.problems()) {
            tracing::error!(%problem, "an application cannot be used: its declaration is wrong");
        }
        *last = Some((prints, loaded.clone()));
        loaded
    }

    fn prints(&self) -> Result<Vec<Print>, Problem> {
        Ok(declaration_files(&self.dir)?
            .into_iter()
            .map(|file| {
                let of = fs::metadata(&file).ok();
                let of = of.map(|of| (of.ino(), of.size(), of.ctime(), of.ctime_nsec()));
                (file, of)
            })
            .collect())
    }
}
