//! Waiting for an operation to end.
//!
//! Whether it went well is read from the record it is about; how far it is, and why it failed, from
//! its operation log. A service that goes away meanwhile may be restarting, and will go on with the
//! operation when it is back: only [`Pace::patience`](crate::Pace) ends the wait.

use std::{collections::BTreeMap, future, io::Write as _, time::Duration};

use karbor_model::{OperationType, visible};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    Pace,
    client::Client,
    error::{CliError, Exit},
    output::string,
    progress::{Bars, Progress},
    session::Session,
    waiting,
};

/// How many more times the log is read after the record says that all is over.
const LAST_LOOKS: usize = 10;

/// A running operation.
pub(crate) struct Job {
    pub(crate) operation: OperationType,
    /// What is worked on, for messages, e.g. `shop`.
    pub(crate) label: String,
    pub(crate) provider: String,
    pub(crate) checkpoint: String,
    /// Id of the restore or verification.
    pub(crate) record: String,
    /// Names of the resources by `type#id`, as far as known beforehand.
    pub(crate) names: BTreeMap<String, String>,
}

/// How it ended.
pub(crate) struct Outcome {
    pub(crate) ok: bool,
    pub(crate) record: Value,
    pub(crate) log: Option<Value>,
}

impl Job {
    async fn look(&self, client: &Client) -> Result<Value, CliError> {
        let (path, key) = match self.operation.readback() {
            Some(names) => (vec![names.many, &self.record], names.one),
            None => (
                vec!["providers", &self.provider, "checkpoints", &self.checkpoint],
                "checkpoint",
            ),
        };
        match client.get(&path).await {
            Ok(mut answer) => Ok(answer[key].take()),
            Err(error)
                if self.operation == OperationType::Delete && error.exit == Exit::NotFound =>
            {
                Ok(Value::Null)
            }
            Err(error) => Err(error),
        }
    }

    /// Did it go well? `None` while it runs.
    fn verdict(&self, record: &Value) -> Option<bool> {
        let status = string(record, "status");
        match self.operation {
            OperationType::Protect => match status {
                "protecting" => None,
                other => Some(other == "available"),
            },
            OperationType::Copy => match status {
                "wait_copying" | "copying" => None,
                other => Some(matches!(other, "available" | "finished")),
            },
            OperationType::Delete => match status {
                "deleting" | "available" => None,
                other => Some(matches!(other, "deleted" | "")),
            },
            _ => match status {
                "in_progress" => None,
                other => Some(other == "success"),
            },
        }
    }

    /// The newest log of this operation, if it has been opened.
    async fn find_log(&self, client: &Client) -> Result<Option<Value>, CliError> {
        let filter = match self.operation {
            OperationType::Restore => ("restore_id", self.record.clone()),
            _ => ("checkpoint_id", self.checkpoint.clone()),
        };
        let logs = client
            .list(&["operation_logs"], "operation_logs", &[filter], None)
            .await?;
        Ok(logs
            .into_iter()
            .filter(|log| string(log, "operation_type") == self.operation.as_str())
            .max_by_key(|log| {
                // One of a restore or verification has its id.
                let is_own = string(log, "id") == self.record;
                (is_own, string(log, "started_at").to_owned())
            }))
    }

    async fn read_log(
        &self,
        client: &Client,
        known: Option<Value>,
    ) -> Result<Option<Value>, CliError> {
        match known {
            // One that has ended while the operation runs belongs to an earlier one.
            Some(log) if running(&log) => {
                let id = string(&log, "id");
                Ok(Some(
                    client.get(&["operation_logs", id]).await?["operation_log"].take(),
                ))
            }
            _ => self.find_log(client).await,
        }
    }

    /// How to ask how it is going, for hints.
    pub(crate) fn follow_up(&self) -> String {
        match self.operation.readback() {
            Some(names) => format!("karbor {} show {}", names.one, self.record),
            None => format!("karbor checkpoint show {}", self.checkpoint),
        }
    }

    fn goes_on(&self, exit: Exit, what: &str) -> CliError {
        CliError::new(
            exit,
            format!(
                "{what}: the {} of {} goes on",
                self.operation.as_str(),
                self.label
            ),
        )
        .hint(format!("`{}` shows how it is going", self.follow_up()))
    }
}

fn running(log: &Value) -> bool {
    matches!(
        string(log, "status"),
        "protecting" | "copying" | "deleting" | "in_progress"
    )
}

/// Waits until the operation ended, the time is over, or somebody interrupts.
pub(crate) async fn wait(
    session: &mut Session,
    job: &Job,
    timeout: Option<Duration>,
) -> Result<Outcome, CliError> {
    let label = format!("{} {}", job.operation, job.label);
    let mut bars = Bars::new(&label, session.io.bars);
    let (client, pace) = (&session.client, session.io.pace);
    let silent = session.io.bars || !session.view.for_people();
    let mut told = String::new();
    let mut tell = |reason: &str| {
        if !silent && told != reason {
            reason.clone_into(&mut told);
            // Nobody has to read it.
            let _ = writeln!(session.io.err, "{}", visible(&format!("{label}: {reason}")));
        }
    };
    let outcome = tokio::select! {
        outcome = follow(client, job, pace, &mut bars, &mut tell) => outcome,
        () = over(timeout) => Err(job.goes_on(Exit::TimedOut, "timed out waiting")),
        () = interrupted() => Err(job.goes_on(Exit::Interrupted, "interrupted")),
    };
    bars.clear();
    outcome
}

async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => future::pending().await,
    }
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        future::pending::<()>().await;
    }
}

async fn follow(
    client: &Client,
    job: &Job,
    pace: Pace,
    bars: &mut Bars,
    tell: &mut impl FnMut(&str),
) -> Result<Outcome, CliError> {
    let mut pause = pace.first;
    let mut away: Option<Instant> = None;
    let mut log = None;
    let mut last_looks = 0;
    loop {
        match look(client, job, log.clone()).await {
            Ok((record, found)) => {
                away = None;
                log = found;
                if let Some(progress) = log.as_ref().and_then(Progress::of) {
                    bars.show(&progress);
                }
                if let Some(reason) = log.as_ref().and_then(waiting::reason) {
                    bars.wait(&reason);
                    tell(&reason);
                }
                if let Some(ok) = job.verdict(&record) {
                    // The log is closed a moment later than the record, if at all.
                    if last_looks >= LAST_LOOKS || !log.as_ref().is_some_and(running) {
                        return Ok(Outcome { ok, record, log });
                    }
                    last_looks += 1;
                }
            }
            Err(error) if error.exit == Exit::Unreachable => {
                if away.get_or_insert_with(Instant::now).elapsed() >= pace.patience {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(pace.slowest);
    }
}

async fn look(
    client: &Client,
    job: &Job,
    log: Option<Value>,
) -> Result<(Value, Option<Value>), CliError> {
    // In this order: a record that is final was so before its log was read.
    let record = job.look(client).await?;
    let log = job.read_log(client, log).await?;
    Ok((record, log))
}
