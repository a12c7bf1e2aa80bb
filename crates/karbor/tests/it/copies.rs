//! A second bank, and the loss of the first.

use std::fs;

use serde_json::Value;

use crate::{
    application::Application,
    house::{House, LOCAL, files, until},
};

/// A provider like the embedded one, with a second bank beside the state directory.
fn provider(house: &House, bank: &str, copy_bank: Option<&str>) {
    let section = |prefix: &str, place: &str| {
        let place = house.path(place);
        format!(
            "[{prefix}file_system_bank_plugin]\nfile_system_bank_path = {}\n",
            place.display()
        )
    };
    let plugins = ["application", "directory", "sqlite", "postgresql"]
        .map(|kind| format!("plugin = karbor-host-{kind}-plugin\n"))
        .concat();
    let mut text = format!(
        "[provider]\nname = local\nid = {LOCAL}\nenabled = True\nbank = karbor-fs-bank-plugin\n\
         {plugins}plugin = karbor-simulated-protection-plugin\n"
    );
    if copy_bank.is_some() {
        text.push_str("copy_bank = karbor-fs-bank-plugin\n");
    }
    text.push_str(&section("", bank));
    if let Some(copy_bank) = copy_bank {
        text.push_str(&section("copy.", copy_bank));
    }
    let folder = house.state().join("providers.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("local.conf"), text).unwrap();
}

/// The provider with its bank where it always is, and a second one.
pub fn two_banks(house: &House) {
    provider(house, "state/bank", Some("elsewhere"));
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
    provider(&house, "elsewhere", None);
    house.start();
    let found = house.json(&["checkpoint", "list"]);
    let ids: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(crate::house::id)
        .collect();
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
    house.start();
    let log = house.operation_ended(&copy, "copy");
    assert_eq!(log["status"], "success", "{log}");
    house.kill();
    fs::remove_dir_all(house.state().join("bank")).unwrap();
    // As it is configured: the copy is listed and restored beside an empty first bank.
    house.start();
    let verified = house.json(&["verification", "create", &copy, "--data", "--wait"]);
    assert_eq!(verified["status"], "success", "{verified}");
    application.restores(&house);
}
