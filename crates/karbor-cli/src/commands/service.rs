//! `karbor service`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    error::CliError,
    output::{Column, column, plain, string, text, time},
    session::Session,
};

/// Services.
#[derive(Debug, Clone, Subcommand)]
pub enum ServiceCommand {
    /// The services, and whether they are up
    List,
    /// One service: its health, periodic tasks and configuration, as it tells them itself
    Show {
        /// Id, binary, or binary@host
        service: String,
    },
    /// Give a service work again
    Enable {
        /// Id, binary, or binary@host
        service: String,
    },
    /// Give a service no more work
    Disable {
        /// Id, binary, or binary@host
        service: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

const COLUMNS: &[Column] = &[
    column("ID", |service| text(service, "id")),
    column("BINARY", |service| text(service, "binary")),
    column("HOST", |service| text(service, "host")),
    column("STATUS", |service| text(service, "status")),
    column("STATE", |service| text(service, "state")),
    column("LAST HEARTBEAT", |service| time(service, "updated_at")),
    column("REASON", reason),
];

/// Why it is out of service, or what else is to be known of it.
fn reason(service: &Value) -> String {
    let told = ["disabled_reason", "notice"].map(|field| text(service, field));
    told.into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

const DETAILS: &[Column] = &[
    column("ID", |service| text(service, "id")),
    column("BINARY", |service| text(service, "binary")),
    column("HOST", |service| text(service, "host")),
    column("STATUS", |service| text(service, "status")),
    column("STATE", |service| text(service, "state")),
    column("LAST HEARTBEAT", |service| time(service, "updated_at")),
    column("REASON", |service| text(service, "disabled_reason")),
    column("VERSION", |service| text(&service["health"], "version")),
    column("STARTED", |service| time(&service["health"], "started_at")),
    column("HEALTH", |service| {
        text(&service["health"]["health"], "state")
    }),
    column("BECAUSE", |service| {
        text(&service["health"]["health"], "reason")
    }),
    column("RUNNING", |service| {
        plain(&service["health"]["running_tasks"])
    }),
];

impl ServiceCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List => {
                let services = services(session).await?;
                session.list(COLUMNS, &services)
            }
            Self::Show { service } => show(session, &service).await,
            Self::Enable { service } => {
                update(session, &service, json!({"status": "enabled"})).await
            }
            Self::Disable { service, reason } => {
                let mut body = json!({"status": "disabled"});
                if let Some(reason) = reason {
                    body["disabled_reason"] = reason.into();
                }
                update(session, &service, body).await
            }
        }
    }
}

async fn services(session: &Session) -> Result<Vec<Value>, CliError> {
    session
        .client
        .list(&["os-services"], "services", &[], None)
        .await
}

async fn show(session: &mut Session, wanted: &str) -> Result<(), CliError> {
    let id = id_of(session, wanted).await?;
    let answer = session.client.get(&["os-services", &id, "detail"]).await?;
    let service = &answer["service"];
    session.show(DETAILS, service)?;
    let titles = vec!["TASK", "STATUS", "ENDED", "RUNS", "FAILURES", "DETAILS"];
    session.more("Periodic tasks", titles, tasks(&service["task_reports"]))?;
    let titles = vec!["GROUP", "OPTION", "VALUE", "FROM"];
    session.more("Configuration", titles, options(&service["config"]))
}

/// A row for each periodic task: how its last run went.
fn tasks(reports: &Value) -> Vec<Vec<String>> {
    let reports = reports.as_array().into_iter().flatten();
    reports
        .map(|report| {
            let outcome = &report["outcome"];
            let details = match text(outcome, "details") {
                empty if empty.is_empty() => text(outcome, "message"),
                details => details,
            };
            let status = text(outcome, "status");
            let (ended, runs) = (time(report, "ended_at"), text(report, "runs"));
            vec![
                text(report, "name"),
                status,
                ended,
                runs,
                text(report, "failures"),
                details,
            ]
        })
        .collect()
}

/// A row for each option: what holds, and where it came from.
fn options(config: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (group, options) in config.as_object().into_iter().flatten() {
        for (name, option) in options.as_object().into_iter().flatten() {
            let (value, source) = (text(option, "value"), text(option, "source"));
            rows.push(vec![group.clone(), name.clone(), value, source]);
        }
    }
    rows
}

async fn update(session: &mut Session, wanted: &str, body: Value) -> Result<(), CliError> {
    let id = id_of(session, wanted).await?;
    let answer = session.client.put(&["os-services", &id], &body).await?;
    session.show(COLUMNS, &answer["service"])
}

async fn id_of(session: &Session, wanted: &str) -> Result<String, CliError> {
    let services = services(session).await?;
    let is_it = |service: &&Value| {
        let (binary, host) = (string(service, "binary"), string(service, "host"));
        plain(&service["id"]) == wanted || binary == wanted || format!("{binary}@{host}") == wanted
    };
    let found: Vec<_> = services.iter().filter(is_it).collect();
    match found.as_slice() {
        [service] => Ok(plain(&service["id"])),
        [] => Err(
            CliError::not_found(format!("there is no service '{wanted}'"))
                .hint("`karbor service list` shows what there is"),
        ),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|service| format!("{}@{}", string(service, "binary"), string(service, "host")))
                .collect();
            Err(
                CliError::usage(format!("several services are named '{wanted}'"))
                    .hint(format!("use one of: {}", names.join(", "))),
            )
        }
    }
}
