//! Protectables: where resources are found.

pub mod host;
