//! One run of one command.

use std::io::Write as _;

use karbor_model::visible;

use crate::{
    ClientCommand, Globals, Surroundings,
    client::Client,
    endpoint::{locate, logged_in},
    error::{CliError, Exit},
    output::View,
    session::Session,
};

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
