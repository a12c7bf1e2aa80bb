//! What an operator may lose.

use std::fs;

use crate::{application::Application, house::House};

#[test]
fn without_its_key_a_service_refuses_until_the_recovery_key_is_imported() {
    let mut house = House::new();
    let application = Application::new(&house, 4);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let recovery = house.text(&["manage", "key", "show"]);
    house.kill();

    let key = house.state().join("master.key");
    fs::remove_file(&key).unwrap();
    let said = house.refused();
    assert!(
        said.contains("recovery key") && said.contains("karbor manage key import"),
        "{said}"
    );
    assert!(!key.exists(), "a new key would open nothing");

    let wrong = recovery
        .trim()
        .replace(recovery.chars().next().unwrap(), "?");
    let refused = house.client_reads(&["manage", "key", "import"], &wrong);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!key.exists());
    let imported = house.client_reads(&["manage", "key", "import"], &recovery);
    assert!(imported.status.success(), "{imported:?}");
    house.start();
    application.restores(&house);
    house.json(&["protect", "shop", "--wait"]);
}

#[test]
fn an_empty_database_finds_every_checkpoint_in_the_bank() {
    let mut house = House::simulating();
    let application = Application::new(&house, 4);
    house.start();
    house.simulated_plan("simple", &["volume bytes=100000"]);
    let simple = house.protected("simple");
    let shop = house.json(&["protect", "shop", "--wait"]);
    house.kill();
    for name in ["karbor.db", "karbor.db-wal", "karbor.db-shm"] {
        let _ = fs::remove_file(house.state().join(name));
    }
    house.start();
    let found = house.json(&["checkpoint", "list"]);
    let mut ids: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(crate::house::id)
        .collect();
    let mut wanted = vec![simple.clone(), crate::house::id(&shop)];
    ids.sort();
    wanted.sort();
    assert_eq!(ids, wanted);
    let restored = house.json(&["restore", "create", &simple, "--wait"]);
    assert_eq!(restored["status"], "success");
    application.restores(&house);
    house.text(&["checkpoint", "delete", &simple, "--wait"]);
    assert_eq!(house.index(&simple)["status"], "deleted");
}
