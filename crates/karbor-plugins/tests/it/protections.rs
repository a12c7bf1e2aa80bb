//! The contract of protection plugins, kept by noop and simulated, and what simulated promises.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_model::{
    CheckpointId, OPENSTACK_TYPES, OperationId, OperationType, PlanId, ProviderId, RequestContext,
    Resource,
};
use karbor_plugin::{
    Bank, BankKey, BankSection, DataSection, HookReport, HookSet, OperationContext, PluginError,
    Progress, ProtectionPlugin, SchemaKind, Secret, VaultAccess, contract::protection,
};
use karbor_plugins::protections::{noop::Noop, simulated::Simulated};
use karbor_testkit::{Fault, FaultyBank, MemoryBank, Verb};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

struct Setting {
    plugin: Arc<dyn ProtectionPlugin>,
    name: &'static str,
    keeps_data: bool,
}

#[async_trait]
impl protection::Setting for Setting {
    fn plugin(&self) -> Arc<dyn ProtectionPlugin> {
        self.plugin.clone()
    }

    fn resource(&self) -> Resource {
        Resource::new(
            "OS::Cinder::Volume",
            "aaaaaaaa-0000-4000-8000-0000000000e2",
            self.name,
        )
    }

    fn bank(&self) -> Arc<dyn Bank> {
        Arc::new(MemoryBank::new())
    }

    fn keeps_data(&self) -> bool {
        self.keeps_data
    }
}

#[tokio::test]
async fn noop_keeps_the_contract() {
    let fresh = async || Setting {
        plugin: Arc::new(Noop),
        name: "volume",
        keeps_data: false,
    };
    protection::suite(fresh).await;
}

#[tokio::test]
async fn simulated_keeps_the_contract() {
    for name in ["volume", "bytes=0", "big bytes=2500000"] {
        let fresh = async || Setting {
            plugin: Arc::new(Simulated),
            name,
            keeps_data: true,
        };
        protection::suite(fresh).await;
    }
}

#[test]
fn noop_takes_what_the_original_took_and_copies_nothing() {
    assert_eq!(Noop.resource_types(), OPENSTACK_TYPES);
    for kind in SchemaKind::ALL {
        assert_eq!(Noop.schema("OS::Nova::Server", kind), json!({}));
    }
    let resource = Resource::new("OS::Nova::Server", "1", "x");
    assert!(Noop.operation(HookSet::Verify, &resource).is_ok());
    let Err(error) = Noop.operation(HookSet::Copy, &resource) else {
        panic!("copied")
    };
    assert!(
        error.message.contains("no data that could be copied"),
        "{error}"
    );
}

#[derive(Default)]
struct Seen {
    expected: AtomicU64,
    moved: AtomicU64,
    steps: Mutex<Vec<u64>>,
}

impl Progress for Seen {
    fn expect_bytes(&self, bytes: u64) {
        self.expected.store(bytes, Ordering::SeqCst);
    }

    fn add_bytes(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::SeqCst);
        self.steps.lock().unwrap().push(bytes);
    }
}

/// A simulated resource in a bank that can fail.
struct Lab {
    bank: Arc<FaultyBank<MemoryBank>>,
    seen: Arc<Seen>,
    cancel: CancellationToken,
}

impl Lab {
    fn new() -> Self {
        Self {
            bank: Arc::new(FaultyBank::new(MemoryBank::new())),
            seen: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn context(&self, kind: OperationType, name: &str, parameters: Value) -> OperationContext {
        let bank: Arc<dyn Bank> = self.bank.clone();
        let section = BankSection::new(
            bank,
            BankKey::parse("checkpoints/c/resource-data/r").unwrap(),
        );
        let writes = matches!(kind, OperationType::Protect | OperationType::Delete);
        let Value::Object(parameters) = parameters else {
            panic!("{parameters}")
        };
        OperationContext {
            request: RequestContext::for_project("user", "project", false),
            operation: kind,
            operation_id: OperationId::new(),
            checkpoint_id: CheckpointId::new(),
            plan_id: PlanId::new(),
            provider_id: ProviderId::new(),
            project_id: "project".to_owned(),
            resource: Resource::new("Simulated::Resource", "r", name),
            dependents: Vec::new(),
            parameters,
            vault: VaultAccess {
                section: section.clone(),
                password: Secret::new(String::new()),
            },
            copy_target: None,
            data: match writes {
                true => DataSection::Writable(section),
                false => DataSection::ReadOnly(section.read_only()),
            },
            progress: self.seen.clone(),
            cancel: self.cancel.clone(),
        }
    }

    async fn with(
        &self,
        kind: OperationType,
        name: &str,
        parameters: Value,
    ) -> Result<HookReport, PluginError> {
        let context = self.context(kind, name, parameters);
        let operation = Simulated.operation(HookSet::of(kind).unwrap(), &context.resource)?;
        operation.main(&context).await
    }

    async fn run(&self, kind: OperationType, name: &str) -> Result<HookReport, PluginError> {
        self.with(kind, name, json!({})).await
    }
}

use OperationType::{Delete, Protect, Restore, Verify};

#[tokio::test]
async fn it_leaves_one_object_per_resource() {
    let lab = Lab::new();
    lab.run(Protect, "volume-2").await.unwrap();
    let keys = lab.bank.inner().keys();
    assert_eq!(keys, ["checkpoints/c/resource-data/r/metadata"]);
}

#[tokio::test]
async fn it_moves_bytes_and_says_how_many() {
    let lab = Lab::new();
    let report = lab.run(Protect, "bytes=2500000").await.unwrap();
    assert_eq!(report["bytes"], 2_500_000);
    assert_eq!(lab.seen.expected.load(Ordering::SeqCst), 2_500_000);
    assert_eq!(lab.seen.moved.load(Ordering::SeqCst), 2_500_000);
    assert_eq!(lab.seen.steps.lock().unwrap().len(), 3);
    let stored: usize = lab.bank.inner().contents().values().map(Bytes::len).sum();
    assert!(stored > 2_500_000);
    let report = lab.run(Restore, "bytes=2500000").await.unwrap();
    assert_eq!(report["bytes"], 2_500_000);
    assert_eq!(lab.seen.moved.load(Ordering::SeqCst), 5_000_000);
}

#[tokio::test]
async fn it_fails_on_command() {
    for (word, kind) in [
        ("fail_protect", Protect),
        ("fail_restore", Restore),
        ("fail_verify", Verify),
        ("fail_delete", Delete),
    ] {
        let lab = Lab::new();
        for step in [Protect, Verify, Restore, Delete] {
            let answer = lab.run(step, &format!("some {word}")).await;
            if step == kind {
                let error = answer.unwrap_err();
                let wanted = format!("the simulated {step} of 'some {word}' was told to fail");
                assert_eq!(error.message, wanted);
                break;
            }
            answer.unwrap();
        }
    }
    let lab = Lab::new();
    lab.run(Protect, "x").await.unwrap();
    for fail in [json!("true"), json!(true), json!(1)] {
        lab.with(Restore, "x", json!({"fail": fail}))
            .await
            .unwrap_err();
        lab.with(Verify, "x", json!({"fail": fail}))
            .await
            .unwrap_err();
        lab.with(Protect, "x", json!({"fail": fail}))
            .await
            .unwrap_err();
    }
    lab.with(Restore, "x", json!({"fail": "false", "restore_name": "y"}))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_sleeps_as_long_as_told() {
    let lab = Lab::new();
    for (kind, name, parameters, wanted) in [
        (Protect, "sleep=3", json!({}), 3.0),
        (Restore, "sleep=3", json!({}), 0.0),
        (Restore, "x", json!({"sleep": "0.5"}), 0.5),
        (Verify, "x", json!({"sleep": 2}), 2.0),
    ] {
        lab.run(Protect, name.trim_start_matches("sleep=3"))
            .await
            .unwrap();
        let start = Instant::now();
        let _ = lab.with(kind, name, parameters).await;
        assert!(
            (start.elapsed().as_secs_f64() - wanted).abs() < 0.01,
            "{kind} {name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_a_sleep_at_once() {
    let lab = Lab::new();
    let context = lab.context(Protect, "sleep=3600", json!({}));
    let operation = Simulated
        .operation(HookSet::Protect, &context.resource)
        .unwrap();
    let start = Instant::now();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        lab.cancel.cancel();
    };
    let (answer, ()) = tokio::join!(operation.main(&context), cancel);
    assert_eq!(answer.unwrap_err().message, "cancelled");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(lab.bank.inner().keys().is_empty());
}

#[tokio::test]
async fn damage_is_found_by_restore_and_verify() {
    let objects = {
        let lab = Lab::new();
        lab.run(Protect, "bytes=1500000").await.unwrap();
        lab.bank.inner().contents()
    };
    assert_eq!(objects.len(), 3);
    for (key, data) in &objects {
        let mut flipped = data.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let damages = [
            ("flipped", Some(Bytes::from(flipped))),
            ("cut", Some(data.slice(..data.len() - 1))),
            ("gone", None),
        ];
        for (damage, data) in damages {
            let lab = Lab::new();
            for (key, data) in &objects {
                lab.bank.inner().tamper(key, data.clone());
            }
            match data {
                Some(data) => lab.bank.inner().tamper(key, data),
                None => lab.bank.inner().delete(key).await.unwrap(),
            }
            let restored = lab.run(Restore, "bytes=1500000").await;
            assert!(restored.is_err(), "restore with {key} {damage}");
            let all = json!({"level": "data"});
            let read = lab.with(Verify, "bytes=1500000", all).await;
            assert!(read.is_err(), "verify with {key} {damage}");
            // What only looks does not see what is flipped in the data.
            let looked = lab.run(Verify, "bytes=1500000").await;
            assert_eq!(
                looked.is_err(),
                damage != "flipped",
                "a look at {key} {damage}"
            );
        }
    }
}

#[tokio::test]
async fn a_sample_reads_as_much_as_it_says() {
    let lab = Lab::new();
    let name = "bytes=20971520";
    lab.run(Protect, name).await.unwrap();
    for (percent, chunks) in [(1, 1), (10, 2), (50, 10), (100, 20)] {
        let parameters = json!({"level": "data", "percent": percent});
        let report = lab.with(Verify, name, parameters).await.unwrap();
        assert_eq!(report["bytes"], chunks * 1_048_576, "{percent}%");
    }
    let report = lab.run(Verify, name).await.unwrap();
    assert_eq!(report["bytes"], 0);
}

#[tokio::test]
async fn a_failing_bank_fails_the_operation_and_says_how() {
    let lab = Lab::new();
    lab.bank
        .inject(Fault::Full, 1, |call| call.key.ends_with("metadata"));
    let error = lab.run(Protect, "bytes=10").await.unwrap_err();
    assert!(error.message.starts_with("the bank is full"), "{error}");
    lab.bank
        .inject(Fault::Fail, 1, |call| call.verb == Verb::Put);
    assert!(lab.run(Protect, "x").await.unwrap_err().retryable);
    // Undone in spite of the cancel.
    lab.cancel.cancel();
    let context = lab.context(Protect, "x", json!({}));
    let operation = Simulated
        .operation(HookSet::Protect, &context.resource)
        .unwrap();
    operation.undo(&context).await.unwrap();
    assert!(lab.bank.inner().keys().is_empty());
    assert_eq!(lab.bank.count(Verb::Delete), 1);
}
