//! What the commands that run in this process share.

use std::{fmt::Display, process::ExitCode};

use karbor_cli::Exit;
use karbor_model::visible;

/// The runtime of a command.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// Tells why a command ends.
#[allow(
    clippy::print_stderr,
    reason = "a command's last word is for the person at the terminal"
)]
pub(crate) fn failed(error: &impl Display) -> ExitCode {
    eprintln!("karbor: {}", visible(&error.to_string()));
    ExitCode::from(Exit::Failed.code())
}
