//! Triggers: when scheduled operations run.
//!
//! What fires is in the database. The engines check a trigger before it is recorded, and are told
//! of it after: that only makes them look sooner, so a crash in between loses nothing.

use karbor_db::DbError;
use karbor_model::{ApiError, Trigger, TriggerId};
use serde_json::{Map, Value};

use super::{
    ApiManager, UPDATE_ATTEMPTS,
    tenancy::{UnknownFilters, scoped},
};
use crate::{
    page::Page,
    policy::{Caller, Permit},
    refusal::Refusal,
};

/// What a list of triggers can be narrowed down by.
pub(crate) const TRIGGER_FILTERS: [&str; 4] = ["id", "name", "type", "properties"];

/// A trigger as a client wants it. Properties are texts.
pub(crate) struct NewTrigger {
    pub(crate) name: String,
    pub(crate) trigger_type: String,
    pub(crate) properties: Map<String, Value>,
}

/// What a client wants changed; `None` stays as it is.
pub(crate) struct TriggerChange {
    pub(crate) name: Option<String>,
    pub(crate) trigger_type: Option<String>,
    pub(crate) properties: Option<Map<String, Value>>,
}

impl ApiManager {
    pub(crate) async fn trigger_create(
        &self,
        permit: Permit<'_>,
        new: NewTrigger,
    ) -> Result<Trigger, Refusal> {
        let context = permit.context();
        let now = self.base.clock().now();
        let mut properties = new.properties;
        properties
            .entry("start_time")
            .or_insert_with(|| now.format("%Y-%m-%d %H:%M:%S").to_string().into());
        let trigger = Trigger {
            id: TriggerId::new(),
            name: new.name,
            project_id: context.project_id.clone(),
            trigger_type: new.trigger_type,
            properties,
            created_at: Some(now),
            updated_at: None,
        };
        self.engine.verify_trigger(context, trigger.clone()).await?;
        self.stores()
            .schedules
            .asked_by(context)
            .trigger_create(&trigger)
            .await?;
        heard(self.engine.create_trigger(context, trigger.clone()).await);
        Ok(trigger)
    }

    pub(crate) async fn trigger_get(
        &self,
        caller: Caller<'_>,
        id: TriggerId,
    ) -> Result<Trigger, Refusal> {
        self.trigger_for(caller, id).await
    }

    pub(crate) async fn trigger_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<Trigger>, Refusal> {
        let unknown = UnknownFilters::Ignored;
        match scoped(permit.context(), page, &TRIGGER_FILTERS, unknown) {
            Some(query) => Ok(self.stores().schedules.trigger_list(&query).await?),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) async fn trigger_update(
        &self,
        caller: Caller<'_>,
        id: TriggerId,
        change: TriggerChange,
    ) -> Result<Trigger, Refusal> {
        let context = caller.context();
        let mut attempt = 1;
        loop {
            let mut trigger = self.trigger_for(caller, id).await?;
            check_change(&trigger, &change)?;
            if change.name.is_none() && change.properties.is_none() {
                return Ok(trigger);
            }
            if let Some(name) = &change.name {
                trigger.name.clone_from(name);
            }
            if let Some(properties) = &change.properties {
                trigger.properties.clone_from(properties);
                self.engine.verify_trigger(context, trigger.clone()).await?;
            }
            match self
                .stores()
                .schedules
                .asked_by(context)
                .trigger_update(&trigger)
                .await
            {
                Err(DbError::Conflict { .. }) if attempt < UPDATE_ATTEMPTS => attempt += 1,
                stored => {
                    let stored = stored?;
                    heard(self.engine.update_trigger(context, stored.clone()).await);
                    return Ok(stored);
                }
            }
        }
    }

    pub(crate) async fn trigger_delete(
        &self,
        caller: Caller<'_>,
        id: TriggerId,
    ) -> Result<(), Refusal> {
        let context = caller.context();
        self.trigger_for(caller, id).await?;
        self.stores()
            .schedules
            .asked_by(context)
            .trigger_delete(id)
            .await
            .map_err(|error| match error {
                // Its status and its words are what clients know (Q39).
                DbError::Conflict { .. } => Refusal::TriggerIsUsed,
                other => other.into(),
            })?;
        heard(self.engine.delete_trigger(context, id).await);
        Ok(())
    }

    /// A trigger, if the caller may do what its rule names to it.
    async fn trigger_for(&self, caller: Caller<'_>, id: TriggerId) -> Result<Trigger, Refusal> {
        let trigger = self.stores().schedules.trigger_get(id).await?;
        self.may_use(caller, &trigger)?;
        Ok(trigger)
    }
}

fn check_change(trigger: &Trigger, change: &TriggerChange) -> Result<(), Refusal> {
    // The original took any type and left the trigger as it was (Q36).
    if let Some(other) = &change.trigger_type
        && *other != trigger.trigger_type
    {
        return Err(Refusal::TriggerTypeIsFixed {
            wanted: other.clone(),
        });
    }
    let start = |given: &Map<String, Value>| given.get("start_time").cloned();
    match change.properties.as_ref().map(start) {
        Some(None | Some(Value::Null)) => Err(Refusal::NoStartTime),
        Some(Some(Value::String(text))) if text.is_empty() => Err(Refusal::NoStartTime),
        _ => Ok(()),
    }
}

/// Engines that do not hear of a change find it in the database a little later.
fn heard(told: Result<(), ApiError>) {
    if let Err(error) = told {
        tracing::warn!("the operation engines were not told of a trigger: {error:?}");
    }
}
