//! The Python environments that `cargo xtask test` makes from `lab/python/*.txt`.

use std::path::{Path, PathBuf};

/// The interpreter of the environment `name`, if it was made. When not: says so loudly and answers
/// `None`, or panics when `KARBOR_REQUIRE_SERVERS=1`.
///
/// # Panics
/// As said.
#[must_use]
#[allow(clippy::panic, clippy::print_stderr, reason = "for tests only")]
pub fn python(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let place = root.join("target/python").join(name);
    if place.join("installed.txt").is_file() {
        return Some(place.join("bin/python"));
    }
    let message =
        format!("the Python environment '{name}' is missing: `cargo xtask test` makes it");
    if std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|v| v == "1") {
        panic!("{message}, and KARBOR_REQUIRE_SERVERS=1");
    }
    eprintln!("SKIPPED: {message}");
    None
}
