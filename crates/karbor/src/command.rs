//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use karbor_cli::{ClientCommand, EXIT_CODES, Globals};

use crate::{
    configuration::ConfigArguments,
    demo::DemoArguments,
    logging::log_to_stderr,
    manage::ManageArguments,
    serve::ServeArguments,
    settings::Sources,
    status::StatusArguments,
    terminal::{failed, runtime},
};

/// Application Data Protection as a Service.
///
/// `karbor serve` runs the service; `karbor demo` shows it at work; the other commands talk to a
/// running service.
#[derive(Debug, Parser)]
#[command(name = "karbor", version, after_help = EXIT_CODES, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: API and managers in one process, all state in one directory
    Serve(ServeArguments),
    /// Watch a real application be protected, destroyed, restored and proved equal
    Demo(DemoArguments),
    /// Check, show or explain the configuration
    Config(ConfigArguments),
    /// Keys, tokens and the database of a state directory
    Manage(ManageArguments),
    /// Check that the service can start on what is there
    Status(StatusArguments),
    /// Print a shell's completions for this command
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages for this command and each of its own
    Man {
        /// The folder to write to; made if it is not there
        folder: PathBuf,
    },
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

impl CommandLine {
    pub(crate) fn run(self) -> ExitCode {
        let place = |files| Sources {
            state_dir: self.globals.state_dir.clone(),
            files,
        };
        match self.command {
            Command::Serve(arguments) => {
                let log = log_to_stderr("info");
                exit(crate::serve::run(&place(&arguments.files), &arguments, log))
            }
            Command::Demo(arguments) => exit(crate::demo::run(&arguments)),
            Command::Config(arguments) => {
                log_to_stderr("warn");
                exit(arguments.command.run(&place(&arguments.files)))
            }
            Command::Manage(arguments) => {
                log_to_stderr("warn");
                exit(arguments.command.run(&place(&arguments.files)))
            }
            Command::Status(arguments) => {
                log_to_stderr("error");
                arguments.run(&place(&arguments.files))
            }
            Command::Completions { shell } => exit(crate::documents::completions(shell)),
            Command::Man { folder } => exit(crate::documents::man_pages(&folder)),
            Command::Client(command) => {
                let done = runtime()
                    .map(|runtime| runtime.block_on(karbor_cli::run(*command, &self.globals)));
                match done {
                    Ok(exit) => ExitCode::from(exit.code()),
                    Err(error) => failed(&error),
                }
            }
        }
    }
}

fn exit(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}
