//! `karbor verification`.

use std::collections::BTreeMap;

use clap::Subcommand;
use karbor_model::ReadbackStatus;
use serde_json::{Value, json};

use super::wishes;
use crate::{
    arguments::{ListOptions, WaitOptions, json_object, states},
    error::CliError,
    output::{Column, column, string, text},
    report,
    session::Session,
    wait::{Job, Operation},
};

/// Verifications.
#[derive(Debug, Clone, Subcommand)]
pub enum VerificationCommand {
    /// Check that a checkpoint can be restored
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
        /// Verify it even if it has no seal: nothing then vouches for what the bank says of it
        #[arg(long)]
        accept_unsealed: bool,
        /// Parameters by resource type or type#id, as a JSON object or @file
        #[arg(long, value_name = "JSON|@FILE")]
        parameters: Option<String>,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// The verifications that were asked for
    List {
        /// Of this status only
        #[arg(long, value_parser = states(ReadbackStatus::ALL))]
        status: Option<String>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One verification
    Show {
        /// Id
        verification: String,
    },
}

const LIST: &[Column] = &[
    column("ID", |verification| text(verification, "id")),
    column("CHECKPOINT", |verification| {
        text(verification, "checkpoint_id")
    }),
    column("STATUS", |verification| text(verification, "status")),
];

const SHOW: &[Column] = &[
    column("ID", |verification| text(verification, "id")),
    column("CHECKPOINT", |verification| {
        text(verification, "checkpoint_id")
    }),
    column("PROVIDER", |verification| text(verification, "provider_id")),
    column("STATUS", |verification| text(verification, "status")),
    column("PARAMETERS", |verification| {
        text(verification, "parameters")
    }),
];

impl VerificationCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
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
                let parameters = match &parameters {
                    Some(text) => json_object("--parameters", text)?,
                    None => json!({}),
                };
                let mut wishes = BTreeMap::new();
                if data {
                    wishes.insert("level", json!("data"));
                }
                if let Some(percent) = percent {
                    wishes.insert("percent", json!(percent));
                }
                let found = session
                    .client
                    .checkpoint(&checkpoint, provider.as_deref())
                    .await?;
                let mut body = json!({"verification": {"parameters": parameters}});
                if accept_unsealed {
                    body["verification"]["accept_unsealed"] = Value::Bool(true);
                }
                create(session, found, body, &wishes, wait).await
            }
            Self::List { status, list } => {
                let mut query = list.query();
                query.extend(status.map(|status| ("status", status)));
                let verifications = session
                    .client
                    .list(&["verifications"], "verifications", &query, list.limit)
                    .await?;
                session.list(LIST, &verifications)
            }
            Self::Show { verification } => {
                let answer = session
                    .client
                    .get(&["verifications", &verification])
                    .await?;
                session.show(SHOW, &answer["verification"])?;
                session.waiting_run(&answer["verification"]).await?;
                session.by_resource(&answer["verification"]).await
            }
        }
    }
}

async fn create(
    session: &mut Session,
    (provider, checkpoint): (String, Value),
    mut body: Value,
    wishes: &BTreeMap<&str, Value>,
    wait: WaitOptions,
) -> Result<(), CliError> {
    if !wishes.is_empty() {
        let graph = report::graph(&checkpoint).unwrap_or_default();
        let found = session.client.provider(&provider).await?;
        let schemas = &found["extended_info_schema"]["verify_schema"];
        wishes::grant(
            &mut body["verification"]["parameters"],
            wishes,
            &graph,
            schemas,
        )?;
    }
    let id = string(&checkpoint, "id").to_owned();
    body["verification"]["provider_id"] = Value::from(provider.as_str());
    body["verification"]["checkpoint_id"] = Value::from(id.as_str());
    let mut answer = session.client.post(&["verifications"], &body).await?;
    let verification = answer["verification"].take();
    let job = Job {
        operation: Operation::Verify,
        label: string(&checkpoint["protection_plan"], "name").to_owned(),
        provider,
        checkpoint: id,
        record: string(&verification, "id").to_owned(),
        names: report::names(&checkpoint),
    };
    session.started(job, verification, SHOW, wait).await
}
