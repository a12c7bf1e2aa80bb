//! Python environments that tests compare us with or drive us with: `lab/python/<name>.txt` lists what
//! is in `target/python/<name>`, where `karbor_testkit::python` finds it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{failure::Failure, shell};

/// Makes them all.
pub(crate) fn run() -> Result<(), Failure> {
    match prepare(false)?.first() {
        None => Ok(()),
        Some(missing) => Err(advice(missing).into()),
    }
}

/// What to say about one that could not be made.
pub(crate) fn advice((name, reason): &(String, String)) -> String {
    format!("the Python environment '{name}' (lab/python/{name}.txt) could not be made: {reason}")
}

/// Makes every environment that is not there or not what its list says, and returns the names of
/// those that are still missing, with the reason.
pub(crate) fn prepare(no_install: bool) -> Result<Vec<(String, String)>, Failure> {
    let mut missing = Vec::new();
    for (name, list) in lists()? {
        let place = shell::root().join("target/python").join(&name);
        if installed(&place).is_some_and(|installed| installed == list) {
            continue;
        }
        let made = match no_install {
            true => Err("it is not installed".into()),
            false => make(&place, &name, &list),
        };
        if let Err(error) = made {
            missing.push((name, error.to_string()));
        }
    }
    Ok(missing)
}

/// Name and list of every environment.
fn lists() -> Result<Vec<(String, String)>, Failure> {
    let mut lists = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            lists.push((name.into_owned(), fs::read_to_string(&path)?));
        }
    }
    lists.sort();
    Ok(lists)
}

fn folder() -> PathBuf {
    shell::root().join("lab/python")
}

/// The list that the environment was made from.
fn installed(place: &Path) -> Option<String> {
    fs::read_to_string(place.join("installed.txt")).ok()
}

fn make(place: &Path, name: &str, list: &str) -> Result<(), Failure> {
    let mut venv = Command::new("python3");
    shell::run(venv.args(["-m", "venv", "--clear"]).arg(place))?;
    let mut pip = Command::new(place.join("bin/pip"));
    pip.args(["install", "--quiet", "--requirement"])
        .arg(folder().join(format!("{name}.txt")));
    shell::run(&mut pip)?;
    Ok(fs::write(place.join("installed.txt"), list)?)
}
