//! Providers and checkpoints: the protection manager's; here only what a request means.

use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointProperties, OperationType,
    Parameters, Plan, PlanId, Provider, ProviderId, RequestContext, check_parameters,
};
use serde_json::Value;

use super::{ApiManager, plans::OfProvider};
use crate::{
    page::Page,
    policy::Permit,
    refusal::{NOT_PROTECTED, Refusal, is_of_the_plan},
};

/// What a list of providers can be narrowed down by.
pub(crate) const PROVIDER_FILTERS: [&str; 3] = ["id", "name", "description"];

/// What a list of checkpoints can be narrowed down by.
pub(crate) const CHECKPOINT_FILTERS: [&str; 5] =
    ["plan_id", "start_date", "end_date", "project_id", "status"];

/// A checkpoint that is being made.
pub(crate) struct Protected {
    pub(crate) id: CheckpointId,
    /// The plan as it was read for it.
    pub(crate) plan: Plan,
    /// What it is made of, if the bank can tell already.
    pub(crate) resource_graph: Option<String>,
}

impl ApiManager {
    pub(crate) async fn list_providers(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<Provider>, Refusal> {
        let (sort_keys, sort_dirs) = page.given_sort();
        let providers = self
            .protection
            .list_providers(
                permit.context(),
                page.marker_id()?,
                Some(page.limit_and_offset()),
                sort_keys,
                sort_dirs,
                page.known_filters(&PROVIDER_FILTERS),
            )
            .await?;
        Ok(page.skip_offset(providers))
    }

    pub(crate) async fn show_provider(
        &self,
        permit: Permit<'_>,
        id: ProviderId,
    ) -> Result<Provider, Refusal> {
        Ok(self.protection.show_provider(permit.context(), id).await?)
    }

    /// Makes a checkpoint of a plan; the checkpoint is being made when this returns. `extra_info` is a JSON text
    /// that is kept with it. `provider_id` is as it was written: what can be no provider is not that of the plan.
    pub(crate) async fn protect(
        &self,
        permit: Permit<'_>,
        provider_id: &str,
        plan_id: PlanId,
        extra_info: Value,
    ) -> Result<Protected, Refusal> {
        let context = permit.context();
        let plan = self.plan_own(permit, plan_id).await?;
        if provider_id.parse() != Ok(plan.provider_id) {
            return Err(Refusal::ProtectedByAnotherProvider);
        }
        let properties = CheckpointProperties {
            extra_info: Some(extra_info),
            ..CheckpointProperties::default()
        };
        let asked = self.protection.protect(context, plan.clone(), properties);
        let id = match asked.await {
            Ok(id) => id,
            Err(error) => {
                let reason = match is_of_the_plan(&error) {
                    true => format!("{NOT_PROTECTED}: {}", error.message),
                    false => error.message.clone(),
                };
                self.announce_refused(context, OperationType::Protect, &error, reason, |log| {
                    (log.plan_id, log.provider_id) = (Some(plan.id), Some(plan.provider_id));
                })
                .await;
                return Err(Refusal::NotProtected(error));
            }
        };
        let shown = self
            .protection
            .show_checkpoint(context, plan.provider_id, id);
        // It is being made whether or not it can be shown now.
        let shown = shown.await.ok();
        Ok(Protected {
            id,
            plan,
            resource_graph: shown.and_then(|checkpoint| checkpoint.resource_graph),
        })
    }

    pub(crate) async fn show_checkpoint(
        &self,
        permit: Permit<'_>,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<Checkpoint, Refusal> {
        let context = permit.context();
        let shown = self
            .protection
            .show_checkpoint(context, provider_id, checkpoint_id);
        Ok(shown.await?)
    }

    pub(crate) async fn list_checkpoints(
        &self,
        permit: Permit<'_>,
        provider_id: ProviderId,
        page: &Page,
    ) -> Result<Vec<Checkpoint>, Refusal> {
        let context = permit.context();
        let (sort_keys, sort_dirs) = page.sort_keys_and_dirs();
        let filters = page.known_filters(&CHECKPOINT_FILTERS);
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
                page.marker_id()?,
                Some(page.limit_and_offset()),
                sort_keys,
                sort_dirs,
                filters,
                page.is_of_all_projects(context),
            )
            .await?;
        Ok(page.skip_offset(checkpoints))
    }

    /// Copies the checkpoints of a plan that are not copied yet; the copies are being made when this
    /// returns.
    pub(crate) async fn copy(
        &self,
        permit: Permit<'_>,
        provider_id: &str,
        plan_id: PlanId,
        parameters: Parameters,
    ) -> Result<(ProviderId, Vec<CheckpointCopy>), Refusal> {
        let context = permit.context();
        let provider_id: ProviderId = provider_id
            .parse()
            .map_err(|_| Refusal::CopyProviderIsNoId)?;
        let mut plan = self.plan_own(permit, plan_id).await?;
        if provider_id != plan.provider_id {
            return Err(Refusal::CopiedByAnotherProvider);
        }
        let provider = self.protection.show_provider(context, provider_id).await?;
        check_parameters(&OfProvider(&provider), &parameters)?;
        if !self.is_protected(context, &plan).await? {
            return Err(Refusal::NothingToCopy);
        }
        plan.parameters.extend(parameters);
        let plan_id = plan.id;
        let asked = self.protection.copy(context, plan).await;
        if let Err(error) = &asked {
            let reason = error.message.clone();
            self.announce_refused(context, OperationType::Copy, error, reason, |log| {
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
        permit: Permit<'_>,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), Refusal> {
        let context = permit.context();
        let asked = self.protection.delete(context, provider_id, checkpoint_id);
        let asked = asked.await;
        if let Err(error) = &asked {
            let reason = error.message.clone();
            self.announce_refused(context, OperationType::Delete, error, reason, |log| {
                (log.checkpoint_id, log.provider_id) = (Some(checkpoint_id), Some(provider_id));
            })
            .await;
        }
        Ok(asked?)
    }

    pub(crate) async fn accept_checkpoint(
        &self,
        permit: Permit<'_>,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), Refusal> {
        let context = permit.context();
        let asked = self
            .protection
            .accept_checkpoint(context, provider_id, checkpoint_id);
        Ok(asked.await?)
    }

    pub(crate) async fn reset_state(
        &self,
        permit: Permit<'_>,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
        state: String,
    ) -> Result<(), Refusal> {
        let context = permit.context();
        let asked = self
            .protection
            .reset_state(context, provider_id, checkpoint_id, state);
        Ok(asked.await?)
    }
}

fn check_date(field: &'static str, date: &str) -> Result<(), Refusal> {
    match date.parse::<chrono::NaiveDate>() {
        Ok(_) if date.len() == "2000-01-01".len() => Ok(()),
        _ => Err(Refusal::DateIsNone {
            field,
            date: date.to_owned(),
        }),
    }
}
