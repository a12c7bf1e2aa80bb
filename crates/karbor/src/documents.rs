//! What is written from the command line's own description: completions and man pages.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::command::CommandLine;

type Failure = Box<dyn std::error::Error>;

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut command = CommandLine::command();
    let mut script = Vec::new();
    generate(shell, &mut command, "karbor", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes `karbor.1`, `karbor-plan.1`, `karbor-plan-create.1`, … into `folder`.
pub(crate) fn man_pages(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let written = clap_mangen::generate_to(CommandLine::command(), folder);
    written.map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(())
}
