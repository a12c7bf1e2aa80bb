//! What every [`Protectable`] must do.

use std::{collections::BTreeSet, sync::Arc};

use karbor_model::{PlanId, RequestContext, Resource};

use crate::Protectable;

/// A protectable and what it should find.
#[derive(Clone)]
pub struct Setting {
    /// The protectable.
    pub protectable: Arc<dyn Protectable>,
    /// Sees at least one resource.
    pub context: RequestContext,
    /// Sees none, if there is such a project.
    pub stranger: Option<RequestContext>,
    /// Resources that have dependents of this type.
    pub parents: Vec<Resource>,
}

/// Runs every clause. `fresh` makes the setting anew, as a restart of the service would.
pub async fn suite(fresh: impl AsyncFn() -> Setting) {
    types(&fresh().await);
    what_is_listed_is_shown(&fresh().await).await;
    ids_are_uuids_and_stay(&fresh().await, &fresh().await).await;
    what_is_unknown_is_not_shown(&fresh().await).await;
    strangers_see_nothing(&fresh().await).await;
    dependents(&fresh().await).await;
}

/// A type is named, and depends not on itself.
pub fn types(setting: &Setting) {
    let own = setting.protectable.resource_type();
    assert!(!own.trim().is_empty());
    assert!(
        !setting.protectable.parent_types().contains(&own),
        "{own} is its own parent"
    );
}

/// Each listed resource is of the type and can be shown.
pub async fn what_is_listed_is_shown(setting: &Setting) {
    let listed = setting.protectable.list(&setting.context).await.unwrap();
    assert!(!listed.is_empty(), "the setting must hold a resource");
    for resource in listed {
        assert_eq!(resource.resource_type, setting.protectable.resource_type());
        let shown = setting
            .protectable
            .show(&setting.context, &resource.id)
            .await;
        let shown = shown.unwrap().expect("a listed resource is shown");
        assert_eq!(shown, resource);
        assert_eq!(shown.name, resource.name);
        assert_eq!(shown.extra_info, resource.extra_info);
    }
}

/// Ids are UUIDs, no two alike, and the same in the same order after a restart.
pub async fn ids_are_uuids_and_stay(before: &Setting, after: &Setting) {
    let mut lists = Vec::new();
    for setting in [before, before, after] {
        let listed = setting.protectable.list(&setting.context).await.unwrap();
        lists.push(
            listed
                .into_iter()
                .map(|resource| resource.id)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(lists[0], lists[1], "two listings");
    assert_eq!(lists[0], lists[2], "after a restart");
    for id in &lists[0] {
        assert!(id.parse::<PlanId>().is_ok(), "'{id}' is no UUID");
    }
    let unique: BTreeSet<_> = lists[0].iter().collect();
    assert_eq!(unique.len(), lists[0].len(), "two resources with one id");
}

/// Unknown ids, and texts that are no ids, are `None`.
pub async fn what_is_unknown_is_not_shown(setting: &Setting) {
    let unknown = PlanId::new().to_string();
    for id in [
        unknown.as_str(),
        "",
        "abc",
        "../../etc/passwd",
        "'; --",
        "\0",
    ] {
        let shown = setting
            .protectable
            .show(&setting.context, id)
            .await
            .unwrap();
        assert!(shown.is_none(), "{id:?}");
    }
}

/// Another project neither lists nor is shown what is not its own.
pub async fn strangers_see_nothing(setting: &Setting) {
    let Some(stranger) = &setting.stranger else {
        return;
    };
    assert!(setting.protectable.list(stranger).await.unwrap().is_empty());
    for resource in setting.protectable.list(&setting.context).await.unwrap() {
        let shown = setting
            .protectable
            .show(stranger, &resource.id)
            .await
            .unwrap();
        assert!(shown.is_none(), "{resource}");
    }
    for parent in &setting.parents {
        let found = setting.protectable.dependents(stranger, parent).await;
        // None, or an error: that the parent is not there is no reason to shrink a backup.
        assert!(found.map_or(true, |found| found.is_empty()), "{parent}");
    }
}

/// Dependents are of the type, can be shown, and stay; other parents have none.
pub async fn dependents(setting: &Setting) {
    let protectable = &setting.protectable;
    for parent in &setting.parents {
        let types = protectable.parent_types();
        assert!(types.contains(&parent.resource_type.as_str()), "{parent}");
        let found = protectable
            .dependents(&setting.context, parent)
            .await
            .unwrap();
        assert!(!found.is_empty(), "{parent} must have a dependent");
        let again = protectable
            .dependents(&setting.context, parent)
            .await
            .unwrap();
        assert_eq!(found, again, "{parent}");
        for resource in found {
            assert_eq!(resource.resource_type, protectable.resource_type());
            let shown = protectable
                .show(&setting.context, &resource.id)
                .await
                .unwrap();
            assert_eq!(shown.expect("a dependent is shown"), resource);
        }
    }
    let stranger = Resource::new("No::Such::Type", PlanId::new().to_string(), "x");
    let found = protectable
        .dependents(&setting.context, &stranger)
        .await
        .unwrap();
    assert!(found.is_empty(), "dependents of a type that is no parent");
}
