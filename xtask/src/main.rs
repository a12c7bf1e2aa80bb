//! What the workspace asks of itself. `cargo xtask --help` lists the tasks.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to a person"
)]

mod ci;
mod circles;
mod failure;
mod levels;
mod original;
mod python;
mod reference;
mod shell;
mod sixth;
mod stores;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What the workspace asks of itself")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check that crates import downward only, that heavy libraries stay in their one room, and that no many files
    /// import each other, and that no manager names the whole database
    Levels,
    /// Install and check the servers and tools that tests need, then run every test
    Test(test::TestArguments),
    /// Make the Python environments of lab/python in target/python
    Python,
    /// All that CI asks: format, lints, licences, levels, tests, generated documents
    Ci(ci::CiArguments),
    /// Check what a new operation takes: xtask/sixth-operation.patch adds one, in a copy of the workspace
    SixthOperation,
    /// Write docs/configuration.md from the options that the crates declare
    ConfigReference {
        /// Write nothing; fail when the document is out of date
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Levels => levels::run()
            .and_then(|()| circles::run())
            .and_then(|()| stores::run()),
        Task::Test(arguments) => test::run(&arguments),
        Task::Python => python::run(),
        Task::Ci(arguments) => ci::run(&arguments),
        Task::SixthOperation => sixth::run(),
        Task::ConfigReference { check } => reference::run(check),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
