//! A small world for flows: hooks that leave traces in it, a journal that can break, and one diary
//! in which hooks and durable events stand in the order in which they happened.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use karbor_flow::{
    Executor, ExecutorOptions, FlowNode, FlowOutcome, FlowPlan, Hook, HookContext, HookRunner,
    Journal, JournalError, RetryPolicy, Unwatched, plan,
};
use karbor_manager::SystemClock;
use karbor_model::{JournalEvent, OperationType, Resource, ResourceGraph};
use karbor_plugin::{HookReport, PluginError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A graph of `count` resources named `0`, `1`, … with edges from parent to child.
pub fn graph(count: usize, edges: &[(usize, usize)]) -> ResourceGraph {
    let mut graph = ResourceGraph::new();
    for i in 0..count {
        graph.add(Resource::new("T", i.to_string(), format!("name {i}")));
    }
    for &(parent, child) in edges {
        graph.depend(parent, child);
    }
    graph
}

pub fn plan_of(count: usize, edges: &[(usize, usize)]) -> Arc<FlowPlan> {
    Arc::new(plan(&graph(count, edges), OperationType::Protect).unwrap())
}

/// Two parents with a shared child, which has a child of its own, and a loner.
pub fn shared_child() -> Arc<FlowPlan> {
    plan_of(5, &[(0, 2), (1, 2), (2, 3)])
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A hook began.
    Begin(String),
    /// A hook ended, whatever the way.
    End(String),
    /// An event of this kind became durable.
    Durable(String, &'static str),
}

/// What a hook does.
#[derive(Debug, Clone)]
pub enum Act {
    Succeed,
    Fail(&'static str),
    /// Fails with a retryable error that many times, then succeeds.
    FailTimes(u32),
    Panic,
    /// Waits to be cancelled, and says that it was.
    Obey,
    /// Waits to be cancelled, and then fails with a reason of its own.
    FailWhenCancelled(&'static str),
    /// Cancels its own token, and says that it was cancelled.
    CancelItself,
    /// Never ends and never listens.
    Ignore,
    Report(HookReport),
}

/// What hooks do to the world, and who saw what when.
#[derive(Default)]
pub struct World {
    pub diary: Mutex<Vec<Entry>>,
    /// Traces of hooks by resource, removed by its undo.
    pub traces: Mutex<BTreeMap<String, BTreeSet<Hook>>>,
    pub acts: HashMap<String, Act>,
    /// Cancelled when the hook of this name begins, or has left its trace.
    pub trip: Option<(String, bool, CancellationToken)>,
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
}

impl World {
    pub fn with(acts: &[(&str, Act)]) -> Self {
        Self {
            acts: acts
                .iter()
                .map(|(task, act)| ((*task).to_owned(), act.clone()))
                .collect(),
            ..Self::default()
        }
    }

    pub fn diary(&self) -> Vec<Entry> {
        self.diary.lock().unwrap().clone()
    }

    pub fn note(&self, entry: Entry) {
        self.diary.lock().unwrap().push(entry);
    }

    /// How often the hook of this name began.
    pub fn begun(&self, task: &str) -> usize {
        let diary = self.diary.lock().unwrap();
        diary
            .iter()
            .filter(|entry| matches!(entry, Entry::Begin(name) if name == task))
            .count()
    }

    pub fn traces(&self) -> BTreeMap<String, BTreeSet<Hook>> {
        let mut traces = self.traces.lock().unwrap().clone();
        traces.retain(|_, hooks| !hooks.is_empty());
        traces
    }

    /// The resources whose undo began, in that order.
    pub fn undone(&self) -> Vec<String> {
        let diary = self.diary.lock().unwrap();
        diary
            .iter()
            .filter_map(|entry| match entry {
                Entry::Begin(task) => task.strip_prefix("undo:").map(str::to_owned),
                _ => None,
            })
            .collect()
    }

    /// The resources of which any hook became `started` in the journal.
    pub fn started(&self) -> BTreeSet<String> {
        let diary = self.diary.lock().unwrap();
        diary
            .iter()
            .filter_map(|entry| match entry {
                Entry::Durable(task, "started") if !task.starts_with("undo:") => {
                    Some(task.split_once(':').unwrap().1.to_owned())
                }
                _ => None,
            })
            .collect()
    }

    fn trip(&self, task: &str, after: bool) {
        if let Some((at, when, token)) = &self.trip
            && at == task
            && *when == after
        {
            token.cancel();
        }
    }

    async fn act(
        &self,
        task: &str,
        context: &HookContext,
        trace: impl FnOnce(),
    ) -> Result<HookReport, PluginError> {
        self.trip(task, false);
        // Every hook takes a while of its own, so that they end in another order than they began.
        let mixed = task.bytes().fold(7_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        tokio::time::sleep(Duration::from_millis(mixed % 17)).await;
        match self.acts.get(task).unwrap_or(&Act::Succeed) {
            Act::Succeed => {}
            Act::Fail(reason) => return Err(PluginError::new(*reason)),
            Act::FailTimes(times) if context.attempt <= *times => {
                return Err(PluginError::retryable(format!(
                    "attempt {}",
                    context.attempt
                )));
            }
            Act::FailTimes(_) => {}
            Act::Panic => panic!("on command"),
            Act::Obey => {
                context.cancel.cancelled().await;
                return Err(PluginError::cancelled());
            }
            Act::FailWhenCancelled(reason) => {
                context.cancel.cancelled().await;
                return Err(PluginError::new(*reason));
            }
            Act::CancelItself => {
                context.cancel.cancel();
                return Err(PluginError::cancelled());
            }
            Act::Ignore => std::future::pending().await,
            Act::Report(report) => {
                trace();
                return Ok(report.clone());
            }
        }
        trace();
        self.trip(task, true);
        // So that a crash can come between the work and its end.
        tokio::task::yield_now().await;
        Ok(HookReport::new())
    }

    async fn watched(
        &self,
        task: String,
        context: &HookContext,
        trace: impl FnOnce(),
    ) -> Result<HookReport, PluginError> {
        struct Running<'a>(&'a World, String);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, Ordering::SeqCst);
                self.0.note(Entry::End(self.1.clone()));
            }
        }
        self.note(Entry::Begin(task.clone()));
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(now, Ordering::SeqCst);
        let running = Running(self, task);
        self.act(&running.1, context, trace).await
    }
}

#[async_trait]
impl HookRunner for World {
    async fn run(
        &self,
        node: &FlowNode,
        hook: Hook,
        context: HookContext,
    ) -> Result<HookReport, PluginError> {
        let task = format!("{hook}:{}", node.key);
        self.watched(task, &context, || {
            let mut traces = self.traces.lock().unwrap();
            traces.entry(node.key.clone()).or_default().insert(hook);
        })
        .await
    }

    async fn undo(&self, node: &FlowNode, context: HookContext) -> Result<(), PluginError> {
        self.watched(format!("undo:{}", node.key), &context, || {
            self.traces.lock().unwrap().remove(&node.key);
        })
        .await
        .map(|_| ())
    }
}

/// A journal that breaks.
pub struct Paper {
    pub events: Mutex<Vec<JournalEvent>>,
    pub appends: AtomicUsize,
    /// From this append on (0 is the first) nothing can be written, but for so many events of the
    /// one that breaks, which get through although it fails.
    pub breaks: Option<(usize, usize)>,
    /// So long takes an append.
    pub slow: Duration,
    /// Cancelled when this event is being written.
    pub trip: Option<(String, &'static str, CancellationToken)>,
    pub world: Arc<World>,
}

impl Paper {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self::blank(world))
    }

    pub fn blank(world: &Arc<World>) -> Self {
        Self {
            events: Mutex::default(),
            appends: AtomicUsize::new(0),
            breaks: None,
            slow: Duration::from_millis(4),
            trip: None,
            world: Arc::clone(world),
        }
    }

    /// A working one that holds what was written before.
    pub fn holding(world: &Arc<World>, events: Vec<JournalEvent>) -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::new(events),
            ..Self::blank(world)
        })
    }

    pub fn events(&self) -> Vec<JournalEvent> {
        self.events.lock().unwrap().clone()
    }
}

#[async_trait]
impl Journal for Paper {
    async fn append(&self, events: Vec<JournalEvent>) -> Result<(), JournalError> {
        assert!(!events.is_empty(), "an append costs an fsync");
        let number = self.appends.fetch_add(1, Ordering::SeqCst);
        if let Some((task, kind, token)) = &self.trip
            && events
                .iter()
                .any(|e| e.task == *task && e.kind.name() == *kind)
        {
            token.cancel();
        }
        // Now shorter, now longer than hooks take.
        tokio::time::sleep(self.slow * (number % 3) as u32).await;
        let through = match self.breaks {
            Some((at, through)) if number == at => through.min(events.len()),
            Some((at, _)) if number > at => 0,
            _ => events.len(),
        };
        let whole = through == events.len() && self.breaks.is_none_or(|(at, _)| number < at);
        for event in events.into_iter().take(through) {
            let mut held = self.events.lock().unwrap();
            assert_eq!(event.seq, held.len() as u64 + 1, "numbers without gaps");
            self.world
                .note(Entry::Durable(event.task.clone(), event.kind.name()));
            held.push(event);
        }
        if whole {
            Ok(())
        } else {
            Err(JournalError("no space left".to_owned()))
        }
    }
}

pub fn options() -> ExecutorOptions {
    ExecutorOptions {
        limit: 3,
        ahead: 2,
        task_timeout: Duration::from_secs(60),
        cancel_grace: Duration::from_secs(5),
        retry: RetryPolicy::default(),
    }
}

pub async fn run_with(
    options: ExecutorOptions,
    plan: &Arc<FlowPlan>,
    world: &Arc<World>,
    journal: &Arc<Paper>,
    cancel: CancellationToken,
) -> FlowOutcome {
    let resume = journal.events();
    Executor::new(options, Arc::new(SystemClock::new()))
        .run(
            Arc::clone(plan),
            world.clone(),
            journal.clone(),
            Arc::new(Unwatched),
            cancel,
            resume,
        )
        .await
}

/// Runs, or goes on, with what the journal holds.
pub async fn run(plan: &Arc<FlowPlan>, world: &Arc<World>, journal: &Arc<Paper>) -> FlowOutcome {
    run_with(options(), plan, world, journal, CancellationToken::new()).await
}

/// What the journal promises, read from the diary of one or more runs of a flow: nothing was
/// begun before that on which it builds was durable, and no order was broken.
pub fn check_order(plan: &FlowPlan, diary: &[Entry]) {
    let mut durable: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let tasks: HashMap<&str, _> = plan
        .tasks()
        .iter()
        .map(|task| (task.name.as_str(), task))
        .collect();
    let undo_of = |node: usize| format!("undo:{}", plan.nodes()[node].key);
    let undos: HashMap<String, usize> = (0..plan.nodes().len()).map(|n| (undo_of(n), n)).collect();
    let mut stopped = false;
    for entry in diary {
        match entry {
            Entry::Durable(task, kind) => {
                *durable.entry((task, *kind)).or_default() += 1;
                stopped |= *kind == "failed" && !task.starts_with("undo:");
            }
            Entry::End(task) => assert!(open.remove(task.as_str()), "{task} ended twice"),
            Entry::Begin(name) => {
                assert!(open.insert(name), "{name} runs twice at once");
                let has = |task: &str, kind: &str| durable.contains_key(&(task, kind));
                assert!(has(name, "started"), "{name} before its start was durable");
                if let Some(task) = tasks.get(name.as_str()) {
                    assert!(!has(name, "finished"), "{name} again after its end");
                    assert!(!stopped, "{name} after the flow was to stop");
                    for &before in &task.after {
                        let before = &plan.tasks()[before].name;
                        assert!(has(before, "finished"), "{name} before the end of {before}");
                    }
                } else {
                    let node = undos[name];
                    assert!(stopped, "{name} before the stop was durable");
                    assert!(
                        open.iter().all(|task| task.starts_with("undo:")),
                        "{name} while {open:?}"
                    );
                    for &child in &plan.nodes()[node].children {
                        let key = &plan.nodes()[child].key;
                        let touched = Hook::FORWARD
                            .iter()
                            .any(|hook| has(&format!("{hook}:{key}"), "started"));
                        let undo = undo_of(child);
                        assert!(
                            !touched || has(&undo, "undone") || has(&undo, "failed"),
                            "{name} before {undo}"
                        );
                    }
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?} never ended");
}

/// Runs a test body on a paused clock.
pub fn paused<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(body)
}

pub fn report(value: serde_json::Value) -> HookReport {
    value.as_object().unwrap().clone()
}

pub fn bytes(count: u64) -> HookReport {
    report(json!({"bytes": count}))
}
