//! For tests only: fake clock, fault injection, in-memory bank, service harness.
