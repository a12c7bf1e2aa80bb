//! The API against a protection manager that only pretends, and a database in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod app;
mod auth;
mod bad_input;
mod checkpoints;
mod endpoints;
mod fake;
mod fake_engine;
mod keystone;
mod lists;
mod plans;
mod policy;
mod providers;
mod quotas;
mod random_requests;
mod recorded;
mod runs;
mod scheduled_operations;
mod server;
mod services;
mod tokens;
mod triggers;
