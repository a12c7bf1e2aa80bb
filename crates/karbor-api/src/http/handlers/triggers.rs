//! `/triggers`.

use crate::{
    compat::{
        bodies::{take, text, trigger_properties},
        body_schemas::{TRIGGER_CREATE, TRIGGER_UPDATE},
        envelope::{Answer, many, ok, one},
        views::TriggerView,
    },
    http::call::{Call, Json},
    manager::{NewTrigger, TRIGGER_FILTERS, TriggerChange},
    openapi::{Operation, delete_at, get, post, put},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/triggers", list, "trigger:list", "List triggers")
            .lists::<TriggerView<'_>>("triggers", &TRIGGER_FILTERS),
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

pub(crate) async fn list(call: Call) -> Answer {
    let query = call.list_query()?;
    let triggers = call
        .manager
        .trigger_list(call.permit()?, &query.page)
        .await?;
    let last = triggers.last().map(|trigger| trigger.id);
    let next = call.next(&query, "triggers", triggers.len(), last);
    many("triggers", triggers.iter().map(TriggerView::from), next)
}

pub(crate) async fn create(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&TRIGGER_CREATE)?;
    let mut info = take(&mut body, "trigger_info");
    let new = NewTrigger {
        name: text(&mut info, "name").unwrap_or_default(),
        trigger_type: text(&mut info, "type").unwrap_or_default(),
        properties: trigger_properties(&mut info).unwrap_or_default(),
    };
    let trigger = call.manager.trigger_create(call.permit()?, new).await?;
    one("trigger_info", &TriggerView::from(&trigger))
}

pub(crate) async fn show(call: Call) -> Answer {
    let id = call.member_id("trigger")?;
    let trigger = call.manager.trigger_get(call.caller(), id).await?;
    one("trigger_info", &TriggerView::from(&trigger))
}

pub(crate) async fn update(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&TRIGGER_UPDATE)?;
    let mut info = take(&mut body, "trigger_info");
    let change = TriggerChange {
        name: text(&mut info, "name"),
        trigger_type: text(&mut info, "type"),
        properties: trigger_properties(&mut info).filter(|given| !given.is_empty()),
    };
    let id = call.member_id("trigger")?;
    let trigger = call
        .manager
        .trigger_update(call.caller(), id, change)
        .await?;
    one("trigger_info", &TriggerView::from(&trigger))
}

pub(crate) async fn delete(call: Call) -> Answer {
    let id = call.member_id("trigger")?;
    call.manager.trigger_delete(call.caller(), id).await?;
    Ok(ok(Vec::new()))
}
