//! `karbor plan`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    arguments::{ListOptions, json_object},
    error::CliError,
    output::{Column, column, string, text},
    resolve::APPLICATION,
    session::Session,
};

/// Plans.
#[derive(Debug, Clone, Subcommand)]
pub enum PlanCommand {
    /// Make a plan
    Create(CreateArguments),
    /// The plans
    List {
        #[command(flatten)]
        list: ListOptions,
    },
    /// One plan and its resources
    Show {
        /// Name or id
        plan: String,
    },
    /// Change a plan
    Update(UpdateArguments),
    /// Delete plans; their checkpoints stay
    Delete {
        /// Names or ids
        #[arg(required = true)]
        plans: Vec<String>,
    },
}

/// A new plan.
#[derive(Debug, Clone, Args)]
pub struct CreateArguments {
    /// Name of the new plan
    name: String,
    /// Provider to protect with [default: the only one that protects the first resource's type]
    #[arg(long, value_name = "NAME|ID")]
    provider: Option<String>,
    /// Application to protect; may be repeated
    #[arg(long = "application", value_name = "NAME|ID")]
    applications: Vec<String>,
    /// Resource to protect, e.g. Host::Directory=uploads; may be repeated
    #[arg(long = "resource", value_name = "TYPE=NAME|ID")]
    resources: Vec<String>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// Parameters by resource type, as a JSON object or @file
    #[arg(long, value_name = "JSON|@FILE")]
    parameters: Option<String>,
}

/// What to change of a plan.
#[derive(Debug, Clone, Args)]
pub struct UpdateArguments {
    /// Name or id
    plan: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New description
    #[arg(long)]
    description: Option<String>,
    /// New status
    #[arg(long, value_parser = ["started", "suspended"])]
    status: Option<String>,
    /// Application to protect, instead of what it named before; may be repeated
    #[arg(long = "application", value_name = "NAME|ID")]
    applications: Vec<String>,
    /// Resource to protect, instead of what it named before; may be repeated
    #[arg(long = "resource", value_name = "TYPE=NAME|ID")]
    resources: Vec<String>,
}

const LIST: &[Column] = &[
    column("NAME", |plan| text(plan, "name")),
    column("ID", |plan| text(plan, "id")),
    column("STATUS", |plan| text(plan, "status")),
    column("RESOURCES", |plan| {
        let resources = plan["resources"].as_array().into_iter().flatten();
        resources
            .map(|resource| string(resource, "name"))
            .collect::<Vec<_>>()
            .join(", ")
    }),
    column("DESCRIPTION", |plan| text(plan, "description")),
];

const SHOW: &[Column] = &[
    column("NAME", |plan| text(plan, "name")),
    column("ID", |plan| text(plan, "id")),
    column("STATUS", |plan| text(plan, "status")),
    column("DESCRIPTION", |plan| text(plan, "description")),
    column("PROVIDER", |plan| text(plan, "provider_id")),
    column("PARAMETERS", |plan| text(plan, "parameters")),
];

impl PlanCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Create(arguments) => arguments.run(session).await,
            Self::List { list } => {
                let plans = session
                    .client
                    .list(&["plans"], "plans", &list.query(), list.limit)
                    .await?;
                session.list(LIST, &plans)
            }
            Self::Show { plan } => {
                let plan = session.client.plan(&plan).await?;
                show(session, &plan)
            }
            Self::Update(arguments) => arguments.run(session).await,
            Self::Delete { plans } => delete(session, &plans).await,
        }
    }
}

impl CreateArguments {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let resources = gather(session, &self.applications, &self.resources).await?;
        let parameters = match &self.parameters {
            Some(text) => json_object("--parameters", text)?,
            None => json!({}),
        };
        let mut plan = json!({"name": self.name, "resources": resources, "parameters": parameters});
        if let Some(description) = self.description {
            plan["description"] = description.into();
        }
        let plan = create(session, self.provider.as_deref(), plan).await?;
        show(session, &plan)
    }
}

impl UpdateArguments {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let mut changes = Map::new();
        let fields = [
            ("name", self.name),
            ("description", self.description),
            ("status", self.status),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                changes.insert(field.to_owned(), value.into());
            }
        }
        if !(self.applications.is_empty() && self.resources.is_empty()) {
            let resources = gather(session, &self.applications, &self.resources).await?;
            changes.insert("resources".to_owned(), resources.into());
        }
        if changes.is_empty() {
            return Err(CliError::usage("nothing to change")
                .hint("give --name, --description, --status, --application or --resource"));
        }
        let plan = session.client.plan(&self.plan).await?;
        let path = ["plans", string(&plan, "id")];
        let answer = session.client.put(&path, &json!({"plan": changes})).await?;
        show(session, &answer["plan"])
    }
}

/// Asks for a plan with the named provider, or the one that fits its first resource.
pub(super) async fn create(
    session: &Session,
    provider: Option<&str>,
    mut plan: Value,
) -> Result<Value, CliError> {
    let kind = string(&plan["resources"][0], "type").to_owned();
    let provider = session.client.provider_for(provider, &kind).await?;
    plan["provider_id"] = provider["id"].clone();
    let mut answer = session
        .client
        .post(&["plans"], &json!({"plan": plan}))
        .await?;
    Ok(answer["plan"].take())
}

/// The resources that were named on the command line, as a plan wants them.
async fn gather(
    session: &Session,
    applications: &[String],
    resources: &[String],
) -> Result<Vec<Value>, CliError> {
    let mut gathered = Vec::new();
    for application in applications {
        gathered.push(of_plan(
            &session.client.instance(APPLICATION, application).await?,
        ));
    }
    for resource in resources {
        if resource.starts_with('{') {
            gathered.push(json_object("--resource", resource)?);
            continue;
        }
        let Some((kind, wanted)) = resource.split_once('=') else {
            return Err(CliError::usage(format!("--resource {resource}: there is no '='"))
                .hint("write it like Host::Directory=uploads; `karbor protectable list` has the types"));
        };
        gathered.push(of_plan(&session.client.instance(kind, wanted).await?));
    }
    if gathered.is_empty() {
        return Err(CliError::usage("a plan needs something to protect").hint(
            "give --application or --resource; `karbor application list` shows what there is",
        ));
    }
    Ok(gathered)
}

/// A protectable's resource as a plan names it.
pub(super) fn of_plan(instance: &Value) -> Value {
    json!({"id": instance["id"], "type": instance["type"], "name": instance["name"]})
}

fn show(session: &mut Session, plan: &Value) -> Result<(), CliError> {
    session.show(SHOW, plan)?;
    let rows = plan["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|resource| {
            ["type", "name", "id"]
                .map(|field| text(resource, field))
                .to_vec()
        })
        .collect();
    session.more("Resources", vec!["TYPE", "NAME", "ID"], rows)
}

async fn delete(session: &mut Session, plans: &[String]) -> Result<(), CliError> {
    for wanted in plans {
        let plan = session.client.plan(wanted).await?;
        session
            .client
            .delete(&["plans", string(&plan, "id")])
            .await?;
        session.note(&format!(
            "plan {} deleted; its checkpoints stay",
            string(&plan, "name")
        ))?;
    }
    Ok(())
}
