//! Restores, verifications and the operation log.
//!
//! A run is recorded before the protection manager is asked for it, so that nothing runs
//! unrecorded. What was refused stays recorded as failed, with the reason beside the checkpoint it
//! was about (Q28), and in the operation log; nothing refused stays `in_progress` (Q63).

use std::collections::BTreeMap;

use karbor_db::DbError;
use karbor_model::{
    ApiError, CheckpointId, ErrorKind, OperationLog, OperationLogId, OperationType, Parameters,
    ProviderId, RequestContext, Restore, RestoreId, RestoreStatus, Verification, VerificationId,
    VerificationStatus,
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

/// What a list of restores can be narrowed down by.
pub(crate) const RESTORE_FILTERS: [&str; 5] = [
    "id",
    "status",
    "provider_id",
    "checkpoint_id",
    "restore_target",
];

/// What a list of verifications can be narrowed down by.
pub(crate) const VERIFICATION_FILTERS: [&str; 4] = ["id", "status", "provider_id", "checkpoint_id"];

/// What a list of the operation log can be narrowed down by.
pub(crate) const OPERATION_LOG_FILTERS: [&str; 8] = [
    "id",
    "status",
    "operation_type",
    "checkpoint_id",
    "plan_id",
    "provider_id",
    "restore_id",
    "scheduled_operation_id",
];

/// A restore as a client wants it.
pub(crate) struct NewRestore {
    pub(crate) provider_id: ProviderId,
    pub(crate) checkpoint_id: CheckpointId,
    pub(crate) restore_target: Option<String>,
    pub(crate) restore_auth: Option<Map<String, Value>>,
    pub(crate) parameters: Parameters,
    pub(crate) accept_unsealed: bool,
}

/// A verification as a client wants it.
pub(crate) struct NewVerification {
    pub(crate) provider_id: ProviderId,
    pub(crate) checkpoint_id: CheckpointId,
    pub(crate) parameters: Parameters,
    pub(crate) accept_unsealed: bool,
}

/// What becomes of a run that the protection manager did not take.
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

fn reason(checkpoint_id: CheckpointId, error: &ApiError) -> BTreeMap<String, String> {
    BTreeMap::from([(format!("Checkpoint#{checkpoint_id}"), error.message.clone())])
}

impl ApiManager {
    pub(crate) async fn restore(
        &self,
        permit: Permit<'_>,
        new: NewRestore,
    ) -> Result<Restore, Refusal> {
        let context = permit.context();
        let mut restore = Restore {
            id: RestoreId::new(),
            project_id: context.project_id.clone(),
            provider_id: new.provider_id,
            checkpoint_id: new.checkpoint_id,
            restore_target: new.restore_target,
            parameters: new.parameters,
            accept_unsealed: new.accept_unsealed,
            status: RestoreStatus::InProgress,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
            created_at: self.base.clock().now(),
        };
        self.db().restore_create(&restore).await?;
        let asked = self
            .protection
            .restore(context, restore.clone(), new.restore_auth)
            .await;
        let Err(error) = asked else {
            return Ok(restore);
        };
        let fate = fate(&error);
        if let Fate::Unknown = fate {
            return Err(Refusal::MayHaveBegun {
                what: RecordKind::Restore,
                id: restore.id.to_string(),
                error,
            });
        }
        let log = self.refused(
            context,
            OperationType::Restore,
            error.message.clone(),
            |log| {
                log.id = OperationLogId(restore.id.0);
                log.restore_id = Some(restore.id);
                log.provider_id = Some(restore.provider_id);
                log.checkpoint_id = Some(restore.checkpoint_id);
            },
        );
        self.enter_refused(context, &log).await;
        restore.resources_reason = reason(restore.checkpoint_id, &error);
        self.restore_fail(&restore).await?;
        if let Fate::Answered = fate {
            return Err(error.into());
        }
        restore.status = RestoreStatus::Fail;
        Ok(restore)
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

    async fn restore_fail(&self, restore: &Restore) -> Result<(), ApiError> {
        let db = self.db();
        db.restore_update_resources(restore.id, &BTreeMap::new(), &restore.resources_reason)
            .await?;
        let changed = db
            .transition::<Restore>(restore.id, RestoreStatus::InProgress, RestoreStatus::Fail)
            .await;
        ended(changed)
    }

    pub(crate) async fn restore_get(
        &self,
        caller: Caller<'_>,
        id: RestoreId,
    ) -> Result<Restore, Refusal> {
        let restore = self.db().restore_get(id).await?;
        self.may_see(caller, &restore)?;
        Ok(restore)
    }

    pub(crate) async fn restore_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<Restore>, Refusal> {
        let unknown = UnknownFilters::FindNothing;
        match scoped(permit.context(), page, &RESTORE_FILTERS, unknown) {
            Some(query) => Ok(self.db().restore_list(&query).await?),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) async fn verification(
        &self,
        permit: Permit<'_>,
        new: NewVerification,
    ) -> Result<Verification, Refusal> {
        let context = permit.context();
        let mut verification = Verification {
            id: VerificationId::new(),
            project_id: context.project_id.clone(),
            provider_id: new.provider_id,
            checkpoint_id: new.checkpoint_id,
            parameters: new.parameters,
            accept_unsealed: new.accept_unsealed,
            status: VerificationStatus::InProgress,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
            created_at: self.base.clock().now(),
        };
        self.db().verification_create(&verification).await?;
        let asked = self
            .protection
            .verification(context, verification.clone())
            .await;
        let Err(error) = asked else {
            return Ok(verification);
        };
        let fate = fate(&error);
        if let Fate::Unknown = fate {
            return Err(Refusal::MayHaveBegun {
                what: RecordKind::Verification,
                id: verification.id.to_string(),
                error,
            });
        }
        let log = self.refused(
            context,
            OperationType::Verify,
            error.message.clone(),
            |log| {
                log.id = OperationLogId(verification.id.0);
                log.verification_id = Some(verification.id);
                log.provider_id = Some(verification.provider_id);
                log.checkpoint_id = Some(verification.checkpoint_id);
            },
        );
        self.enter_refused(context, &log).await;
        verification.resources_reason = reason(verification.checkpoint_id, &error);
        self.verification_fail(&verification).await?;
        if let Fate::Answered = fate {
            return Err(error.into());
        }
        verification.status = VerificationStatus::Fail;
        Ok(verification)
    }

    async fn verification_fail(&self, verification: &Verification) -> Result<(), ApiError> {
        let db = self.db();
        let reasons = &verification.resources_reason;
        db.verification_update_resources(verification.id, &BTreeMap::new(), reasons)
            .await?;
        let (from, to) = (VerificationStatus::InProgress, VerificationStatus::Fail);
        let changed = db
            .transition::<Verification>(verification.id, from, to)
            .await;
        ended(changed)
    }

    pub(crate) async fn verification_get(
        &self,
        caller: Caller<'_>,
        id: VerificationId,
    ) -> Result<Verification, Refusal> {
        let verification = self.db().verification_get(id).await?;
        self.may_see(caller, &verification)?;
        Ok(verification)
    }

    pub(crate) async fn verification_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<Verification>, Refusal> {
        let unknown = UnknownFilters::FindNothing;
        match scoped(permit.context(), page, &VERIFICATION_FILTERS, unknown) {
            Some(query) => Ok(self.db().verification_list(&query).await?),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) async fn operation_log_get(
        &self,
        caller: Caller<'_>,
        id: OperationLogId,
    ) -> Result<OperationLog, Refusal> {
        let log = self.db().operation_log_get(id).await?;
        self.may_see(caller, &log)?;
        Ok(log)
    }

    pub(crate) async fn operation_log_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<OperationLog>, Refusal> {
        let unknown = UnknownFilters::FindNothing;
        match scoped(permit.context(), page, &OPERATION_LOG_FILTERS, unknown) {
            Some(query) => Ok(self.db().operation_log_list(&query).await?),
            None => Ok(Vec::new()),
        }
    }
}

/// The protection manager may have recorded the failure itself; that is as good.
fn ended(changed: Result<(), DbError>) -> Result<(), ApiError> {
    match changed {
        Ok(()) | Err(DbError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
