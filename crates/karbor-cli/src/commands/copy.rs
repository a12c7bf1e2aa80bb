//! `karbor checkpoint copy`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    arguments::{WaitOptions, json_object},
    error::{CliError, Exit},
    output::{Column, column, string, text},
    session::Session,
    wait::{Job, Operation, wait},
};

/// What to copy.
#[derive(Debug, Clone, Args)]
pub struct CopyArguments {
    /// Name or id of the plan whose checkpoints are copied into the provider's second bank
    plan: String,
    /// Provider that they were made with [default: the plan's]
    #[arg(long, value_name = "NAME|ID")]
    provider: Option<String>,
    /// Parameters by resource type, as a JSON object or @file
    #[arg(long, value_name = "JSON|@FILE")]
    parameters: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
}

const COLUMNS: &[Column] = &[
    column("CHECKPOINT", |pair| text(pair, "checkpoint_protect_id")),
    column("COPY", |pair| text(pair, "checkpoint_copy_id")),
    column("STATUS", |pair| text(pair, "status")),
];

impl CopyArguments {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let plan = session.client.plan(&self.plan).await?;
        let provider = match &self.provider {
            Some(wanted) => string(&session.client.provider(wanted).await?, "id").to_owned(),
            None => string(&plan, "provider_id").to_owned(),
        };
        let parameters = match &self.parameters {
            Some(text) => json_object("--parameters", text)?,
            None => json!({}),
        };
        let body = json!({"copy": {"plan_id": plan["id"], "parameters": parameters}});
        let path = ["providers", provider.as_str(), "checkpoints", "action"];
        let mut copy = session.client.post(&path, &body).await?["copy"].take();
        let mut pairs = copy["checkpoint_id"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if pairs.is_empty() {
            return session.rows_of(&copy, COLUMNS, &pairs);
        }
        let mut failed = Vec::new();
        if self.wait.wait {
            for pair in &mut pairs {
                let job = Job {
                    operation: Operation::Copy,
                    label: format!("checkpoint {}", string(pair, "checkpoint_protect_id")),
                    provider: provider.clone(),
                    checkpoint: string(pair, "checkpoint_copy_id").to_owned(),
                    record: String::new(),
                    names: BTreeMap::new(),
                };
                let outcome = wait(session, &job, self.wait.timeout).await?;
                pair["status"] = outcome.record["status"].clone();
                if !outcome.ok {
                    let log = outcome.log.unwrap_or_default();
                    failed.push(format!("{}\n  {}", job.label, string(&log, "error_info")));
                }
            }
            copy["checkpoint_id"] = Value::Array(pairs.clone());
        }
        session.rows_of(&copy, COLUMNS, &pairs)?;
        if failed.is_empty() {
            return Ok(());
        }
        let told = format!("not everything was copied: {}", failed.join("\n"));
        Err(CliError::new(Exit::Failed, told)
            .hint("mend the cause and copy again: what is copied already is not copied twice"))
    }
}
