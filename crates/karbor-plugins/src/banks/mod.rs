//! Banks: where data go.

pub mod file_system;
