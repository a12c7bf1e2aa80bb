//! Karbor: one binary for the services, the demo and the client.

mod command;
mod configuration;
mod demo;
mod documents;
mod manage;
mod original;
mod owners;
mod providers;
mod serve;
mod settings;
mod state;
mod status;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The one place that chooses a TLS provider; an error only means that it is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    command::CommandLine::parse().run()
}
