//! `karbor quota` and `karbor quota-class`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    error::CliError,
    output::{Column, column, text},
    session::Session,
};

/// Quotas.
#[derive(Debug, Clone, Subcommand)]
pub enum QuotaCommand {
    /// A project's limits
    Show {
        /// Id of the project [default: your own]
        #[arg(alias = "tenant")]
        of: Option<String>,
        /// What is used and reserved, too
        #[arg(long)]
        detail: bool,
    },
    /// The limits of a project that has none of its own
    #[command(alias = "default")]
    Defaults {
        /// Id of the project [default: your own]
        of: Option<String>,
    },
    /// Set a project's limits (administrators)
    Update {
        /// Id of the project
        of: String,
        #[command(flatten)]
        limits: Limits,
        /// The quota class whose limits hold where the project has none of its own
        #[arg(long)]
        class: Option<String>,
        /// Take it out of its quota class
        #[arg(long, conflicts_with = "class")]
        no_class: bool,
    },
    /// Give a project the default limits again (administrators)
    Delete {
        /// Id of the project
        of: String,
    },
}

/// Quota classes.
#[derive(Debug, Clone, Subcommand)]
pub enum QuotaClassCommand {
    /// A class's limits
    Show {
        /// Name of the class
        #[arg(default_value = "default")]
        class: String,
    },
    /// Set a class's limits (administrators)
    Update {
        /// Name of the class
        class: String,
        #[command(flatten)]
        limits: Limits,
    },
}

/// New limits.
#[derive(Debug, Clone, Args)]
pub struct Limits {
    /// How many plans; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    plans: Option<i64>,
    /// How many checkpoints; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    checkpoints: Option<i64>,
    /// How many bytes its checkpoints may add to the banks; -1 is no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    bytes: Option<i64>,
}

impl Limits {
    fn body(self) -> Map<String, Value> {
        let limits = [
            ("plans", self.plans),
            ("checkpoints", self.checkpoints),
            ("bytes", self.bytes),
        ];
        let given = limits.into_iter();
        given
            .filter_map(|(name, limit)| Some((name.to_owned(), limit?.into())))
            .collect()
    }
}

/// Refuses to ask for nothing.
fn given(body: Map<String, Value>) -> Result<Map<String, Value>, CliError> {
    if body.is_empty() {
        return Err(CliError::usage("nothing to change")
            .hint("give --plans, --checkpoints or --bytes; a project may have a --class too"));
    }
    Ok(body)
}

const LIMITS: &[Column] = &[
    column("RESOURCE", |quota| text(quota, "resource")),
    column("LIMIT", |quota| limit(&quota["limit"])),
];

const DETAIL: &[Column] = &[
    column("RESOURCE", |quota| text(quota, "resource")),
    column("LIMIT", |quota| limit(&quota["limit"])),
    column("IN USE", |quota| text(quota, "in_use")),
    column("RESERVED", |quota| text(quota, "reserved")),
];

fn limit(value: &Value) -> String {
    match value.as_i64() {
        Some(..0) => "no limit".to_owned(),
        _ => crate::output::plain(value),
    }
}

impl QuotaCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Show { of, detail } => {
                let of = of.unwrap_or_else(|| session.client.project().to_owned());
                let mut path = vec!["quotas", of.as_str()];
                if detail {
                    path.push("detail");
                }
                let answer = session.client.get(&path).await?;
                let columns = if detail { DETAIL } else { LIMITS };
                show(session, columns, &answer["quota"])
            }
            Self::Defaults { of } => {
                let of = of.unwrap_or_else(|| session.client.project().to_owned());
                let answer = session.client.get(&["quotas", &of, "defaults"]).await?;
                show(session, LIMITS, &answer["quota"])
            }
            Self::Update {
                of,
                limits,
                class,
                no_class,
            } => {
                let mut wanted = limits.body();
                match class {
                    Some(class) => wanted.insert("class".to_owned(), class.into()),
                    None if no_class => wanted.insert("class".to_owned(), Value::Null),
                    None => None,
                };
                let body = json!({"quota": given(wanted)?});
                let answer = session.client.put(&["quotas", &of], &body).await?;
                show(session, LIMITS, &answer["quota"])
            }
            Self::Delete { of } => {
                session.client.delete(&["quotas", &of]).await?;
                session.note(&format!("project {of} has the default limits again"))
            }
        }
    }
}

impl QuotaClassCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let answer = match self {
            Self::Show { class } => session.client.get(&["quota_classes", &class]).await?,
            Self::Update { class, limits } => {
                let body = json!({"quota_class": given(limits.body())?});
                session
                    .client
                    .put(&["quota_classes", &class], &body)
                    .await?
            }
        };
        show(session, LIMITS, &answer["quota_class"])
    }
}

/// A row for each resource; in JSON what the API answered.
fn show(session: &mut Session, columns: &[Column], quota: &Value) -> Result<(), CliError> {
    let limits = quota.as_object().into_iter().flatten();
    let rows: Vec<_> = limits
        .filter(|(name, _)| *name != "id")
        .map(|(name, value)| match value {
            Value::Object(detail) => {
                let mut row = detail.clone();
                row.insert("resource".to_owned(), name.as_str().into());
                Value::Object(row)
            }
            limit => json!({"resource": name, "limit": limit}),
        })
        .collect();
    session.rows_of(quota, columns, &rows)
}
