//! A manager that remembers what was done to it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use karbor_manager::{
    Health, InProcess, Manager, ManagerBase, PeriodicTasks, RpcEndpoint, RpcVersion, rpc_interface,
};
use karbor_model::{ApiError, RequestContext, ServiceRecord};
use karbor_testkit::ServiceHarness;
use tokio::sync::{Notify, Semaphore};

rpc_interface! {
    /// What tests ask of the probe.
    pub trait ProbeApi {
        topic: "probe", version: (1, 1), client: ProbeClient, endpoint: ProbeEndpoint
    }
    /// Comes back with what it was given.
    since (1, 0) call fn echo(text: String, times: u32 = 1) -> String;
    /// Fails with a cause.
    since (1, 0) call fn fail() -> String;
    /// Panics.
    since (1, 0) call fn panic();
    /// Returns when it is let go.
    since (1, 0) call fn wait() -> String;
    /// Notes the word.
    since (1, 1) cast fn note(word: String);
    /// Notes the word, everywhere.
    since (1, 1) fanout fn note_everywhere(word: String);
}

pub struct Probe {
    pub base: ManagerBase<()>,
    pub events: Mutex<Vec<String>>,
    pub working: AtomicBool,
    /// `is_working` panics.
    pub panicking: AtomicBool,
    pub refuse_init: AtomicBool,
    /// `wait` has been entered.
    pub entered: Notify,
    /// One permit lets one `wait` go.
    pub gate: Semaphore,
    pub tasks: PeriodicTasks<Probe>,
    pub cleanup_takes: Mutex<Duration>,
    pub init_takes: Mutex<Duration>,
}

impl Probe {
    pub fn new(harness: &ServiceHarness, host: &str) -> Arc<Self> {
        Arc::new(Self {
            base: harness.base(host, ()).unwrap(),
            events: Mutex::default(),
            working: AtomicBool::new(true),
            panicking: AtomicBool::new(false),
            refuse_init: AtomicBool::new(false),
            entered: Notify::new(),
            gate: Semaphore::new(0),
            tasks: PeriodicTasks::new(harness.clock.shared()),
            cleanup_takes: Mutex::default(),
            init_takes: Mutex::default(),
        })
    }

    pub fn event(&self, what: impl Into<String>) {
        self.events.lock().unwrap().push(what.into());
    }

    pub fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

pub fn client(transport: &InProcess) -> ProbeClient {
    ProbeClient::new(Arc::new(transport.clone()), Duration::from_secs(60))
}

/// Asks whichever probe listens for "x".
pub async fn echo(transport: &InProcess) -> Result<String, ApiError> {
    let context = RequestContext::admin();
    client(transport).echo(&context, "x".to_owned(), 1).await
}

impl Manager for Probe {
    type Db = ();
    const BINARY: &'static str = "karbor-probe";
    const TOPIC: &'static str = "probe";
    const RPC_API_VERSION: RpcVersion = ProbeEndpoint::VERSION;

    fn base(&self) -> &ManagerBase<()> {
        &self.base
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        vec![Arc::new(ProbeEndpoint::new(self.clone()))]
    }

    fn periodic_tasks(self: &Arc<Self>) -> PeriodicTasks<Self> {
        self.tasks.clone()
    }

    async fn init_host(self: &Arc<Self>, service: &ServiceRecord) -> Result<(), ApiError> {
        self.event(format!("init_host {} {}", service.host, service.id));
        let me = self.clone();
        self.base.tasks().spawn("resumed", async move {
            me.base.tasks().cancelled().cancelled().await;
            me.event("task ended");
        });
        let takes = *self.init_takes.lock().unwrap();
        if !takes.is_zero() {
            self.base.clock().sleep(takes).await;
        }
        if self.refuse_init.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("no bank", "by the test"));
        }
        Ok(())
    }

    async fn init_host_with_rpc(self: &Arc<Self>) -> Result<(), ApiError> {
        self.event("init_host_with_rpc");
        Ok(())
    }

    async fn cleanup_host(self: &Arc<Self>) {
        let takes = *self.cleanup_takes.lock().unwrap();
        self.base.clock().sleep(takes).await;
        self.event("cleanup_host");
    }

    fn registered_again(self: &Arc<Self>, service: &ServiceRecord) {
        self.event(format!("registered_again {}", service.id));
    }

    fn is_working(&self) -> Health {
        if self.panicking.load(Ordering::Relaxed) {
            panic!("no such bank");
        }
        if self.working.load(Ordering::Relaxed) {
            Health::Working
        } else {
            Health::NotWorking {
                reason: "the bank is full".to_owned(),
            }
        }
    }
}

#[async_trait]
impl ProbeApi for Probe {
    async fn echo(
        &self,
        context: &RequestContext,
        text: String,
        times: u32,
    ) -> Result<String, ApiError> {
        let text = text.repeat(times as usize);
        Ok(format!(
            "{}/{}: {text}",
            self.base.host(),
            context.project_id
        ))
    }

    async fn fail(&self, _: &RequestContext) -> Result<String, ApiError> {
        Err(ApiError::not_found("Plan", "p1").with_cause("password=hunter2"))
    }

    async fn panic(&self, _: &RequestContext) -> Result<(), ApiError> {
        panic!("out of cheese")
    }

    async fn wait(&self, _: &RequestContext) -> Result<String, ApiError> {
        self.entered.notify_one();
        self.gate.acquire().await.unwrap().forget();
        self.event("call finished");
        Ok("done".to_owned())
    }

    async fn note(&self, _: &RequestContext, word: String) -> Result<(), ApiError> {
        self.event(word);
        Ok(())
    }

    async fn note_everywhere(&self, _: &RequestContext, word: String) -> Result<(), ApiError> {
        self.event(word);
        Ok(())
    }
}
