//! `/triggers`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value};

use super::{
    envelope::{Answer, many, ok, one},
    extract::{Call, Json},
    openapi::{Operation, delete_at, get, post, put},
    plans::{take, text},
    python,
    schema::{TRIGGER_CREATE, TRIGGER_UPDATE},
    views::TriggerView,
};
use crate::{
    ApiManager,
    manager::{NewTrigger, TriggerChange},
};

const FILTERS: [&str; 4] = ["id", "name", "type", "properties"];

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/triggers", list, "trigger:list", "List triggers")
            .lists::<TriggerView<'_>>("triggers", &FILTERS),
        post("/triggers", create, "trigger:create", "Create a trigger")
            .takes(&TRIGGER_CREATE)
            .gives::<TriggerView<'_>>("trigger_info"),
        get("/triggers/{id}", show, "trigger:get", "Show a trigger")
            .gives::<TriggerView<'_>>("trigger_info"),
        put(
            "/triggers/{id}",
            update,
            "trigger:update",
            "Change a trigger",
        )
        .takes(&TRIGGER_UPDATE)
        .gives::<TriggerView<'_>>("trigger_info"),
        delete_at(
            "/triggers/{id}",
            delete,
            "trigger:delete",
            "Delete a trigger",
        ),
    ]
}

pub(crate) async fn list(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    let wanted = query.for_db(&call.context, &FILTERS, true);
    let triggers = manager.trigger_list(&call.context, wanted.as_ref()).await?;
    let last = triggers.last().map(|trigger| trigger.id);
    let next = call.next(&query, "triggers", triggers.len(), last);
    many("triggers", triggers.iter().map(TriggerView::from), next)
}

pub(crate) async fn create(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&TRIGGER_CREATE)?;
    let mut info = take(&mut body, "trigger_info");
    let new = NewTrigger {
        name: text(&mut info, "name").unwrap_or_default(),
        trigger_type: text(&mut info, "type").unwrap_or_default(),
        properties: properties(&mut info).unwrap_or_default(),
    };
    let trigger = manager.trigger_create(&call.context, new).await?;
    one("trigger_info", &TriggerView::from(&trigger))
}

pub(crate) async fn show(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("trigger")?;
    let trigger = manager.trigger_get(&call.context, id).await?;
    one("trigger_info", &TriggerView::from(&trigger))
}

pub(crate) async fn update(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&TRIGGER_UPDATE)?;
    let mut info = take(&mut body, "trigger_info");
    let change = TriggerChange {
        name: text(&mut info, "name"),
        trigger_type: text(&mut info, "type"),
        properties: properties(&mut info).filter(|given| !given.is_empty()),
    };
    let id = call.member_id("trigger")?;
    let trigger = manager.trigger_update(&call.context, id, change).await?;
    one("trigger_info", &TriggerView::from(&trigger))
}

pub(crate) async fn delete(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("trigger")?;
    manager.trigger_delete(&call.context, id).await?;
    Ok(ok(Vec::new()))
}

/// Properties are kept as texts: a window goes in as a number and comes out as a text (Q31).
fn properties(info: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    let Some(Value::Object(given)) = info.remove("properties") else {
        return None;
    };
    let texts = given
        .into_iter()
        .map(|(key, value)| (key, python::parameter(value)));
    Some(texts.collect())
}
