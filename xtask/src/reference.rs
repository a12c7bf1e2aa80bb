//! Documents that are generated from code.

use std::fs;

use crate::{Failure, shell};

const DOCUMENT: &str = "docs/configuration.md";

/// Writes the configuration reference, or checks that it is what would be written.
pub(crate) fn run(check: bool) -> Result<(), Failure> {
    let text = shell::output(&mut shell::cargo_command(&[
        "run",
        "--quiet",
        "--package",
        "karbor",
        "--",
        "config",
        "reference",
    ]))?;
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
