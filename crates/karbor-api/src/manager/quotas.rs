//! Quotas and quota classes.

use karbor_model::{ApiError, QuotaChange, QuotaLimits, QuotaUsage, RequestContext};

use super::ApiManager;

impl ApiManager {
    /// What a project may have, and the class it was put in.
    pub(crate) async fn quota_show(
        &self,
        context: &RequestContext,
        project: &str,
    ) -> Result<(QuotaLimits, Option<String>), ApiError> {
        self.may_see_quota(context, project)?;
        self.quota_of(project).await
    }

    /// A caller that asks for another project's is refused in the original's words.
    fn may_see_quota(&self, context: &RequestContext, project: &str) -> Result<(), ApiError> {
        let allowed = self.policy.enforce(context, "quota:get", project);
        allowed.map_err(|refused| match project == context.project_id {
            true => refused,
            false => ApiError::forbidden("NotAuthorized", "Access was denied to this resource."),
        })
    }

    async fn quota_of(&self, project: &str) -> Result<(QuotaLimits, Option<String>), ApiError> {
        let limits = self
            .db()
            .quota_limits(project, &self.settings.quotas)
            .await?;
        let class = self.db().quota_class_of(project).await?;
        Ok((limits, class))
    }

    /// What a project has.
    pub(crate) async fn quota_usage(
        &self,
        context: &RequestContext,
        project: &str,
    ) -> Result<QuotaUsage, ApiError> {
        self.may_see_quota(context, project)?;
        Ok(self.db().quota_usage(project).await?)
    }

    /// What a project may have without a quota of its own.
    pub(crate) async fn quota_defaults(
        &self,
        context: &RequestContext,
        project: &str,
    ) -> Result<QuotaLimits, ApiError> {
        // As in the original, the defaults of a project are no secret of it.
        self.policy
            .enforce(context, "quota:get_default", &context.project_id)?;
        let defaults = &self.settings.quotas;
        Ok(self.db().quota_default_limits(project, defaults).await?)
    }

    /// Asked before anything is said about the body.
    pub(crate) fn may_update_quota(
        &self,
        context: &RequestContext,
        project: &str,
    ) -> Result<(), ApiError> {
        self.policy.enforce(context, "quota:update", project)
    }

    pub(crate) async fn quota_update(
        &self,
        context: &RequestContext,
        project: &str,
        change: &QuotaChange,
    ) -> Result<(QuotaLimits, Option<String>), ApiError> {
        self.may_update_quota(context, project)?;
        self.db().quota_update(project, change).await?;
        self.quota_of(project).await
    }

    pub(crate) async fn quota_delete(
        &self,
        context: &RequestContext,
        project: &str,
    ) -> Result<(), ApiError> {
        self.policy.enforce(context, "quota:delete", project)?;
        Ok(self.db().quota_delete(project).await?)
    }

    pub(crate) async fn quota_class_show(
        &self,
        context: &RequestContext,
        class: &str,
    ) -> Result<QuotaLimits, ApiError> {
        // A class belongs to no project: who may read any may read this one (Q62).
        self.policy
            .enforce(context, "quota_class:get", &context.project_id)?;
        let defaults = &self.settings.quotas;
        Ok(self.db().quota_class_limits(class, defaults).await?)
    }

    /// Asked before anything is said about the body.
    pub(crate) fn may_update_quota_class(&self, context: &RequestContext) -> Result<(), ApiError> {
        self.policy
            .enforce(context, "quota_class:update", &context.project_id)
    }

    pub(crate) async fn quota_class_update(
        &self,
        context: &RequestContext,
        class: &str,
        limits: &QuotaLimits,
    ) -> Result<QuotaLimits, ApiError> {
        self.may_update_quota_class(context)?;
        self.db().quota_class_update(class, limits).await?;
        let defaults = &self.settings.quotas;
        Ok(self.db().quota_class_limits(class, defaults).await?)
    }
}
