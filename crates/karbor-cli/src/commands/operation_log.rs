//! `karbor operation-log`.

use clap::Subcommand;
use serde_json::Value;

use crate::{
    arguments::ListOptions,
    error::CliError,
    output::{Column, column, string, text, time, unpacked},
    session::Session,
    waiting,
};

/// The operation log.
#[derive(Debug, Clone, Subcommand)]
pub enum OperationLogCommand {
    /// What was done, newest first
    List {
        /// Of this plan only: name or id
        #[arg(long, value_name = "NAME|ID")]
        plan: Option<String>,
        /// Of this operation only
        #[arg(long, value_parser = ["protect", "restore", "verify", "copy", "delete"])]
        operation: Option<String>,
        /// Of this checkpoint only
        #[arg(long, value_name = "ID")]
        checkpoint: Option<String>,
        /// Of this restore only
        #[arg(long, value_name = "ID")]
        restore: Option<String>,
        /// Of this status only, e.g. available, success, error, fail, missed, protecting, in_progress
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One operation: progress, reports, reasons
    Show {
        /// Id
        operation_log: String,
    },
}

const LIST: &[Column] = &[
    column("ID", |log| text(log, "id")),
    column("OPERATION", |log| text(log, "operation_type")),
    column("STATUS", status),
    column("STARTED", |log| time(log, "started_at")),
    column("ENDED", |log| time(log, "ended_at")),
    column("CHECKPOINT", |log| text(log, "checkpoint_id")),
];

const SHOW: &[Column] = &[
    column("ID", |log| text(log, "id")),
    column("OPERATION", |log| text(log, "operation_type")),
    column("STATUS", status),
    column("STARTED", |log| time(log, "started_at")),
    column("ENDED", |log| time(log, "ended_at")),
    column("CHECKPOINT", |log| text(log, "checkpoint_id")),
    column("PLAN", |log| text(log, "plan_id")),
    column("RESTORE", |log| text(log, "restore_id")),
    column("ERRORS", |log| text(log, "error_info")),
    column("DETAILS", details),
];

fn status(log: &Value) -> String {
    match waiting::reason(log) {
        Some(_) => format!("{}, waiting", text(log, "status")),
        None => text(log, "status"),
    }
}

/// JSON text is laid out, so that it can be read.
fn details(log: &Value) -> String {
    match unpacked(&log["extra_info"]) {
        Value::Null => text(log, "extra_info"),
        value => format!("{value:#}"),
    }
}

impl OperationLogCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List {
                plan,
                operation,
                checkpoint,
                restore,
                status,
                list,
            } => {
                let plan = match plan {
                    Some(plan) => Some(string(&session.client.plan(&plan).await?, "id").to_owned()),
                    None => None,
                };
                let filters = [
                    ("plan_id", plan),
                    ("operation_type", operation),
                    ("checkpoint_id", checkpoint),
                    ("restore_id", restore),
                    ("status", status),
                ];
                let mut query = list.query();
                query.extend(
                    filters
                        .into_iter()
                        .filter_map(|(key, value)| Some((key, value?))),
                );
                let logs = session
                    .client
                    .list(&["operation_logs"], "operation_logs", &query, list.limit)
                    .await?;
                session.list(LIST, &logs)
            }
            Self::Show { operation_log } => {
                let answer = session
                    .client
                    .get(&["operation_logs", &operation_log])
                    .await?;
                session.show(SHOW, &answer["operation_log"])
            }
        }
    }
}
