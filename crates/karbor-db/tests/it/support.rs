//! Records to store, and a database in a temporary folder.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use chrono::{DateTime, Utc};
use karbor_db::{Db, Entered, FlowRecord};
use karbor_model::{
    CheckpointId, EventKind, FlowStatus, JournalEvent, OperationId, OperationLog, OperationLogId,
    OperationLogStatus, OperationType, Plan, PlanId, PlanStatus, ProviderId, Readback, ReadbackId,
    ReadbackStatus, Resource,
};
use serde_json::json;

pub struct Fixture {
    pub db: Db,
    pub folder: tempfile::TempDir,
}

impl Fixture {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("karbor.db")
    }

    /// What is really in the file, read by another SQLite.
    pub fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// A second set of connections, as another process has.
    pub async fn other(&self) -> Db {
        Db::open(&self.path()).await.unwrap()
    }
}

pub async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("karbor.db")).await.unwrap();
    db.migrate().await.unwrap();
    Fixture { db, folder }
}

pub fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_760_000_000_000_000 + micros).unwrap()
}

pub fn plan(project: &str, name: &str) -> Plan {
    Plan {
        id: PlanId::new(),
        name: name.to_owned(),
        description: Some("ünïcode 😀".to_owned()),
        provider_id: ProviderId::new(),
        project_id: project.to_owned(),
        status: PlanStatus::Suspended,
        parameters: serde_json::from_value(json!({"Host::Directory": {"mode": "full"}})).unwrap(),
        resources: vec![
            Resource {
                extra_info: Some(json!({"availability_zone": "nova"})),
                ..Resource::new("Host::Directory", "r-2", "two")
            },
            Resource::new("Host::Directory", "r-1", "one"),
        ],
        created_at: at(123_456),
        updated_at: None,
    }
}

pub fn restore(project: &str) -> Readback {
    Readback {
        operation: OperationType::Restore,
        id: ReadbackId::new(),
        project_id: project.to_owned(),
        provider_id: ProviderId::new(),
        checkpoint_id: CheckpointId::new(),
        restore_target: Some("http://keystone/v3".to_owned()),
        parameters: Default::default(),
        accept_unsealed: false,
        status: ReadbackStatus::InProgress,
        resources_status: Default::default(),
        resources_reason: Default::default(),
        created_at: at(1),
    }
}

/// Records a readback with its run.
pub async fn begin(db: &Db, readback: &Readback) {
    let flow = FlowRecord {
        operation_id: OperationId(readback.id.0),
        operation_type: readback.operation,
        ..flow("h")
    };
    let entered = db.runs().readback_begin(readback, &flow).await.unwrap();
    assert_eq!(entered, Entered::Now);
}

pub fn verification(project: &str) -> Readback {
    Readback {
        operation: OperationType::Verify,
        restore_target: None,
        id: ReadbackId::new(),
        project_id: project.to_owned(),
        provider_id: ProviderId::new(),
        checkpoint_id: CheckpointId::new(),
        parameters: Default::default(),
        accept_unsealed: false,
        status: ReadbackStatus::InProgress,
        resources_status: Default::default(),
        resources_reason: Default::default(),
        created_at: at(1),
    }
}

pub fn operation_log(project: &str) -> OperationLog {
    OperationLog {
        id: OperationLogId::new(),
        project_id: project.to_owned(),
        operation_type: OperationType::Verify,
        checkpoint_id: None,
        plan_id: Some(PlanId::new()),
        provider_id: Some(ProviderId::new()),
        readback_id: Some(ReadbackId::new()),
        scheduled_operation_id: None,
        status: OperationLogStatus::InProgress,
        started_at: at(5),
        ended_at: None,
        error_info: None,
        extra_info: None,
    }
}

pub fn flow(host: &str) -> FlowRecord {
    FlowRecord {
        operation_id: OperationId::new(),
        operation_type: OperationType::Protect,
        host: host.to_owned(),
        payload: json!({"plan": {"name": "p"}}),
        status: FlowStatus::Running,
    }
}

fn event_kind(seq: u64) -> EventKind {
    match seq % 4 {
        0 => EventKind::Started,
        1 => EventKind::Finished {
            report: [("bytes".to_owned(), json!(seq))].into_iter().collect(),
        },
        2 => EventKind::failed(format!("no room for {seq}")),
        _ => EventKind::Undone,
    }
}

pub fn events(range: std::ops::Range<u64>) -> Vec<JournalEvent> {
    range
        .map(|seq| JournalEvent {
            seq,
            task: format!("main:Host::Directory#{seq}"),
            kind: event_kind(seq),
            at: at(i64::try_from(seq).unwrap()),
        })
        .collect()
}

/// Runs an ignored test of this binary in a process of its own.
pub fn child(test: &str, path: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("KARBOR_TEST_DB", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The same with files of at most `blocks` (512 bytes each): a write beyond fails, as on a disk
/// that broke or is full.
pub fn child_on_small_disk(test: &str, path: &std::path::Path, blocks: u32) -> Child {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("KARBOR_TEST_DB", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The database that [`child`] was told to use.
pub async fn child_db() -> Db {
    let path = std::env::var_os("KARBOR_TEST_DB").expect("run by another test only");
    Db::open(path.as_ref()).await.unwrap()
}
