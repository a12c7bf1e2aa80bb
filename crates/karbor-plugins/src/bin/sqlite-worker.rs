//! The process that SQLite runs in, by itself: for tests. `karbor sqlite-worker` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    karbor_plugins::sqlite_worker()
}
