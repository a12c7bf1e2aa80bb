//! What the database layer costs: wall and CPU time of the hot paths, on a file in a temporary folder.
//! `cargo bench -p karbor-db --bench db [part of a name]`
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the developer's terminal"
)]

use std::{fs, future::Future, time::Instant};

use chrono::{TimeDelta, Utc};
use karbor_db::{Db, FlowRecord, ListQuery, QuotaDefaults};
use karbor_model::{
    EventKind, FlowStatus, JournalEvent, OperationId, OperationType, Plan, PlanId, PlanStatus,
    ProviderId, QuotaResource, Resource,
};
use serde_json::json;

fn plan(number: i64) -> Plan {
    Plan {
        id: PlanId::new(),
        name: format!("plan-{number}"),
        description: Some("made by the bench".to_owned()),
        provider_id: ProviderId::new(),
        project_id: "default".to_owned(),
        status: PlanStatus::Suspended,
        parameters: serde_json::from_value(json!({"Host::Directory": {"mode": "full"}})).unwrap(),
        resources: vec![Resource::new(
            "Host::Directory",
            PlanId::new().to_string(),
            "files",
        )],
        created_at: Utc::now() + TimeDelta::microseconds(number),
        updated_at: None,
    }
}

/// User and system time of this process, in milliseconds (10 ms steps).
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10.0
}

async fn measure<F: Future<Output = ()>>(what: &str, times: u32, mut one: impl FnMut() -> F) {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if only.is_some_and(|only| !what.contains(&only)) {
        return;
    }
    one().await;
    let (start, before) = (Instant::now(), cpu());
    for _ in 0..times {
        one().await;
    }
    let wall = start.elapsed().as_secs_f64() * 1000.0 / f64::from(times);
    let cpu = (cpu() - before) / f64::from(times);
    println!("{what:44} {wall:9.3} ms wall {cpu:9.3} ms CPU");
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("karbor.db")).await.unwrap();
    db.migrate().await.unwrap();
    let plans: Vec<Plan> = (0..100).map(plan).collect();
    for plan in &plans {
        db.plans().create(plan).await.unwrap();
    }
    let all = ListQuery::project("default");
    measure("plan_list, 100 plans", 2000, || async {
        assert_eq!(db.plans().list(&all).await.unwrap().len(), 100);
    })
    .await;
    let page = ListQuery {
        marker: Some(plans[50].id.to_string()),
        limit: Some(10),
        ..all.clone()
    };
    measure("plan_list, 10 of 100 after a marker", 2000, || async {
        assert_eq!(db.plans().list(&page).await.unwrap().len(), 10);
    })
    .await;
    measure("plan_get", 5000, || async {
        db.plans().get(plans[7].id).await.unwrap();
    })
    .await;
    let defaults = QuotaDefaults {
        limits: [(QuotaResource::Plans, 1_000_000)].into(),
        use_default_class: true,
    };
    measure("plan_create_within, one resource", 500, || async {
        let mut plan = plan(0);
        plan.project_id = "other".to_owned();
        db.plans().create_within(&plan, &defaults).await.unwrap();
    })
    .await;
    for batch in [1, 10, 100, 8000] {
        let flow = FlowRecord {
            operation_id: OperationId::new(),
            operation_type: OperationType::Protect,
            host: "bench".to_owned(),
            payload: json!({}),
            status: FlowStatus::Running,
        };
        db.runs().flow_create(&flow).await.unwrap();
        let mut seq = 0;
        measure(
            &format!("flow_append, {batch} events"),
            (4000 / (batch + 100)).max(5),
            || {
                let events: Vec<JournalEvent> = (0..batch)
                    .map(|number| {
                        seq += 1;
                        JournalEvent {
                            seq,
                            task: format!("main:Host::Directory#{number}"),
                            kind: EventKind::Started,
                            at: Utc::now(),
                        }
                    })
                    .collect();
                let (db, id) = (db.clone(), flow.operation_id);
                async move { db.runs().flow_append(id, &events).await.unwrap() }
            },
        )
        .await;
    }
}
