//! Karbor: one binary for the services, the demo and the client.
fn main() {}
