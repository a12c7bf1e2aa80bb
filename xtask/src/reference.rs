//! Documents that are generated from code.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{failure::Failure, shell};

const DOCUMENT: &str = "docs/configuration.md";

const INTRODUCTION: &str = "\
# Configuration

Nothing needs to be configured to begin. An option is looked for in the environment first, then in the files that
`--config-dir` and `--config-file` name (later ones win), then in `karbor.conf` in the state directory (groups in
brackets, `name = value` below), and has its default otherwise. `karbor config show` prints what holds and where it came
from; `karbor config validate` checks it, and names what nobody reads.

Written by `cargo xtask config-reference` from what the crates declare: do not edit.

";

/// Writes the configuration reference, or checks that it is what would be written.
pub(crate) fn run(check: bool) -> Result<(), Failure> {
    let arguments = ["config", "reference"];
    let options = if check {
        // The build that the tests use: another choice of features would be compiled beside it.
        shell::run(&mut shell::cargo_command(&[
            "build",
            "--quiet",
            "--workspace",
            "--bins",
            "--tests",
        ]))?;
        shell::output(Command::new(binary()?).args(arguments))?
    } else {
        let mut run = shell::cargo_command(&["run", "--quiet", "--package", "karbor", "--"]);
        shell::output(run.args(arguments))?
    };
    let text = format!("{INTRODUCTION}{options}");
    let path = shell::root().join(DOCUMENT);
    if !check {
        fs::write(&path, text)?;
        println!("{DOCUMENT}: written");
        return Ok(());
    }
    let present = fs::read_to_string(&path).unwrap_or_default();
    if present == text {
        println!("{DOCUMENT}: up to date");
        Ok(())
    } else {
        Err(format!(
            "{DOCUMENT} is not what the options say: run `cargo xtask config-reference`{}",
            first_difference(&present, &text)
        )
        .into())
    }
}

/// Where cargo puts the binary.
fn binary() -> Result<PathBuf, Failure> {
    let metadata = shell::metadata()?;
    let target = metadata["target_directory"]
        .as_str()
        .ok_or("cargo does not say where it builds")?;
    Ok(Path::new(target).join("debug/karbor"))
}

fn first_difference(present: &str, wanted: &str) -> String {
    let mut present = present.lines();
    for (index, want) in wanted.lines().enumerate() {
        let have = present.next();
        if have != Some(want) {
            let number = index + 1;
            return format!(
                "\n  line {number} has:    {}\n  line {number} should be: {want}",
                have.unwrap_or("(nothing)")
            );
        }
    }
    "\n  it has lines that should not be there".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_line_that_differs() {
        assert_eq!(
            first_difference("a\nb\n", "a\nc\n"),
            "\n  line 2 has:    b\n  line 2 should be: c"
        );
        assert!(first_difference("", "a\n").contains("(nothing)"));
        assert!(first_difference("a\nb\n", "a\n").contains("should not be there"));
    }
}
