//! A full disk, sources that cannot be read, and damage in the bank.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    application::{Application, restic_checks, same_bytes},
    house::{House, everything, files, id},
};

/// Protects, which must fail; answers with the reason in the operation log.
fn fails(house: &House) -> String {
    let ended = house.client(&["protect", "shop", "--wait", "-f", "json"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let listed = house.json(&["operation-log", "list"]);
    let newest = listed.as_array().unwrap().iter();
    let log = newest.max_by_key(|log| log["started_at"].as_str()).unwrap();
    assert_eq!(log["operation_type"], "protect");
    assert_eq!(log["status"], "error");
    let checkpoint = log["checkpoint_id"].as_str().unwrap();
    assert_eq!(house.checkpoint(checkpoint)["status"], "error");
    log["error_info"].as_str().unwrap().to_owned()
}

/// A file system of a few megabytes.
struct Small(PathBuf);

impl Small {
    fn mount(place: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&place).unwrap();
        let option = format!("size={size},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(&place)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(place)),
            why => {
                eprintln!("NOT RUN: no file system can be mounted here: {why:?}");
                None
            }
        }
    }

    fn grow(&self, size: &str) {
        let option = format!("remount,size={size}");
        let grown = Command::new("mount")
            .args(["-o", &option])
            .arg(&self.0)
            .status();
        assert!(grown.unwrap().success());
    }
}

impl Small {
    /// Somebody else takes all the space; answers with what to remove.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody else's");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_bank_fails_the_run_and_names_it_and_with_space_the_next_one_works() {
    let mut house = House::new();
    let Some(disk) = Small::mount(house.state().join("bank"), "8m") else {
        return;
    };
    let application = Application::new(&house, 40);
    house.start();
    let reason = fails(&house);
    assert!(reason.contains("uploads"), "{reason}");
    assert!(
        reason.contains("No space left") || reason.contains("full"),
        "{reason}"
    );
    disk.grow("100m");
    house.json(&["protect", "shop", "--wait"]);
    application.restores(&house);
    restic_checks(&house);
    house.kill();
    drop(disk);
}

#[test]
fn a_bank_without_any_room_refuses_and_what_runs_ends_and_can_be_deleted() {
    let mut house = House::simulating();
    let Some(disk) = Small::mount(house.state().join("bank"), "4m") else {
        return;
    };
    house.start();
    house.simulated_plan("simple", &["volume sleep=1 bytes=200000"]);
    let running = house.protect("simple");
    let filler = disk.fill();

    let refused = house.client(&["checkpoint", "create", "simple"]);
    assert!(!refused.status.success(), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("bank is full"), "{said}");

    // The bank has kept some room for that.
    let log = house.operation_ended(&running, "protect");
    assert_eq!(log["status"], "error");
    let reason = log["error_info"].as_str().unwrap();
    assert!(
        reason.contains("volume") && reason.contains("bank is full"),
        "{reason}"
    );
    assert_eq!(house.checkpoint(&running)["status"], "error");
    house.text(&["checkpoint", "delete", &running, "--wait"]);

    fs::remove_file(filler).unwrap();
    house.protected("simple");
    assert_eq!(house.unended(), [] as [serde_json::Value; 0]);
    house.kill();
    drop(disk);
}

#[test]
fn a_vanished_source_fails_the_run_and_names_it() {
    let mut house = House::new();
    let application = Application::new(&house, 2);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let elsewhere = house.path("elsewhere");
    fs::rename(&application.uploads, &elsewhere).unwrap();
    let reason = fails(&house);
    assert!(
        reason.contains("uploads") && reason.contains("not there"),
        "{reason}"
    );
    assert!(
        !reason.contains("orders.db"),
        "only what failed is named: {reason}"
    );
    fs::rename(&elsewhere, &application.uploads).unwrap();
    house.json(&["protect", "shop", "--wait"]);
    application.restores(&house);
}

#[test]
fn an_unreadable_file_makes_the_checkpoint_incomplete_and_is_named() {
    let mut house = House::new();
    let application = Application::new(&house, 2);
    house.unprivileged();
    house.start();
    let file = application.uploads.join("folder 0/0.text");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = house.client(&["protect", "shop", "--wait", "-f", "json"]);
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(
        told.contains("uploads") && told.contains("folder 0/0.text"),
        "{told}"
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    house.json(&["protect", "shop", "--wait"]);
    application.restores(&house);
}

/// Flips a byte in the middle of the largest pack.
fn damage(house: &House) -> String {
    let data = house.repository().join("data");
    let largest = files(&data)
        .into_iter()
        .max_by_key(|file| fs::metadata(data.join(file)).unwrap().len())
        .unwrap();
    let path = data.join(&largest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    largest.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn damage_in_the_bank_is_found_and_named_and_nothing_half_made_is_restored() {
    let mut house = House::new();
    let application = Application::new(&house, 20);
    house.start();
    let checkpoint = id(&house.json(&["protect", "shop", "--wait"]));
    let pack = damage(&house);

    let verified = house.client(&["verification", "create", &checkpoint, "--data", "--wait"]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let log = house.operation_ended(&checkpoint, "verify");
    let reason = log["error_info"].as_str().unwrap();
    assert!(
        reason.contains("uploads") && reason.contains(&pack),
        "{reason}"
    );

    let place = application.restored.join("damaged");
    let to = place.to_str().unwrap();
    let restore = ["restore", "shop", "--latest", "--wait", "--restore-to", to];
    let restored = house.client(&restore);
    assert_eq!(restored.status.code(), Some(1), "{restored:?}");
    let log = house.operation_ended(&checkpoint, "restore");
    let reason = log["error_info"].as_str().unwrap();
    assert!(reason.contains("uploads"), "{reason}");
    let list = house.json(&["restore", "list"]);
    assert_eq!(list[0]["status"], "fail");
    assert_ne!(list[0]["resources_reason"], Value::Null);

    // What is there is whole.
    let uploads = place.join("shop/uploads");
    for file in files(&uploads) {
        let wanted = application.uploads.join(&file);
        // A link is whole by itself, whether or not what it points at came back.
        if let Ok(target) = fs::read_link(&wanted) {
            assert_eq!(fs::read_link(uploads.join(&file)).unwrap(), target);
            continue;
        }
        assert!(
            same_bytes(&wanted, &uploads.join(&file)),
            "{} is half made",
            file.display()
        );
    }
}

/// A declaration that is broken is not mended by trying again: the answer says so, and makes no plan for it.
#[test]
fn a_broken_declaration_is_a_mistake_in_the_input() {
    let mut house = House::new();
    let _application = Application::new(&house, 1);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let folder = house.state().join("applications.d");
    let broken = "projects = ['default']\n[[directory]]\nname = 'x'\n";
    fs::write(folder.join("shop.toml"), format!("name = 'shop'\n{broken}")).unwrap();
    fs::write(
        folder.join("other.toml"),
        format!("name = 'other'\n{broken}"),
    )
    .unwrap();
    // With a plan, and without.
    for name in ["shop", "other"] {
        let refused = house.client(&["protect", name, "--wait"]);
        let told = everything(&refused);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("karbor config validate"), "{told}");
        assert!(!told.contains("try again"), "{told}");
    }
    let plans = house.json(&["plan", "list"]);
    assert_eq!(plans.as_array().unwrap().len(), 1, "{plans}");
}

/// Nothing to protect may be as it should be, the first time; nobody is left to find out at a restore.
#[test]
fn nothing_protected_is_said() {
    let mut house = House::new();
    fs::create_dir(house.path("empty")).unwrap();
    let declaration = format!(
        "name = 'new'\nprojects = ['default']\n[[directory]]\nname = 'uploads'\npath = '{}'\n",
        house.path("empty").display()
    );
    fs::write(house.state().join("applications.d/new.toml"), declaration).unwrap();
    house.start();
    let protected = house.client(&["protect", "new", "--wait"]);
    let told = everything(&protected);
    assert_eq!(protected.status.code(), Some(0), "{told}");
    assert!(told.contains("0 files were protected"), "{told}");
    let listed = house.json(&["checkpoint", "list"]);
    assert!(!listed.to_string().contains("suspicious"), "{listed}");
}
