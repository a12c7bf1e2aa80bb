//! The protection manager: providers, checkpoints and the flows that run over them.
