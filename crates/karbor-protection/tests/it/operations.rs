use std::{collections::BTreeMap, sync::Arc, time::Duration};

use karbor_interfaces::protection::ProtectionApi;
use karbor_manager::{Manager, TaskOutcome};
use karbor_model::{
    CheckpointStatus, ErrorKind, OperationLogStatus, OperationType, Parameters, ReadbackStatus,
    RequestContext, Resource,
};
use karbor_plugin::{Bank, BankError};
use karbor_testkit::{FakeClock, Fault, Verb};
use serde_json::json;

use crate::house::{House, SIMULATED, id, member, plan, until};

#[tokio::test(flavor = "multi_thread")]
async fn protect_verify_restore_delete() {
    let house = House::new().with_resources(&["one", "two", "three bytes=100000"]);
    let running = house.open().await;
    let checkpoint = running.available(3).await;
    let verification = running.verify(&member(), checkpoint).await.unwrap();
    assert_eq!(
        running.verified(verification).await.status,
        ReadbackStatus::Success
    );
    let restore = running
        .restore(checkpoint, Parameters::new())
        .await
        .unwrap();
    assert_eq!(
        running.restored(restore).await.status,
        ReadbackStatus::Success
    );
    until(async || running.delete(checkpoint).await.ok()).await;
    assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Deleted);
}

/// Q53: what failed and why is in the operation log; a run that half failed never says success.
#[tokio::test(flavor = "multi_thread")]
async fn every_failing_resource_is_named_with_its_reason() {
    let house = House::new().with_resources(&["good", "fail_protect", "fail_protect other"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(3)).await.unwrap();
    assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Error);
    let log = running.log_of(checkpoint).await;
    assert_eq!(
        (log.operation_type, log.status),
        (OperationType::Protect, OperationLogStatus::Failed)
    );
    let info = log.error_info.unwrap();
    let names = [
        "fail_protect (resource): ",
        "fail_protect other (resource): ",
    ];
    assert!(names.iter().any(|name| info.contains(name)), "{info}");
    assert!(
        info.contains("told to fail") && !info.contains("good"),
        "{info}"
    );
}

/// Q19: a type that no plugin protects is refused before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn q19_an_unprotectable_resource_leaves_no_checkpoint() {
    let house = House::new();
    let running = house.open().await;
    let error = running
        .protect(plan(
            house.provider,
            vec![Resource::new("OS::Bogus", id(0), "x")],
        ))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert!(
        error
            .message
            .contains("Protection Plugin for OS::Bogus could not be found"),
        "{error}"
    );
    assert!(house.keys().is_empty());
}

/// A failing protectable lookup never shrinks the backup in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_fails_fails_the_protect() {
    let house = House::new()
        .with_resources(&["app", "part"])
        .with_edges(&[(0, 1)]);
    house.inventory.lock().unwrap().broken = true;
    let running = house.open().await;
    let error = running.protect(running.plan(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(
        error.message.contains("the inventory does not answer"),
        "{error}"
    );
    assert!(house.keys().is_empty());
}

/// Who lists what can be protected need not ask what each of it depends on. One that cannot be used hides no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_resource_comes_with_what_it_depends_on() {
    let house = House::new()
        .with_resources(&["app", "part", "broken"])
        .with_edges(&[(0, 1), (2, 1)]);
    {
        let resources = &mut house.inventory.lock().unwrap().resources;
        resources[2] = resources[2].clone().broken_because("bad.toml");
    }
    let running = house.open().await;
    let none = Vec::new;
    let listed = running
        .api()
        .list_protectable_instances(
            &member(),
            SIMULATED.to_owned(),
            None,
            None,
            vec!["name".to_owned()],
            none(),
            BTreeMap::new(),
            None,
        )
        .await
        .unwrap();
    let listed = listed.iter().map(|instance| {
        let dependents = instance.dependent_resources.iter().flatten();
        let dependents: Vec<_> = dependents.map(|resource| resource.name.as_str()).collect();
        (instance.resource.name.as_str(), dependents)
    });
    let listed: BTreeMap<_, _> = listed.collect();
    assert_eq!(
        listed,
        BTreeMap::from([("app", vec!["part"]), ("broken", vec![]), ("part", vec![])])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_cannot_be_used_now_fails_the_protect_with_its_reason() {
    let house = House::new().with_resources(&["app"]);
    {
        let resources = &mut house.inventory.lock().unwrap().resources;
        resources[0] = resources[0]
            .clone()
            .broken_because("bad.toml: name (line 1)");
    }
    let running = house.open().await;
    let error = running.protect(running.plan(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("bad.toml: name (line 1)"), "{error}");
    assert!(house.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_depend_on_each_other_in_a_loop_are_refused_with_the_path() {
    let house = House::new()
        .with_resources(&["a", "b"])
        .with_edges(&[(0, 1), (1, 0)]);
    let running = house.open().await;
    let error = running.protect(running.plan(1)).await.unwrap_err();
    let (a, b) = (id(0), id(1));
    assert!(
        error.message.contains(&format!(
            "{SIMULATED}#{a} -> {SIMULATED}#{b} -> {SIMULATED}#{a}"
        )),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_not_there_is_refused() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let gone = plan(
        house.provider,
        vec![Resource::new(SIMULATED, id(7), "gone")],
    );
    assert_eq!(
        running.protect(gone).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_and_verifications_of_what_is_not_available_are_refused_with_the_reason() {
    let house = House::new().with_resources(&["fail_protect"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    running.settled(checkpoint).await;
    let error = running
        .restore(checkpoint, Parameters::new())
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("is not available: its status is 'error'"),
        "{error}"
    );
    assert!(running.verify(&member(), checkpoint).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_parameters_are_checked_against_the_schema() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let parameters = |key: &str, value: serde_json::Value| -> Parameters {
        [(key.to_owned(), value.as_object().unwrap().clone())].into()
    };
    for (given, named) in [
        (parameters(SIMULATED, json!({ "bogus": "x" })), "bogus"),
        (parameters("OS::Bogus", json!({})), "OS::Bogus"),
        (parameters(&format!("{SIMULATED}#abc"), json!({})), "uuid"),
    ] {
        let error = running.restore(checkpoint, given).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequest);
        assert!(error.message.contains(named), "{error}");
    }
    let fail = parameters(SIMULATED, json!({ "fail": "true" }));
    let restore = running.restore(checkpoint, fail).await.unwrap();
    let ended = running.restored(restore).await;
    assert_eq!(ended.status, ReadbackStatus::Fail);
    let key = format!("{SIMULATED}#{}", id(0));
    assert_eq!(ended.resources_status[&key], "error");
    assert!(ended.resources_reason[&key].contains("told to fail"));
}

/// Q27, and leases are consulted: what is being read is not deleted, and what is being made is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn q27_a_checkpoint_at_work_is_left_alone() {
    let house = House::new().with_resources(&["sleep=600"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    assert_eq!(
        running.delete(checkpoint).await.unwrap_err().kind,
        ErrorKind::Conflict
    );
    let reset = running
        .api()
        .reset_state(&member(), running.provider, checkpoint, "error".to_owned())
        .await;
    assert_eq!(reset.unwrap_err().class, "CheckpointNotBeReset");
    assert_eq!(
        running.checkpoint(checkpoint).await.status,
        CheckpointStatus::Protecting
    );
}

/// A deletion that was refused has removed nothing: it says nothing against the checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_deletion_does_not_spoil_a_checkpoint() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    running.settled(checkpoint).await;
    running.log_of(checkpoint).await;
    let slow = json!({"sleep": "600"}).as_object().unwrap().clone();
    let slow = [(SIMULATED.to_owned(), slow)].into();
    let restore = running.restore(checkpoint, slow).await.unwrap();
    let refused = running.delete(checkpoint).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    let log = karbor_model::OperationLogId(restore.0);
    running
        .api()
        .cancel_operation(&member(), log)
        .await
        .unwrap();
    running.restored(restore).await;
    for state in ["error", "available"] {
        until(async || {
            let (api, asker) = (running.api(), member());
            let reset = api.reset_state(&asker, running.provider, checkpoint, state.to_owned());
            reset.await.ok()
        })
        .await;
    }
    let status = running.checkpoint(checkpoint).await.status;
    assert_eq!(status, CheckpointStatus::Available);
}

/// A person who may not delete what is being made hears that it is being made, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_made_is_refused_with_what_to_do() {
    let house = House::new().with_resources(&["sleep=600"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    let told = running.delete(checkpoint).await.unwrap_err().message;
    for words in [
        "an operation works on it still",
        "karbor operation-log list --checkpoint",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let (api, asker) = (running.api(), member());
    let reset = api.reset_state(&asker, running.provider, checkpoint, "error".to_owned());
    let told = reset.await.unwrap_err().message;
    assert_eq!(
        told,
        format!("The checkpoint {checkpoint} can not be reset.")
    );
}

/// A reset must not wait for the end of the run and then call its good checkpoint an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_does_not_wait_for_a_checkpoint_that_is_being_made() {
    let house = House::new().with_resources(&["sleep=0.5"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    let reset = running
        .api()
        .reset_state(&member(), running.provider, checkpoint, "error".to_owned())
        .await;
    assert_eq!(reset.unwrap_err().class, "CheckpointNotBeReset");
    assert_eq!(
        running.settled(checkpoint).await,
        CheckpointStatus::Available
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_being_restored_is_not_deleted() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let slow: Parameters = [(
        SIMULATED.to_owned(),
        json!({ "sleep": "600" }).as_object().unwrap().clone(),
    )]
    .into();
    running.restore(checkpoint, slow).await.unwrap();
    let error = running.delete(checkpoint).await.unwrap_err();
    assert_eq!(error.class, "CheckpointNotBeDeleted");
    assert_eq!(
        running.checkpoint(checkpoint).await.status,
        CheckpointStatus::Available
    );
    // Two may read at once.
    let second = running
        .restore(checkpoint, Parameters::new())
        .await
        .unwrap();
    assert_eq!(
        running.restored(second).await.status,
        ReadbackStatus::Success
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_protect_ends_in_error_and_says_so() {
    let house = House::new().with_resources(&["sleep=600", "other"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(2)).await.unwrap();
    let log = until(async || {
        let logs = running
            .db
            .runs()
            .operation_log_list(&karbor_db::ListQuery::of_every_project())
            .await
            .unwrap();
        logs.first().cloned()
    })
    .await;
    let foreign = running
        .api()
        .cancel_operation(&crate::house::stranger(), log.id)
        .await
        .unwrap_err();
    assert_eq!(foreign.kind, ErrorKind::NotFound);
    running
        .api()
        .cancel_operation(&member(), log.id)
        .await
        .unwrap();
    assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Error);
    assert!(
        running
            .log_of(checkpoint)
            .await
            .error_info
            .unwrap()
            .contains("cancelled")
    );
    // A cancel is taken until the run is gone for good.
    until(async || {
        let again = running.api().cancel_operation(&member(), log.id).await;
        again
            .is_err_and(|error| error.kind == ErrorKind::Conflict)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_bank_ends_the_protect_in_error_and_the_next_one_works() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    house.bank.inject(Fault::Full, usize::MAX, |call| {
        call.verb == Verb::Put && call.key.ends_with("/metadata")
    });
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Error);
    let info = running.log_of(checkpoint).await.error_info.unwrap();
    assert!(info.contains(&id(0)) && info.contains("full"), "{info}");
    house.bank.heal();
    running.available(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_is_full_from_the_start_refuses_the_protect_and_leaves_no_operation_open() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    house
        .bank
        .inject(Fault::Full, usize::MAX, |call| call.verb == Verb::Put);
    let error = running.protect(running.plan(1)).await.unwrap_err();
    assert!(error.message.contains("full"), "{error}");
    house.bank.heal();
    let logs = running
        .db
        .runs()
        .operation_log_list(&karbor_db::ListQuery::of_every_project())
        .await
        .unwrap();
    assert_eq!(
        logs.iter().map(|log| log.status).collect::<Vec<_>>(),
        [OperationLogStatus::Failed]
    );
    running.available(1).await;
}

/// The bank took the index file, and then nothing more: not even the word that it came to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_protect_that_a_full_bank_refused_is_listed_as_failed_and_can_be_deleted() {
    for restarted in [false, true] {
        let house = House::new().with_resources(&["one"]);
        let mut running = house.open().await;
        let puts = std::sync::atomic::AtomicUsize::new(0);
        house.bank.inject(Fault::Full, usize::MAX, move |call| {
            call.verb == Verb::Put && puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0
        });
        let error = running.protect(running.plan(1)).await.unwrap_err();
        assert!(error.message.contains("full"), "{error}");
        let left = house.keys();
        assert_eq!(left.len(), 1, "{left:?}");
        let log = &running
            .db
            .runs()
            .operation_log_list(&karbor_db::ListQuery::of_every_project())
            .await
            .unwrap()[0];
        assert_eq!(
            log.status,
            OperationLogStatus::Failed,
            "the user is told at once"
        );
        if restarted {
            drop(running);
            running = house.open().await;
        }
        house.bank.heal();
        let listed = until(async || {
            let listed = running.list().await;
            (!listed.is_empty()).then_some(listed)
        })
        .await;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].status, CheckpointStatus::Error);
        let id = listed[0].id;
        until(async || running.delete(id).await.ok()).await;
        assert_eq!(running.settled(id).await, CheckpointStatus::Deleted);
        running.available(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_somebody_else_is_respected_until_it_ends() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let bank: Arc<dyn Bank> = house.bank.clone();
    let name =
        karbor_plugin::BankKey::parse(&format!("checkpoints/{checkpoint}/restore-elsewhere"))
            .unwrap();
    let minute = std::time::Duration::from_secs(60);
    until(
        async || match bank.acquire_lease(&name, "another service", minute).await {
            Ok(_) => Some(()),
            Err(BankError::LeaseHeld { .. }) => None,
            Err(error) => panic!("{error}"),
        },
    )
    .await;
    assert_eq!(
        running.delete(checkpoint).await.unwrap_err().class,
        "CheckpointNotBeDeleted"
    );
    house.bank.inner().advance(minute * 2);
    running.delete(checkpoint).await.unwrap();
    assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Deleted);
}

/// Of a delete and a restore that begin together one goes on, and the other is told.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_exclude_each_other_one_goes_on() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    for _ in 0..5 {
        let checkpoint = running.available(1).await;
        let (restored, deleted) = tokio::join!(
            running.restore(checkpoint, Parameters::new()),
            running.delete(checkpoint)
        );
        assert!(
            restored.is_ok() || deleted.is_ok(),
            "{restored:?} {deleted:?}"
        );
        if let Ok(restore) = restored {
            assert_eq!(
                running.restored(restore).await.status,
                ReadbackStatus::Success
            );
        }
        if deleted.is_ok() {
            assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Deleted);
        }
    }
}

/// Progress is written while the journal is: neither may wait for the other.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_while_the_journal_is_written() {
    let names: Vec<String> = (0..60)
        .map(|n| format!("sleep={}", 0.97 + f64::from(n) / 1000.0))
        .collect();
    let house = House::new().with_resources(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(60)).await.unwrap();
    let progress = until(async || {
        let logs = running
            .db
            .runs()
            .operation_log_list(&karbor_db::ListQuery::of_every_project())
            .await
            .unwrap();
        logs.first()?.extra_info.as_ref()?.get("progress").cloned()
    })
    .await;
    assert_eq!(progress["tasks_total"], 240);
    assert_eq!(
        running.settled(checkpoint).await,
        CheckpointStatus::Available
    );
}

/// What can be read can be restored, even when nothing can be written to the bank any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_takes_no_writes_can_still_be_restored_from() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    house
        .bank
        .inject(Fault::FailForGood, usize::MAX, |call| call.verb.writes());
    let restore = running
        .restore(checkpoint, Parameters::new())
        .await
        .unwrap();
    assert_eq!(
        running.restored(restore).await.status,
        ReadbackStatus::Success
    );
    let verification = running.verify(&member(), checkpoint).await.unwrap();
    assert_eq!(
        running.verified(verification).await.status,
        ReadbackStatus::Success
    );
    assert!(running.delete(checkpoint).await.is_err());
}

/// As recorded (056, 061): clients compare the record with the answer to its creation.
#[tokio::test(flavor = "multi_thread")]
async fn the_original_s_plugins_tell_no_outcome_but_failures() {
    let house = House::new().with_resources(&["plain"]);
    let mut running = house.open().await;
    running.provider = house.other_provider;
    let volume = Resource::new("OS::Cinder::Volume", id(0), "volume");
    let plan = plan(running.provider, vec![volume]);
    let checkpoint = running.protect(plan).await.unwrap();
    assert_eq!(
        running.settled(checkpoint).await,
        CheckpointStatus::Available
    );
    let restore = running.restore(checkpoint, Parameters::new()).await;
    let restored = running.restored(restore.unwrap()).await;
    assert_eq!(restored.status, ReadbackStatus::Success);
    assert!(restored.resources_status.is_empty());
    running.provider = house.provider;
    let checkpoint = running.available(1).await;
    let restore = running.restore(checkpoint, Parameters::new()).await;
    let restored = running.restored(restore.unwrap()).await;
    assert_eq!(restored.status, ReadbackStatus::Success);
    assert!(restored.resources_status.is_empty());
}

/// As recorded: the original knew OpenStack's types also where there was none. Plans take resources
/// of them as they are given.
#[tokio::test(flavor = "multi_thread")]
async fn types_that_cannot_be_looked_up_are_known_by_name() {
    let house = House::new();
    let running = house.open().await;
    let (api, me) = (running.api(), member());
    let types = api.list_protectable_types(&me).await.unwrap();
    assert_eq!(types.len(), 9, "{types:?}");
    for (name, expected) in [
        (
            "OS::Nova::Server",
            vec!["OS::Cinder::Volume", "OS::Glance::Image"],
        ),
        ("OS::Cinder::Volume", vec![]),
        ("OS::Kubernetes::Pod", vec!["OS::Cinder::Volume"]),
        ("OS::Neutron::Network", vec![]),
        (
            "OS::Keystone::Project",
            vec![
                "OS::Cinder::Volume",
                "OS::Glance::Image",
                "OS::Kubernetes::Pod",
                "OS::Manila::Share",
                "OS::Neutron::Network",
                "OS::Nova::Server",
                "OS::Trove::Instance",
            ],
        ),
    ] {
        let shown = api.show_protectable_type(&me, name.to_owned()).await;
        assert_eq!(shown.unwrap().dependent_types, expected);
    }
    let server = "OS::Nova::Server".to_owned();
    let shown = api.show_protectable_instance(&me, server, id(1), None);
    let error = shown.await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert!(error.message.contains("OS::Nova::Server"), "{error}");
    let server = Resource::new("OS::Nova::Server", id(1), "a server");
    let mut plan = running.plan(0);
    plan.resources = vec![server];
    let checkpoint = running.protect(plan).await.unwrap();
    assert_eq!(
        running.settled(checkpoint).await,
        CheckpointStatus::Available
    );
}

/// What passes in seconds fails nothing, be it the record of the checkpoint or the data.
#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_stumbles_is_asked_again_and_that_is_counted() {
    let clock = FakeClock::new();
    clock.set_time_of_day(chrono::Utc::now());
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank()
        .with_clock(&clock);
    let running = house.open().await;
    for ending in ["/index.json", "/metadata"] {
        house.bank.inject(Fault::Fail, 1, move |call| {
            call.verb == Verb::Put && call.key.ends_with(ending)
        });
    }
    running.available(1).await;
    let manager = running.service.manager();
    let tasks = manager.periodic_tasks();
    clock.turn(Duration::from_secs(301));
    tasks
        .periodic_tasks(manager, &RequestContext::admin(), true)
        .await
        .unwrap();
    let mut reports = tasks.reports().into_iter();
    let report = reports.find(|report| report.name == "count_bank_requests");
    let TaskOutcome::Ok { details } = report.unwrap().outcome else {
        panic!("it counts");
    };
    let [bank, copies] = [&details["sim"][0], &details["sim"][1]];
    assert_eq!(bank["errors"], 2, "{details}");
    assert!(bank["puts"].as_u64() > Some(2) && bank["bytes_written"].as_u64() > Some(10));
    assert_eq!(copies["puts"], 0);
}
