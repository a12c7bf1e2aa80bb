//! `karbor application`: the instances of the one type that newcomers need.

use clap::Subcommand;
use serde_json::Value;

use crate::{
    error::CliError,
    output::{Column, column, string, text},
    resolve::APPLICATION,
    session::Session,
};

/// Applications.
#[derive(Debug, Clone, Subcommand)]
pub enum ApplicationCommand {
    /// The applications that this project may protect
    List,
    /// One application and its components
    Show {
        /// Name or id
        application: String,
    },
}

const COLUMNS: &[Column] = &[
    column("NAME", |application| text(application, "name")),
    column("ID", |application| text(application, "id")),
    column("COMPONENTS", components),
];

/// Why a resource cannot be used, if it cannot.
pub(super) fn broken(instance: &Value) -> Option<&str> {
    instance["extra_info"]["broken"].as_str()
}

fn components(application: &Value) -> String {
    if let Some(reason) = broken(application) {
        return format!("broken: {reason}");
    }
    let names: Vec<_> = application["dependent_resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|component| string(component, "name"))
        .collect();
    names.join(", ")
}

impl ApplicationCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::List => {
                let applications = session.client.instances(APPLICATION).await?;
                session.list(COLUMNS, &applications)?;
                if applications.is_empty() {
                    session.note(
                        "declare one in applications.d of the service's state directory; the guide \
                         shows how",
                    )?;
                }
                Ok(())
            }
            Self::Show { application } => {
                let found = session.client.instance(APPLICATION, &application).await?;
                super::protectable::show(session, &found)
            }
        }
    }
}
