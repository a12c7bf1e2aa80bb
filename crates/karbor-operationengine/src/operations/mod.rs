//! What scheduled operations do with checkpoints, a file for each; here what they share: which checkpoints there are.

mod delete;
mod protect;
mod readback;

use std::collections::BTreeMap;

use chrono::DateTime;
use karbor_model::{ApiError, Checkpoint, CheckpointStatus, RequestContext, ScheduledOperationId};

use crate::{definition::Definition, retention::Candidate, runner::Runner};

/// Checkpoints of one page.
const PAGE: usize = 500;

impl Runner {
    /// The available checkpoints of the plan that scheduled operations made, or one of them.
    async fn candidates(
        &self,
        context: &RequestContext,
        definition: &Definition,
        made_by: Option<ScheduledOperationId>,
    ) -> Result<Vec<Candidate>, ApiError> {
        let checkpoints = self.available(context, definition).await?;
        let made = checkpoints.iter().filter(|checkpoint| {
            let info = checkpoint.info();
            info.is_scheduled()
                && made_by.is_none_or(|id| info.scheduled_operation_id() == Some(id))
        });
        Ok(made.map(candidate).collect())
    }

    /// Every available checkpoint of the plan, in its project.
    async fn available(
        &self,
        context: &RequestContext,
        definition: &Definition,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        let filters = BTreeMap::from([
            ("plan_id".to_owned(), definition.plan_id.to_string()),
            ("status".to_owned(), CheckpointStatus::Available.to_string()),
        ]);
        let mut all: Vec<Checkpoint> = Vec::new();
        loop {
            let marker = all.last().map(|checkpoint| checkpoint.id);
            let page = self.engine.protection.list_checkpoints(
                context,
                definition.provider_id,
                marker,
                Some(PAGE),
                Vec::new(),
                Vec::new(),
                filters.clone(),
                false,
            );
            let page = page.await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                break;
            }
        }
        // An original service leaves filters aside (Q25).
        all.retain(|checkpoint| {
            checkpoint.status == CheckpointStatus::Available
                && checkpoint.project_id == self.operation.project_id
                && checkpoint.protection_plan.id == definition.plan_id
        });
        Ok(all)
    }

    async fn check_plan(&self, definition: &Definition) -> Result<(), ApiError> {
        let plan = self.engine.stores.plans.get(definition.plan_id).await?;
        definition.check_plan(&self.operation, &plan)
    }
}

/// A checkpoint as retention sees it.
fn candidate(checkpoint: &Checkpoint) -> Candidate {
    Candidate {
        id: checkpoint.id,
        created_at: DateTime::from_timestamp(checkpoint.timestamp, 0).unwrap_or_default(),
        flawed: checkpoint.info().is_flawed(),
    }
}
