//! The commands, a file for each resource of the API.

mod application;
mod checkpoint;
mod operation_log;
mod plan;
mod protect;
mod protectable;
mod provider;
mod restore;
mod service;
mod verification;
mod wishes;

use clap::Subcommand;

use crate::{error::CliError, session::Session};

/// What the client can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Protect an application or a plan, now
    Protect(protect::ProtectArguments),
    /// Restore a plan's checkpoint; or ask for restores one by one and look at them
    Restore(restore::RestoreArguments),
    /// Applications that may be protected
    #[command(subcommand)]
    Application(application::ApplicationCommand),
    /// Checkpoints: what was protected, at one time
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointCommand),
    /// Plans: what is protected together, and how
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Verifications: can a checkpoint be restored?
    #[command(subcommand)]
    Verification(verification::VerificationCommand),
    /// Providers: a bank and the plugins that protect into it
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Everything that may be protected, by type
    #[command(subcommand)]
    Protectable(protectable::ProtectableCommand),
    /// What was done, when, and how it went
    #[command(subcommand)]
    OperationLog(operation_log::OperationLogCommand),
    /// The services, and whether they are up
    #[command(subcommand)]
    Service(service::ServiceCommand),
}

impl ClientCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Protect(arguments) => arguments.run(session).await,
            Self::Restore(arguments) => arguments.run(session).await,
            Self::Application(command) => command.run(session).await,
            Self::Checkpoint(command) => command.run(session).await,
            Self::Plan(command) => command.run(session).await,
            Self::Verification(command) => command.run(session).await,
            Self::Provider(command) => command.run(session).await,
            Self::Protectable(command) => command.run(session).await,
            Self::OperationLog(command) => command.run(session).await,
            Self::Service(command) => command.run(session).await,
        }
    }
}
