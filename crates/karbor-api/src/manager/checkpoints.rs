//! Providers and checkpoints: the protection manager's; here only what a request means.

use std::collections::BTreeMap;

use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, ErrorKind, OperationType, Parameters, Plan,
    PlanId, Provider, ProviderId, RequestContext,
};
use serde_json::{Map, Value, json};

use super::{
    ApiManager,
    plans::{check_parameters, invalid_plan},
};
use crate::http::{python, query::Query};

/// What a list of checkpoints can be narrowed down by.
pub(crate) const CHECKPOINT_FILTERS: [&str; 5] =
    ["plan_id", "start_date", "end_date", "project_id", "status"];

/// A checkpoint that is being made.
pub(crate) struct Protected {
    pub(crate) id: CheckpointId,
    /// The plan as it was read for it.
    pub(crate) plan: Plan,
    /// As it is stored.
    pub(crate) extra_info: Value,
    /// What it is made of, if the bank can tell already.
    pub(crate) resource_graph: Option<String>,
}

impl ApiManager {
    pub(crate) async fn list_providers(
        &self,
        context: &RequestContext,
        query: &Query,
    ) -> Result<Vec<Provider>, ApiError> {
        self.may(context, "provider:get_all")?;
        let (sort_keys, sort_dirs) = query.given_sort();
        let filters = known(query, &["id", "name", "description"]);
        let providers = self
            .protection
            .list_providers(
                context,
                query.marker_id()?,
                Some(query.limit_and_offset()),
                sort_keys,
                sort_dirs,
                filters,
            )
            .await?;
        Ok(query.skip_offset(providers))
    }

    pub(crate) async fn show_provider(
        &self,
        context: &RequestContext,
        id: ProviderId,
    ) -> Result<Provider, ApiError> {
        self.may(context, "provider:get")?;
        self.protection.show_provider(context, id).await
    }

    /// Makes a checkpoint of a plan; the checkpoint is being made when this returns.
    pub(crate) async fn protect(
        &self,
        context: &RequestContext,
        provider_id: &str,
        plan_id: PlanId,
        extra_info: Option<Map<String, Value>>,
    ) -> Result<Protected, ApiError> {
        let rule = "provider:checkpoint_create";
        self.may(context, rule)?;
        let plan = self.plan_own(context, rule, plan_id).await?;
        if provider_id.parse() != Ok(plan.provider_id) {
            return Err(invalid_plan(
                "The parameter provider_id is not the same as the value in the plan.",
            ));
        }
        let extra_info = match extra_info {
            Some(given) => Value::Object(given),
            None => json!({"created_by": "manual"}),
        };
        let extra_info = Value::String(python::json(&extra_info));
        let properties = Map::from_iter([("extra_info".to_owned(), extra_info.clone())]);
        let asked = self.protection.protect(context, plan.clone(), properties);
        let asked = asked.await.map_err(create_failed);
        if let Err(error) = &asked {
            self.tell_refused(context, OperationType::Protect, error, |log| {
                (log.plan_id, log.provider_id) = (Some(plan.id), Some(plan.provider_id));
            })
            .await;
        }
        let id = asked?;
        let shown = self
            .protection
            .show_checkpoint(context, plan.provider_id, id);
        // It is being made whether or not it can be shown now.
        let shown = shown.await.ok();
        Ok(Protected {
            id,
            plan,
            extra_info,
            resource_graph: shown.and_then(|checkpoint| checkpoint.resource_graph),
        })
    }

    pub(crate) async fn show_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<Checkpoint, ApiError> {
        self.may(context, "provider:checkpoint_get")?;
        self.protection
            .show_checkpoint(context, provider_id, checkpoint_id)
            .await
    }

    pub(crate) async fn list_checkpoints(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        query: &Query,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        self.may(context, "provider:checkpoint_get_all")?;
        let (sort_keys, sort_dirs) = query.sort_keys_and_dirs();
        let filters = known(query, &CHECKPOINT_FILTERS);
        for field in ["start_date", "end_date"] {
            if let Some(date) = filters.get(field) {
                check_date(field, date)?;
            }
        }
        let checkpoints = self
            .protection
            .list_checkpoints(
                context,
                provider_id,
                query.marker_id()?,
                Some(query.limit_and_offset()),
                sort_keys,
                sort_dirs,
                filters,
                query.all_tenants,
            )
            .await?;
        Ok(query.skip_offset(checkpoints))
    }

    /// Copies the checkpoints of a plan that are not copied yet; the copies are being made when this
    /// returns.
    pub(crate) async fn copy(
        &self,
        context: &RequestContext,
        provider_id: &str,
        plan_id: PlanId,
        parameters: Parameters,
    ) -> Result<(ProviderId, Vec<CheckpointCopy>), ApiError> {
        let rule = "copy:create";
        self.may(context, rule)?;
        let provider_id: ProviderId = provider_id
            .parse()
            .map_err(|_| ApiError::invalid_input("Invalid provider id provided."))?;
        let mut plan = self.plan_own(context, rule, plan_id).await?;
        if provider_id != plan.provider_id {
            return Err(ApiError::invalid_input(
                "The provider id is not the same as the value in the plan.",
            ));
        }
        let provider = self.protection.show_provider(context, provider_id).await?;
        check_parameters(&parameters, &provider)?;
        if !self.is_protected(context, &plan).await? {
            return Err(ApiError::invalid_input("The plan has not been protected."));
        }
        plan.parameters.extend(parameters);
        let plan_id = plan.id;
        let asked = self.protection.copy(context, plan).await;
        if let Err(error) = &asked {
            self.tell_refused(context, OperationType::Copy, error, |log| {
                (log.plan_id, log.provider_id) = (Some(plan_id), Some(provider_id));
            })
            .await;
        }
        Ok((provider_id, asked?))
    }

    /// Has the plan any checkpoint?
    async fn is_protected(&self, context: &RequestContext, plan: &Plan) -> Result<bool, ApiError> {
        let filters = [
            ("plan_id", plan.id.to_string()),
            ("project_id", plan.project_id.clone()),
        ];
        let filters = filters.map(|(name, value)| (name.to_owned(), value)).into();
        let (none, one) = (None, Some(1));
        let all_tenants = plan.project_id != context.project_id;
        let found = self
            .protection
            .list_checkpoints(
                context,
                plan.provider_id,
                none,
                one,
                Vec::new(),
                Vec::new(),
                filters,
                all_tenants,
            )
            .await?;
        Ok(!found.is_empty())
    }

    pub(crate) async fn delete(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), ApiError> {
        self.may(context, "provider:checkpoint_delete")?;
        let asked = self.protection.delete(context, provider_id, checkpoint_id);
        let asked = asked.await;
        if let Err(error) = &asked {
            self.tell_refused(context, OperationType::Delete, error, |log| {
                (log.checkpoint_id, log.provider_id) = (Some(checkpoint_id), Some(provider_id));
            })
            .await;
        }
        asked
    }

    pub(crate) async fn accept_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), ApiError> {
        self.may(context, "provider:checkpoint_update")?;
        self.protection
            .accept_checkpoint(context, provider_id, checkpoint_id)
            .await
    }

    pub(crate) async fn reset_state(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
        state: String,
    ) -> Result<(), ApiError> {
        self.may(context, "provider:checkpoint_update")?;
        self.protection
            .reset_state(context, provider_id, checkpoint_id, state)
            .await
            .map_err(|mut error| {
                // The original told this one, of all conflicts, as a bad request.
                if error.class == "CheckpointNotBeReset" {
                    error.kind = ErrorKind::BadRequest;
                }
                error
            })
    }
}

/// The filters that the list knows. Others are ignored, as the original ignored them.
pub(super) fn known(query: &Query, names: &[&str]) -> BTreeMap<String, String> {
    let given = query.filters.iter();
    given
        .filter(|(key, _)| names.contains(&key.as_str()))
        .cloned()
        .collect()
}

fn check_date(field: &str, date: &str) -> Result<(), ApiError> {
    match date.parse::<chrono::NaiveDate>() {
        Ok(_) if date.len() == "2000-01-01".len() => Ok(()),
        _ => Err(ApiError::invalid_field(
            field,
            date,
            "Give a date as YYYY-MM-DD.",
        )),
    }
}

/// A plan that cannot be protected is a bad request, in the original's words (without the
/// traceback that it added, Q19).
fn create_failed(mut error: ApiError) -> ApiError {
    // What is declared has to be mended: trying again does not help a person who waits for the answer.
    if error.class == "ProtectableResourceBroken" {
        error.kind = ErrorKind::BadRequest;
    }
    if matches!(error.kind, ErrorKind::BadRequest | ErrorKind::NotFound) {
        error.kind = ErrorKind::BadRequest;
        error.message = format!("Create checkpoint failed: {}", error.message);
    }
    error
}
