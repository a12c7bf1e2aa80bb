//! What can be protected.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use karbor_model::{ProtectableInstance, ProtectableType, RequestContext};
use serde_json::{Map, Value};

use super::ApiManager;
use crate::{page::Page, policy::Permit, refusal::Refusal};

/// What a list of instances can be narrowed down by.
pub(crate) const INSTANCE_FILTERS: [&str; 3] = ["id", "name", "status"];

/// How many lookups of dependents one list keeps going at once, where the list came without.
const LOOKUPS: usize = 8;

impl ApiManager {
    pub(crate) async fn list_protectable_types(
        &self,
        permit: Permit<'_>,
    ) -> Result<Vec<String>, Refusal> {
        let context = permit.context();
        Ok(self.protection.list_protectable_types(context).await?)
    }

    pub(crate) async fn show_protectable_type(
        &self,
        permit: Permit<'_>,
        protectable_type: String,
    ) -> Result<ProtectableType, Refusal> {
        let context = permit.context();
        self.check_type(context, &protectable_type).await?;
        let shown = self
            .protection
            .show_protectable_type(context, protectable_type);
        Ok(shown.await?)
    }

    pub(crate) async fn list_protectable_instances(
        &self,
        permit: Permit<'_>,
        protectable_type: String,
        page: &Page,
        parameters: Option<Map<String, Value>>,
    ) -> Result<Vec<ProtectableInstance>, Refusal> {
        let context = permit.context();
        self.check_type(context, &protectable_type).await?;
        let (sort_keys, sort_dirs) = page.given_sort();
        let found = self
            .protection
            .list_protectable_instances(
                context,
                protectable_type,
                page.marker.clone(),
                Some(page.limit_and_offset()),
                sort_keys,
                sort_dirs,
                page.known_filters(&INSTANCE_FILTERS),
                parameters,
            )
            .await?;
        let lookups = page
            .skip_offset(found)
            .into_iter()
            .map(|instance| self.with_dependents(context, instance));
        stream::iter(lookups).buffered(LOOKUPS).try_collect().await
    }

    pub(crate) async fn show_protectable_instance(
        &self,
        permit: Permit<'_>,
        protectable_type: String,
        id: String,
        parameters: Option<Map<String, Value>>,
    ) -> Result<ProtectableInstance, Refusal> {
        let context = permit.context();
        self.check_type(context, &protectable_type).await?;
        let missing = Refusal::NoProtectableInstance {
            protectable_type: protectable_type.clone(),
            id: id.clone(),
        };
        let found = self
            .protection
            .show_protectable_instance(context, protectable_type, id, parameters)
            .await?;
        let found = found.ok_or(missing)?;
        self.with_dependents(context, found.into()).await
    }

    /// The same with what it depends on, asked for if the answer came without: as from an original service.
    async fn with_dependents(
        &self,
        context: &RequestContext,
        mut instance: ProtectableInstance,
    ) -> Result<ProtectableInstance, Refusal> {
        if instance.dependent_resources.is_some() {
            return Ok(instance);
        }
        let resource = &instance.resource;
        let dependents = match resource.broken() {
            // Nobody knows what one that cannot be used depends on; it must not hide the others.
            Some(_) => Vec::new(),
            None => {
                self.protection
                    .list_protectable_dependents(
                        context,
                        resource.id.clone(),
                        resource.resource_type.clone(),
                        resource.name.clone(),
                    )
                    .await?
            }
        };
        instance.dependent_resources = Some(dependents);
        Ok(instance)
    }

    async fn check_type(
        &self,
        context: &RequestContext,
        protectable_type: &String,
    ) -> Result<(), Refusal> {
        let types = self.protection.list_protectable_types(context).await?;
        if types.contains(protectable_type) {
            Ok(())
        } else {
            Err(Refusal::NoProtectableType)
        }
    }
}
