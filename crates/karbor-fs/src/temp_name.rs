//! Names of what is made before it gets its own.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

const TEMP: &str = ".karbor-restore-";

/// The name under which something is made. `run` is a number that no other run has, and `number` one that the run
/// has not used.
#[must_use]
pub fn temp_name(run: u64, number: u64) -> OsString {
    OsString::from(format!("{TEMP}{run:016x}-{number:x}"))
}

/// Is it a name that [`temp_name`] gives?
#[must_use]
pub fn is_temp_name(name: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(TEMP.as_bytes());
    let rest = rest.unwrap_or_default();
    let mut parts = rest.split(|byte| *byte == b'-');
    let (id, number) = (parts.next(), parts.next());
    let is_hex = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_hexdigit);
    parts.next().is_none()
        && id.is_some_and(|id| id.len() == 16 && is_hex(id))
        && number.is_some_and(is_hex)
}
