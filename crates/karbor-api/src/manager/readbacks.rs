//! Readbacks: restores and verifications.
//!
//! The protection manager records them. One that it refused it has recorded as failed, with the reason beside the
//! checkpoint it was about (Q28): a client that asked for what cannot be had reads that in the record.

use std::collections::BTreeMap;

use karbor_db::DbError;
use karbor_interfaces::protection::ask_for;
use karbor_model::{
    ApiError, CheckpointId, ErrorKind, OperationType, Parameters, ProviderId, Readback, ReadbackId,
    ReadbackStatus,
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

/// Is an error about what was asked for? Then the client reads it in the record.
fn is_about_what_was_asked(error: &ApiError) -> bool {
    matches!(
        error.kind,
        ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::Conflict
    )
}

impl ApiManager {
    /// Asks for a readback; it runs when this returns, unless the record says that it failed.
    pub(crate) async fn readback(
        &self,
        permit: Permit<'_>,
        new: NewReadback,
    ) -> Result<Readback, Refusal> {
        let context = permit.context();
        let readback = Readback {
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
        let asked = readback.clone();
        let begun = ask_for(&*self.protection, context, asked, new.restore_auth).await;
        let Err(error) = begun else {
            return Ok(readback);
        };
        if error.kind == ErrorKind::Timeout {
            return Err(Refusal::MayHaveBegun {
                what: RecordKind::Readback(readback.operation),
                id: readback.id.to_string(),
                error,
            });
        }
        let reason = error.message.clone();
        self.announce_refused(context, readback.operation, &error, reason, |log| {
            log.readback_id = Some(readback.id);
            log.provider_id = Some(readback.provider_id);
            log.checkpoint_id = Some(readback.checkpoint_id);
        })
        .await;
        if !is_about_what_was_asked(&error) {
            return Err(error.into());
        }
        match self
            .stores()
            .runs
            .readback_get(readback.operation, readback.id)
            .await
        {
            Ok(recorded) => Ok(recorded),
            Err(DbError::NotFound { .. }) => Err(error.into()),
            Err(other) => Err(other.into()),
        }
    }

    pub(crate) async fn readback_get(
        &self,
        caller: Caller<'_>,
        operation: OperationType,
        id: ReadbackId,
    ) -> Result<Readback, Refusal> {
        let readback = self.stores().runs.readback_get(operation, id).await?;
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
            Some(query) => Ok(self.stores().runs.readback_list(operation, &query).await?),
            None => Ok(Vec::new()),
        }
    }
}
