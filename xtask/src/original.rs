//! The source distribution of OpenStack Karbor, whose sample files a test loads as they are. It is
//! fetched with pip into the build's directory and never becomes part of this project.

use std::{fs, path::PathBuf, process::Command};

use crate::{failure::Failure, shell};

const VERSION: &str = "karbor-1.6.0";

/// Fetches and unpacks it, unless it is there.
pub(crate) fn fetch() -> Result<(), Failure> {
    let folder = folder()?;
    if folder.join(VERSION).join("setup.cfg").is_file() {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    let environment = folder.join("venv");
    let mut venv = Command::new("python3");
    shell::run(venv.args(["-m", "venv"]).arg(&environment))?;
    let mut download = Command::new(environment.join("bin/pip"));
    download.args(["download", "--quiet", "--no-deps", "--no-binary", ":all:"]);
    let wanted = VERSION.replacen('-', "==", 1);
    shell::run(download.arg("--dest").arg(&folder).arg(wanted))?;
    let mut unpack = Command::new("tar");
    // As files of who runs the tests: those of another account are not obeyed.
    unpack.current_dir(&folder);
    unpack.args([
        "--extract",
        "--no-same-owner",
        "--no-same-permissions",
        "--file",
    ]);
    shell::run(unpack.arg(format!("{VERSION}.tar.gz")))
}

/// Where the test looks for it: `original` in the target directory.
fn folder() -> Result<PathBuf, Failure> {
    let metadata = shell::metadata()?;
    let target = metadata["target_directory"]
        .as_str()
        .ok_or("cargo does not say where it builds")?;
    Ok(PathBuf::from(target).join("original"))
}
