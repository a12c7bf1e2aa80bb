//! Somebody can write the bank, and has not the master key: whatever he changes of what a restore or a
//! verification acts on is noticed, and named.

use std::{collections::BTreeMap, sync::Arc};

use karbor_banks::file_system::FileSystemBank;
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    Checkpoint, CheckpointId, CheckpointStatus, ErrorKind, OperationLogStatus, Parameters,
    ReadbackStatus, RequestContext, ResourceGraph,
};
use karbor_plugin::{Bank, BankKey};
use karbor_protection::{
    MasterKey,
    checkpoints::{CheckpointCollection, CheckpointQuery},
};
use serde_json::{Value, json};

use crate::{
    copies::{is_whole, protected},
    house::{House, PROJECT, Running, SIMULATED, id, member, until},
};

fn index(id: CheckpointId) -> String {
    format!("checkpoints/{id}/index.json")
}

async fn record(house: &House, id: CheckpointId) -> Value {
    serde_json::from_slice(&house.object(&index(id)).await).unwrap()
}

fn data() -> Parameters {
    let level = json!({"level": "data"}).as_object().unwrap().clone();
    [(SIMULATED.to_owned(), level)].into()
}

/// A checkpoint is neither restored nor verified, and both say why in these words.
async fn refused(running: &Running, id: CheckpointId, words: &str, what: &str) {
    let restored = match running.restore(id, Parameters::new()).await {
        Err(error) => error.message,
        Ok(restore) => {
            let restore = running.restored(restore).await;
            assert_eq!(restore.status, ReadbackStatus::Fail, "{what}");
            format!("{:?}", restore.resources_reason)
        }
    };
    assert!(restored.contains(words), "{what}: {restored}");
    let verified = match running.verify_with(&member(), id, data()).await {
        Err(error) => error.message,
        Ok(verification) => {
            let verification = running.verified(verification).await;
            assert_eq!(verification.status, ReadbackStatus::Fail, "{what}");
            format!("{:?}", verification.resources_reason)
        }
    };
    assert!(verified.contains(words), "{what}: {verified}");
}

/// Every way to change one value of a record: each field of it, however deep, changed and removed.
fn changes(record: &Value) -> Vec<(String, Value)> {
    fn paths(value: &Value, at: &str, all: &mut Vec<String>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), v)).collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(n, v)| (n.to_string(), v))
                .collect(),
            _ => Vec::new(),
        };
        for (name, child) in children {
            let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            paths(child, &path, all);
            all.push(path);
        }
    }
    fn other(value: &Value) -> Value {
        match value {
            Value::String(text) => match text.char_indices().last() {
                // Ids stay ids, and dates dates.
                Some((at, last)) => {
                    let last = if last == '1' { '2' } else { '1' };
                    Value::from(format!("{}{last}", &text[..at]))
                }
                None => Value::from("1"),
            },
            Value::Number(number) => json!(number.as_i64().unwrap() + 1),
            Value::Bool(yes) => json!(!yes),
            Value::Null => json!("1"),
            Value::Array(_) => json!([]),
            Value::Object(_) => json!({}),
        }
    }
    let mut all = Vec::new();
    paths(record, "", &mut all);
    let mut changed = Vec::new();
    for path in all {
        let mut with = record.clone();
        let there = with.pointer_mut(&path).unwrap();
        let new = other(there);
        if new != *there {
            *there = new;
            changed.push((format!("{path} changed"), with));
        }
        let mut without = record.clone();
        let (above, name) = path.rsplit_once('/').unwrap();
        if let Value::Object(fields) = without.pointer_mut(above).unwrap() {
            fields.shift_remove(&name.replace("~1", "/").replace("~0", "~"));
            changed.push((format!("{path} removed"), without));
        }
    }
    let mut with = record.clone();
    with["more"] = json!("than there was");
    changed.push(("/more added".to_owned(), with));
    let mut with = record.clone();
    with["status"] = json!("deleted");
    changed.push(("/status deleted".to_owned(), with));
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_an_index_is_vouched_for() {
    let house = House::new()
        .with_resources(&["app", "part bytes=10"])
        .with_edges(&[(0, 1)]);
    let running = house.open().await;
    let (other, bad) = (running.available(1).await, running.available(1).await);
    let whole = record(&house, bad).await;
    for (what, changed) in changes(&whole) {
        house.tamper(&index(bad), changed.to_string());
        refused(&running, bad, &bad.to_string(), &what).await;
        if !what.starts_with("/seal removed") && !what.starts_with("/seal changed") {
            let available: Vec<_> = running.list().await;
            let available = available
                .iter()
                .filter(|one| one.status == CheckpointStatus::Available);
            let available: Vec<_> = available.map(|one| one.id).collect();
            assert_eq!(available, [other], "{what}");
        }
    }
    house.tamper(&index(bad), whole.to_string());
    is_whole(&running, bad).await;
}

/// A record in another order of its fields, or in other white space, is the same record.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_is_of_what_a_record_says() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let made = running.available(1).await;
    let record: BTreeMap<String, Value> =
        serde_json::from_slice(&house.object(&index(made)).await).unwrap();
    house.tamper(&index(made), serde_json::to_string_pretty(&record).unwrap());
    is_whole(&running, made).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_of_a_plugin_is_vouched_for() {
    let house = House::new().with_resources(&["one bytes=2000000", "two bytes=10"]);
    let running = house.open().await;
    let (older, made) = (running.available(2).await, running.available(2).await);
    let below = format!("checkpoints/{made}/resource-data/");
    let keys: Vec<_> = house
        .keys()
        .into_iter()
        .filter(|key| key.starts_with(&below))
        .collect();
    assert_eq!(keys.len(), 5);
    for key in &keys {
        let whole = house.object(key).await;
        let name = key.strip_prefix(&below).unwrap();
        let mut changed = whole.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        house.tamper(key, changed);
        refused(&running, made, name, key).await;
        house
            .bank
            .inner()
            .delete(&BankKey::parse(key).unwrap())
            .await
            .unwrap();
        refused(&running, made, name.split('/').next().unwrap(), key).await;
        house.tamper(key, whole);
    }
    // What is whole, but of another resource, or of another time.
    let of = |checkpoint: CheckpointId, at: usize| {
        format!("checkpoints/{checkpoint}/resource-data/{}/metadata", id(at))
    };
    let whole = house.object(&of(made, 0)).await;
    let mut of_before: Value = serde_json::from_slice(&house.object(&of(older, 0)).await).unwrap();
    of_before["name"] = json!("renamed");
    for (what, given) in [
        ("of another resource", house.object(&of(made, 1)).await),
        ("renamed", of_before.to_string().into()),
    ] {
        house.tamper(&of(made, 0), given);
        refused(
            &running,
            made,
            "changed after the checkpoint was sealed",
            what,
        )
        .await;
    }
    house.tamper(&of(made, 0), whole);
    is_whole(&running, made).await;
}

/// Whole records under another name: of another checkpoint, another project, another provider.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_of_one_checkpoint_project_and_provider() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let mut running = house.open().await;
    let (one, two) = (running.available(1).await, running.available(1).await);
    let whole = house.object(&index(one)).await;

    house.tamper(&index(one), house.object(&index(two)).await);
    refused(&running, one, &one.to_string(), "").await;
    let mut said = record(&house, two).await;
    said["id"] = json!(one);
    house.tamper(&index(one), said.to_string());
    refused(&running, one, "seal does not fit", "").await;

    let mut said: Value = serde_json::from_slice(&whole).unwrap();
    said["project_id"] = json!("p2");
    house.tamper(&index(one), said.to_string());
    let foreign = RequestContext::for_project("user", "p2", false);
    let shown = running
        .api()
        .show_checkpoint(&foreign, running.provider, one)
        .await;
    assert_eq!(shown.unwrap_err().class, "AccessCheckpointNotAllowed");
    let own = running.restore(one, Parameters::new()).await;
    assert_eq!(own.unwrap_err().class, "CheckpointTampered");
    house.tamper(&index(one), whole.clone());

    // Listed for another project: nothing of it is told there.
    let (checkpoint, provider) = (running.checkpoint(one).await, running.provider);
    let plan = checkpoint.protection_plan.id;
    for key in [
        format!("indices/by-provider/{provider}/p2/9999999999@{one}"),
        format!("indices/by-plan/{plan}/p2/2286-11-20/9999999999@{one}"),
    ] {
        house.tamper(&key, one.to_string());
    }
    for filters in [
        BTreeMap::new(),
        BTreeMap::from([("plan_id".to_owned(), plan.to_string())]),
    ] {
        let listed = running.api().list_checkpoints(
            &foreign,
            provider,
            None,
            None,
            Vec::new(),
            Vec::new(),
            filters,
            false,
        );
        assert_eq!(listed.await.unwrap(), []);
    }

    let mut said: Value = serde_json::from_slice(&whole).unwrap();
    said["provider_id"] = json!(house.other_provider);
    said["protection_plan"]["provider_id"] = json!(house.other_provider);
    house.tamper(&index(one), said.to_string());
    running.provider = house.other_provider;
    let restored = running.restore(one, Parameters::new()).await;
    assert_eq!(restored.unwrap_err().class, "CheckpointTampered");
    let verified = running.verify(&member(), one).await;
    assert_eq!(verified.unwrap_err().class, "CheckpointTampered");
}

/// The names of index keys are nobody's word: what is the newest is what is sealed.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_index_keys_do_not_say_what_is_the_newest() {
    let clock = karbor_testkit::FakeClock::new();
    let house = House::new().with_resources(&["one"]).with_clock(&clock);
    let running = house.open().await;
    let wanted = running.plan(1);
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(protected(&running, &wanted).await);
        clock.advance(std::time::Duration::from_secs(86_400)).await;
    }
    let newest_first = || async {
        let (asker, keys) = (member(), Vec::new());
        let filters = BTreeMap::from([("plan_id".to_owned(), wanted.id.to_string())]);
        let listed = running.api().list_checkpoints(
            &asker,
            running.provider,
            None,
            Some(1),
            keys,
            Vec::new(),
            filters,
            false,
        );
        listed.await.unwrap()[0].id
    };
    assert_eq!(newest_first().await, made[2]);
    let (oldest, newest) = (made[0], made[2]);
    for key in house
        .keys()
        .iter()
        .filter(|key| key.starts_with("indices/"))
    {
        let (above, name) = key.rsplit_once('/').unwrap();
        let (_, of) = name.split_once('@').unwrap();
        let time = match of {
            of if of == oldest.to_string() => 4_000_000_000_u32,
            of if of == newest.to_string() => 1,
            _ => continue,
        };
        house
            .bank
            .inner()
            .delete(&BankKey::parse(key).unwrap())
            .await
            .unwrap();
        house.tamper(&format!("{above}/{time}@{of}"), of.to_owned());
        // The same one twice.
        house.tamper(&format!("{above}/{}@{of}", time + 1), of.to_owned());
    }
    assert_eq!(newest_first().await, newest);
    let oldest_first: Vec<_> = running.list().await.iter().map(|one| one.id).collect();
    assert_eq!(oldest_first, made);
    assert_eq!(running.pages("asc", 1).await, made);
}

/// What nothing vouches for is taken by a caller who says so, and is marked; it never becomes more.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_seal_has_to_be_asked_for() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let mut running = house.open().await;
    let wanted = running.plan(1);
    let made = protected(&running, &wanted).await;
    let mut unsealed = record(&house, made).await;
    unsealed.as_object_mut().unwrap().shift_remove("seal");
    house.tamper(&index(made), unsealed.to_string());
    let error = running.restore(made, Parameters::new()).await.unwrap_err();
    assert_eq!(
        (error.kind, error.class.as_str()),
        (ErrorKind::BadRequest, "CheckpointNotSealed")
    );
    assert!(error.message.contains("--accept-unsealed"), "{error}");
    refused(&running, made, "", "").await;

    let is_unsealed = |checkpoint: Checkpoint| checkpoint.seal.is_none();
    assert!(is_unsealed(running.checkpoint(made).await));
    for state in ["error", "available"] {
        until(async || {
            let (context, state) = (member(), state.to_owned());
            let reset = running
                .api()
                .reset_state(&context, running.provider, made, state);
            reset.await.ok()
        })
        .await;
        assert!(is_unsealed(running.checkpoint(made).await));
    }
    let copy = running.copy(&wanted).await.unwrap()[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    assert!(is_unsealed(running.checkpoint(copy).await));
    running.log_of(copy).await;

    running.accept_unsealed = true;
    for one in [made, copy] {
        is_whole(&running, one).await;
        let verification = running.verify(&member(), one).await.unwrap();
        assert_eq!(
            running.verified(verification).await.status,
            ReadbackStatus::Success
        );
        let log = until(async || {
            let log = running
                .db
                .runs()
                .operation_log_get(karbor_model::OperationLogId(verification.0))
                .await
                .unwrap();
            (log.status != OperationLogStatus::InProgress).then_some(log)
        })
        .await;
        let key = format!("{SIMULATED}#{}", id(0));
        let warnings = log.extra_info.unwrap()["resources"][&key]["warnings"].to_string();
        assert!(warnings.contains("no seal"), "{warnings}");
    }
    // Accepting what has no seal is not accepting one that does not fit.
    let fine = protected(&running, &wanted).await;
    let mut changed = record(&house, fine).await;
    changed["timestamp"] = json!(1);
    house.tamper(&index(fine), changed.to_string());
    refused(&running, fine, "seal does not fit", "").await;
    until(async || running.delete(made).await.ok()).await;
    assert_eq!(running.settled(made).await, CheckpointStatus::Deleted);
}

/// A copy is sealed for itself, and is vouched for when all but its bank and the recovery key is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_sealed_and_outlives_all_but_the_key() {
    let house = House::new()
        .with_resources(&["one bytes=2000000"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    let source = protected(&running, &wanted).await;
    let copy = running.copy(&wanted).await.unwrap()[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    running.log_of(copy).await;
    let seals = [
        running.checkpoint(source).await.seal.unwrap(),
        running.checkpoint(copy).await.seal.unwrap(),
    ];
    assert_ne!(seals[0].mac, seals[1].mac);
    assert_eq!(seals[1].objects.len(), 3);
    drop(running);

    let lost = house.after_the_loss_of_all_but_the_copies();
    // What was claimed by those who are lost ends.
    lost.copies
        .inner()
        .advance(std::time::Duration::from_secs(61));
    let running = lost.open().await;
    is_whole(&running, copy).await;
    drop(running);

    let mut without = house.after_the_loss_of_all_but_the_copies();
    without.recovery_key = House::new().recovery_key;
    let running = without.open().await;
    refused(&running, copy, "master key", "").await;
}

/// A copy is made of what was sealed, not of what lies in the bank.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_not_copied() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    let source = protected(&running, &wanted).await;
    let key = format!("checkpoints/{source}/resource-data/{}/metadata", id(0));
    let mut metadata: Value = serde_json::from_slice(&house.object(&key).await).unwrap();
    metadata["name"] = json!("renamed");
    house.tamper(&key, metadata.to_string());
    let copy = running.copy(&wanted).await.unwrap()[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Error);
    let log = running.log_of(copy).await;
    assert!(log.error_info.unwrap().contains("metadata"));
}

/// One broken, huge, deep or foreign index file is shown as that, and hides no other.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_index_file_hides_no_other() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let (good, bad) = (running.available(1).await, running.available(1).await);
    let whole = record(&house, bad).await;
    let mut graph = whole.clone();
    let nodes: serde_json::Map<String, Value> = (0..100_000)
        .map(|n| (format!("{n:#x}"), json!(["T", n.to_string(), "", null])))
        .collect();
    graph["resource_graph"] = json!(json!([nodes, []]).to_string());
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let mut inside = whole.clone();
    inside["resource_graph"] = json!(format!("[{{}}, {}]", nested(100_000)));
    for (what, bytes) in [
        ("empty", String::new()),
        ("no JSON", "\u{1b}[2J\nnothing".to_owned()),
        (
            "huge",
            format!("{{\"version\": \"{}\"", "9".repeat(20 << 20)),
        ),
        ("deep", nested(1_000_000)),
        ("a graph of 100,000", graph.to_string()),
        ("deep inside", inside.to_string()),
    ] {
        house.tamper(&index(bad), bytes);
        let listed = running.list().await;
        let told: Vec<_> = listed.iter().map(|one| (one.id, one.status)).collect();
        let expected = [
            (good, CheckpointStatus::Available),
            (bad, CheckpointStatus::Error),
        ];
        assert_eq!(told, expected, "{what}");
        refused(&running, bad, "", "").await;
    }
}

/// Beyond what can be restored, nothing is protected.
#[test]
fn a_graph_is_bounded() {
    let nodes = |count: usize| -> String {
        let nodes: serde_json::Map<String, Value> = (0..count)
            .map(|n| (format!("{n:#x}"), json!(["T", n.to_string(), "", null])))
            .collect();
        json!([nodes, []]).to_string()
    };
    assert!(ResourceGraph::unpack(&nodes(ResourceGraph::MAX_RESOURCES)).is_ok());
    let error = ResourceGraph::unpack(&nodes(ResourceGraph::MAX_RESOURCES + 1)).unwrap_err();
    assert!(error.to_string().contains("10000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seal_is_in_the_record_and_the_rest_is_as_the_original_wrote_it() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let made = running.available(1).await;
    let record = record(&house, made).await;
    let fields: Vec<_> = record
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let wanted = [
        "version",
        "id",
        "status",
        "owner_id",
        "provider_id",
        "project_id",
        "protection_plan",
        "extra_info",
        "created_at",
        "timestamp",
        "resource_graph",
        "seal",
    ];
    assert_eq!(fields, wanted);
    assert_eq!(record["project_id"], PROJECT);
    let objects = record["seal"]["objects"].as_object().unwrap();
    assert_eq!(
        objects.keys().collect::<Vec<_>>(),
        [&format!("{}/metadata", id(0))]
    );
}

/// What lies where an index file should be, on a real file system.
#[tokio::test(flavor = "multi_thread")]
async fn no_file_in_the_place_of_an_index_hides_the_others() {
    use std::{fs, os::unix::fs::symlink, path::Path};

    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let (good, bad) = (running.available(1).await, running.available(1).await);
    let folder = tempfile::tempdir().unwrap();
    let bank = Arc::new(FileSystemBank::open(folder.path()).unwrap());
    let key = MasterKey::from_recovery_key(&house.recovery_key).unwrap();
    let checkpoints = CheckpointCollection::new(bank, house.provider).with_key(key);
    for id in [good, bad] {
        checkpoints
            .create(&running.checkpoint(id).await)
            .await
            .unwrap();
    }
    let place = folder.path().join("karbor").join(index(bad));
    let whole = fs::read(&place).unwrap();
    let to_another = |to: &Path| {
        let other = folder.path().join("another");
        fs::write(&other, &whole).unwrap();
        symlink(other, to).unwrap();
    };
    let huge = |at: &Path| fs::File::create(at).unwrap().set_len(10 << 40).unwrap();
    let folder_of_files = |at: &Path| {
        fs::create_dir(at).unwrap();
        fs::write(at.join("x"), "").unwrap();
    };
    type Make<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Make<'_>); 4] = [
        ("a link to a whole one", &to_another),
        ("10 TB", &huge),
        ("a folder", &folder_of_files),
        ("nothing", &|_| {}),
    ];
    for (what, make) in kinds {
        fs::remove_file(&place).unwrap();
        make(&place);
        let listed = checkpoints.list(&CheckpointQuery::default()).await.unwrap();
        let mut told: Vec<_> = listed.iter().map(|one| (one.id, one.status)).collect();
        told.sort_by_key(|(id, _)| *id);
        let expected = [
            (good, CheckpointStatus::Available),
            (bad, CheckpointStatus::Error),
        ];
        assert_eq!(told, expected, "{what}");
        if place.is_dir() {
            fs::remove_dir_all(&place).unwrap();
        }
        let _ = fs::remove_file(&place);
        fs::write(&place, &whole).unwrap();
    }
}
