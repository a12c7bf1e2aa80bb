//! Tests of the operation engine.
