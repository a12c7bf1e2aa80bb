//! Readbacks: restores and verifications.
//!
//! One is recorded before the protection manager is asked for it, so that nothing runs unrecorded. What was refused
//! stays recorded as failed, with the reason beside the checkpoint it was about (Q28), and in the operation log;
//! nothing refused stays `in_progress` (Q63).

use std::collections::BTreeMap;

use karbor_db::DbError;
use karbor_model::{
    ApiError, CheckpointId, ErrorKind, OperationLog, OperationLogId, OperationType, Parameters,
    ProviderId, Readback, ReadbackId, ReadbackStatus, RequestContext,
};
use serde_json::{Map, Value};

use super::{
    ApiManager,
    tenancy::{UnknownFilters, scoped},
};
use crate::{
    page::Page,
    policy::{Caller, Permit},
    refusal::{RecordKind, Refusal},
};

/// A readback as a client wants it.
pub(crate) struct NewReadback {
    pub(crate) operation: OperationType,
    pub(crate) provider_id: ProviderId,
    pub(crate) checkpoint_id: CheckpointId,
    pub(crate) restore_target: Option<String>,
    pub(crate) restore_auth: Option<Map<String, Value>>,
    pub(crate) parameters: Parameters,
    pub(crate) accept_unsealed: bool,
}

/// What becomes of a readback that the protection manager did not take.
enum Fate {
    /// It is recorded as failed and the client told so in the record.
    Recorded,
    /// It is recorded as failed and the client gets the error.
    Answered,
    /// Nobody knows whether it runs: the record stays as it is and the client gets the error.
    Unknown,
}

fn fate(error: &ApiError) -> Fate {
    match error.kind {
        ErrorKind::Timeout => Fate::Unknown,
        ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::Conflict => Fate::Recorded,
        _ => Fate::Answered,
    }
}

impl ApiManager {
    /// Asks for a readback; it runs when this returns, unless the record says that it failed.
    pub(crate) async fn readback(
        &self,
        permit: Permit<'_>,
        new: NewReadback,
    ) -> Result<Readback, Refusal> {
        let context = permit.context();
        let mut readback = Readback {
            id: ReadbackId::new(),
            operation: new.operation,
            project_id: context.project_id.clone(),
            provider_id: new.provider_id,
            checkpoint_id: new.checkpoint_id,
            restore_target: new.restore_target,
            parameters: new.parameters,
            accept_unsealed: new.accept_unsealed,
            status: ReadbackStatus::InProgress,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
            created_at: self.base.clock().now(),
        };
        self.db().readback_create(&readback).await?;
        let (protection, asked) = (&self.protection, readback.clone());
        let begun = match new.operation {
            OperationType::Restore => protection.restore(context, asked, new.restore_auth).await,
            _ => protection.verification(context, asked).await,
        };
        let Err(error) = begun else {
            return Ok(readback);
        };
        let fate = fate(&error);
        if let Fate::Unknown = fate {
            return Err(Refusal::MayHaveBegun {
                what: RecordKind::Readback(readback.operation),
                id: readback.id.to_string(),
                error,
            });
        }
        let reason = error.message.clone();
        let log = self.refused(context, readback.operation, reason.clone(), |log| {
            log.id = OperationLogId(readback.id.0);
            log.readback_id = Some(readback.id);
            log.provider_id = Some(readback.provider_id);
            log.checkpoint_id = Some(readback.checkpoint_id);
        });
        self.enter_refused(context, &log).await;
        readback.status = ReadbackStatus::Fail;
        let about = format!("Checkpoint#{}", readback.checkpoint_id);
        readback.resources_reason = BTreeMap::from([(about, reason)]);
        self.readback_end(&readback).await?;
        match fate {
            Fate::Answered => Err(error.into()),
            _ => Ok(readback),
        }
    }

    /// Enters in the operation log what was refused: under the run's own id, so that it is there once when
    /// the protection manager has entered it already.
    async fn enter_refused(&self, context: &RequestContext, log: &OperationLog) {
        let db = self.db().asked_by(context);
        match db.operation_log_create(log).await {
            Ok(()) | Err(DbError::Conflict { .. }) => {}
            Err(error) => tracing::error!(%error, "a refused operation could not be logged"),
        }
    }

    /// The protection manager may have recorded the failure itself; that is as good.
    async fn readback_end(&self, ended: &Readback) -> Result<(), Refusal> {
        let (status, reason) = (&ended.resources_status, &ended.resources_reason);
        let recorded = self
            .db()
            .readback_end(ended.operation, ended.id, ended.status, status, reason)
            .await;
        match recorded {
            Ok(()) | Err(DbError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn readback_get(
        &self,
        caller: Caller<'_>,
        operation: OperationType,
        id: ReadbackId,
    ) -> Result<Readback, Refusal> {
        let readback = self.db().readback_get(operation, id).await?;
        self.may_see(caller, &readback)?;
        Ok(readback)
    }

    /// A page of an operation's readbacks; `filters` are what it can be narrowed down by.
    pub(crate) async fn readback_list(
        &self,
        permit: Permit<'_>,
        operation: OperationType,
        page: &Page,
        filters: &[&str],
    ) -> Result<Vec<Readback>, Refusal> {
        match scoped(permit.context(), page, filters, UnknownFilters::FindNothing) {
            Some(query) => Ok(self.db().readback_list(operation, &query).await?),
            None => Ok(Vec::new()),
        }
    }
}
