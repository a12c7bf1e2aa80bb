//! Tests of the operation engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod schedules;
