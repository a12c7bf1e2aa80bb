//! Karbor: one binary for the services, the demo and the client.

mod command;
mod configuration;
mod configured;
mod demo;
mod documents;
mod logging;
mod manage;
mod original;
mod owners;
mod providers;
mod roles;
mod serve;
mod settings;
mod state;
mod status;
mod terminal;

use std::{ffi::OsStr, process::ExitCode};

use clap::Parser;

fn main() -> ExitCode {
    // Started by the service itself, for one database: nothing else is set up for it.
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(karbor_plugins::SQLITE_WORKER)) {
        return karbor_plugins::sqlite_worker();
    }
    // The one place that chooses a TLS provider; an error only means that it is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    command::CommandLine::parse().run()
}
