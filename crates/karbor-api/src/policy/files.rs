//! Where the rules come from, and noticing that they changed.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use karbor_manager::{Config, ConfigError};

use super::rules::{LineError, Rules};

/// Why policies cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// An option is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or folder cannot be read.
    #[error("the policy file {} cannot be read: {error}", .file.display())]
    Unreadable {
        /// File or folder.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may change a file, and the service would do what they say.
    #[error("the policy file is not obeyed: {0}")]
    Open(#[from] karbor_fs::Refused),
    /// A file cannot be understood.
    #[error("the policy file {}, {error}", .file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// Where and why.
        error: LineError,
    },
}

/// The files that may say something: `policy_file` and those in `policy_dirs`.
#[derive(Debug, Clone)]
pub struct PolicyFiles {
    /// The first of these that exists is read.
    candidates: Vec<PathBuf>,
    /// One of the candidates must exist.
    required: bool,
    folders: Vec<PathBuf>,
}

/// What the files looked like, by their names: a change of any of these is a change.
pub(super) type Stamp = BTreeMap<PathBuf, Option<Look>>;

/// What one looked like: `ctime` tells what a tool that puts `mtime` back would hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    place: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    size: u64,
}

impl Look {
    fn at(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            mode: found.mode(),
            size: found.size(),
        })
    }
}

impl PolicyFiles {
    /// As `[oslo_policy]` says, relative to `folder`. A file that nobody named need not exist;
    /// instead of `policy.yaml` there may be a `policy.json`, as it was called of old.
    ///
    /// # Errors
    /// When the options are not declared.
    pub fn from_config(config: &Config, folder: &Path) -> Result<Self, ConfigError> {
        let named = config.path("oslo_policy", "policy_file")?;
        let required = named != Path::new(super::POLICY_FILE);
        let mut candidates = vec![folder.join(named)];
        if !required {
            candidates.push(folder.join("policy.json"));
        }
        let folders = config.list("oslo_policy", "policy_dirs")?;
        Ok(Self {
            candidates,
            required,
            folders: folders.iter().map(|name| folder.join(name)).collect(),
        })
    }

    /// The rules that the files make, of the defaults.
    ///
    /// # Errors
    /// [`PolicyError`] names the file and the line.
    pub fn load(&self) -> Result<Rules, PolicyError> {
        let mut rules = Rules::default();
        for file in self.existing()? {
            let text = fs::read_to_string(&file).map_err(|error| PolicyError::Unreadable {
                file: file.clone(),
                error,
            })?;
            karbor_fs::closed(&std::path::absolute(&file).unwrap_or_else(|_| file.clone()))?;
            rules = rules
                .overridden(&text)
                .map_err(|error| PolicyError::Broken { file, error })?;
        }
        for name in rules.unused() {
            tracing::warn!(
                "no request and no other rule asks the policy '{name}': is it misspelt?"
            );
        }
        Ok(rules)
    }

    /// The files to read, in the order in which a later one wins.
    fn existing(&self) -> Result<Vec<PathBuf>, PolicyError> {
        let mut files = Vec::new();
        match self.candidates.iter().find(|file| is_there(file)) {
            Some(file) => files.push(file.clone()),
            // Reading it tells why not.
            None if self.required => files.extend(self.candidates.first().cloned()),
            None => {}
        }
        for folder in &self.folders {
            files.extend(files_in(folder)?);
        }
        Ok(files)
    }

    /// What the files look like now.
    pub(super) fn stamp(&self) -> Result<Stamp, PolicyError> {
        let files = self.existing()?.into_iter();
        Ok(files.map(|file| (file.clone(), Look::at(&file))).collect())
    }
}

/// Only what is surely absent is: a file that cannot be looked at, or a link to nowhere, is an error
/// when it is read, and never means the defaults.
fn is_there(file: &Path) -> bool {
    !matches!(fs::symlink_metadata(file), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// The files of a folder by name, without hidden ones. There need not be such a folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let unreadable = |error| PolicyError::Unreadable {
        file: folder.to_owned(),
        error,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // What is no folder and cannot be read either is an error when it is read.
        if !path.is_dir() && !name.starts_with('.') && !name.ends_with('~') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
