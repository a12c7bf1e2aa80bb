//! `karbor checkpoint`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use karbor_model::{CheckpointStatus, OperationType, RunReport};
use serde_json::{Value, json};

use super::copy::CopyArguments;
use crate::{
    arguments::{ListOptions, WaitOptions, states},
    error::{CliError, Exit},
    flaws::Flaws,
    output::{Column, column, string, text, time, unpacked},
    report,
    session::Session,
    wait::{Job, wait},
};

/// Checkpoints.
#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointCommand {
    /// Protect a plan, now
    Create {
        /// Name or id of the plan
        plan: String,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Copy a plan's checkpoints into the second bank of its provider; if it names none (copy_bank), the copies lie
    /// in the same bank and are lost with it
    Copy(CopyArguments),
    /// The checkpoints, newest first
    List(ListArguments),
    /// One checkpoint, and the resources that it holds
    Show {
        /// Id, or the beginning of one
        checkpoint: String,
        /// Provider that it was made with [default: every one is asked]
        #[arg(long, value_name = "NAME|ID")]
        provider: Option<String>,
    },
    /// Delete checkpoints and their data
    Delete {
        /// Ids, or the beginnings of them
        #[arg(required = true)]
        checkpoints: Vec<String>,
        /// Provider that they were made with [default: every one is asked]
        #[arg(long, value_name = "NAME|ID")]
        provider: Option<String>,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Accept a suspicious checkpoint: what it holds is all there is, and later ones are measured by it
    Accept {
        /// Id, or the beginning of one
        checkpoint: String,
        /// Provider that it was made with [default: every one is asked]
        #[arg(long, value_name = "NAME|ID")]
        provider: Option<String>,
    },
    /// Overrule a checkpoint's status, after its cause was looked into
    ResetState {
        /// Id, or the beginning of one
        checkpoint: String,
        /// New status
        #[arg(value_parser = ["available", "error"])]
        state: String,
        /// Provider that it was made with [default: every one is asked]
        #[arg(long, value_name = "NAME|ID")]
        provider: Option<String>,
    },
}

/// Which checkpoints to list.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Of this plan only: name or id
    plan: Option<String>,
    /// Of this provider only: name or id
    #[arg(long, value_name = "NAME|ID")]
    provider: Option<String>,
    /// Of this status only
    #[arg(long, value_parser = states(CheckpointStatus::ALL))]
    status: Option<String>,
    /// Made on this day or later
    #[arg(long, value_name = "YYYY-MM-DD")]
    since: Option<chrono::NaiveDate>,
    /// Made on this day or earlier
    #[arg(long, value_name = "YYYY-MM-DD")]
    until: Option<chrono::NaiveDate>,
    #[command(flatten)]
    list: ListOptions,
}

/// Field that a listing for people gets beside the API's.
const MADE_AT: &str = "made_at";

const LIST: &[Column] = &[
    column("ID", |checkpoint| text(checkpoint, "id")),
    column("PLAN", |checkpoint| {
        text(&checkpoint["protection_plan"], "name")
    }),
    column("STATUS", |checkpoint| text(checkpoint, "status")),
    column("MADE", made),
    column("RESOURCES", |checkpoint| {
        report::graph(checkpoint).map_or_else(String::new, |graph| graph.nodes().len().to_string())
    }),
    column("COPY OF", |checkpoint| {
        text(&copy_info(checkpoint), "copied_from")
    }),
    column("FLAWS", |checkpoint| Flaws::of(checkpoint).brief()),
];

pub(super) const SHOW: &[Column] = &[
    column("ID", |checkpoint| text(checkpoint, "id")),
    column("PLAN", |checkpoint| {
        text(&checkpoint["protection_plan"], "name")
    }),
    column("STATUS", |checkpoint| text(checkpoint, "status")),
    column("MADE", made),
    column("PROJECT", |checkpoint| text(checkpoint, "project_id")),
    column("EXTRA INFO", |checkpoint| text(checkpoint, "extra_info")),
    column("FLAWS", |checkpoint| Flaws::of(checkpoint).brief()),
];

/// What a copy says of itself; nothing of what is no copy.
pub(super) fn copy_info(checkpoint: &Value) -> Value {
    let info = unpacked(&checkpoint["extra_info"]);
    let is_copy = ["copied_from", "protected_at"].map(|field| info[field].is_string());
    if is_copy == [true; 2] {
        info
    } else {
        Value::Null
    }
}

/// The day that its data were protected, in a form that sorts.
pub(super) fn made_on(checkpoint: &Value) -> String {
    let copy = text(&copy_info(checkpoint), "protected_at");
    match copy.split_once('T') {
        Some((day, _)) => day.to_owned(),
        None => text(checkpoint, "created_at"),
    }
}

/// The API knows the day only; the operation log knows the time. A copy is as old as its data.
pub(super) fn made(checkpoint: &Value) -> String {
    let known = [
        time(&copy_info(checkpoint), "protected_at"),
        time(&checkpoint["operation_log"], "started_at"),
        time(checkpoint, MADE_AT),
    ];
    let known = known.into_iter().find(|at| !at.is_empty());
    known.unwrap_or_else(|| text(checkpoint, "created_at"))
}

impl CheckpointCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Create { plan, wait } => {
                let plan = session.client.plan(&plan).await?;
                create(session, &plan, wait).await
            }
            Self::Copy(arguments) => arguments.run(session).await,
            Self::List(arguments) => arguments.run(session).await,
            Self::Show {
                checkpoint,
                provider,
            } => {
                let (_, found) = session
                    .client
                    .checkpoint(&checkpoint, provider.as_deref())
                    .await?;
                show(session, found).await
            }
            Self::Delete {
                checkpoints,
                provider,
                wait,
            } => {
                for checkpoint in &checkpoints {
                    delete(session, checkpoint, provider.as_deref(), wait).await?;
                }
                Ok(())
            }
            Self::Accept {
                checkpoint,
                provider,
            } => {
                let (provider, found) = session
                    .client
                    .checkpoint(&checkpoint, provider.as_deref())
                    .await?;
                let id = string(&found, "id");
                let path = ["providers", &provider, "checkpoints", id];
                session.client.put(&path, &json!({"os-accept": {}})).await?;
                session.note(&format!("checkpoint {id} is accepted"))
            }
            Self::ResetState {
                checkpoint,
                state,
                provider,
            } => {
                let (provider, found) = session
                    .client
                    .checkpoint(&checkpoint, provider.as_deref())
                    .await?;
                let id = string(&found, "id");
                let path = ["providers", &provider, "checkpoints", id];
                let body = json!({"os-resetState": {"state": state}});
                let done = session.client.put(&path, &body).await;
                done.map_err(|error| match error.exit {
                    Exit::Usage => error.hint(format!(
                        "it is '{}'; while an operation works on it, wait until that has ended: `karbor operation-log \
                         list --checkpoint {id}` shows how it is going",
                        string(&found, "status")
                    )),
                    _ => error,
                })?;
                session.note(&format!("checkpoint {id} is now {state}"))
            }
        }
    }
}

impl ListArguments {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        self.list.sorts_by(&["created_at"])?;
        let mut query = self.list.query();
        let wanted = [
            ("status", self.status.clone()),
            ("start_date", self.since.map(|day| day.to_string())),
            ("end_date", self.until.map(|day| day.to_string())),
        ];
        query.extend(
            wanted
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        let search = Search {
            plan: self.plan,
            provider: self.provider,
            query,
            limit: self.list.limit,
        };
        let mut found = search.run(session).await?;
        if let Some(status) = &self.status {
            // Not every service knows this filter.
            found.retain(|(_, checkpoint)| string(checkpoint, "status") == status);
        }
        let mut rows: Vec<_> = found
            .into_iter()
            .map(|(_, checkpoint)| checkpoint)
            .collect();
        if session.view.for_people() {
            add_times(session, &mut rows).await?;
        }
        session.list(LIST, &rows)
    }
}

/// Makes a checkpoint of a plan.
pub(super) async fn create(
    session: &mut Session,
    plan: &Value,
    wait: WaitOptions,
) -> Result<(), CliError> {
    let provider = string(plan, "provider_id");
    let body = json!({"checkpoint": {"plan_id": plan["id"]}});
    let mut answer = session
        .client
        .post(&["providers", provider, "checkpoints"], &body)
        .await?;
    let checkpoint = answer["checkpoint"].take();
    let job = Job {
        operation: OperationType::Protect,
        label: string(plan, "name").to_owned(),
        provider: provider.to_owned(),
        checkpoint: string(&checkpoint, "id").to_owned(),
        record: String::new(),
        names: BTreeMap::new(),
    };
    session.started(job, checkpoint, SHOW, wait).await
}

/// Which checkpoints are wanted.
pub(super) struct Search {
    pub(super) plan: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) limit: Option<usize>,
}

impl Search {
    /// The checkpoints with the ids of their providers; newest first within a provider.
    pub(super) async fn run(mut self, session: &Session) -> Result<Vec<(String, Value)>, CliError> {
        let client = &session.client;
        let mut name = None;
        let mut home = None;
        if let Some(wanted) = &self.plan {
            match client.plan(wanted).await {
                Ok(plan) => {
                    self.query.push(("plan_id", string(&plan, "id").to_owned()));
                    home = Some(string(&plan, "provider_id").to_owned());
                }
                // Checkpoints outlive their plan.
                Err(error) if error.exit == Exit::NotFound => name = Some((wanted.clone(), error)),
                Err(error) => return Err(error),
            }
        }
        let providers = match self.provider.or(home) {
            Some(provider) => vec![client.provider(&provider).await?],
            None => client.providers().await?,
        };
        let mut found = Vec::new();
        for provider in &providers {
            let id = string(provider, "id");
            let path = ["providers", id, "checkpoints"];
            let page = client
                .list(&path, "checkpoints", &self.query, self.limit)
                .await?;
            found.extend(
                page.into_iter()
                    .map(|checkpoint| (id.to_owned(), checkpoint)),
            );
        }
        if let Some((wanted, error)) = name {
            found.retain(|(_, checkpoint)| {
                let plan = &checkpoint["protection_plan"];
                string(plan, "name") == wanted || string(plan, "id") == wanted
            });
            if found.is_empty() {
                return Err(error);
            }
        }
        found.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(found)
    }
}

/// Adds the time of day, from the operation log, to checkpoints.
pub(super) async fn add_times(
    session: &Session,
    checkpoints: &mut [Value],
) -> Result<(), CliError> {
    if checkpoints.is_empty() {
        return Ok(());
    }
    let logs = session
        .client
        .list(&["operation_logs"], "operation_logs", &[], None)
        .await?;
    let times: BTreeMap<_, _> = logs
        .iter()
        .filter(|log| string(log, "operation_type") == OperationType::Protect.as_str())
        .map(|log| (string(log, "checkpoint_id"), log["started_at"].clone()))
        .collect();
    for checkpoint in checkpoints {
        if let Some(at) = times.get(string(checkpoint, "id")) {
            checkpoint[MADE_AT] = at.clone();
        }
    }
    Ok(())
}

async fn show(session: &mut Session, mut checkpoint: Value) -> Result<(), CliError> {
    if session.view.for_people() {
        add_times(session, std::slice::from_mut(&mut checkpoint)).await?;
    }
    session.show(SHOW, &checkpoint)?;
    session.waiting_on(&checkpoint).await?;
    let copy = copy_info(&checkpoint);
    if !copy.is_null() {
        let row = vec![text(&copy, "copied_from"), time(&copy, "copied_at")];
        session.more("Copy", vec!["OF", "COPIED"], vec![row])?;
    }
    let (flaws, names) = (Flaws::of(&checkpoint), report::names(&checkpoint));
    let missing = flaws.named(&names).into_iter().map(Vec::from).collect();
    session.more("Missing", vec!["RESOURCE", "PATH", "REASON"], missing)?;
    let reasons = flaws.reasons(&names).into_iter().map(Vec::from).collect();
    session.more("Suspicious", vec!["RESOURCE", "REASON"], reasons)?;
    let graph = report::graph(&checkpoint);
    let rows = graph
        .iter()
        .flat_map(|graph| graph.nodes())
        .map(|resource| {
            vec![
                resource.resource_type.clone(),
                resource.name.clone(),
                resource.id.clone(),
            ]
        })
        .collect();
    session.more("Resources", vec!["TYPE", "NAME", "ID"], rows)?;
    match checkpoint["sealed"] == Value::Bool(false) && flaws.unreadable().is_none() {
        true => {
            session.note("\nno seal: nothing vouches for what the bank says of this checkpoint")
        }
        false => Ok(()),
    }
}

async fn delete(
    session: &mut Session,
    wanted: &str,
    provider: Option<&str>,
    options: WaitOptions,
) -> Result<(), CliError> {
    let (provider, checkpoint) = session.client.checkpoint(wanted, provider).await?;
    let id = string(&checkpoint, "id").to_owned();
    let path = ["providers", &provider, "checkpoints", &id];
    session.client.delete(&path).await?;
    if !options.wait {
        return session.note(&format!("checkpoint {id} is being deleted"));
    }
    let job = Job {
        operation: OperationType::Delete,
        label: format!("checkpoint {id}"),
        names: report::names(&checkpoint),
        provider,
        checkpoint: id.clone(),
        record: String::new(),
    };
    let outcome = wait(session, &job, options.timeout).await?;
    if outcome.ok {
        let log = outcome.log.unwrap_or_default();
        for warning in RunReport::read(log.get("extra_info")).warnings {
            session.warn(&warning)?;
        }
        return session.note(&format!("checkpoint {id} deleted"));
    }
    session.ended(&job, outcome, SHOW)
}
