use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{CheckpointStatus, ErrorKind, ReadbackStatus};

use crate::house::{House, SIMULATED, WHO_ASKS, member, stranger};

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_checkpoint_is_neither_shown_nor_deleted_nor_reset() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    let (api, provider) = (running.api(), running.provider);
    let shown = api
        .show_checkpoint(&stranger(), provider, id)
        .await
        .unwrap_err();
    assert_eq!(
        shown.message,
        format!("Access checkpoint {id} is not allowed")
    );
    let deleted = api.delete(&stranger(), provider, id).await.unwrap_err();
    assert_eq!(deleted.kind, ErrorKind::Forbidden);
    assert_eq!(deleted.message, shown.message);
    let reset = api
        .reset_state(&stranger(), provider, id, "error".to_owned())
        .await
        .unwrap_err();
    assert_eq!(reset.kind, ErrorKind::Forbidden);
    assert_eq!(
        running.checkpoint(id).await.status,
        CheckpointStatus::Available
    );
}

/// Q66: the original told everybody what the first caller might see.
#[tokio::test(flavor = "multi_thread")]
async fn q66_every_caller_gets_his_own_answer() {
    let house = House::new();
    let running = house.open().await;
    for context in [member(), stranger(), member()] {
        let found = running
            .api()
            .show_protectable_instance(&context, SIMULATED.to_owned(), WHO_ASKS.to_owned(), None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.name, context.project_id);
    }
}

/// Q64: the original let anybody verify the checkpoint of another project.
#[tokio::test(flavor = "multi_thread")]
async fn q64_a_foreign_checkpoint_is_not_verified() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    assert_eq!(
        running.verify(&stranger(), id).await.unwrap_err().kind,
        ErrorKind::Forbidden
    );
    let own = running.verify(&member(), id).await.unwrap();
    assert_eq!(running.verified(own).await.status, ReadbackStatus::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_found_with_its_own_provider_only() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    let error = running
        .api()
        .show_checkpoint(&member(), house.other_provider, id)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_holds_the_project_s_own_checkpoints() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    let list = async |context: &karbor_model::RequestContext, all| {
        let (none, filters) = (Vec::new(), std::collections::BTreeMap::new());
        let api = running.api();
        let found = api
            .list_checkpoints(
                context,
                running.provider,
                None,
                None,
                none.clone(),
                none,
                filters,
                all,
            )
            .await;
        found
            .unwrap()
            .into_iter()
            .map(|checkpoint| checkpoint.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(list(&member(), false).await, [id]);
    assert!(list(&stranger(), false).await.is_empty());
    // Only an administrator sees all.
    assert!(list(&stranger(), true).await.is_empty());
    assert_eq!(
        list(&karbor_model::RequestContext::admin(), true).await,
        [id]
    );
}
