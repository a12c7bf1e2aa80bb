//! A checkpoint whose record in the bank cannot be read is removed with a command, not by hand.

use std::fs;

use crate::{
    application::Application,
    copies::two_banks,
    house::{House, everything, id},
};

#[test]
fn a_damaged_checkpoint_goes_with_its_snapshots_and_leaves_the_others() {
    let mut house = House::new();
    let application = Application::new(&house, 1);
    house.start();
    let made: Vec<_> = (0..3)
        .map(|_| id(&house.json(&["protect", "shop", "--wait"])))
        .collect();
    let snapshots = || {
        fs::read_dir(house.repository().join("snapshots"))
            .unwrap()
            .count()
    };
    let of_three = snapshots();
    let index = |id: &str| house.bank().join("checkpoints").join(id).join("index.json");
    fs::write(index(&made[0]), "garbage").unwrap();
    // No file at all in its place.
    fs::remove_file(index(&made[1])).unwrap();
    fs::create_dir(index(&made[1])).unwrap();
    fs::write(index(&made[1]).join("x"), "").unwrap();

    for bad in &made[..2] {
        let shown = house.json(&["checkpoint", "show", bad]);
        assert_eq!(shown["status"], "error", "{shown}");
        let restored = house.client(&["restore", "shop", "--checkpoint", bad]);
        let told = everything(&restored);
        assert_eq!(restored.status.code(), Some(4), "{told}");
        assert!(
            told.contains(&format!("karbor checkpoint delete {bad}")),
            "{told}"
        );
        if index(bad).is_dir() {
            let refused = house.client(&["checkpoint", "delete", bad, "--wait"]);
            let told = everything(&refused);
            assert_eq!(refused.status.code(), Some(5), "{told}");
            assert!(told.contains("index.json/x"), "{told}");
            assert!(index(bad).join("x").exists());
            fs::remove_dir_all(index(bad)).unwrap();
        }
        let deleted = house.client(&["checkpoint", "delete", bad, "--wait"]);
        assert!(deleted.status.success(), "{}", everything(&deleted));
        assert!(everything(&deleted).contains("karbor:checkpoint="));
    }
    assert_eq!(snapshots(), of_three / 3);
    let listed = house.json(&["checkpoint", "list"]);
    let left: Vec<_> = listed.as_array().unwrap().iter().map(id).collect();
    assert_eq!(left, [made[2].clone()]);
    application.restores(&house);
}

/// With the first bank away, every answer says what is wrong, without a place, and how to go on.
#[test]
fn a_bank_that_went_is_told_in_the_words_of_the_manual() {
    let mut house = House::new();
    let _application = Application::new(&house, 1);
    two_banks(&house);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    house.json(&["checkpoint", "copy", "shop", "--wait"]);
    fs::rename(house.bank(), house.path("away")).unwrap();
    for command in [
        &["checkpoint", "list"][..],
        &["restore", "shop", "--latest"],
    ] {
        let refused = house.client(command);
        let told = everything(&refused);
        assert_eq!(refused.status.code(), Some(5), "{told}");
        for words in [
            "was moved, removed or unmounted",
            "karbor operation-log list --operation copy",
        ] {
            assert!(told.contains(words), "{told}");
        }
        assert!(
            !told.contains("hint") && !told.contains(house.bank().to_str().unwrap()),
            "{told}"
        );
    }
    let copies = house.json(&["operation-log", "list", "--operation", "copy"]);
    let copy = copies[0]["checkpoint_id"].as_str().unwrap();
    assert_eq!(
        house.json(&["checkpoint", "show", copy])["status"],
        "available"
    );
}
