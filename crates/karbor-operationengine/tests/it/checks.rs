//! What is refused when it is made.

use karbor_interfaces::OperationEngineApi;
use karbor_model::{
    ErrorKind, OperationType, PlanId, ProviderId, RequestContext, ScheduledOperationType,
};

use crate::house::{House, plan, properties};

/// Q42, Q43, Q65: nonsense was found out when the operation ran, an unknown plan was a 500, a
/// foreign plan was taken.
#[tokio::test]
async fn q42_q43_q65_a_definition_is_checked_when_it_is_made() {
    use ScheduledOperationType::{Delete, Protect, Readback, RetentionProtect};
    let verify = Readback(OperationType::Verify);
    let house = House::new().await;
    let engine = house.engine("a").await;
    let foreign = plan("p2");
    house.db.plans().create(&foreign).await.unwrap();
    let trigger = house.hourly().await;
    let (unknown, foreign) = (PlanId::new().to_string(), foreign.id.to_string());
    let provider = ProviderId::new().to_string();
    for (operation_type, key, value, kind, message) in [
        (
            Protect,
            "plan_id",
            "",
            ErrorKind::BadRequest,
            "Plan_id is invalid",
        ),
        (
            Protect,
            "plan_id",
            unknown.as_str(),
            ErrorKind::NotFound,
            "could not be found",
        ),
        (
            Protect,
            "plan_id",
            foreign.as_str(),
            ErrorKind::NotFound,
            "could not be found",
        ),
        (
            Protect,
            "provider_id",
            "x",
            ErrorKind::BadRequest,
            "Provider_id is invalid",
        ),
        (
            Protect,
            "provider_id",
            provider.as_str(),
            ErrorKind::BadRequest,
            "Provider_id is conflict",
        ),
        (
            RetentionProtect,
            "max_backups",
            "many",
            ErrorKind::BadRequest,
            "max_backups",
        ),
        (
            RetentionProtect,
            "keep_weakly",
            "1",
            ErrorKind::BadRequest,
            "keep_weakly",
        ),
        (
            verify,
            "checkpoints",
            "some",
            ErrorKind::BadRequest,
            "'latest' or 'all'",
        ),
        (
            verify,
            "parameters",
            "[1]",
            ErrorKind::BadRequest,
            "JSON object",
        ),
        (
            Delete,
            "max_backups",
            "-1",
            ErrorKind::BadRequest,
            "never delete anything",
        ),
        (
            Delete,
            "scheduled_operation_id",
            "x",
            ErrorKind::BadRequest,
            "",
        ),
    ] {
        let operation = house.operation(&trigger, operation_type, &[(key, value)]);
        house
            .db
            .schedules()
            .operation_create(&operation, None)
            .await
            .unwrap();
        let context = RequestContext::for_project("u", crate::house::PROJECT, false);
        let refused = engine
            .manager()
            .create_scheduled_operation(&context, operation, None)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, kind, "{key}={value}: {refused:?}");
        assert!(
            refused.message.contains(message),
            "{key}={value}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_trigger_is_checked_when_it_is_made() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let good = house.hourly().await;
    let context = RequestContext::admin();
    let verify = async |trigger| engine.manager().verify_trigger(&context, trigger).await;
    let mut accepted = good.clone();
    accepted.properties = properties("0 * * * *", 1);
    verify(accepted).await.unwrap();
    let mut event = good.clone();
    event.trigger_type = "event".to_owned();
    let refused = verify(event).await.unwrap_err();
    assert_eq!(refused.message, "Invalid trigger type:event");
    let mut pattern = good.clone();
    pattern.properties = properties("bad", 1);
    let refused = verify(pattern).await.unwrap_err();
    assert_eq!(refused.message, "The trigger pattern(bad) is invalid");
    // Q32: one that can never fire was taken.
    let mut past = good;
    past.properties
        .insert("end_time".to_owned(), "2025-12-31 00:00:00".into());
    past.properties
        .insert("start_time".to_owned(), "2025-12-30 00:00:00".into());
    past.properties.insert("window".to_owned(), "1".into());
    let refused = verify(past).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::BadRequest);
    assert!(refused.message.contains("can never fire"), "{refused}");
}
