//! The real binary with a real state directory, asked through its own client, and treated badly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod administration;
mod application;
mod at_once;
mod bad_luck;
mod copies;
mod damaged;
mod house;
mod keystone;
mod kill_data;
mod kill_hooks;
mod lost;
mod protectables;
mod providers;
mod readbacks;
mod scheduled;
mod stopping;
mod told;
