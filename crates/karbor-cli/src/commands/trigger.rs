//! `karbor trigger`.

use chrono::{NaiveDateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::when::When;
use crate::{
    arguments::{ListOptions, json_object},
    error::CliError,
    output::{Column, column, string, text},
    session::Session,
};

/// Triggers.
#[derive(Debug, Clone, Subcommand)]
pub enum TriggerCommand {
    /// Make a trigger
    Create(CreateArguments),
    /// The triggers
    List {
        /// In whose name this regular expression is found
        #[arg(long)]
        name: Option<String>,
        /// Of this type only
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One trigger
    Show {
        /// Name or id
        trigger: String,
    },
    /// Change a trigger; what is not given stays
    Update(UpdateArguments),
    /// Delete triggers that no scheduled operation uses
    Delete {
        /// Names or ids
        #[arg(required = true)]
        triggers: Vec<String>,
    },
}

/// A new trigger.
#[derive(Debug, Clone, Args)]
pub struct CreateArguments {
    /// Name of the new trigger
    name: String,
    #[command(flatten)]
    when: When,
    /// More properties, or all of them, as a JSON object or @file
    #[arg(long, value_name = "JSON|@FILE")]
    properties: Option<String>,
    /// Type
    #[arg(long = "type", value_name = "TYPE", default_value = "time")]
    kind: String,
}

/// What to change of a trigger.
#[derive(Debug, Clone, Args)]
pub struct UpdateArguments {
    /// Name or id
    trigger: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    when: When,
    /// More properties, or all of them, as a JSON object or @file
    #[arg(long, value_name = "JSON|@FILE")]
    properties: Option<String>,
}

const LIST: &[Column] = &[
    column("NAME", |trigger| text(trigger, "name")),
    column("ID", |trigger| text(trigger, "id")),
    column("TYPE", |trigger| text(trigger, "type")),
    column("PATTERN", pattern),
];

const SHOW: &[Column] = &[
    column("NAME", |trigger| text(trigger, "name")),
    column("ID", |trigger| text(trigger, "id")),
    column("TYPE", |trigger| text(trigger, "type")),
    column("FORMAT", |trigger| text(&trigger["properties"], "format")),
    column("PATTERN", |trigger| text(&trigger["properties"], "pattern")),
    column("START", |trigger| {
        text(&trigger["properties"], "start_time")
    }),
    column("END", |trigger| text(&trigger["properties"], "end_time")),
    column("WINDOW", |trigger| text(&trigger["properties"], "window")),
];

/// A crontab, or what a calendar says of recurrence.
pub(super) fn pattern(trigger: &Value) -> String {
    let pattern = text(&trigger["properties"], "pattern");
    let rules: Vec<_> = pattern
        .lines()
        .filter_map(|line| line.trim().strip_prefix("RRULE:"))
        .collect();
    match rules.as_slice() {
        [] => pattern,
        rules => rules.join(" + "),
    }
}

impl TriggerCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        match self {
            Self::Create(arguments) => {
                let CreateArguments {
                    name,
                    when,
                    properties,
                    kind,
                } = arguments;
                let properties = gather(&when, properties.as_deref())?;
                if !properties.contains_key("pattern") {
                    return Err(CliError::usage("when?").hint(
                        "give --hourly, --daily, --weekly, --monthly, --cron or --calendar",
                    ));
                }
                let trigger = create(session, &name, &kind, properties).await?;
                session.show(SHOW, &trigger)
            }
            Self::List { name, kind, list } => {
                let mut query = list.query();
                query.extend(name.map(|name| ("name", name)));
                query.extend(kind.map(|kind| ("type", kind)));
                let triggers = session
                    .client
                    .list(&["triggers"], "triggers", &query, list.limit)
                    .await?;
                session.list(LIST, &triggers)
            }
            Self::Show { trigger } => {
                let trigger = session.client.trigger(&trigger).await?;
                session.show(SHOW, &trigger)
            }
            Self::Update(arguments) => arguments.run(session).await,
            Self::Delete { triggers } => {
                for wanted in &triggers {
                    let trigger = session.client.trigger(wanted).await?;
                    session
                        .client
                        .delete(&["triggers", string(&trigger, "id")])
                        .await?;
                    session.note(&format!("trigger {} deleted", string(&trigger, "name")))?;
                }
                Ok(())
            }
        }
    }
}

impl UpdateArguments {
    async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let changes = gather(&self.when, self.properties.as_deref())?;
        if self.name.is_none() && changes.is_empty() {
            return Err(CliError::usage("nothing to change")
                .hint("give --name, --properties, or when it is to fire"));
        }
        let trigger = session.client.trigger(&self.trigger).await?;
        let trigger = update(session, &trigger, self.name, changes).await?;
        session.show(SHOW, &trigger)
    }
}

/// Changes a trigger; properties that are not given stay.
async fn update(
    session: &Session,
    trigger: &Value,
    name: Option<String>,
    changes: Map<String, Value>,
) -> Result<Value, CliError> {
    let mut body = Map::new();
    if let Some(name) = name {
        body.insert("name".to_owned(), name.into());
    }
    if !changes.is_empty() {
        // The API takes the properties as a whole.
        let mut properties = trigger["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        properties.extend(changes);
        body.insert("properties".to_owned(), properties.into());
    }
    put(session, trigger, &body.into()).await
}

/// A time in a trigger's properties, UTC.
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// Has a trigger fire as these properties say, and by nothing that was said of it before. Without a beginning in them
/// it has begun already, or begins now: the service wants one, and recurrence rules count from there.
pub(super) async fn replace(
    session: &Session,
    trigger: &Value,
    mut properties: Map<String, Value>,
) -> Result<Value, CliError> {
    let now = Utc::now().naive_utc();
    let begun = trigger["properties"]["start_time"].as_str();
    let begun = begun.and_then(|text| NaiveDateTime::parse_from_str(text, TIME).ok());
    let begun = begun.filter(|begun| *begun <= now).unwrap_or(now);
    let start = properties.entry("start_time");
    start.or_insert_with(|| begun.format(TIME).to_string().into());
    put(session, trigger, &json!({"properties": properties})).await
}

async fn put(session: &Session, trigger: &Value, changed: &Value) -> Result<Value, CliError> {
    let path = ["triggers", string(trigger, "id")];
    let body = json!({"trigger_info": changed});
    let mut answer = session.client.put(&path, &body).await?;
    Ok(answer["trigger_info"].take())
}

fn gather(when: &When, properties: Option<&str>) -> Result<Map<String, Value>, CliError> {
    let mut gathered = match properties {
        Some(text) => match json_object("--properties", text)? {
            Value::Object(properties) => properties,
            _ => Map::new(),
        },
        None => Map::new(),
    };
    gathered.extend(when.properties()?);
    Ok(gathered)
}

/// Asks for a trigger.
pub(super) async fn create(
    session: &Session,
    name: &str,
    kind: &str,
    properties: Map<String, Value>,
) -> Result<Value, CliError> {
    let body = json!({"trigger_info": {"name": name, "type": kind, "properties": properties}});
    let mut answer = session.client.post(&["triggers"], &body).await?;
    Ok(answer["trigger_info"].take())
}
