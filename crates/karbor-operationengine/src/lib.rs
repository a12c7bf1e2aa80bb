//! The operation engine: it is responsible for what runs by itself — triggers, scheduled operations
//! and retention.

mod manager;

pub use manager::OperationEngineManager;
