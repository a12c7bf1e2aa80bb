//! A second bank, and the loss of the first.

use std::{fs, path::PathBuf};

use karbor_testkit::PostgresServer;
use serde_json::Value;

use crate::{
    application::Application,
    house::{House, files, id, until, went_well},
};

/// The provider with its bank where it always is, and a second one.
pub fn two_banks(house: &House) {
    house.local_provider("state/bank", Some("elsewhere"));
}

/// With a second bank on a disk that is plugged in when its folder is there.
fn second_disk(house: &House) -> PathBuf {
    two_banks(house);
    let file = house.state().join("providers.d/local.conf");
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("file_system_bank_must_exist = True\n");
    fs::write(file, text).unwrap();
    house.path("elsewhere/karbor")
}

/// What a command that must fail said, and its exit code.
fn refused(house: &House, arguments: &[&str]) -> (Option<i32>, String) {
    let ended = house.client(arguments);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), said)
}

/// The only copy of an answer to `checkpoint copy`.
pub fn copy_of(answer: &Value) -> String {
    fn find(answer: &Value) -> Option<&Value> {
        match answer {
            Value::Object(map) => map
                .get("checkpoint_copy_id")
                .or_else(|| map.values().find_map(find)),
            Value::Array(list) => list.iter().find_map(find),
            _ => None,
        }
    }
    let copy = find(answer).and_then(Value::as_str);
    copy.unwrap_or_else(|| panic!("no copy: {answer}"))
        .to_owned()
}

#[test]
fn an_application_is_restored_from_its_copy_when_the_first_bank_is_gone() {
    let mut house = House::new();
    let application = Application::new(&house, 8);
    two_banks(&house);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let copies = house.json(&["checkpoint", "copy", "shop", "--wait"]);
    let copy = copy_of(&copies);
    let verified = house.json(&["verification", "create", &copy, "--data", "--wait"]);
    assert_eq!(verified["status"], "success", "{verified}");
    house.kill();

    fs::remove_dir_all(house.state().join("bank")).unwrap();
    for name in ["karbor.db", "karbor.db-wal", "karbor.db-shm"] {
        let _ = fs::remove_file(house.state().join(name));
    }
    house.local_provider("elsewhere", None);
    house.start();
    let found = house.json(&["checkpoint", "list"]);
    let ids: Vec<_> = found.as_array().unwrap().iter().map(id).collect();
    assert_eq!(ids, [copy]);
    application.restores(&house);
    // Life goes on in the bank of copies.
    house.json(&["protect", "shop", "--wait"]);
    application.restores(&house);
}

#[test]
fn a_copy_that_was_killed_in_the_middle_goes_on() {
    let mut house = House::new();
    let application = Application::new(&house, 64);
    two_banks(&house);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let copies = house.json(&["checkpoint", "copy", "shop"]);
    let copy = copy_of(&copies);
    let vault = house.path("elsewhere/karbor/vaults");
    until("the copy to have begun", || {
        let packs = files(&vault);
        let is_pack = |path: &std::path::PathBuf| path.to_string_lossy().contains("/data/");
        packs.iter().any(is_pack).then_some(())
    });
    house.kill();
    let index = house.path(&format!("elsewhere/karbor/checkpoints/{copy}/index.json"));
    let killed: Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
    assert_eq!(killed["status"], "copying", "the kill came too late");
    house.start();
    // Asked for again while it goes on, it is waited for and not made twice.
    let again = house.json(&["checkpoint", "copy", "shop", "--wait"]);
    if !again["checkpoint_id"].as_array().unwrap().is_empty() {
        assert_eq!(copy_of(&again), copy);
    }
    let log = house.operation_ended(&copy, "copy");
    assert!(went_well(&log), "{log}");
    let there = fs::read_dir(house.path("elsewhere/karbor/checkpoints")).unwrap();
    assert_eq!(there.count(), 1, "copied twice");
    let done = house.client(&["checkpoint", "copy", "shop"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        said.contains("every available checkpoint of the plan is copied"),
        "{said}"
    );
    house.kill();
    fs::remove_dir_all(house.state().join("bank")).unwrap();
    // As it is configured: the copy is listed and restored beside an empty first bank.
    house.start();
    let verified = house.json(&["verification", "create", &copy, "--data", "--wait"]);
    assert_eq!(verified["status"], "success", "{verified}");
    application.restores(&house);
}

/// The second disk is away when the service starts: only what needs it fails, until it is back.
#[test]
fn a_second_bank_that_is_away_at_the_start_comes_back_by_itself() {
    let mut house = House::new();
    let application = Application::new(&house, 4);
    let disk = second_disk(&house);
    // Whether its copies need a key that is lost cannot be told yet.
    let said = house.refused();
    assert!(said.contains("no master key"), "{said}");
    fs::create_dir_all(&disk).unwrap();
    house.start();
    house.kill();
    fs::remove_dir(&disk).unwrap();
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    application.restores(&house);
    assert_eq!(
        house
            .json(&["checkpoint", "list"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let (code, said) = refused(&house, &["checkpoint", "copy", "shop", "--wait"]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("copy bank"), "{said}");
    assert!(house.log().contains("is not there"), "{}", house.log());
    assert!(!disk.exists());

    fs::create_dir_all(&disk).unwrap();
    let copies = house.json(&["checkpoint", "copy", "shop", "--wait"]);
    let copy = copy_of(&copies);
    assert_eq!(house.checkpoint(&copy)["status"], "available");
    assert_eq!(
        house
            .json(&["checkpoint", "list"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

/// What lies under the mount point of a second disk that is not mounted is taken for no bank of copies.
#[test]
fn a_second_bank_that_lost_its_copies_is_told() {
    let mut house = House::new();
    two_banks(&house);
    house.start();
    house.simulated_plan("simple", &["volume bytes=1000"]);
    house.protected("simple");
    let copies = house.json(&["checkpoint", "copy", "simple", "--wait"]);
    let copy = copy_of(&copies);
    house.kill();
    let told = "the copy bank of 'local' is empty, but 1 copies were made in it";
    house.start();
    assert!(!house.log().contains("is empty"), "{}", house.log());
    house.kill();
    fs::rename(house.path("elsewhere"), house.path("mounted")).unwrap();
    // Also after the checkpoints were counted anew.
    for _ in 0..2 {
        house.start();
        assert!(house.log().contains(told), "{}", house.log());
        house.kill();
        house.text(&["manage", "quota", "usage-fix"]);
    }
    let checked = house.client(&["status", "upgrade", "check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("copy bank"), "{said}");
    fs::remove_dir_all(house.path("elsewhere")).unwrap();
    fs::rename(house.path("mounted"), house.path("elsewhere")).unwrap();
    house.start();
    assert!(!house.log().contains("is empty"), "{}", house.log());
    // Copies that became the bank's are not missed in a new copy bank.
    house.kill();
    house.local_provider("elsewhere", Some("new"));
    house.start();
    assert!(!house.log().contains("is empty"), "{}", house.log());
    assert_eq!(house.checkpoint(&copy)["status"], "available");
}

/// Dumps of PostgreSQL are copied and restored like everything else, and the newest is the newest,
/// whatever was copied last.
#[test]
fn a_postgresql_database_is_restored_from_its_copy() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let mut house = House::new();
    two_banks(&house);
    let declaration = format!(
        "name = 'books'\nprojects = ['default']\n[[postgresql]]\nname = 'books'\ndatabase = 'books'\n\
         host = {:?}\nport = {}\nuser = {:?}\nbin_dir = {:?}\n",
        server.socket_dir(),
        PostgresServer::PORT,
        PostgresServer::USER,
        server.bin_dir()
    );
    fs::write(house.state().join("applications.d/books.toml"), declaration).unwrap();
    server.sql("postgres", "CREATE DATABASE books");
    server.sql(
        "books",
        "CREATE TABLE entries (id integer PRIMARY KEY, what text NOT NULL);
         INSERT INTO entries SELECT i, 'entry number ' || i FROM generate_series(1, 20000) i",
    );
    let all = || server.sql("books", "SELECT id, what FROM entries ORDER BY id");
    house.start();
    let older = id(&house.json(&["protect", "books", "--wait"]));
    let made = house.index(&older)["timestamp"].as_u64().unwrap();
    until("the next second", || {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        (now > made).then_some(())
    });
    server.sql(
        "books",
        "UPDATE entries SET what = upper(what) WHERE id % 7 = 0",
    );
    let wanted = all();
    let newest = id(&house.json(&["protect", "books", "--wait"]));
    let copies = house.json(&["checkpoint", "copy", "books", "--wait"]);
    let pairs = copies["checkpoint_id"].as_array().unwrap();
    assert_eq!(pairs.len(), 2, "{copies}");
    let of = |pair: &&Value| pair["checkpoint_protect_id"] == newest.as_str();
    let copy = pairs.iter().find(of).unwrap()["checkpoint_copy_id"].clone();
    house.kill();
    fs::remove_dir_all(house.state().join("bank")).unwrap();

    house.start();
    server.sql("books", "DROP TABLE entries");
    let restore = [
        "restore",
        "books",
        "--latest",
        "--overwrite",
        "always",
        "--wait",
    ];
    let restored = house.json(&restore);
    assert_eq!(restored["status"], "success", "{restored}");
    assert_eq!(restored["checkpoint_id"], copy, "not the newest");
    assert_eq!(all(), wanted);
}
