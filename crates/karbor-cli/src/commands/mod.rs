//! The commands, a file for each resource of the API.

mod application;
mod checkpoint;
mod copy;
mod latest;
mod operation_log;
mod plan;
mod protect;
mod protectable;
mod provider;
mod quota;
mod readback;
mod restore;
mod scheduled_operation;
mod service;
mod trigger;
mod when;
mod wishes;

use clap::Subcommand;
use karbor_model::OperationType;

use crate::{error::CliError, session::Session};

/// What the client can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Protect an application or a plan, now
    Protect(protect::ProtectArguments),
    /// Restore a plan's checkpoint; or ask for restores one by one and look at them
    Restore(restore::RestoreArguments),
    /// Protect a plan again and again: make a trigger and a scheduled operation
    Schedule(scheduled_operation::ScheduleArguments),
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
    Verification(readback::ReadbackCommand),
    /// Triggers: when something is to happen
    #[command(subcommand)]
    Trigger(trigger::TriggerCommand),
    /// Scheduled operations: what a trigger starts
    #[command(subcommand, alias = "scheduledoperation")]
    ScheduledOperation(scheduled_operation::ScheduledOperationCommand),
    /// Quotas: how much a project may have
    #[command(subcommand, alias = "quotas")]
    Quota(quota::QuotaCommand),
    /// Quota classes: limits by name
    #[command(subcommand, alias = "quotaclass")]
    QuotaClass(quota::QuotaClassCommand),
    /// Providers: a bank and the plugins that protect into it
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Everything that may be protected, by type
    #[command(subcommand)]
    Protectable(protectable::ProtectableCommand),
    /// What was done, when, and how it went
    #[command(subcommand, alias = "operationlog")]
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
            Self::Schedule(arguments) => arguments.run(session).await,
            Self::Application(command) => command.run(session).await,
            Self::Checkpoint(command) => command.run(session).await,
            Self::Plan(command) => command.run(session).await,
            Self::Verification(command) => command.run(session, OperationType::Verify).await,
            Self::Trigger(command) => command.run(session).await,
            Self::ScheduledOperation(command) => command.run(session).await,
            Self::Quota(command) => command.run(session).await,
            Self::QuotaClass(command) => command.run(session).await,
            Self::Provider(command) => command.run(session).await,
            Self::Protectable(command) => command.run(session).await,
            Self::OperationLog(command) => command.run(session).await,
            Self::Service(command) => command.run(session).await,
        }
    }
}
