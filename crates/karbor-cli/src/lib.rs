//! The client commands: they see the model and HTTP only.
//!
//! The binary embeds [`ClientCommand`] and [`Globals`] in its own command line and hands them to
//! [`run`]. A command is a function from a [`Session`](session::Session) (a client of the REST API,
//! a way to print, a pace to wait at) to an [`Exit`].
//!
//! * **Only the public API.** What a command does, any HTTP client can do. `karbor protect shop` is
//!   sugar: find the application among the protectables, find or make its plan, make a checkpoint.
//! * **Names wherever ids are.** [`resolve`] turns what a person typed into what the API wants, and
//!   says what there is when it finds nothing.
//! * **Answers go to stdout, everything else to stderr**, so that `-f json` and `-f value` can be
//!   piped. JSON is the API's own, untouched; tables are for people and may change.
//! * **Waiting** ([`wait`]) trusts the record (checkpoint, restore, verification) for the outcome and
//!   the operation log for progress and reasons, so that it also works against a service that
//!   keeps less of a log. A service that restarts in between is waited for.
//! * **Secrets** never come from the command line: the token is read from the environment or a
//!   file, or got from keystone with what the environment says (`login`), and the state directory's token is only ever sent to the state directory's service.
//! * **Text from the service** is printed with its control characters made visible.

mod arguments;
mod client;
mod commands;
mod endpoint;
mod error;
mod flaws;
mod login;
mod output;
mod progress;
mod report;
mod resolve;
mod run;
mod session;
mod wait;
mod waiting;

pub use arguments::{Format, Globals};
pub use commands::ClientCommand;
pub use endpoint::{Endpoint, default_state_dir};
pub use error::{EXIT_CODES, Exit};
pub use login::Cloud;
pub use run::{run, run_with};
pub use session::{Pace, Surroundings};
