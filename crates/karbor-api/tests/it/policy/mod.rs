//! The rule language: against a naive reading of it, and against the real oslo.policy.

mod against_oslo;
mod properties;
