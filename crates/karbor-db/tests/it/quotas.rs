//! Quotas: what limits a project, and that what is counted is what is there.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
};

use karbor_db::{Db, DbError, FlowRecord, QuotaDefaults, QuotaSettlement, Recounted};
use karbor_model::{
    CheckpointId, FlowStatus, OperationId, PlanId, ProviderId, QuotaChange, QuotaHolding,
    QuotaLimits, QuotaResource,
    QuotaResource::{Bytes, Checkpoints, Plans},
};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{child, child_db, fixture, flow, plan};

const P: &str = "p";

fn defaults(plans: i64, checkpoints: i64, bytes: i64) -> QuotaDefaults {
    QuotaDefaults {
        limits: QuotaLimits::from([(Plans, plans), (Checkpoints, checkpoints), (Bytes, bytes)]),
        use_default_class: true,
    }
}

fn own(limits: &[(QuotaResource, i64)]) -> QuotaChange {
    QuotaChange {
        limits: limits.iter().copied().collect(),
        class: None,
    }
}

fn in_class(class: &str) -> QuotaChange {
    QuotaChange {
        class: Some(Some(class.to_owned())),
        ..QuotaChange::default()
    }
}

fn holding() -> QuotaHolding {
    QuotaHolding {
        checkpoint_id: CheckpointId::new(),
        project_id: P.to_owned(),
        provider_id: ProviderId(uuid_of_tests()),
        bytes: 0,
        settled: false,
    }
}

fn uuid_of_tests() -> uuid::Uuid {
    uuid::Uuid::from_u128(7)
}

async fn used(db: &Db, resource: QuotaResource) -> i64 {
    db.quotas().usage(P).await.unwrap()[&resource]
}

/// Begins a run that makes a checkpoint.
async fn begin(db: &Db, limits: &QuotaDefaults) -> Result<(FlowRecord, QuotaHolding), DbError> {
    let (flow, holding) = (flow("host"), holding());
    db.runs()
        .flow_create_holding(&flow, &holding, limits)
        .await?;
    Ok((flow, holding))
}

async fn end(db: &Db, flow: &FlowRecord, settlement: QuotaSettlement) -> Result<(), DbError> {
    let id = flow.operation_id;
    db.runs()
        .flow_end(id, FlowStatus::Success, &settlement)
        .await
}

fn is_over(result: Result<impl std::fmt::Debug, DbError>, of: QuotaResource, limit: i64) {
    let error = result.unwrap_err();
    let expected = DbError::OverQuota {
        resource: of,
        limit,
    };
    assert_eq!(error, expected);
    let words = format!("Maximum number of {of} allowed ({limit}) exceeded");
    assert_eq!(error.to_string(), words);
}

/// Q61, Q77: own, else the class's, else those of the class `default`, else the configuration's.
#[tokio::test]
async fn q77_classes_limit() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let config = defaults(50, -1, -1);
    let limits = async |project| db.quotas().limits(project, &config).await.unwrap();
    assert_eq!(limits(P).await, config.limits);

    let class = QuotaLimits::from([(Plans, 40), (Checkpoints, 9)]);
    db.quotas().class_update("default", &class).await.unwrap();
    assert_eq!(limits(P).await[&Plans], 40);
    db.quotas()
        .class_update("gold", &QuotaLimits::from([(Plans, 80)]))
        .await
        .unwrap();
    db.quotas().update(P, &in_class("gold")).await.unwrap();
    assert_eq!(
        db.quotas().class_of(P).await.unwrap().as_deref(),
        Some("gold")
    );
    assert_eq!(
        (limits(P).await[&Plans], limits(P).await[&Checkpoints]),
        (80, 9)
    );
    assert_eq!(limits("other").await[&Plans], 40);

    db.quotas()
        .update(P, &own(&[(Plans, 3), (Bytes, 1 << 40)]))
        .await
        .unwrap();
    db.quotas().update(P, &own(&[(Plans, 4)])).await.unwrap();
    let all = QuotaLimits::from([(Plans, 4), (Checkpoints, 9), (Bytes, 1 << 40)]);
    assert_eq!(limits(P).await, all);
    let without_own = db.quotas().default_limits(P, &config).await.unwrap();
    assert_eq!(without_own[&Plans], 80);
    let gold = db.quotas().class_limits("gold", &config).await.unwrap();
    assert_eq!(
        (gold[&Plans], gold[&Checkpoints], gold[&Bytes]),
        (80, 9, -1)
    );

    let unclassed = QuotaDefaults {
        use_default_class: false,
        ..config.clone()
    };
    let other = db.quotas().limits("other", &unclassed).await.unwrap();
    assert_eq!(other[&Plans], 50);

    db.quotas().delete(P).await.unwrap();
    assert_eq!(db.quotas().class_of(P).await.unwrap(), None);
    assert_eq!(limits(P).await[&Plans], 40);
    let marked: i64 = fixture
        .raw()
        .query_row("SELECT count(*) FROM quotas WHERE deleted = 1", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(marked, 2, "as the original deletes");
    db.quotas().update(P, &own(&[(Plans, 1)])).await.unwrap();
    assert_eq!(limits(P).await[&Plans], 1);
}

#[tokio::test]
async fn plans_are_limited_and_deleted_ones_do_not_count() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let limits = defaults(2, -1, -1);
    let first = plan(P, "a");
    db.plans().create_within(&first, &limits).await.unwrap();
    db.plans()
        .create_within(&plan(P, "b"), &limits)
        .await
        .unwrap();
    is_over(
        db.plans().create_within(&plan(P, "c"), &limits).await,
        Plans,
        2,
    );
    db.plans()
        .create_within(&plan("other", "c"), &limits)
        .await
        .unwrap();
    assert_eq!(used(db, Plans).await, 2);
    db.plans().delete(first.id).await.unwrap();
    db.plans()
        .create_within(&plan(P, "c"), &limits)
        .await
        .unwrap();
    is_over(
        db.plans().create_within(&plan(P, "d"), &limits).await,
        Plans,
        2,
    );
    let none = defaults(-1, -1, -1);
    db.plans()
        .create_within(&plan(P, "d"), &none)
        .await
        .unwrap();
    is_over(
        db.plans()
            .create_within(&plan("new", "d"), &defaults(0, -1, -1))
            .await,
        Plans,
        0,
    );
}

#[tokio::test]
async fn a_checkpoint_counts_from_its_begin_until_it_is_deleted_once() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let limits = defaults(-1, 2, -1);
    let (made, first) = begin(db, &limits).await.unwrap();
    let (refused, second) = begin(db, &limits).await.unwrap();
    is_over(begin(db, &limits).await.map(drop), Checkpoints, 2);
    assert_eq!(used(db, Checkpoints).await, 2);

    let there = QuotaSettlement::Holds(first.checkpoint_id, 100);
    end(db, &made, there.clone()).await.unwrap();
    let again = QuotaSettlement::Holds(first.checkpoint_id, 999);
    assert!(matches!(
        end(db, &made, again).await,
        Err(DbError::Conflict { .. })
    ));
    assert_eq!(used(db, Bytes).await, 100, "an end is told once");
    let gone = QuotaSettlement::Released(second.checkpoint_id);
    end(db, &refused, gone).await.unwrap();
    assert_eq!(used(db, Checkpoints).await, 1);

    let deleting = flow("host");
    db.runs().flow_create(&deleting).await.unwrap();
    let gone = QuotaSettlement::Released(first.checkpoint_id);
    for _ in 0..3 {
        db.runs().holding_settle(&gone).await.unwrap();
    }
    end(db, &deleting, gone).await.unwrap();
    assert_eq!(used(db, Checkpoints).await, 0);
    assert_eq!(used(db, Bytes).await, 0);
}

#[tokio::test]
async fn when_the_bytes_are_used_up_no_checkpoint_is_begun() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let limits = defaults(-1, -1, 1 << 40);
    let (flow, holding) = begin(db, &limits).await.unwrap();
    let much = QuotaSettlement::Holds(holding.checkpoint_id, (1 << 40) + 5);
    end(db, &flow, much).await.unwrap();
    is_over(begin(db, &limits).await.map(drop), Bytes, 1 << 40);
    db.runs()
        .holding_settle(&QuotaSettlement::Released(holding.checkpoint_id))
        .await
        .unwrap();
    begin(db, &limits).await.unwrap();
}

#[tokio::test]
async fn a_recount_believes_the_bank_but_leaves_runs_alone() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let limits = defaults(-1, -1, -1);
    let provider = ProviderId(uuid_of_tests());
    let (flow, lost) = begin(db, &limits).await.unwrap();
    let there = QuotaSettlement::Holds(lost.checkpoint_id, 1);
    end(db, &flow, there).await.unwrap();
    let (_, running) = begin(db, &limits).await.unwrap();
    let before = db.runs().holdings(provider).await.unwrap();
    assert_eq!(before.len(), 2);
    // Both begin while the bank is being read; it has the one of them already.
    let (_, meanwhile) = begin(db, &limits).await.unwrap();
    let (_, unseen) = begin(db, &limits).await.unwrap();
    let foreign = QuotaHolding {
        bytes: 30,
        settled: true,
        ..holding()
    };
    let seen = QuotaHolding {
        settled: true,
        ..meanwhile.clone()
    };
    let found = [foreign.clone(), seen];
    let expected = Recounted {
        added: 1,
        removed: 1,
    };
    let done = db
        .runs()
        .holdings_recount(provider, &before, &found)
        .await
        .unwrap();
    assert_eq!(done, expected);
    let counted = db.runs().holdings(provider).await.unwrap();
    let counted: BTreeSet<_> = counted.into_iter().map(|h| h.checkpoint_id).collect();
    let right = [&foreign, &running, &meanwhile, &unseen].map(|h| h.checkpoint_id);
    assert_eq!(counted, BTreeSet::from(right));
    assert_eq!(used(db, Bytes).await, 30);
    let others = db.runs().holdings(ProviderId::new()).await.unwrap();
    assert_eq!(others, []);
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
enum Step {
    MakePlan,
    DropPlan,
    Begin,
    Succeed(u16),
    Refuse,
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::MakePlan),
        Just(Step::DropPlan),
        Just(Step::Begin),
        any::<u16>().prop_map(Step::Succeed),
        Just(Step::Refuse),
        Just(Step::Delete),
    ]
}

/// What one client has.
#[derive(Default)]
struct Client {
    plans: Vec<PlanId>,
    running: Vec<(FlowRecord, QuotaHolding)>,
    checkpoints: Vec<(CheckpointId, i64)>,
}

impl Client {
    async fn take(&mut self, db: &Db, limits: &QuotaDefaults, step: Step) -> Result<(), DbError> {
        match step {
            Step::MakePlan => {
                let plan = plan(P, "x");
                db.plans().create_within(&plan, limits).await?;
                self.plans.push(plan.id);
            }
            Step::DropPlan => {
                if let Some(id) = self.plans.pop() {
                    db.plans().delete(id).await?;
                }
            }
            Step::Begin => self.running.push(begin(db, limits).await?),
            Step::Succeed(bytes) => {
                if let Some((flow, holding)) = self.running.pop() {
                    let (id, bytes) = (holding.checkpoint_id, i64::from(bytes));
                    end(db, &flow, QuotaSettlement::Holds(id, bytes)).await?;
                    self.checkpoints.push((id, bytes));
                }
            }
            Step::Refuse => {
                if let Some((flow, holding)) = self.running.pop() {
                    let gone = QuotaSettlement::Released(holding.checkpoint_id);
                    end(db, &flow, gone).await?;
                }
            }
            Step::Delete => {
                if let Some((id, _)) = self.checkpoints.pop() {
                    db.runs()
                        .holding_settle(&QuotaSettlement::Released(id))
                        .await?;
                }
            }
        }
        Ok(())
    }
}

/// Clients at once, on connections of their own: a reader sees no more than the limits at any
/// time, and at the end what is counted is what the clients have.
#[test]
fn clients_at_once_neither_leak_nor_pass_the_limits() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let config = ProptestConfig {
        cases: 12,
        ..ProptestConfig::default()
    };
    let scripts = proptest::collection::vec(proptest::collection::vec(step(), 1..30), 2..5);
    TestRunner::new(config)
        .run(
            &(scripts, 0..5_i64, 0..5_i64),
            |(scripts, plans, checkpoints)| {
                runtime.block_on(act(scripts, plans, checkpoints));
                Ok(())
            },
        )
        .unwrap();
}

async fn act(scripts: Vec<Vec<Step>>, plans: i64, checkpoints: i64) {
    let fixture = fixture().await;
    let limits = defaults(plans, checkpoints, -1);
    let mut clients = tokio::task::JoinSet::new();
    for script in scripts {
        let (db, limits) = (fixture.other().await, limits.clone());
        clients.spawn(async move {
            let mut client = Client::default();
            for step in script {
                match client.take(&db, &limits, step).await {
                    Ok(()) | Err(DbError::OverQuota { .. }) => {}
                    Err(error) => panic!("{step:?}: {error}"),
                }
                let has = db.quotas().usage(P).await.unwrap();
                assert!((0..=plans).contains(&has[&Plans]), "{has:?}");
                assert!((0..=checkpoints).contains(&has[&Checkpoints]), "{has:?}");
                assert!(has[&Bytes] >= 0, "{has:?}");
            }
            client
        });
    }
    let clients = clients.join_all().await;
    let sum = |count: fn(&Client) -> usize| clients.iter().map(count).sum::<usize>();
    let has = fixture.db.quotas().usage(P).await.unwrap();
    assert_eq!(has[&Plans], i64::try_from(sum(|c| c.plans.len())).unwrap());
    let live = sum(|c| c.running.len() + c.checkpoints.len());
    assert_eq!(has[&Checkpoints], i64::try_from(live).unwrap());
    let bytes = clients.iter().flat_map(|client| &client.checkpoints);
    assert_eq!(has[&Bytes], bytes.map(|(_, bytes)| bytes).sum::<i64>());
}

/// Three processes make, end and delete checkpoints until they are killed: what counts afterwards
/// is what runs and what was made, and the limit held.
#[tokio::test]
async fn kill_9_leaks_no_reservation() {
    const ROUNDS: usize = 5;
    let fixture = fixture().await;
    let db = &fixture.db;
    for round in 0..ROUNDS {
        let mut children: Vec<_> = (0..3)
            .map(|_| {
                child(
                    "quotas::child_makes_checkpoints_until_killed",
                    &fixture.path(),
                )
            })
            .collect();
        for child in &mut children {
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let done = lines
                .map_while(Result::ok)
                .filter(|line| line.contains("made"));
            assert_eq!(done.take(8 + round).count(), 8 + round);
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let holdings = db
            .runs()
            .holdings(ProviderId(uuid_of_tests()))
            .await
            .unwrap();
        let count = i64::try_from(holdings.len()).unwrap();
        assert!(count <= 5, "the limit held: {count}");
        assert_eq!(used(db, Checkpoints).await, count);
        // The next start finishes what runs; every reservation has its run, and every run its own.
        let running = db.runs().flows_unfinished("host").await.unwrap();
        let reserved: Vec<_> = holdings.iter().filter(|h| !h.settled).collect();
        assert_eq!(running.len(), reserved.len());
        for flow in running {
            let checkpoint: CheckpointId =
                serde_json::from_value(flow.payload["checkpoint"].clone()).unwrap();
            assert!(reserved.iter().any(|h| h.checkpoint_id == checkpoint));
            let gone = QuotaSettlement::Released(checkpoint);
            end(db, &flow, gone).await.unwrap();
        }
        let rest = db
            .runs()
            .holdings(ProviderId(uuid_of_tests()))
            .await
            .unwrap();
        assert!(rest.iter().all(|holding| holding.settled));
    }
}

#[tokio::test]
#[ignore = "runs as a child process"]
async fn child_makes_checkpoints_until_killed() {
    let db = child_db().await;
    let limits = defaults(-1, 5, -1);
    loop {
        let holding = holding();
        let id = holding.checkpoint_id;
        let flow = FlowRecord {
            operation_id: OperationId::new(),
            payload: serde_json::json!({ "checkpoint": id }),
            ..flow("host")
        };
        match db
            .runs()
            .flow_create_holding(&flow, &holding, &limits)
            .await
        {
            Ok(()) => {
                end(&db, &flow, QuotaSettlement::Holds(id, 3))
                    .await
                    .unwrap();
                println!("made {id}");
            }
            Err(DbError::OverQuota { .. }) => {
                let all = db.runs().holdings(holding.provider_id).await.unwrap();
                if let Some(oldest) = all.iter().find(|holding| holding.settled) {
                    let gone = QuotaSettlement::Released(oldest.checkpoint_id);
                    db.runs().holding_settle(&gone).await.unwrap();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}
