//! What the executor itself costs: hooks that do nothing, a journal in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use karbor_manager::SystemClock;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use karbor_flow::{
    Executor, ExecutorOptions, FlowNode, FlowStatus, Hook, HookContext, HookRunner, Journal,
    JournalError, MemoryJournal, ProgressBoard, plan,
};
use karbor_model::{JournalEvent, OperationType, Resource, ResourceGraph};
use karbor_plugin::{HookReport, PluginError};
use tokio_util::sync::CancellationToken;

struct Nothing;

#[async_trait]
impl HookRunner for Nothing {
    async fn run(&self, _: &FlowNode, _: Hook, _: HookContext) -> Result<HookReport, PluginError> {
        Ok(HookReport::new())
    }

    async fn undo(&self, _: &FlowNode, _: HookContext) -> Result<(), PluginError> {
        Ok(())
    }
}

/// Takes its time for each append, as a disk would.
struct Slow(MemoryJournal);

#[async_trait]
impl Journal for Slow {
    async fn append(&self, events: Vec<JournalEvent>) -> Result<(), JournalError> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.0.append(events).await
    }
}

fn wide(count: usize) -> ResourceGraph {
    let mut graph = ResourceGraph::new();
    let top = graph.add(Resource::new("Top", "top", "top"));
    for i in 1..count {
        let child = graph.add(Resource::new("Leaf", i.to_string(), "leaf"));
        graph.depend(top, child);
    }
    graph
}

fn chain(count: usize) -> ResourceGraph {
    let mut graph = ResourceGraph::new();
    for i in 0..count {
        let child = graph.add(Resource::new("Link", i.to_string(), "link"));
        if i > 0 {
            graph.depend(i - 1, child);
        }
    }
    graph
}

fn loose(count: usize) -> ResourceGraph {
    let mut graph = ResourceGraph::new();
    for i in 0..count {
        graph.add(Resource::new("Loose", i.to_string(), "loose"));
    }
    graph
}

async fn once(graph: &ResourceGraph, limit: usize, journal: Arc<dyn Journal>) -> [Duration; 2] {
    let started = Instant::now();
    let plan = Arc::new(plan(graph, OperationType::Protect).unwrap());
    let planned = started.elapsed();
    let time = Arc::new(SystemClock::new());
    let options = ExecutorOptions {
        limit,
        ..ExecutorOptions::default()
    };
    let board = Arc::new(ProgressBoard::new(time.clone()));
    let started = Instant::now();
    let executor = Executor::new(options, time);
    let flow = async move {
        let cancel = CancellationToken::new();
        executor
            .run(plan, Arc::new(Nothing), journal, board, cancel, Vec::new())
            .await
    };
    // As a service does: the flow is a task among its hooks.
    let outcome = tokio::spawn(flow).await.unwrap();
    assert_eq!(outcome.status, FlowStatus::Success);
    [planned, started.elapsed()]
}

#[tokio::main]
async fn main() {
    // `cargo bench -p karbor-flow -- loose-1000-16`: only such rows.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    println!("| graph | resources | limit | journal | plan ms | run ms |");
    println!("|---|---|---|---|---|---|");
    type Shape = (&'static str, fn(usize) -> ResourceGraph);
    let shapes: [Shape; 3] = [("wide", wide), ("chain", chain), ("loose", loose)];
    for (name, shape) in shapes {
        for count in [100, 1_000, 20_000] {
            let graph = shape(count);
            for (limit, slow) in [(16, false), (16, true), (64, true)] {
                if slow && (count > 1_000 || name == "chain") {
                    continue;
                }
                let row = format!("{name}-{count}-{limit}");
                if !wanted.is_empty() && !wanted.iter().any(|part| row.contains(part.as_str())) {
                    continue;
                }
                let journal: Arc<dyn Journal> = if slow {
                    Arc::new(Slow(MemoryJournal::default()))
                } else {
                    Arc::new(MemoryJournal::default())
                };
                let [plan, run] = once(&graph, limit, journal)
                    .await
                    .map(|d| d.as_secs_f64() * 1e3);
                let journal = if slow { "2 ms" } else { "memory" };
                println!("| {name} | {count} | {limit} | {journal} | {plan:.2} | {run:.2} |");
            }
        }
    }
}
