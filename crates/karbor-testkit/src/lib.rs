//! For tests only: fake clock, fault injection, in-memory bank, service harness.

mod bank;
mod faulty;

pub use bank::MemoryBank;
pub use faulty::{Call, Fault, FaultyBank, Verb};
