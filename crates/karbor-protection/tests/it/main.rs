//! The protection manager against banks in memory, the simulated plugin and a database in a file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod checkpoints;
mod copies;
mod crash;
mod damaged;
mod flaws;
mod house;
mod not_copied;
mod once;
mod operations;
mod quotas;
mod readbacks;
mod reads;
mod seals;
mod tenancy;
mod turns;
mod windows;
