//! What a new operation takes. `sixth-operation.patch` adds one that only this check has; the check counts the files that
//! the patch touches, and runs the tests that each such operation must pass on a copy of the workspace with the patch.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{failure::Failure, shell};

/// So many files a new operation touches, at most.
const MOST_FILES: usize = 8;

/// Counts the files, and runs the tests of readbacks with the operation.
pub(crate) fn run() -> Result<(), Failure> {
    let root = shell::root();
    let patch = root.join("xtask/sixth-operation.patch");
    let mut numbers = Command::new("git");
    numbers.args(["apply", "--numstat"]).arg(&patch);
    let numbers = shell::output(numbers.current_dir(&root))?;
    eprint!("{numbers}");
    match numbers.lines().count() {
        0 => return Err("the patch is empty".into()),
        count if count > MOST_FILES => {
            return Err(format!(
                "a new operation touches {count} files; {MOST_FILES} are the most it may"
            )
            .into());
        }
        _ => {}
    }
    let copy = root.join("target/sixth/workspace");
    copy_workspace(&root, &copy)?;
    // Outside of a repository: inside, git would look for the patch's files at the repository's root.
    let mut apply = Command::new("git");
    apply
        .args(["apply", "--whitespace=error"])
        .arg(&patch)
        .env("GIT_CEILING_DIRECTORIES", root.join("target/sixth"))
        .current_dir(&copy);
    shell::run(&mut apply)?;
    let mut tests = Command::new(shell::cargo());
    tests
        .args(["test", "--package", "karbor", "--test", "it", "readbacks::"])
        .env("CARGO_TARGET_DIR", root.join("target/sixth/build"))
        .current_dir(&copy);
    shell::run(&mut tests)
}

/// Makes `copy` hold what git knows of the workspace, as it is now. What has not changed stays as it is, so that it is not
/// built again.
fn copy_workspace(root: &Path, copy: &Path) -> Result<(), Failure> {
    let mut known = Command::new("git");
    known.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let known = shell::output(known.current_dir(root))?;
    let known: BTreeSet<PathBuf> = known.lines().map(PathBuf::from).collect();
    for file in &known {
        let (from, to) = (root.join(file), copy.join(file));
        let Some(wanted) = present(fs::read(&from))? else {
            continue;
        };
        if present(fs::read(&to))?.as_ref() == Some(&wanted) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(copy))?;
        fs::write(&to, wanted)?;
        fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
    }
    remove_others(copy, copy, &known)
}

/// Removes the files below `folder` that are not `known`: those of an earlier patch.
fn remove_others(top: &Path, folder: &Path, known: &BTreeSet<PathBuf>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(top, &path, known)?;
        } else if !known.contains(path.strip_prefix(top)?) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn present(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
