//! `karbor restore`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use karbor_model::{OperationType, ReadbackStatus};
use serde_json::Value;

use super::{
    checkpoint::made_on,
    latest::{Wish, latest},
    readback::{self, Asked},
};
use crate::{
    arguments::{ListOptions, WaitOptions, states},
    error::{CliError, Exit},
    flaws::Flaws,
    output::string,
    report,
    session::Session,
};

/// Restores.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RestoreArguments {
    #[command(subcommand)]
    command: Option<RestoreCommand>,
    /// Name or id of the plan whose checkpoint to restore
    #[arg(required = true)]
    plan: Option<String>,
    /// Its newest checkpoint that is available
    #[arg(long, conflicts_with = "checkpoint")]
    latest: bool,
    /// This checkpoint: id, or the beginning of one
    #[arg(long, value_name = "ID")]
    checkpoint: Option<String>,
    /// With --latest: the newest one that is neither incomplete nor suspicious
    #[arg(long, requires = "latest")]
    complete: bool,
    /// With --latest: the newest one, though it is incomplete or suspicious
    #[arg(long, requires = "latest", conflicts_with = "complete")]
    accept_incomplete: bool,
    #[command(flatten)]
    options: RestoreOptions,
}

/// Restores, one by one.
#[derive(Debug, Clone, Subcommand)]
enum RestoreCommand {
    /// Restore a checkpoint
    Create {
        /// Id, or the beginning of one
        checkpoint: String,
        #[command(flatten)]
        options: RestoreOptions,
    },
    /// The restores that were asked for
    List {
        /// Of this status only
        #[arg(long, value_parser = states(ReadbackStatus::ALL))]
        status: Option<String>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One restore
    Show {
        /// Id
        restore: String,
    },
}

/// How to restore.
#[derive(Debug, Clone, Args)]
struct RestoreOptions {
    /// Change nothing; list what would change (waits for the answer)
    #[arg(long)]
    dry_run: bool,
    /// What to do with what is there already
    #[arg(long, value_enum)]
    overwrite: Option<Overwrite>,
    /// Remove files that the checkpoint does not have (with --overwrite if-changed or always)
    #[arg(long, requires = "overwrite")]
    delete_extra: bool,
    /// Restore files below this directory, in or below a restore root that the operator declared; a relative
    /// path begins at that root, not at the current directory
    #[arg(long, value_name = "DIR")]
    restore_to: Option<String>,
    /// Restore a database under this name
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Restore it even if it has no seal: nothing then vouches for what the bank says of it
    #[arg(long)]
    accept_unsealed: bool,
    /// Restore a database beside the one that is there, then exchange their names; the old one is kept
    #[arg(long)]
    swap: bool,
    /// With --swap: drop the old database when the restore is complete
    #[arg(long, requires = "swap")]
    drop_old: bool,
    /// With --swap: end the sessions that use the database
    #[arg(long, requires = "swap")]
    disconnect: bool,
    /// Leave out a database's owners and grants
    #[arg(long)]
    no_owner: bool,
    /// Leave out a database's tablespaces
    #[arg(long)]
    no_tablespaces: bool,
    /// Parameters by resource type or type#id, as a JSON object or @file
    #[arg(long, value_name = "JSON|@FILE")]
    parameters: Option<String>,
    /// Provider that the checkpoint was made with [default: every one is asked]
    #[arg(long, value_name = "NAME|ID")]
    provider: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
}

/// What to do with what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Overwrite {
    /// Refuse to touch it.
    Never,
    /// Replace it where it differs.
    IfChanged,
    /// Replace it.
    Always,
}

impl RestoreArguments {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self.command {
            None => {
                let plan = self.plan.unwrap_or_default();
                let options = self.options;
                let (provider, checkpoint) = match (self.latest, &self.checkpoint) {
                    (true, _) => {
                        let wish = match (self.complete, self.accept_incomplete) {
                            (true, _) => Wish::Complete,
                            (_, true) => Wish::Newest,
                            _ => Wish::Unsaid,
                        };
                        let provider = options.provider.clone();
                        let found = latest(session, &plan, provider, wish).await?;
                        of_seal(found, options.accept_unsealed)?
                    }
                    (false, Some(id)) => {
                        let provider = options.provider.as_deref();
                        of_plan(&plan, session.client.checkpoint(id, provider).await?)?
                    }
                    (false, None) => {
                        return Err(CliError::usage("which checkpoint?").hint(format!(
                            "give --latest, or --checkpoint <id> (`karbor checkpoint list {plan}` \
                             shows them)"
                        )));
                    }
                };
                restore(session, plan, provider, checkpoint, options).await
            }
            Some(RestoreCommand::Create {
                checkpoint,
                options,
            }) => {
                let provider = options.provider.as_deref();
                let (provider, found) = session.client.checkpoint(&checkpoint, provider).await?;
                let label = string(&found["protection_plan"], "name").to_owned();
                restore(session, label, provider, found, options).await
            }
            Some(RestoreCommand::List { status, list }) => {
                readback::list(session, OperationType::Restore, status, list).await
            }
            Some(RestoreCommand::Show { restore }) => {
                readback::show(session, OperationType::Restore, &restore).await
            }
        }
    }
}

/// One that nothing vouches for is not taken for the newest, and not passed over in silence.
fn of_seal(found: (String, Value), accept_unsealed: bool) -> Result<(String, Value), CliError> {
    let (_, checkpoint) = &found;
    if accept_unsealed || checkpoint["sealed"] != Value::Bool(false) {
        return Ok(found);
    }
    let message = format!(
        "the newest checkpoint, {} of {}, has no seal: nothing vouches for what it says, its age included",
        string(checkpoint, "id"),
        made_on(checkpoint)
    );
    Err(CliError::usage(message).hint(
        "take it with --accept-unsealed if you trust the bank, or another with --checkpoint <id>",
    ))
}

/// A checkpoint given by id must be of the plan that was named: the name is there as a check.
fn of_plan(plan: &str, found: (String, Value)) -> Result<(String, Value), CliError> {
    if string(&found.1, "status") == "error"
        && let Some(reason) = Flaws::of(&found.1).unreadable()
    {
        let id = string(&found.1, "id");
        let message = format!("checkpoint {id} cannot be restored: {reason}");
        return Err(CliError::new(Exit::Refused, message).hint(format!(
            "use another one (`karbor checkpoint list {plan}`), and have the operator see whether the service has the \
             master key that this one was made with; if it has, `karbor checkpoint delete {id}` removes this one"
        )));
    }
    let own = &found.1["protection_plan"];
    if [string(own, "name"), string(own, "id")].contains(&plan) {
        return Ok(found);
    }
    Err(CliError::usage(format!(
        "checkpoint {} is of plan {}, not of {plan}",
        string(&found.1, "id"),
        string(own, "name")
    )))
}

async fn restore(
    session: &mut Session,
    label: String,
    provider: String,
    checkpoint: Value,
    options: RestoreOptions,
) -> Result<(), CliError> {
    if report::graph(&checkpoint).is_none() {
        return Err(CliError::usage(format!(
            "checkpoint {} does not say what it holds (it is {})",
            string(&checkpoint, "id"),
            string(&checkpoint, "status")
        ))
        .hint("only a checkpoint that is available can be restored"));
    }
    let wishes = options.wishes();
    let mut wait = options.wait;
    wait.wait |= options.dry_run;
    let asked = Asked {
        operation: OperationType::Restore,
        provider,
        checkpoint,
        parameters: options.parameters,
        wishes,
        accept_unsealed: options.accept_unsealed,
        label,
        wait,
    };
    asked.ask(session).await
}

impl RestoreOptions {
    /// The options that become parameters, by the parameter's name.
    fn wishes(&self) -> BTreeMap<&'static str, Value> {
        let overwrite = self.overwrite.map(|overwrite| match overwrite {
            Overwrite::Never => "never",
            Overwrite::IfChanged => "if-changed",
            Overwrite::Always => "always",
        });
        let mut wishes = BTreeMap::new();
        let flags = [
            ("dry_run", self.dry_run),
            ("swap", self.swap),
            ("drop_old", self.drop_old),
            ("disconnect", self.disconnect),
            ("no_owner", self.no_owner),
            ("no_tablespaces", self.no_tablespaces),
        ];
        for (name, _) in flags.into_iter().filter(|(_, given)| *given) {
            wishes.insert(name, Value::Bool(true));
        }
        if self.delete_extra {
            wishes.insert("delete_extra", Value::Bool(true));
        }
        let texts = [
            ("overwrite", overwrite),
            ("restore_to", self.restore_to.as_deref()),
            ("database", self.database.as_deref()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                wishes.insert(name, text.into());
            }
        }
        wishes
    }
}
