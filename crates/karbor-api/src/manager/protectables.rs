//! What can be protected.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use karbor_model::{
    ApiError, ErrorKind, ProtectableInstance, ProtectableType, RequestContext, Resource,
};
use serde_json::{Map, Value};

use super::{ApiManager, checkpoints::known};
use crate::http::query::Query;

/// How many lookups of dependents one list keeps going at once.
const LOOKUPS: usize = 8;

impl ApiManager {
    pub(crate) async fn list_protectable_types(
        &self,
        context: &RequestContext,
    ) -> Result<Vec<String>, ApiError> {
        self.may(context, "protectable:get_all")?;
        self.protection.list_protectable_types(context).await
    }

    pub(crate) async fn show_protectable_type(
        &self,
        context: &RequestContext,
        protectable_type: String,
    ) -> Result<ProtectableType, ApiError> {
        self.may(context, "protectable:get")?;
        self.check_type(context, &protectable_type).await?;
        self.protection
            .show_protectable_type(context, protectable_type)
            .await
    }

    pub(crate) async fn list_protectable_instances(
        &self,
        context: &RequestContext,
        protectable_type: String,
        query: &Query,
        parameters: Option<Map<String, Value>>,
    ) -> Result<Vec<ProtectableInstance>, ApiError> {
        self.may(context, "protectable:instance_get_all")?;
        self.check_type(context, &protectable_type).await?;
        let (sort_keys, sort_dirs) = query.given_sort();
        let found = self
            .protection
            .list_protectable_instances(
                context,
                protectable_type,
                query.marker.clone(),
                Some(query.limit_and_offset()),
                sort_keys,
                sort_dirs,
                known(query, &["id", "name", "status"]),
                parameters,
            )
            .await?;
        let lookups = query
            .skip_offset(found)
            .into_iter()
            .map(|resource| self.with_dependents(context, resource));
        stream::iter(lookups).buffered(LOOKUPS).try_collect().await
    }

    pub(crate) async fn show_protectable_instance(
        &self,
        context: &RequestContext,
        protectable_type: String,
        id: String,
        parameters: Option<Map<String, Value>>,
    ) -> Result<ProtectableInstance, ApiError> {
        self.may(context, "protectable:instance_get")?;
        self.check_type(context, &protectable_type).await?;
        let missing = ApiError::new(
            ErrorKind::NotFound,
            "ProtectableResourceNotFound",
            format!("The resource {id} of type {protectable_type} could not be found: not found"),
        );
        let found = self
            .protection
            .show_protectable_instance(context, protectable_type, id, parameters)
            .await?;
        self.with_dependents(context, found.ok_or(missing)?).await
    }

    async fn with_dependents(
        &self,
        context: &RequestContext,
        resource: Resource,
    ) -> Result<ProtectableInstance, ApiError> {
        // Nobody knows what one that cannot be used depends on; it must not hide the others.
        if resource.broken().is_some() {
            return Ok(ProtectableInstance {
                resource,
                dependent_resources: Vec::new(),
            });
        }
        let dependent_resources = self
            .protection
            .list_protectable_dependents(
                context,
                resource.id.clone(),
                resource.resource_type.clone(),
                resource.name.clone(),
            )
            .await?;
        Ok(ProtectableInstance {
            resource,
            dependent_resources,
        })
    }

    async fn check_type(
        &self,
        context: &RequestContext,
        protectable_type: &String,
    ) -> Result<(), ApiError> {
        let types = self.protection.list_protectable_types(context).await?;
        if types.contains(protectable_type) {
            Ok(())
        } else {
            Err(ApiError::invalid_input(
                "Invalid protectable type provided.",
            ))
        }
    }
}
