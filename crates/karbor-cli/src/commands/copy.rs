//! `karbor checkpoint copy`.
//!
//! The service answers with what it has begun to copy. What it could not begin then it tells when it is
//! asked again, so it is asked until it has begun nothing more: its answer is empty, or an error.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use karbor_model::OperationType;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::checkpoint::copy_info;
use crate::{
    arguments::{WaitOptions, json_object},
    error::{CliError, Exit},
    output::{Column, column, string, text},
    session::Session,
    wait::{Job, wait},
};

/// What to copy.
#[derive(Debug, Clone, Args)]
pub struct CopyArguments {
    /// Name or id of the plan whose checkpoints are copied into the provider's second bank (copy_bank)
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

const AGAIN: &str = "mend the cause and copy again: what is copied already is not copied twice";

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
        let mut copies = Copies {
            provider,
            plan: string(&plan, "id").to_owned(),
            body: json!({"copy": {"plan_id": plan["id"], "parameters": parameters}}),
            wait: self.wait.wait,
            until: self.wait.timeout.map(|time| Instant::now() + time),
            answer: Value::Null,
            pairs: Vec::new(),
            failed: Vec::new(),
        };
        let ended = copies.all(session).await;
        if copies.answer.is_null() {
            return ended;
        }
        copies.tell(session, ended).await
    }
}

/// What is to be copied, and what became of it so far.
struct Copies {
    provider: String,
    plan: String,
    body: Value,
    wait: bool,
    until: Option<Instant>,
    /// The service's first answer.
    answer: Value,
    /// What it has begun: sources and copies, with the status once they ended.
    pairs: Vec<Value>,
    /// Why copies failed.
    failed: Vec<String>,
}

impl Copies {
    /// Copies until nothing is left, something failed, or the time is over.
    async fn all(&mut self, session: &mut Session) -> Result<(), CliError> {
        loop {
            let mut begun = self.begin(session).await?;
            if begun.is_empty() && self.wait {
                begun = self.under_way(session).await?;
            }
            if begun.is_empty() {
                return Ok(());
            }
            let first = self.pairs.len();
            let sources: BTreeSet<_> = self.pairs.iter().map(source).collect();
            // Its copy is no copy any more; asking on would make another and another.
            let again = begun.iter().filter(|pair| sources.contains(source(pair)));
            let again: Vec<_> = again
                .map(|pair| {
                    format!(
                        "checkpoint {}\n  its copy failed, another has begun",
                        source(pair)
                    )
                })
                .collect();
            self.failed.extend(again);
            self.pairs.extend(begun);
            if self.wait {
                self.follow(session, first).await?;
            }
            if !self.failed.is_empty() {
                return Ok(());
            }
        }
    }

    /// Asks the service to begin.
    async fn begin(&mut self, session: &Session) -> Result<Vec<Value>, CliError> {
        let path = ["providers", &self.provider, "checkpoints", "action"];
        let mut answer = match session.client.post(&path, &self.body).await {
            Ok(mut answer) => answer["copy"].take(),
            Err(error) if self.pairs.is_empty() => return Err(error),
            // Part of what was asked for is done.
            Err(error) => {
                return Err(CliError {
                    exit: Exit::Failed,
                    ..error
                });
            }
        };
        let begun = answer["checkpoint_id"].as_array_mut().map(std::mem::take);
        if self.answer.is_null() {
            self.answer = answer;
        }
        Ok(begun.unwrap_or_default())
    }

    /// What somebody else has begun.
    async fn under_way(&self, session: &Session) -> Result<Vec<Value>, CliError> {
        let mut pairs = Found::look(self, session).await?.copies;
        let is_ours = |pair: &Value| {
            let mut ours = self.pairs.iter();
            ours.any(|ours| ours["checkpoint_copy_id"] == pair["checkpoint_copy_id"])
        };
        pairs.retain(|pair| is_under_way(pair) && !is_ours(pair));
        Ok(pairs)
    }

    /// Waits for the copies from the `first` on.
    async fn follow(&mut self, session: &mut Session, first: usize) -> Result<(), CliError> {
        for pair in &mut self.pairs[first..] {
            let job = Job {
                operation: OperationType::Copy,
                label: format!("checkpoint {}", source(pair)),
                provider: self.provider.clone(),
                checkpoint: string(pair, "checkpoint_copy_id").to_owned(),
                record: String::new(),
                names: BTreeMap::new(),
            };
            let left = self
                .until
                .map(|until| until.saturating_duration_since(Instant::now()));
            let outcome = wait(session, &job, left).await?;
            pair["status"] = outcome.record["status"].clone();
            if !outcome.ok {
                let log = outcome.log.unwrap_or_default();
                let reason = string(&log, "error_info");
                self.failed.push(format!("{}\n  {reason}", job.label));
            }
        }
        Ok(())
    }

    /// Prints what was begun, then how it ended.
    async fn tell(
        mut self,
        session: &mut Session,
        ended: Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.answer["checkpoint_id"] = Value::Array(self.pairs.clone());
        let found = Found::look(&self, session).await;
        if found.as_ref().is_ok_and(|found| found.in_same_bank) {
            let provider = session.client.provider(&self.provider).await;
            let provider =
                provider.map_or(self.provider.clone(), |one| string(&one, "name").to_owned());
            session.warn(&format!(
                "the provider {provider} names no second bank (copy_bank): the copies lie in the same bank as what \
                 they are copies of, and are lost with it"
            ))?;
        }
        let for_people = session.view.for_people();
        match &found {
            // Nothing was left: what there is shows it.
            Ok(found) if for_people && self.pairs.is_empty() && !found.copies.is_empty() => {
                session.list(COLUMNS, &found.copies)?;
            }
            _ if for_people && self.pairs.is_empty() => {}
            _ => session.rows_of(&self.answer, COLUMNS, &self.pairs)?,
        }
        let count = counted(self.pairs.len(), "copy has begun", "copies have begun");
        if let Err(error) = ended {
            let message = format!("{count}, then: {}", error.message);
            let hint = error.hint.unwrap_or_else(|| AGAIN.to_owned());
            return Err(CliError::new(error.exit, message).hint(hint));
        }
        if !self.failed.is_empty() {
            let mut told = format!("not everything was copied: {}", self.failed.join("\n"));
            if let Ok(found) = &found
                && !found.left.is_empty()
            {
                told = format!("{told}\nleft to copy: {}", found.left.join(", "));
            }
            return Err(CliError::new(Exit::Failed, told).hint(AGAIN));
        }
        let found = found?;
        if !found.left.is_empty() {
            let left = found.left.join(", ");
            let told = format!("the service copies nothing more, but these have no copy: {left}");
            return Err(CliError::new(Exit::Failed, told).hint(
                "copy again if they are new; what lies in the second bank alone is not copied",
            ));
        }
        let under_way = found
            .copies
            .iter()
            .filter(|pair| is_under_way(pair))
            .count();
        session.note(&match (under_way, found.copies.len()) {
            _ if !self.wait && !self.pairs.is_empty() => {
                format!("\n{count}, none is left to begin; `karbor checkpoint list` shows them")
            }
            (0, 0) => "the plan has no available checkpoint that could be copied".to_owned(),
            (0, _) => "\nevery available checkpoint of the plan is copied".to_owned(),
            (under_way, _) => format!(
                "\nevery available checkpoint of the plan is copied or being copied ({under_way} now)"
            ),
        })
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn source(pair: &Value) -> &str {
    string(pair, "checkpoint_protect_id")
}

fn is_under_way(pair: &Value) -> bool {
    matches!(string(pair, "status"), "wait_copying" | "copying")
}

/// What the list of a plan's checkpoints tells of copies.
struct Found {
    /// Copies that are whole or under way, in the form of the service's answer to a copy.
    copies: Vec<Value>,
    /// Available checkpoints that are neither copies nor copied.
    left: Vec<String>,
    /// Does a copy lie in the bank of what it is a copy of?
    in_same_bank: bool,
}

impl Found {
    async fn look(copies: &Copies, session: &Session) -> Result<Self, CliError> {
        let path = ["providers", &copies.provider, "checkpoints"];
        let query = [("plan_id", copies.plan.clone())];
        let all = session
            .client
            .list(&path, "checkpoints", &query, None)
            .await?;
        let pair = |checkpoint: &Value| {
            let pair = json!({
                "checkpoint_protect_id": copy_info(checkpoint)["copied_from"],
                "checkpoint_copy_id": checkpoint["id"],
                "status": checkpoint["status"],
            });
            let counts =
                is_under_way(&pair) || matches!(string(&pair, "status"), "available" | "finished");
            (counts && pair["checkpoint_protect_id"].is_string()).then_some(pair)
        };
        let copies: Vec<_> = all.iter().filter_map(pair).collect();
        let in_same_bank = all.iter().any(|checkpoint| {
            copy_info(checkpoint)["same_bank"] == Value::Bool(true) && pair(checkpoint).is_some()
        });
        let copied: BTreeSet<_> = copies.iter().map(source).collect();
        let left = all.iter().filter(|checkpoint| {
            string(checkpoint, "status") == "available"
                && copy_info(checkpoint).is_null()
                && !copied.contains(string(checkpoint, "id"))
        });
        let left = left.map(|checkpoint| string(checkpoint, "id").to_owned());
        Ok(Self {
            left: left.collect(),
            copies,
            in_same_bank,
        })
    }
}
