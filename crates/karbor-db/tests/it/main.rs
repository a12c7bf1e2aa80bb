//! The database against a real SQLite file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

mod admin;
mod adoption;
mod changing;
mod firing;
mod journal;
mod lists;
mod quotas;
mod records;
mod scheduling;
mod schema;
mod support;
mod transitions;
mod trouble;
