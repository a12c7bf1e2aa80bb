//! What sections promise, whatever a plugin asks of them; what the layers and the registry do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod layers;
mod registry;
mod section;
