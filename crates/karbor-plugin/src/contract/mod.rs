//! What every plugin of a kind must do: a suite per trait, run by the tests of each plugin.
//!
//! Behind the cargo feature `contract`, so that no product holds test code. A broken clause panics
//! and says which one it was.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are assertions; nothing but tests calls them"
)]

pub mod bank;
pub mod protectable;
pub mod protection;
