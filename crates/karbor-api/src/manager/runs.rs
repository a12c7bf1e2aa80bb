//! Restores, verifications and the operation log.
//!
//! A run is recorded before the protection manager is asked for it, so that nothing runs
//! unrecorded. What was refused stays recorded as failed, with the reason beside the checkpoint it
//! was about (Q28), and in the operation log; nothing refused stays `in_progress` (Q63).

use std::collections::BTreeMap;

use karbor_db::{DbError, ListQuery};
use karbor_model::{
    ApiError, CheckpointId, ErrorKind, OperationLog, OperationLogId, OperationType, Parameters,
    ProviderId, RequestContext, Restore, RestoreId, RestoreStatus, Verification, VerificationId,
    VerificationStatus,
};
use serde_json::{Map, Value};

use super::{ApiManager, Seen};

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
enum Refusal {
    /// It is recorded as failed and the client told so in the record.
    Recorded,
    /// It is recorded as failed and the client gets the error.
    Answered,
    /// Nobody knows whether it runs: the record stays as it is and the client gets the error.
    Unknown,
}

fn refusal(error: &ApiError) -> Refusal {
    match error.kind {
        ErrorKind::Timeout => Refusal::Unknown,
        ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::Conflict => Refusal::Recorded,
        _ => Refusal::Answered,
    }
}

fn reason(checkpoint_id: CheckpointId, error: &ApiError) -> BTreeMap<String, String> {
    BTreeMap::from([(format!("Checkpoint#{checkpoint_id}"), error.message.clone())])
}

fn unknown(error: ApiError, what: &str, id: impl std::fmt::Display) -> ApiError {
    let message = format!(
        "{} The {what} {id} may have begun all the same: look at it before asking again.",
        error.message
    );
    ApiError { message, ..error }
}

impl ApiManager {
    pub(crate) async fn restore(
        &self,
        context: &RequestContext,
        new: NewRestore,
    ) -> Result<Restore, ApiError> {
        self.may(context, "restore:create")?;
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
        let refusal = refusal(&error);
        if let Refusal::Unknown = refusal {
            return Err(unknown(error, "restore", restore.id));
        }
        let log = self.refused(context, OperationType::Restore, &error, |log| {
            log.id = OperationLogId(restore.id.0);
            log.restore_id = Some(restore.id);
            log.provider_id = Some(restore.provider_id);
            log.checkpoint_id = Some(restore.checkpoint_id);
        });
        self.enter_refused(context, &log).await;
        restore.resources_reason = reason(restore.checkpoint_id, &error);
        self.restore_fail(&restore).await?;
        if let Refusal::Answered = refusal {
            return Err(error);
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
        context: &RequestContext,
        id: RestoreId,
    ) -> Result<Restore, ApiError> {
        let restore = self.db().restore_get(id).await?;
        let seen = Seen {
            what: "Restore",
            id: &id,
            project: &restore.project_id,
            record: &restore,
        };
        self.may_see(context, "restore:get", &seen)?;
        Ok(restore)
    }

    pub(crate) async fn restore_list(
        &self,
        context: &RequestContext,
        query: Option<&ListQuery>,
    ) -> Result<Vec<Restore>, ApiError> {
        self.may(context, "restore:get_all")?;
        let Some(query) = query else {
            return Ok(Vec::new());
        };
        Ok(self.db().restore_list(query).await?)
    }

    pub(crate) async fn verification(
        &self,
        context: &RequestContext,
        new: NewVerification,
    ) -> Result<Verification, ApiError> {
        self.may(context, "verification:create")?;
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
        let refusal = refusal(&error);
        if let Refusal::Unknown = refusal {
            return Err(unknown(error, "verification", verification.id));
        }
        let log = self.refused(context, OperationType::Verify, &error, |log| {
            log.id = OperationLogId(verification.id.0);
            log.verification_id = Some(verification.id);
            log.provider_id = Some(verification.provider_id);
            log.checkpoint_id = Some(verification.checkpoint_id);
        });
        self.enter_refused(context, &log).await;
        verification.resources_reason = reason(verification.checkpoint_id, &error);
        self.verification_fail(&verification).await?;
        if let Refusal::Answered = refusal {
            return Err(error);
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
        context: &RequestContext,
        id: VerificationId,
    ) -> Result<Verification, ApiError> {
        let verification = self.db().verification_get(id).await?;
        let seen = Seen {
            what: "Verification",
            id: &id,
            project: &verification.project_id,
            record: &verification,
        };
        self.may_see(context, "verification:get", &seen)?;
        Ok(verification)
    }

    pub(crate) async fn verification_list(
        &self,
        context: &RequestContext,
        query: Option<&ListQuery>,
    ) -> Result<Vec<Verification>, ApiError> {
        self.may(context, "verification:get_all")?;
        let Some(query) = query else {
            return Ok(Vec::new());
        };
        Ok(self.db().verification_list(query).await?)
    }

    pub(crate) async fn operation_log_get(
        &self,
        context: &RequestContext,
        id: OperationLogId,
    ) -> Result<OperationLog, ApiError> {
        let log = self.db().operation_log_get(id).await?;
        let seen = Seen {
            what: "OperationLog",
            id: &id,
            project: &log.project_id,
            record: &log,
        };
        self.may_see(context, "operation_log:get", &seen)?;
        Ok(log)
    }

    pub(crate) async fn operation_log_list(
        &self,
        context: &RequestContext,
        query: Option<&ListQuery>,
    ) -> Result<Vec<OperationLog>, ApiError> {
        self.may(context, "operation_log:list")?;
        let Some(query) = query else {
            return Ok(Vec::new());
        };
        Ok(self.db().operation_log_list(query).await?)
    }
}

/// The protection manager may have recorded the failure itself; that is as good.
fn ended(changed: Result<(), DbError>) -> Result<(), ApiError> {
    match changed {
        Ok(()) | Err(DbError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
