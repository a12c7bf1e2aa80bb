//! The operation engine on a real database, with a protection manager that the test commands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod checks;
mod clock;
mod crashes;
mod fake;
mod house;
mod operations;
mod schedules;
mod times;
