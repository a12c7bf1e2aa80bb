//! `karbor scheduled-operation`, and `karbor schedule`, which makes a trigger and an operation at once.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, builder::RangedI64ValueParser};
use serde_json::{Map, Value, json};

use super::{trigger, when::When};
use crate::{
    arguments::{ListOptions, json_object},
    error::CliError,
    output::{Column, column, plain, string, text},
    session::Session,
};

/// Scheduled operations.
#[derive(Debug, Clone, Subcommand)]
pub enum ScheduledOperationCommand {
    /// Make a scheduled operation; `karbor schedule` makes its trigger too
    Create(CreateArguments),
    /// The scheduled operations
    List {
        /// In whose name this regular expression is found
        #[arg(long)]
        name: Option<String>,
        /// Of this type only
        #[arg(long = "type", alias = "operation_type", value_name = "TYPE")]
        kind: Option<String>,
        /// Of this trigger only: name or id
        #[arg(long, alias = "trigger_id", value_name = "NAME|ID")]
        trigger: Option<String>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One scheduled operation
    Show {
        /// Name or id
        operation: String,
    },
    /// Pause scheduled operations: what becomes due meanwhile is left out
    #[command(alias = "suspend")]
    Pause {
        /// Names or ids
        #[arg(required = true)]
        operations: Vec<String>,
    },
    /// Let paused scheduled operations run again
    Resume {
        /// Names or ids
        #[arg(required = true)]
        operations: Vec<String>,
    },
    /// Delete scheduled operations; their triggers and the checkpoints they made stay
    Delete {
        /// Names or ids
        #[arg(required = true)]
        operations: Vec<String>,
    },
}

/// A new scheduled operation.
#[derive(Debug, Clone, Args)]
pub struct CreateArguments {
    /// Name of the new scheduled operation
    name: String,
    /// The plan that it is about: name or id
    #[arg(long, value_name = "NAME|ID")]
    plan: String,
    /// The trigger that starts it: name or id
    #[arg(long, value_name = "NAME|ID")]
    trigger: String,
    /// Type [default: retention_protect when something is said of keeping, else protect]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[command(flatten)]
    keep: Keep,
    /// More of its definition, as a JSON object or @file
    #[arg(long, value_name = "JSON|@FILE")]
    definition: Option<String>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
}

/// Which of the checkpoints that it made are kept.
#[derive(Debug, Clone, Copy, Default, Args)]
struct Keep {
    /// Keep the newest N checkpoints that it made
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    keep_last: Option<u32>,
    /// Keep the newest of each of N hours
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    keep_hourly: Option<u32>,
    /// Keep the newest of each of N days
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    keep_daily: Option<u32>,
    /// Keep the newest of each of N weeks
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    keep_weekly: Option<u32>,
    /// Keep the newest of each of N months
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    keep_monthly: Option<u32>,
    /// Keep the newest of each of N years
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    keep_yearly: Option<u32>,
    /// Never more than N checkpoints that it made, whatever the others say
    #[arg(long, value_name = "N", help_heading = "Keep", value_parser = count())]
    max_backups: Option<u32>,
    /// None older than N days, whatever the others say
    #[arg(long, value_name = "DAYS", help_heading = "Keep", value_parser = count())]
    retention_duration: Option<u32>,
}

/// A whole number, at least 1.
fn count() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// What to protect, when, and what to keep. A schedule of that name is changed to be so: of when it ran before, nothing stays.
#[derive(Debug, Clone, Args)]
pub struct ScheduleArguments {
    /// Name or id of the plan
    plan: String,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    keep: Keep,
    /// Name of the trigger and operation, which are made, or changed if they are there [default: the plan's name and
    /// how often]
    #[arg(long)]
    name: Option<String>,
}

const LIST: &[Column] = &[
    column("NAME", |operation| text(operation, "name")),
    column("ID", |operation| text(operation, "id")),
    column("TYPE", |operation| text(operation, "operation_type")),
    column("TRIGGER", |operation| text(operation, "trigger_id")),
    column("ENABLED", |operation| text(operation, "enabled")),
];

const SHOW: &[Column] = &[
    column("NAME", |operation| text(operation, "name")),
    column("ID", |operation| text(operation, "id")),
    column("TYPE", |operation| text(operation, "operation_type")),
    column("TRIGGER", |operation| text(operation, "trigger_id")),
    column("ENABLED", |operation| text(operation, "enabled")),
    column("DESCRIPTION", |operation| text(operation, "description")),
    column("DEFINITION", |operation| {
        text(operation, "operation_definition")
    }),
];

/// An operation together with its trigger.
const SCHEDULE: &[Column] = &[
    column("NAME", |schedule| text(schedule, "name")),
    column("ID", |schedule| text(schedule, "id")),
    column("TYPE", |schedule| text(schedule, "operation_type")),
    column("TRIGGER", |schedule| text(schedule, "trigger_id")),
    column("PATTERN", |schedule| trigger::pattern(&schedule["trigger"])),
    column("START", |schedule| property(schedule, "start_time")),
    column("END", |schedule| property(schedule, "end_time")),
    column("WINDOW", |schedule| property(schedule, "window")),
    column("ENABLED", |schedule| text(schedule, "enabled")),
    column("DESCRIPTION", |schedule| text(schedule, "description")),
    column("DEFINITION", |schedule| {
        text(schedule, "operation_definition")
    }),
];

fn property(schedule: &Value, name: &str) -> String {
    text(&schedule["trigger"]["properties"], name)
}

fn show_schedule(
    session: &mut Session,
    mut operation: Value,
    trigger: Value,
) -> Result<(), CliError> {
    operation["trigger"] = trigger;
    session.show(SCHEDULE, &operation)
}

impl ScheduledOperationCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Create(arguments) => arguments.run(session).await,
            Self::List {
                name,
                kind,
                trigger,
                list,
            } => {
                let mut query = list.query();
                query.extend(name.map(|name| ("name", name)));
                query.extend(kind.map(|kind| ("operation_type", kind)));
                if let Some(trigger) = trigger {
                    let trigger = session.client.trigger(&trigger).await?;
                    query.push(("trigger_id", string(&trigger, "id").to_owned()));
                }
                let operations = session
                    .client
                    .list(&["scheduled_operations"], "operations", &query, list.limit)
                    .await?;
                session.list(LIST, &operations)
            }
            Self::Show { operation } => {
                let operation = session.client.scheduled_operation(&operation).await?;
                session.show(SHOW, &operation)
            }
            Self::Pause { operations } => enable(session, &operations, false).await,
            Self::Resume { operations } => enable(session, &operations, true).await,
            Self::Delete { operations } => {
                for wanted in &operations {
                    let operation = session.client.scheduled_operation(wanted).await?;
                    session
                        .client
                        .delete(&["scheduled_operations", string(&operation, "id")])
                        .await?;
                    session.note(&format!(
                        "scheduled operation {} deleted; its trigger and checkpoints stay",
                        string(&operation, "name")
                    ))?;
                }
                Ok(())
            }
        }
    }
}

impl Keep {
    /// What was said, by the names that a definition has for it.
    fn rules(self) -> impl Iterator<Item = (&'static str, u32)> {
        let rules = [
            ("keep_last", self.keep_last),
            ("keep_hourly", self.keep_hourly),
            ("keep_daily", self.keep_daily),
            ("keep_weekly", self.keep_weekly),
            ("keep_monthly", self.keep_monthly),
            ("keep_yearly", self.keep_yearly),
            ("max_backups", self.max_backups),
            ("retention_duration", self.retention_duration),
        ];
        let given = rules.into_iter();
        given.filter_map(|(name, count)| Some((name, count?)))
    }

    /// The definition of an operation on a plan.
    fn definition(self, plan: &Value) -> Value {
        let mut definition = json!({
            "provider_id": plan["provider_id"],
            "plan_id": plan["id"],
        });
        for (name, count) in self.rules() {
            definition[name] = count.into();
        }
        definition
    }

    fn kind(self) -> &'static str {
        if self.rules().next().is_some() {
            "retention_protect"
        } else {
            "protect"
        }
    }
}

impl CreateArguments {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let plan = session.client.plan(&self.plan).await?;
        let trigger = session.client.trigger(&self.trigger).await?;
        let mut definition = self.keep.definition(&plan);
        if let Some(more) = &self.definition
            && let (Value::Object(more), Some(fields)) = (
                json_object("--definition", more)?,
                definition.as_object_mut(),
            )
        {
            fields.extend(more);
        }
        let mut operation = json!({
            "name": self.name,
            "operation_type": self.kind.as_deref().unwrap_or(self.keep.kind()),
            "trigger_id": trigger["id"],
            "operation_definition": definition,
        });
        if let Some(description) = self.description {
            operation["description"] = description.into();
        }
        let operation = create(session, operation).await?;
        session.show(SHOW, &operation)
    }
}

impl ScheduleArguments {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let properties = self.when.properties()?;
        if !properties.contains_key("pattern") {
            return Err(CliError::usage("when?")
                .hint("give --hourly, --daily, --weekly, --monthly, --cron or --calendar"));
        }
        let plan = session.client.plan(&self.plan).await?;
        let name = self
            .name
            .unwrap_or_else(|| format!("{}-{}", string(&plan, "name"), self.when.word()));
        let all = session
            .client
            .list(&["scheduled_operations"], "operations", &[], None)
            .await?;
        if let Some(there) = there(&all, &name)? {
            return change(session, there, &plan, self.keep, properties).await;
        }
        let left = left_behind(session, &all, &name).await?;
        let trigger = match &left {
            Some(trigger) => trigger::replace(session, trigger, properties).await?,
            None => trigger::create(session, &name, "time", properties).await?,
        };
        let id = string(&trigger, "id").to_owned();
        let operation = json!({
            "name": name,
            "operation_type": self.keep.kind(),
            "trigger_id": id,
            "operation_definition": self.keep.definition(&plan),
        });
        match create(session, operation).await {
            Ok(operation) => show_schedule(session, operation, trigger),
            Err(error) if left.is_some() => Err(error),
            Err(error) => {
                // A trigger that starts nothing would only be in the way of the next try.
                let undone = session.client.delete(&["triggers", &id]).await;
                Err(match undone {
                    Ok(_) => error,
                    Err(_) => error.hint(format!("trigger {id} was left behind; delete it")),
                })
            }
        }
    }
}

/// The scheduled operation of a name, if there is one.
fn there<'a>(all: &'a [Value], name: &str) -> Result<Option<&'a Value>, CliError> {
    let mut named = all.iter().filter(|one| string(one, "name") == name);
    let Some(first) = named.next() else {
        return Ok(None);
    };
    let others: Vec<_> = named.map(|one| string(one, "id")).collect();
    if others.is_empty() {
        return Ok(Some(first));
    }
    let message = format!(
        "there are {} scheduled operations named '{name}'",
        others.len() + 1
    );
    Err(CliError::usage(message).hint(format!(
        "delete all but one of them (`karbor scheduled-operation delete <id>`: {}, {}), or give another --name",
        string(first, "id"),
        others.join(", ")
    )))
}

/// The trigger of a name that a deleted operation left behind: none of `all` uses it.
async fn left_behind(
    session: &Session,
    all: &[Value],
    name: &str,
) -> Result<Option<Value>, CliError> {
    let triggers = session
        .client
        .list(&["triggers"], "triggers", &[], None)
        .await?;
    let is_free = |trigger: &Value| {
        let used = |operation: &Value| string(operation, "trigger_id") == string(trigger, "id");
        string(trigger, "name") == name && !all.iter().any(used)
    };
    Ok(triggers.into_iter().find(is_free))
}

/// Has a schedule fire as is wanted now, and not as was said before. What it protects and keeps stays: an operation counts the checkpoints that
/// it made itself, so another in its place would leave them for ever.
async fn change(
    session: &mut Session,
    operation: &Value,
    plan: &Value,
    keep: Keep,
    properties: Map<String, Value>,
) -> Result<(), CliError> {
    let name = string(operation, "name");
    let definition = &operation["operation_definition"];
    if text(definition, "plan_id") != string(plan, "id") {
        let message =
            format!("there is a scheduled operation '{name}' already, and it is not of this plan");
        return Err(CliError::usage(message).hint("give another --name"));
    }
    let wanted = keep.definition(plan);
    let keeps = |definition: &Value| -> BTreeMap<String, String> {
        let fields = definition.as_object().into_iter().flatten();
        fields
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect()
    };
    if keeps(definition) != keeps(&wanted) || string(operation, "operation_type") != keep.kind() {
        let message = format!(
            "the scheduled operation '{name}' is there already, and keeps other checkpoints than is said now: that \
             cannot be changed"
        );
        return Err(CliError::usage(message).hint(format!(
            "say the same of keeping to change when it runs; or `karbor scheduled-operation delete {name}`, then \
             schedule again: the checkpoints that it made stay then until you delete them"
        )));
    }
    let trigger = session
        .client
        .trigger(string(operation, "trigger_id"))
        .await?;
    let trigger = trigger::replace(session, &trigger, properties).await?;
    let operation = session
        .client
        .scheduled_operation(string(operation, "id"))
        .await?;
    let is_enabled = operation["enabled"].clone();
    show_schedule(session, operation, trigger)?;
    let paused = match is_enabled {
        Value::Bool(false) => "; it is paused still",
        _ => "",
    };
    session.note(&format!("\nupdated: {name} was there already{paused}"))
}

async fn enable(
    session: &mut Session,
    operations: &[String],
    enabled: bool,
) -> Result<(), CliError> {
    let body = json!({"scheduled_operation": {"enabled": enabled}});
    let now = if enabled {
        "runs again"
    } else {
        "is paused; what becomes due meanwhile is left out"
    };
    for wanted in operations {
        let operation = session.client.scheduled_operation(wanted).await?;
        session
            .client
            .patch(&["scheduled_operations", string(&operation, "id")], &body)
            .await?;
        session.note(&format!(
            "scheduled operation {} {now}",
            string(&operation, "name")
        ))?;
    }
    Ok(())
}

async fn create(session: &Session, operation: Value) -> Result<Value, CliError> {
    let body = json!({"scheduled_operation": operation});
    let mut answer = session
        .client
        .post(&["scheduled_operations"], &body)
        .await?;
    Ok(answer["scheduled_operation"].take())
}
