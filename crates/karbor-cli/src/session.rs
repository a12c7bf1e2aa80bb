//! One run of one command.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use karbor_model::visible;

use crate::{
    ClientCommand, Cloud, Globals,
    client::Client,
    endpoint::{locate, logged_in},
    error::{CliError, Exit},
    output::View,
};

/// How often a waiting command asks, and how long it puts up with a service that is away.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// First pause between two questions; it grows to `slowest`.
    pub first: Duration,
    /// Longest pause.
    pub slowest: Duration,
    /// How long the service may be away before the command gives up.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            slowest: Duration::from_secs(1),
            patience: Duration::from_secs(60),
        }
    }
}

/// What a command sees of the world besides the service.
pub struct Surroundings {
    /// Answers.
    pub out: Box<dyn Write + Send>,
    /// Errors, hints, progress.
    pub err: Box<dyn Write + Send>,
    /// Stderr is a terminal: progress bars are drawn on it.
    pub bars: bool,
    /// Stdout is a terminal: tables fit its width.
    pub fit: bool,
    /// `KARBOR_TOKEN`.
    pub token: Option<String>,
    /// The variables `OS_…`, by which to log in at keystone.
    pub cloud: Cloud,
    /// How to wait.
    pub pace: Pace,
}

impl Surroundings {
    /// The process's own.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            bars: io::stderr().is_terminal(),
            fit: io::stdout().is_terminal(),
            token: std::env::var("KARBOR_TOKEN")
                .ok()
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            cloud: Cloud::new(std::env::vars()),
            pace: Pace::default(),
        }
    }
}

/// What commands work with.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) view: View,
    pub(crate) io: Surroundings,
}

impl Session {
    /// Tells a person something beside the answer. Nothing in formats meant for programs.
    pub(crate) fn note(&mut self, text: &str) -> Result<(), CliError> {
        if self.view.for_people() {
            writeln!(self.io.err, "{}", visible(text))?;
        }
        Ok(())
    }
}

impl Session {
    /// Warns beside the answer, in any format.
    pub(crate) fn warn(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.io.err, "warning: {}", visible(text))?;
        Ok(())
    }
}

/// Runs a command in this process: prints the answer, or what went wrong and what to do.
pub async fn run(command: ClientCommand, globals: &Globals) -> Exit {
    run_with(command, globals, Surroundings::of_process()).await
}

/// Runs a command in the given surroundings.
pub async fn run_with(command: ClientCommand, globals: &Globals, io: Surroundings) -> Exit {
    let mut surroundings = io;
    let client = match client(globals, &mut surroundings).await {
        Ok(client) => client,
        Err(error) => return tell(&mut surroundings, &error),
    };
    let mut session = Session {
        client,
        view: View::new(globals, surroundings.fit),
        io: surroundings,
    };
    if session.client.exposes_token() {
        let warning = "warning: the token crosses the network in clear; use https";
        if let Err(error) = writeln!(session.io.err, "{warning}") {
            return tell(&mut session.io, &error.into());
        }
    }
    let outcome = match command.run(&mut session).await {
        Ok(()) => session.io.out.flush().map_err(CliError::from),
        Err(error) => {
            // What was printed before the error comes first.
            let _ = session.io.out.flush();
            Err(error)
        }
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => tell(&mut session.io, &error),
    }
}

/// A token that is given comes before a login, a login before what the state directory has.
async fn client(globals: &Globals, io: &mut Surroundings) -> Result<Client, CliError> {
    let token = io.token.take();
    let cloud = std::mem::take(&mut io.cloud);
    let place = if token.is_none() && globals.token_file.is_none() && cloud.is_set() {
        logged_in(globals, cloud.login(globals).await?)?
    } else {
        locate(globals, token)?
    };
    Client::new(place, globals)
}

fn tell(io: &mut Surroundings, error: &CliError) -> Exit {
    if !error.silent {
        // Nobody is left to tell when stderr is closed too.
        let _ = writeln!(io.err, "{}", visible(&error.to_string()));
    }
    error.exit
}
