//! Scheduled operations are taken on: checked, and noted with the trust by which each runs. What was not
//! is not run.

use karbor_db::DbError;
use karbor_model::{ApiError, ErrorKind, ScheduledOperation};

use crate::{
    definition::Definition,
    engine::{Engine, lock},
};

/// How many are looked at in one round.
const BATCH: u64 = 100;

impl Engine {
    /// Takes an operation on. Safe to repeat.
    pub(crate) async fn take_on(
        &self,
        operation: &ScheduledOperation,
        trust_id: Option<&str>,
    ) -> Result<(), ApiError> {
        self.check(operation).await?;
        self.register(operation, trust_id).await
    }

    /// Takes on what its maker had no time to announce; what is refused is removed, as its maker would
    /// have.
    pub(crate) async fn take_on_left(&self) -> Result<(), ApiError> {
        for (operation, trust_id) in self.stores.schedules.operations_unregistered(BATCH).await? {
            let id = operation.id;
            match self.check(&operation).await {
                Ok(()) => match self.register(&operation, trust_id.as_deref()).await {
                    Ok(()) => tracing::info!(operation = %id, "a scheduled operation was taken on"),
                    Err(error) => {
                        tracing::error!(operation = %id, ?error, "a scheduled operation cannot be taken on yet");
                    }
                },
                // A fault of ours or of the database says nothing against the operation.
                Err(error) if error.kind.is_retryable() || error.kind == ErrorKind::Internal => {
                    tracing::error!(operation = %id, ?error, "a scheduled operation cannot be checked yet");
                }
                Err(error) => {
                    tracing::warn!(operation = %id, ?error, "a scheduled operation is refused and removed");
                    match self.stores.schedules.operation_delete(id).await {
                        Ok(()) | Err(DbError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }

    /// What a new operation must be: understood, and on a plan and a trigger of its own project.
    async fn check(&self, operation: &ScheduledOperation) -> Result<(), ApiError> {
        let definition = Definition::parse(operation)?;
        let plan = self.stores.plans.get(definition.plan_id).await?;
        definition.check_plan(operation, &plan)?;
        let trigger = self
            .stores
            .schedules
            .trigger_get(operation.trigger_id)
            .await?;
        if trigger.project_id != operation.project_id {
            return Err(ApiError::not_found("Trigger", trigger.id));
        }
        Ok(())
    }

    async fn register(
        &self,
        operation: &ScheduledOperation,
        trust_id: Option<&str>,
    ) -> Result<(), ApiError> {
        let service = lock(&self.service_id).ok_or_else(|| {
            ApiError::unavailable(
                "The operation engine is starting. Try again.",
                "it has no service record yet",
            )
        })?;
        let registered = self
            .stores
            .schedules
            .operation_register(operation.id, service, trust_id);
        match registered.await {
            // It, or another engine, has found the operation by itself.
            Ok(()) | Err(DbError::Conflict { .. }) => Ok(()),
            Err(error) => match self.stores.services.get(service).await {
                Err(DbError::NotFound { .. }) => Err(ApiError::unavailable(
                    "The operation engine's record was removed and is made anew with its next \
                     heartbeat. Try again.",
                    error,
                )),
                _ => Err(error.into()),
            },
        }
    }
}
