//! Quotas and quota classes.

use karbor_model::{QuotaChange, QuotaLimits, QuotaUsage};

use super::ApiManager;
use crate::{policy::Permit, refusal::Refusal};

impl ApiManager {
    /// What the project may have, and the class it was put in.
    pub(crate) async fn quota_show(
        &self,
        permit: Permit<'_>,
    ) -> Result<(QuotaLimits, Option<String>), Refusal> {
        let (quotas, project) = (&self.stores().quotas, permit.project());
        let limits = quotas.limits(project, &self.settings.quotas).await?;
        let class = quotas.class_of(project).await?;
        Ok((limits, class))
    }

    /// What the project has.
    pub(crate) async fn quota_usage(&self, permit: Permit<'_>) -> Result<QuotaUsage, Refusal> {
        Ok(self.stores().quotas.usage(permit.project()).await?)
    }

    /// What `project`, which may be any, may have without a quota of its own: as in the original, that is no secret
    /// of it.
    pub(crate) async fn quota_defaults(
        &self,
        _: Permit<'_>,
        project: &str,
    ) -> Result<QuotaLimits, Refusal> {
        let defaults = &self.settings.quotas;
        Ok(self
            .stores()
            .quotas
            .default_limits(project, defaults)
            .await?)
    }

    pub(crate) async fn quota_update(
        &self,
        permit: Permit<'_>,
        change: &QuotaChange,
    ) -> Result<(QuotaLimits, Option<String>), Refusal> {
        self.stores()
            .quotas
            .update(permit.project(), change)
            .await?;
        self.quota_show(permit).await
    }

    pub(crate) async fn quota_delete(&self, permit: Permit<'_>) -> Result<(), Refusal> {
        Ok(self.stores().quotas.delete(permit.project()).await?)
    }

    /// What a class may have. It belongs to no project: who may read any may read this one (Q62).
    pub(crate) async fn quota_class_show(
        &self,
        _: Permit<'_>,
        class: &str,
    ) -> Result<QuotaLimits, Refusal> {
        let defaults = &self.settings.quotas;
        Ok(self.stores().quotas.class_limits(class, defaults).await?)
    }

    pub(crate) async fn quota_class_update(
        &self,
        permit: Permit<'_>,
        class: &str,
        limits: &QuotaLimits,
    ) -> Result<QuotaLimits, Refusal> {
        self.stores().quotas.class_update(class, limits).await?;
        self.quota_class_show(permit, class).await
    }
}
