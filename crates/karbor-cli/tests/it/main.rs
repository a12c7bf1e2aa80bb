//! Commands against a service that answers from a script.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod errors;
mod login;
mod output;
mod places;
mod scheduling;
mod stub;
mod waiting;
