//! The declarations as they are now: read again when a file has changed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Applications, Problem, obeyed::obeyed};

/// Reads the declarations of a directory.
type Load = fn(&Path) -> Result<Applications, Problem>;

type Loaded = Result<Arc<Applications>, Arc<Problem>>;

/// One file as it was when it was read: path, and inode, size, and change time, which no editor can
/// set back. `None`: it cannot be looked at.
type Print = (PathBuf, Option<(u64, u64, i64, i64)>);

/// Knows where the declarations are and keeps what was last read.
#[derive(Debug)]
pub(crate) struct ApplicationStore {
    dir: PathBuf,
    load: Load,
    last: Mutex<Option<(Vec<Print>, Loaded)>>,
}

impl ApplicationStore {
    /// The declarations in `dir`; nothing is read yet.
    pub(crate) fn new(dir: PathBuf, load: Load) -> Self {
        Self {
            dir,
            load,
            last: Mutex::new(None),
        }
    }

    /// The declarations as they are now.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) async fn current(self: &Arc<Self>) -> Loaded {
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
        let loaded = (self.load)(&self.dir).map(Arc::new).map_err(Arc::new);
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

/// The files that declare something, sorted.
pub(super) fn declaration_files(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let refuse = |error: io::Error| {
        Problem::error(dir, "", format!("the directory cannot be read: {error}"))
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refuse(error)),
    };
    // Who may write here may declare anything.
    obeyed(dir).map_err(|reason| Problem::error(dir, "", reason))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(refuse)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
