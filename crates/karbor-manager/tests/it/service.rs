use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use karbor_manager::{
    Clock, Config, Health, Manager, ManagerBase, OPTIONS, PeriodicTask, RpcEndpoint, Service,
    ServiceApi, ServiceClient, ServiceOptions, SystemClock, rpc_interface, this_host,
};
use karbor_model::{ApiError, ErrorKind, RequestContext};
use karbor_testkit::{ServiceHarness, StoreMode};
use serde_json::json;

use crate::probe::{Probe, ProbeApi, client, echo};

fn admin() -> RequestContext {
    RequestContext::admin()
}

#[tokio::test]
async fn it_starts_in_order_and_answers() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let early = client(&harness.transport)
        .echo(&admin(), "x".into(), 1)
        .await;
    assert_eq!(early.unwrap_err().kind, ErrorKind::Unavailable);

    let service = harness.start(&probe).await.unwrap();
    assert_eq!(probe.events(), ["init_host a 1", "init_host_with_rpc"]);
    let row = &harness.store.rows()[0];
    assert_eq!((row.host.as_str(), row.topic.as_str()), ("a", "probe"));
    assert_eq!(row.binary, "karbor-probe");
    let said = client(&harness.transport)
        .echo(&admin(), "x".into(), 2)
        .await;
    assert_eq!(said.unwrap(), "a/: xx");
    assert!(service.shutdown(Duration::from_secs(1)).await.is_graceful());
}

#[tokio::test]
async fn a_manager_that_refuses_to_init_never_answers() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    probe.refuse_init.store(true, Ordering::Relaxed);
    let error = harness.start(&probe).await.err().unwrap();
    assert_eq!(error.message, "no bank");
    harness.clock.settle().await;
    assert!(probe.base.tasks().running().is_empty(), "a task was left");
    assert!(!probe.events().contains(&"init_host_with_rpc".to_owned()));
    let call = echo(&harness.transport).await;
    assert_eq!(call.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn without_its_database_it_does_not_start() {
    let harness = ServiceHarness::new();
    harness.store.set_mode(StoreMode::Down);
    let probe = Probe::new(&harness, "a");
    let error = harness.start(&probe).await.err().unwrap();
    assert!(error.kind.is_retryable());
    assert!(probe.events().is_empty());
}

#[tokio::test]
async fn a_restarted_service_takes_its_row_again() {
    let harness = ServiceHarness::new();
    for _ in 0..2 {
        let service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
        assert_eq!(service.record().id, 1);
        service.shutdown(Duration::from_secs(1)).await;
    }
    harness.start(&Probe::new(&harness, "b")).await.unwrap();
    assert_eq!(harness.store.rows().len(), 2);
}

#[tokio::test]
async fn every_service_tells_about_itself_over_rpc() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    probe.tasks.add(
        PeriodicTask::new("count", |_: Arc<Probe>, _| async { Ok(json!({"n": 7})) })
            .run_immediately(true),
    );
    let _service = harness.start(&probe).await.unwrap();
    harness.clock.settle().await;
    let transport = Arc::new(harness.transport.clone());
    let client = ServiceClient::new(transport, Duration::from_secs(1))
        .on_topic("probe")
        .on_server("a");

    let health = client.health(&admin()).await.unwrap();
    assert_eq!(health.health, Health::Working);
    assert_eq!(health.host, "a");
    assert_eq!(health.last_heartbeat, Some(harness.clock.now()));
    assert_eq!(health.running_tasks, ["resumed"]);
    assert_eq!(
        client.service_version(&admin()).await.unwrap(),
        probe.service_version()
    );
    let config = client.service_config(&admin()).await.unwrap();
    assert_eq!(
        config["DEFAULT"]["report_interval"],
        json!({"value": 10.0, "source": "default"})
    );
    let reports = client.task_reports(&admin()).await.unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].runs, 1);
}

rpc_interface! {
    /// Another interface of the same service.
    trait ExtraApi {
        namespace: "extra", version: (1, 0), client: ExtraClient, endpoint: ExtraEndpoint
    }
    /// One more.
    since (1, 0) call fn more() -> u8;
}

struct Extra;

#[async_trait::async_trait]
impl ExtraApi for Extra {
    async fn more(&self, _: &RequestContext) -> Result<u8, ApiError> {
        Ok(1)
    }
}

#[tokio::test]
async fn additional_endpoints_are_answered() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let extra: Arc<dyn RpcEndpoint> = Arc::new(ExtraEndpoint::new(Arc::new(Extra)));
    probe.base.add_endpoint(extra);
    let _service = harness.start(&probe).await.unwrap();
    let transport = Arc::new(harness.transport.clone());
    let client = ExtraClient::new(transport, Duration::from_secs(1)).on_topic("probe");
    assert_eq!(client.more(&admin()).await.unwrap(), 1);
}

#[test]
fn a_manager_s_target_is_displayed_as_the_original_s() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    assert_eq!(probe.target().to_string(), "<Target version=1.1>");
    let config = Config::default();
    let plain = Plain(ManagerBase::new(None, (), config, harness_clock()));
    assert_eq!(plain.target().to_string(), "<Target version=1.0>");
    assert_eq!(Plain::RPC_API_VERSION.to_string(), "1.0");
}

/// A manager whose interface is older than what its endpoint answers.
struct Behind(ManagerBase<()>, Arc<Probe>);

impl Manager for Behind {
    type Db = ();
    const BINARY: &'static str = "behind";
    const TOPIC: &'static str = "behind";

    fn base(&self) -> &ManagerBase<()> {
        &self.0
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        self.1.endpoints()
    }
}

#[tokio::test]
async fn a_manager_and_its_endpoint_that_disagree_about_the_version_do_not_start() {
    let harness = ServiceHarness::new();
    let base = harness.base("a", ()).unwrap();
    let behind = Arc::new(Behind(base, Probe::new(&harness, "a")));
    let error = harness.start(&behind).await.err().unwrap();
    let cause = error.cause.unwrap();
    assert!(
        cause.contains("<Target version=1.0>") && cause.contains("<Target version=1.1>"),
        "{cause}"
    );
    assert!(harness.store.rows().is_empty());
}

#[tokio::test]
async fn the_version_is_the_application_s() {
    let harness = ServiceHarness::new();
    let config = Config::builder()
        .options(OPTIONS)
        .version("77.1 of the bell tower");
    let clock = harness.clock.shared();
    let base = ManagerBase::new(None, (), config.build().unwrap(), clock);
    let service = harness.start(&Arc::new(Plain(base))).await.unwrap();
    let version = service.api().service_version(&admin()).await.unwrap();
    assert_eq!(version, "77.1 of the bell tower");
    let health = service.api().health(&admin()).await.unwrap();
    assert_eq!(health.version, "77.1 of the bell tower");
}

#[test]
fn the_host_is_the_given_one_or_the_configured_one_or_this_machine() {
    let clock: Arc<dyn Clock> = harness_clock();
    let config = |host: &str| {
        let builder = Config::builder().options(OPTIONS);
        builder.set("DEFAULT", "host", host).build().unwrap()
    };
    let host = |given: Option<&str>, config| {
        let base = ManagerBase::new(given.map(str::to_owned), (), config, clock.clone());
        base.host().to_owned()
    };
    assert_eq!(host(Some("given"), config("configured")), "given");
    assert_eq!(host(None, config("configured")), "configured");
    assert_eq!(host(None, config("")), this_host());
    assert_eq!(host(None, Config::default()), this_host());
    assert!(!this_host().is_empty());
}

fn harness_clock() -> Arc<dyn Clock> {
    ServiceHarness::new().clock.shared()
}

/// The original's `basic_config_check`.
#[test]
fn a_down_time_that_is_too_short_is_corrected_with_a_warning() {
    let options = |report: u64, down: u64| ServiceOptions {
        report_interval: Duration::from_secs(report),
        service_down_time: Duration::from_secs(down),
        ..ServiceOptions::default()
    };
    let (same, warning) = options(10, 60).checked();
    assert_eq!((same, warning), (options(10, 60), None));
    assert_eq!(options(0, 0).checked().1, None);
    let (corrected, warning) = options(10, 10).checked();
    assert_eq!(corrected.service_down_time, Duration::from_secs(25));
    assert!(warning.unwrap().contains("service_down_time"));
}

#[tokio::test]
async fn it_runs_on_the_machine_s_clock_too() {
    let clock = Arc::new(SystemClock::new());
    let config = Config::builder().options(OPTIONS).build().unwrap();
    let options = ServiceOptions::from_config(&config).unwrap();
    let harness = ServiceHarness::new();
    let probe = Arc::new(Plain(ManagerBase::new(None, (), config, clock)));
    let service = Service::new(
        probe,
        options,
        Arc::new(harness.store.clone()),
        Arc::new(harness.transport.clone()),
    );
    let running = service.start().await.unwrap();
    assert!(running.shutdown(Duration::from_secs(5)).await.is_graceful());
}

/// A manager with nothing but what it must have.
struct Plain(ManagerBase<()>);

impl Manager for Plain {
    type Db = ();
    const BINARY: &'static str = "plain";
    const TOPIC: &'static str = "plain";

    fn base(&self) -> &ManagerBase<()> {
        &self.0
    }
}
