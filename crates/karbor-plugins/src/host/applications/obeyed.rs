//! What the service obeys: declarations, programs, password files.

use std::path::Path;

use super::{Component, HookCommand};

/// Refuses a file or directory that others than root and the service's account may change or exchange.
/// One that is not there is told elsewhere.
pub(crate) fn obeyed(path: &Path) -> Result<(), String> {
    match karbor_fs::closed(path) {
        Err(refused) if !refused.is_missing() => {
            Err(format!("the service would obey others: {refused}"))
        }
        _ => Ok(()),
    }
}

impl HookCommand {
    /// The program.
    pub(crate) fn program(&self) -> &Path {
        Path::new(self.argv.first().map_or("", String::as_str))
    }

    /// Refuses a program that others may change.
    pub(crate) fn obeyed(&self) -> Result<(), String> {
        obeyed(self.program())
    }

    /// Arguments that name files which others may change: a script that a shell is given is a program too.
    pub(crate) fn open_arguments(&self) -> impl Iterator<Item = String> {
        let paths = self.argv.iter().skip(1).map(Path::new);
        let files = paths.filter(|path| path.is_absolute() && path.is_file());
        files.filter_map(|path| obeyed(path).err())
    }
}

impl Component {
    /// Refuses a component whose declaration names a program, a password, a key or whom to trust, in a file
    /// that others may change. Key of the field, and why.
    pub(crate) fn obeyed(&self) -> Result<(), (&'static str, String)> {
        for (field, path) in self.source.trusted_files() {
            obeyed(path).map_err(|reason| (field, reason))?;
        }
        Ok(())
    }
}
