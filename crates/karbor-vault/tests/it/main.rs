//! Tests of the vault: against the real restic, against bad luck, against hostile repositories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

mod catalog;
mod concurrency;
mod copies;
mod damage;
mod exchanged;
mod layered;
mod locks;
mod mending;
mod mishaps;
mod moves;
mod restic;
mod restores;
mod restores_beside_others;
mod sources;
mod support;
mod trees;
