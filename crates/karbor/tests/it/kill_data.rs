//! `kill -9` while real bytes move.

use std::{fs, path::Path};

use crate::{
    application::{Application, orders, restic_checks, same_bytes, same_tree},
    house::{House, files, id, until, went_well},
};

fn packs(house: &House) -> usize {
    files(&house.repository().join("data")).len()
}

/// Has this run moved so many bytes, as its operation log tells?
fn moved(house: &House, checkpoint: &str, bytes: u64) -> bool {
    let log = house.operation(checkpoint, "protect").unwrap();
    let text = log["extra_info"].as_str().unwrap_or("null");
    let info: serde_json::Value = serde_json::from_str(text).unwrap();
    info["progress"]["bytes_done"].as_u64() >= Some(bytes)
}

#[test]
fn a_protect_survives_kills_while_the_vault_writes() {
    let mut house = House::new();
    let application = Application::new(&house, 60);
    house.start();
    for round in 0..2 {
        let before = packs(&house);
        let checkpoint = id(&house.json(&["protect", "shop"]));
        let is_over = |house: &House| house.index(&checkpoint)["status"] != "protecting";
        let mut interrupted = 0;
        for moment in ["the first pack", "more packs", "the log tells of progress"] {
            let now = packs(&house);
            until(moment, || {
                let reached = match moment {
                    "the first pack" => packs(&house) > before,
                    "more packs" => packs(&house) >= now + 2,
                    _ => moved(&house, &checkpoint, 20_000_000),
                };
                (reached || is_over(&house)).then_some(())
            });
            house.kill();
            // Nobody sees a checkpoint that is not whole.
            interrupted += usize::from(!is_over(&house));
            house.start();
        }
        assert!(interrupted > 0 || round > 0, "no kill hit the run");
        let log = house.operation_ended(&checkpoint, "protect");
        assert!(went_well(&log), "{log}");
        assert_eq!(house.checkpoint(&checkpoint)["status"], "available");
        application.restores(&house);
        // The next round has something new to write.
        for file in files(&application.uploads.join("folder 0")) {
            let path = application.uploads.join("folder 0").join(file);
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            fs::write(path, bytes).unwrap();
        }
    }
    restic_checks(&house);
}

/// Files whose content is that of `wanted`, of all that are there.
fn arrived(wanted: &Path, target: &Path) -> usize {
    let names = files(wanted);
    names
        .iter()
        .filter(|name| same_bytes(&wanted.join(name), &target.join(name)))
        .count()
}

#[test]
fn a_restore_survives_kills_and_never_shows_half_a_file() {
    let mut house = House::new();
    let application = Application::new(&house, 40);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let checkpoint = id(&house.json(&["checkpoint", "list"])[0]);

    // Wanted is what was protected; old is what the restore finds in its place.
    let (uploads, database) = (&application.uploads, &application.database);
    let wanted = house.path("wanted");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([uploads, &wanted])
        .status();
    assert!(copied.unwrap().success());
    let rows = orders(database);
    let old = b"what was here before".as_slice();
    let there = files(uploads);
    for file in there.iter().filter(|file| !file.ends_with("link")) {
        fs::write(uploads.join(file), old).unwrap();
    }
    let all = there.len();
    rusqlite::Connection::open(database)
        .unwrap()
        .execute("delete from orders", [])
        .unwrap();

    let run = id(&house.json(&["restore", "shop", "--latest", "--overwrite", "always"]));
    let mut interrupted = 0;
    for part in [0, 4] {
        // At first, as soon as anything is there that was not: files that are being written.
        until("some files to arrive", || match part {
            0 => (files(uploads) != there).then_some(()),
            _ => (arrived(&wanted, uploads) >= all / 10 * part).then_some(()),
        });
        house.kill();
        for file in &there {
            let path = uploads.join(file);
            let is_whole = same_bytes(&path, &wanted.join(file))
                || fs::read(&path).is_ok_and(|bytes| bytes == old);
            assert!(is_whole, "{} is neither old nor new", path.display());
        }
        interrupted += usize::from(arrived(&wanted, uploads) < all);
        let held = orders(database);
        assert!(held.is_empty() || held == rows, "half a database");
        house.start();
    }
    assert!(interrupted > 0, "no kill hit the run");
    let log = house.operation_ended(&checkpoint, "restore");
    assert!(went_well(&log), "{log}");
    assert_eq!(house.json(&["restore", "show", &run])["status"], "success");
    same_tree(&wanted, uploads);
    assert_eq!(orders(database), rows);
}
