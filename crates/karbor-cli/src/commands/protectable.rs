//! `karbor protectable`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    arguments::ListOptions,
    error::CliError,
    output::{Column, column, string, text},
    session::Session,
};

/// Protectables.
#[derive(Debug, Clone, Subcommand)]
pub enum ProtectableCommand {
    /// The types of what may be protected
    List,
    /// One type, and what resources of it depend on
    Show {
        /// e.g. Host::Directory
        #[arg(value_name = "TYPE")]
        kind: String,
    },
    /// The resources of a type
    Instances {
        /// e.g. Host::Directory
        #[arg(value_name = "TYPE")]
        kind: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One resource, and what it depends on
    Instance {
        /// e.g. Host::Directory
        #[arg(value_name = "TYPE")]
        kind: String,
        /// Name or id
        instance: String,
    },
}

const TYPES: &[Column] = &[column("TYPE", |kind| text(kind, "name"))];

const TYPE: &[Column] = &[
    column("TYPE", |kind| text(kind, "name")),
    column("DEPENDS ON", |kind| {
        let types = kind["dependent_types"].as_array().into_iter().flatten();
        types
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }),
];

const INSTANCES: &[Column] = &[
    column("NAME", |instance| text(instance, "name")),
    column("ID", |instance| text(instance, "id")),
    column("TYPE", |instance| text(instance, "type")),
];

const INSTANCE: &[Column] = &[
    column("NAME", |instance| text(instance, "name")),
    column("ID", |instance| text(instance, "id")),
    column("TYPE", |instance| text(instance, "type")),
    column("EXTRA INFO", |instance| text(instance, "extra_info")),
];

impl ProtectableCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List => {
                let types = session
                    .client
                    .list(&["protectables"], "protectable_type", &[], None)
                    .await?;
                let mut names: Vec<_> = types.iter().filter_map(Value::as_str).collect();
                names.sort_unstable();
                let rows: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
                session.list(TYPES, &rows)
            }
            Self::Show { kind } => {
                let answer = session.client.get(&["protectables", &kind]).await?;
                session.show(TYPE, &answer["protectable_type"])
            }
            Self::Instances { kind, list } => {
                let path = ["protectables", kind.as_str(), "instances"];
                let instances = session
                    .client
                    .list(&path, "instances", &list.query(), list.limit)
                    .await?;
                session.list(INSTANCES, &instances)?;
                for instance in &instances {
                    if let Some(reason) = super::application::broken(instance) {
                        session.note(&format!("{} is broken: {reason}", text(instance, "name")))?;
                    }
                }
                Ok(())
            }
            Self::Instance { kind, instance } => {
                let found = session.client.instance(&kind, &instance).await?;
                show(session, &found)
            }
        }
    }
}

/// A resource with what it depends on.
pub(super) fn show(session: &mut Session, instance: &Value) -> Result<(), CliError> {
    session.show(INSTANCE, instance)?;
    let rows = instance["dependent_resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|resource| {
            ["type", "name", "id"]
                .map(|field| string(resource, field).to_owned())
                .to_vec()
        })
        .collect();
    session.more("Depends on", vec!["TYPE", "NAME", "ID"], rows)
}
