//! A deduplicating, compressed, encrypted store of bytes inside a bank, in the restic repository format version 2.
