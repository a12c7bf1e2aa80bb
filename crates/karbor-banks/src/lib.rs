//! The banks: where data go. Each is a plugin; `karbor_plugins::registry` names them.

pub mod file_system;
