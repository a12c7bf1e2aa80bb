//! One binary for all integration tests of the crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod against_oslo;
mod config;
mod heartbeat;
mod logs;
mod periodic;
mod probe;
mod rpc;
mod service;
mod shutdown;
mod tasks;
