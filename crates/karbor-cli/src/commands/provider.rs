//! `karbor provider`.

use clap::Subcommand;
use serde_json::Value;

use crate::{
    arguments::ListOptions,
    error::CliError,
    output::{Column, column, text},
    session::Session,
};

/// Providers.
#[derive(Debug, Clone, Subcommand)]
pub enum ProviderCommand {
    /// The providers
    List {
        #[command(flatten)]
        list: ListOptions,
    },
    /// One provider, and what may be given to its operations
    Show {
        /// Name or id
        provider: String,
    },
}

const COLUMNS: &[Column] = &[
    column("NAME", |provider| text(provider, "name")),
    column("ID", |provider| text(provider, "id")),
    column("DESCRIPTION", |provider| text(provider, "description")),
];

/// The schemas, and the operations that they are for.
const SCHEMAS: &[(&str, &str)] = &[
    ("options_schema", "protect"),
    ("restore_schema", "restore"),
    ("verify_schema", "verify"),
];

impl ProviderCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List { list } => {
                let providers = session
                    .client
                    .list(&["providers"], "providers", &list.query(), list.limit)
                    .await?;
                session.list(COLUMNS, &providers)
            }
            Self::Show { provider } => {
                let provider = session.client.provider(&provider).await?;
                session.show(COLUMNS, &provider)?;
                let rows = parameters(&provider["extended_info_schema"]);
                session.more(
                    "Resource types and their parameters",
                    vec!["TYPE", "OPERATION", "PARAMETER", "WHAT IT IS"],
                    rows,
                )
            }
        }
    }
}

/// A row for each parameter, and one for each type that takes none.
fn parameters(schemas: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let types = schemas["options_schema"].as_object();
    for kind in types.into_iter().flatten().map(|(kind, _)| kind) {
        let before = rows.len();
        for (schema, operation) in SCHEMAS {
            let properties = schemas[schema][kind]["properties"].as_object();
            for (name, property) in properties.into_iter().flatten() {
                let what = match text(property, "description") {
                    empty if empty.is_empty() => text(property, "title"),
                    description => description,
                };
                rows.push(vec![
                    kind.clone(),
                    (*operation).to_owned(),
                    name.clone(),
                    what,
                ]);
            }
        }
        if rows.len() == before {
            rows.push(vec![
                kind.clone(),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
    }
    rows
}
