//! What restores, verifications and the like share: they read a checkpoint back, and leave a record.

use std::collections::BTreeMap;

use clap::Subcommand;
use karbor_model::{OperationType, ReadbackNames, ReadbackStatus};
use serde_json::{Value, json};

use super::wishes;
use crate::{
    arguments::{ListOptions, WaitOptions, json_object, states},
    error::CliError,
    output::{Column, column, string, text},
    report,
    session::Session,
    wait::Job,
};

/// Records of an operation that reads checkpoints back.
#[derive(Debug, Clone, Subcommand)]
pub enum ReadbackCommand {
    /// Ask for one, of a checkpoint
    Create {
        /// Id, or the beginning of one
        checkpoint: String,
        /// Provider that it was made with [default: every one is asked]
        #[arg(long, value_name = "NAME|ID")]
        provider: Option<String>,
        /// Read the data back as well, not only what describes them
        #[arg(long)]
        data: bool,
        /// Read back this much of the data (with --data)
        #[arg(long, requires = "data", value_parser = clap::value_parser!(u8).range(1..=100))]
        percent: Option<u8>,
        /// Read it even if it has no seal: nothing then vouches for what the bank says of it
        #[arg(long)]
        accept_unsealed: bool,
        /// Parameters by resource type or type#id, as a JSON object or @file
        #[arg(long, value_name = "JSON|@FILE")]
        parameters: Option<String>,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Those that were asked for
    List {
        /// Of this status only
        #[arg(long, value_parser = states(ReadbackStatus::ALL))]
        status: Option<String>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One of them
    Show {
        /// Id
        id: String,
    },
}

const LIST: &[Column] = &[
    column("ID", |readback| text(readback, "id")),
    column("CHECKPOINT", |readback| text(readback, "checkpoint_id")),
    column("STATUS", |readback| text(readback, "status")),
];

const SHOW: &[Column] = &[
    column("ID", |readback| text(readback, "id")),
    column("CHECKPOINT", |readback| text(readback, "checkpoint_id")),
    column("PROVIDER", |readback| text(readback, "provider_id")),
    column("STATUS", |readback| text(readback, "status")),
    column("PARAMETERS", |readback| text(readback, "parameters")),
];

/// What is asked for a checkpoint.
pub(super) struct Asked {
    pub(super) operation: OperationType,
    /// The provider's id.
    pub(super) provider: String,
    pub(super) checkpoint: Value,
    /// As given with --parameters.
    pub(super) parameters: Option<String>,
    /// Options that become parameters, by the parameter's name.
    pub(super) wishes: BTreeMap<&'static str, Value>,
    pub(super) accept_unsealed: bool,
    /// What is worked on, for messages.
    pub(super) label: String,
    pub(super) wait: WaitOptions,
}

impl ReadbackCommand {
    pub(crate) async fn run(
        self,
        session: &mut Session,
        operation: OperationType,
    ) -> Result<(), CliError> {
        match self {
            Self::Create {
                checkpoint,
                provider,
                data,
                percent,
                accept_unsealed,
                parameters,
                wait,
            } => {
                let mut wishes = BTreeMap::new();
                if data {
                    wishes.insert("level", json!("data"));
                }
                if let Some(percent) = percent {
                    wishes.insert("percent", json!(percent));
                }
                let (provider, checkpoint) = session
                    .client
                    .checkpoint(&checkpoint, provider.as_deref())
                    .await?;
                let asked = Asked {
                    operation,
                    provider,
                    label: string(&checkpoint["protection_plan"], "name").to_owned(),
                    checkpoint,
                    parameters,
                    wishes,
                    accept_unsealed,
                    wait,
                };
                asked.ask(session).await
            }
            Self::List { status, list: page } => list(session, operation, status, page).await,
            Self::Show { id } => show(session, operation, &id).await,
        }
    }
}

impl Asked {
    /// Asks for it, and tells how it goes.
    pub(super) async fn ask(self, session: &mut Session) -> Result<(), CliError> {
        let names = names(self.operation)?;
        let mut parameters = match &self.parameters {
            Some(text) => json_object("--parameters", text)?,
            None => json!({}),
        };
        if !self.wishes.is_empty() {
            let graph = report::graph(&self.checkpoint).unwrap_or_default();
            let found = session.client.provider(&self.provider).await?;
            let schemas = &found["extended_info_schema"][names.schema];
            wishes::grant(&mut parameters, &self.wishes, &graph, schemas)?;
        }
        let id = string(&self.checkpoint, "id").to_owned();
        let mut asked = json!({
            "provider_id": self.provider, "checkpoint_id": id, "parameters": parameters,
        });
        if self.accept_unsealed {
            asked["accept_unsealed"] = Value::Bool(true);
        }
        let body = json!({ names.one: asked });
        let mut answer = session.client.post(&[names.many], &body).await?;
        let readback = answer[names.one].take();
        let job = Job {
            operation: self.operation,
            label: self.label,
            provider: self.provider,
            checkpoint: id,
            record: string(&readback, "id").to_owned(),
            names: report::names(&self.checkpoint),
        };
        session.started(job, readback, SHOW, self.wait).await
    }
}

/// Lists the readbacks of an operation.
pub(super) async fn list(
    session: &mut Session,
    operation: OperationType,
    status: Option<String>,
    page: ListOptions,
) -> Result<(), CliError> {
    let names = names(operation)?;
    let mut query = page.query();
    query.extend(status.map(|status| ("status", status)));
    let found = session
        .client
        .list(&[names.many], names.many, &query, page.limit)
        .await?;
    session.list(LIST, &found)
}

/// Shows one readback, and what became of each resource.
pub(super) async fn show(
    session: &mut Session,
    operation: OperationType,
    id: &str,
) -> Result<(), CliError> {
    let names = names(operation)?;
    let answer = session.client.get(&[names.many, id]).await?;
    let readback = &answer[names.one];
    session.show(SHOW, readback)?;
    session.waiting_run(readback).await?;
    session.by_resource(readback).await
}

fn names(operation: OperationType) -> Result<ReadbackNames, CliError> {
    let names = operation.readback();
    names.ok_or_else(|| CliError::usage(format!("{operation} leaves no record of its own")))
}
