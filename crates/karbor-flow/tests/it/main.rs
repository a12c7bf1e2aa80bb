//! The flow crate's tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod control;
mod crash;
mod failure;
mod order;
mod planner;
mod progress;
mod support;
