//! Trees of files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use karbor_model::{CheckpointId, OperationType};
use karbor_plugin::{Bank as _, BankKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{DIRECTORY, Lab, tree};

fn lab(more: &str) -> Lab {
    let lab = Lab::new();
    let files = lab.path("files");
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n{more}",
        files.display()
    ));
    fs::create_dir_all(files.join("sub/cache")).unwrap();
    fs::write(files.join("a.txt"), "alpha").unwrap();
    fs::write(files.join("sub/b.jpg"), vec![42; 100_000]).unwrap();
    fs::write(files.join("sub/cache/c.tmp"), "c").unwrap();
    symlink("a.txt", files.join("link")).unwrap();
    fs::hard_link(files.join("a.txt"), files.join("hard")).unwrap();
    fs::set_permissions(files.join("a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    lab
}

fn wreck(files: &Path) {
    fs::remove_dir_all(files.join("sub")).unwrap();
    fs::write(files.join("a.txt"), "wrecked").unwrap();
    fs::remove_file(files.join("link")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_wrecked_restored_and_equal() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let before = tree(&files);
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    assert_eq!(report["left_out"], 0);
    assert!(report["bytes"].as_u64().unwrap() >= 100_006, "{report:?}");
    wreck(&files);
    let refused = lab
        .restore(checkpoint, &resource, json!({}))
        .await
        .unwrap_err();
    assert!(
        refused
            .message
            .contains("restore with overwrite 'if-changed'"),
        "{refused}"
    );
    assert_eq!(fs::read(files.join("a.txt")).unwrap(), b"wrecked");
    let lab = lab.restarted();
    let done = lab
        .restore(checkpoint, &resource, json!({"overwrite": "if-changed"}))
        .await
        .unwrap();
    assert_eq!(tree(&files), before);
    assert!(done["bytes"].as_u64().unwrap() > 100_000, "{done:?}");
    let meta = fs::metadata(files.join("a.txt")).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.nlink()), (0o640, 2));
    assert!(lab.scratch().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_directory_is_restored_without_being_asked_to_overwrite() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let before = tree(&files);
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::remove_dir_all(&files).unwrap();
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert_eq!(tree(&files), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_itself_gets_its_mode_and_time_back() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    fs::set_permissions(&files, fs::Permissions::from_mode(0o710)).unwrap();
    let of = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.mode(), found.modified().unwrap())
    };
    let before = of(&files);
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::remove_dir_all(&files).unwrap();
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert_eq!(of(&files), before);
    lab.restore(checkpoint, &resource, json!({"restore_to": "copy"}))
        .await
        .unwrap();
    assert_eq!(of(&lab.path("restore/copy/shop/files")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_died_half_way_is_run_again() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    fs::set_permissions(&files, fs::Permissions::from_mode(0o710)).unwrap();
    let before = tree(&files);
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::remove_dir_all(&files).unwrap();
    let context = lab.context(OperationType::Restore, checkpoint, &resource, json!({}));
    lab.operation(OperationType::Restore, &resource)
        .main(&context)
        .await
        .unwrap();
    // As if only a part had been there when the machine died.
    fs::remove_dir_all(files.join("sub")).unwrap();
    fs::remove_file(files.join("link")).unwrap();
    fs::set_permissions(&files, fs::Permissions::from_mode(0o700)).unwrap();
    let lab = lab.restarted();
    lab.run(&context).await.unwrap();
    assert_eq!(tree(&files), before);
    assert_eq!(fs::metadata(&files).unwrap().mode() & 0o777, 0o710);
    assert!(lab.scratch().is_empty());
}

/// What was asked not to overwrite anything does not either when a crash came in between.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_into_the_place_before_a_restore_is_run_again_stays() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let protected = tree(&files);
    fs::remove_dir_all(&files).unwrap();
    let context = lab.context(OperationType::Restore, checkpoint, &resource, json!({}));
    lab.operation(OperationType::Restore, &resource)
        .main(&context)
        .await
        .unwrap();
    fs::remove_file(files.join("sub/b.jpg")).unwrap();
    // The application was started meanwhile.
    fs::remove_file(files.join("a.txt")).unwrap();
    fs::write(files.join("a.txt"), "written since").unwrap();
    fs::write(files.join("new"), "written since").unwrap();
    fs::remove_file(files.join("link")).unwrap();
    fs::create_dir(files.join("link")).unwrap();
    let mut wanted = protected;
    wanted.insert("a.txt".to_owned(), b"written since".to_vec());
    wanted.insert("new".to_owned(), b"written since".to_vec());
    wanted.remove("link -> a.txt");
    wanted.insert("link/".to_owned(), Vec::new());
    let lab = lab.restarted();
    let done = lab.run(&context).await.unwrap();
    assert_eq!(tree(&files), wanted);
    let warning = done["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("2 files came into the place"),
        "{warning}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_checkpoint_stores_what_is_new() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let (_, first) = lab.protect(&resource).await.unwrap();
    fs::write(lab.path("files/new"), "new").unwrap();
    let (checkpoint, second) = lab.protect(&resource).await.unwrap();
    let new = |report: &karbor_plugin::HookReport| report["new_bytes"].as_u64().unwrap();
    assert!(
        new(&second) * 2 < new(&first) + 3000,
        "{} of {}",
        new(&second),
        new(&first)
    );
    assert_eq!(lab.snapshots(), 2);
    let context = lab.context(OperationType::Delete, checkpoint, &resource, json!({}));
    lab.run(&context).await.unwrap();
    assert_eq!(lab.snapshots(), 1);
    assert_eq!(lab.sections().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn includes_and_excludes() {
    let lab = lab("include = [\"*.txt\", \"/sub\"]\nexclude = [\"cache\"]\n");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::remove_dir_all(lab.path("files")).unwrap();
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    let names: Vec<String> = tree(&lab.path("files")).into_keys().collect();
    assert_eq!(names, ["a.txt", "sub/", "sub/b.jpg"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_and_changes_nothing() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    wreck(&files);
    let wrecked = tree(&files);
    let report = lab
        .restore(
            checkpoint,
            &resource,
            json!({"dry_run": true, "overwrite": "if-changed"}),
        )
        .await
        .unwrap();
    assert_eq!(tree(&files), wrecked);
    let changes = report["changes"].as_array().unwrap();
    let of = |path: &str| changes.iter().find(|change| change["path"] == path);
    assert_eq!(of("a.txt").unwrap()["kind"], "overwrite", "{changes:?}");
    assert_eq!(of("sub/b.jpg").unwrap()["kind"], "create", "{changes:?}");
    assert_eq!(report["changes_total"], changes.len());
    // Without leave to overwrite it says that it would be refused.
    let report = lab
        .restore(checkpoint, &resource, json!({"dry_run": true}))
        .await
        .unwrap();
    assert!(
        report["warnings"][0]
            .as_str()
            .unwrap()
            .contains("is not empty"),
        "{report:?}"
    );
    assert!(lab.scratch().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_to_a_restore_root() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let before = tree(&lab.path("files"));
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let root = lab.path("restore");
    lab.restore(checkpoint, &resource, json!({"restore_to": "monday"}))
        .await
        .unwrap();
    assert_eq!(tree(&root.join("monday/shop/files")), before);
    let absolute = root.join("tuesday");
    lab.restore(checkpoint, &resource, json!({"restore_to": absolute}))
        .await
        .unwrap();
    assert_eq!(tree(&absolute.join("shop/files")), before);
    assert_eq!(tree(&lab.path("files")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn path_tricks_are_refused() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, lab.path("restore/out")).unwrap();
    symlink("/nowhere", lab.path("restore/dangling")).unwrap();
    let sibling = lab.path("restore-not");
    for place in [
        "..",
        "../outside",
        "a/../../outside",
        "/etc",
        "/",
        "out",
        "out/deeper",
        "dangling",
        "nul\0",
        sibling.to_str().unwrap(),
        outside.to_str().unwrap(),
        "",
    ] {
        let answer = lab
            .restore(
                checkpoint,
                &resource,
                json!({"restore_to": place, "overwrite": "always"}),
            )
            .await;
        if place.is_empty() {
            // The schema refuses it; the place would be the root itself, with the names below.
            answer.unwrap();
            continue;
        }
        let error = answer.unwrap_err();
        assert!(
            error.message.contains("refused") || error.message.contains("link"),
            "{place:?}: {error}"
        );
        assert!(tree(&outside).is_empty(), "{place:?}");
    }
    assert!(!sibling.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_original_place_is_not_followed() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::remove_dir_all(&files).unwrap();
    fs::create_dir(lab.path("outside")).unwrap();
    symlink(lab.path("outside"), &files).unwrap();
    let error = lab
        .restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap_err();
    assert!(error.message.contains("symbolic link"), "{error}");
    assert!(tree(&lab.path("outside")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_declared_through_a_link_is_protected_and_restored() {
    let lab = lab("");
    let real = lab.path("real");
    fs::rename(lab.path("files"), &real).unwrap();
    symlink(&real, lab.path("files")).unwrap();
    let before = tree(&real);
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    wreck(&real);
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    assert_eq!(tree(&real), before);
    assert!(
        fs::symlink_metadata(lab.path("files"))
            .unwrap()
            .is_symlink()
    );
}

/// The operator's declaration of today governs where a restore may write.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_declared_goes_to_a_restore_root_only() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let elsewhere = lab.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
        elsewhere.display()
    ));
    let error = lab
        .restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap_err();
    assert!(
        error.message.contains("declared at another place now"),
        "{error}"
    );
    lab.declare(&format!(
        "[[directory]]\nname = \"others\"\npath = \"{}\"\n",
        elsewhere.display()
    ));
    let error = lab
        .restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap_err();
    assert!(
        error.message.contains("is not declared") && error.message.contains("restore_to"),
        "{error}"
    );
    lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap();
    fs::remove_file(lab.path("applications.d/shop.toml")).unwrap();
    let error = lab
        .restore(checkpoint, &resource, json!({"restore_to": "y"}))
        .await
        .unwrap_err();
    assert!(error.message.contains("restore root"), "{error}");
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(error.message.contains("is not declared"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_tree_fails_and_the_next_run_works() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    fs::rename(&files, lab.path("away")).unwrap();
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(
        error
            .message
            .contains("it is not there: is its file system mounted?"),
        "{error}"
    );
    assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
    fs::write(&files, "a file").unwrap();
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(error.message.contains("it is not a directory"), "{error}");
    fs::remove_file(&files).unwrap();
    fs::rename(lab.path("away"), &files).unwrap();
    lab.protect(&resource).await.unwrap();
    assert_eq!(lab.snapshots(), 1);
}

/// Nobody can read the start of a process's memory, not even root.
fn half_readable(more: &str) -> Lab {
    let lab = Lab::new();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"/proc/self\"\ninclude = [\"/mem\", \"/environ\"]\n\
         exclude = [\"*/\"]\n{more}"
    ));
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_makes_a_checkpoint_incomplete() {
    let lab = half_readable("");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    assert_eq!(
        (&report["files"], &report["incomplete"]["total"]),
        (&json!(1), &json!(1))
    );
    let named = &report["incomplete"]["named"][0];
    assert!(named["path"].as_str().unwrap().ends_with("/mem"), "{named}");
    assert!(!named["reason"].as_str().unwrap().is_empty());
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.contains("incomplete"), "{warning}");
    // What could be read can be restored.
    lab.restore(checkpoint, &resource, json!({"restore_to": "there"}))
        .await
        .unwrap();
    let restored = lab.path("restore/there/shop/files");
    assert!(restored.join("environ").exists());
    // What it lacks is no extra: perhaps it is the only copy.
    fs::write(restored.join("mem"), "").unwrap();
    let parameters =
        json!({"restore_to": "there", "overwrite": "if-changed", "delete_extra": true});
    let refused = lab.restore(checkpoint, &resource, parameters).await;
    let refused = refused.unwrap_err().message;
    assert!(refused.contains("could not be read"), "{refused}");
    assert!(restored.join("mem").exists());
    // Though the process died before its report was kept.
    let context = lab.context(
        OperationType::Protect,
        CheckpointId::new(),
        &resource,
        json!({}),
    );
    let operation = lab.operation(OperationType::Protect, &resource);
    operation.main(&context).await.unwrap();
    context
        .writable()
        .unwrap()
        .delete(&BankKey::parse("metadata").unwrap())
        .await
        .unwrap();
    let again = operation.main(&context).await.unwrap();
    assert_eq!(again["incomplete"]["total"], 1, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_that_is_declared_what_cannot_be_read_fails_the_checkpoint() {
    let lab = half_readable("on_unreadable = \"fail\"\n");
    let error = lab
        .protect(&lab.resource(DIRECTORY).await)
        .await
        .unwrap_err();
    assert!(error.message.contains("/mem'"), "{error}");
    assert_eq!(lab.snapshots(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_include_that_matches_nothing_is_warned_of() {
    let lab = lab("include = [\"*.jpg\", \"*.png\"]\n");
    let (_, report) = lab.protect(&lab.resource(DIRECTORY).await).await.unwrap();
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].as_str().unwrap().contains("'*.png'"),
        "{warnings:?}"
    );
}

/// He who may write the folder above would choose what the service reads for him.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_its_owner_made_a_link_of_is_not_protected() {
    let lab = Lab::new();
    let home = lab.path("home");
    fs::create_dir_all(home.join("files")).unwrap();
    fs::write(home.join("files/mine"), "mine").unwrap();
    let secret = lab.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("shadow"), "root's").unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
        home.join("files").display()
    ));
    if std::os::unix::fs::chown(&home, Some(12_345), None).is_err() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let resource = lab.resource(DIRECTORY).await;
    lab.protect(&resource).await.unwrap();
    // The directory itself, and one above it.
    fs::rename(home.join("files"), home.join("away")).unwrap();
    symlink(&secret, home.join("files")).unwrap();
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(error.message.contains("symbolic link"), "{error}");
    assert_eq!(lab.snapshots(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_checkpoint_with_data_held_is_told_each_time() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let (_, first) = lab.protect(&resource).await.unwrap();
    assert!(!first.contains_key("before"), "{first:?}");
    fs::remove_dir_all(&files).unwrap();
    fs::create_dir(&files).unwrap();
    for _ in 0..2 {
        let (_, report) = lab.protect(&resource).await.unwrap();
        assert_eq!(report["files"], 0);
        assert_eq!(report["before"]["files"], first["files"]);
        assert_eq!(report["before"]["bytes"], first["bytes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_s_own_state_is_never_protected_or_restored_into() {
    let lab = Lab::new();
    let whole = lab.path("");
    lab.declare(&format!(
        "[[directory]]\nname = \"all\"\npath = \"{}\"\n",
        whole.display()
    ));
    let resource = lab.resource(DIRECTORY).await;
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(error.message.contains("has to exclude '/state'"), "{error}");
    lab.declare(&format!(
        "[[directory]]\nname = \"all\"\npath = \"{}\"\nexclude = [\"/state\"]",
        whole.display()
    ));
    lab.protect(&resource).await.unwrap();
}

/// There is nothing to exclude that would help.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_the_service_s_own_is_refused_without_advice_to_exclude_it() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("state/bank/inner")).unwrap();
    for own in ["state", "state/bank/inner"] {
        lab.declare(&format!(
            "[[directory]]\nname = \"own\"\npath = \"{}\"\n",
            lab.path(own).display()
        ));
        let error = lab.protect(&lab.resource(DIRECTORY).await).await;
        let found = super::validate::validate(&lab).await;
        let told = [&error.unwrap_err().message, &found[0].message];
        for message in told {
            assert!(message.contains("declare another directory"), "{message}");
            assert!(!message.contains("exclude"), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_leave_out_everything_are_warned_of() {
    for (patterns, is_told) in [
        ("exclude = [\"**\"]\n", true),
        ("include = [\"*.none\"]\n", true),
        ("exclude = [\"*.tmp\"]\n", false),
    ] {
        let lab = lab(patterns);
        let (_, report) = lab.protect(&lab.resource(DIRECTORY).await).await.unwrap();
        let found = super::validate::validate(&lab).await;
        let told = report
            .get("warnings")
            .map_or_else(String::new, Value::to_string);
        let wanted = "the patterns leave out everything";
        assert_eq!(told.contains(wanted), is_told, "{told}");
        let validated = found.iter().any(|problem| problem.message.contains(wanted));
        assert_eq!(validated, is_told, "{found:?}");
    }
    // Directories and links are something, too.
    for (excluded, is_link) in [("[\"*.txt\"]", false), ("[\"*.txt\", \"/sub\"]", true)] {
        let lab = lab(&format!("exclude = {excluded}\n"));
        let files = lab.path("files");
        fs::remove_dir_all(&files).unwrap();
        fs::create_dir_all(files.join("sub/uploads")).unwrap();
        fs::write(files.join("a.txt"), "").unwrap();
        if is_link {
            symlink("a.txt", files.join("link")).unwrap();
        }
        let (_, report) = lab.protect(&lab.resource(DIRECTORY).await).await.unwrap();
        assert!(!report.contains_key("warnings"), "{report:?}");
        let found = super::validate::validate(&lab).await;
        assert!(found.is_empty(), "{found:?}");
    }
    // Of one that has nothing, nothing is left out.
    let lab = lab("exclude = [\"**\"]\n");
    fs::remove_dir_all(lab.path("files")).unwrap();
    fs::create_dir(lab.path("files")).unwrap();
    let (_, report) = lab.protect(&lab.resource(DIRECTORY).await).await.unwrap();
    assert!(!report.contains_key("warnings"), "{report:?}");
}

/// By root: a link of anybody else is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_place_of_a_directory_that_was_protected_is_warned_of() {
    let lab = lab("");
    let (files, resource) = (lab.path("files"), lab.resource(DIRECTORY).await);
    let (first, report) = lab.protect(&resource).await.unwrap();
    assert!(!report.contains_key("warnings"), "{report:?}");
    fs::rename(&files, lab.path("victim")).unwrap();
    symlink(lab.path("victim"), &files).unwrap();
    let (_, report) = lab.protect(&resource).await.unwrap();
    let warning = report["warnings"][0].as_str().unwrap();
    for path in ["files", "victim"] {
        let path = format!("'{}'", lab.path(path).display());
        assert!(
            warning.contains("by a symbolic link") && warning.contains(&path),
            "{warning}"
        );
    }
    let back = lab.restore(first, &resource, json!({"overwrite": "always"}));
    assert!(back.await.unwrap_err().message.contains("symbolic link"));
    // It is known by now.
    let (_, report) = lab.protect(&resource).await.unwrap();
    assert!(!report.contains_key("warnings"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_bank_is_named_and_nothing_pretends_to_be_whole() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    lab.verify(checkpoint, &resource, json!({})).await.unwrap();
    let done = lab
        .verify(checkpoint, &resource, json!({"level": "data"}))
        .await
        .unwrap();
    assert!(done["bytes"].as_u64().unwrap() >= 100_000, "{done:?}");
    for (key, data) in lab.bank.contents() {
        if !key.as_str().contains("/data/") {
            continue;
        }
        let mut flipped = data.to_vec();
        flipped[10] ^= 1;
        lab.bank.tamper(&key, flipped.into());
    }
    let error = lab
        .verify(checkpoint, &resource, json!({"level": "data"}))
        .await
        .unwrap_err();
    assert!(error.message.contains("damaged"), "{error}");
    let error = lab
        .restore(checkpoint, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap_err();
    assert!(error.message.contains("damaged"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_point_at_another_s_snapshot_are_refused() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let (first, _) = lab.protect(&resource).await.unwrap();
    let (second, _) = lab.protect(&resource).await.unwrap();
    let key = |of: CheckpointId| {
        BankKey::parse(&format!(
            "checkpoints/{of}/resource-data/{}/metadata",
            resource.id
        ))
        .unwrap()
    };
    let objects = lab.bank.contents();
    lab.bank.tamper(&key(second), objects[&key(first)].clone());
    let error = lab
        .restore(second, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap_err();
    assert!(error.message.contains("tampered with"), "{error}");
    lab.bank.tamper(&key(second), "{}".into());
    let error = lab.verify(second, &resource, json!({})).await.unwrap_err();
    assert!(error.message.contains("is corrupt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_components_into_a_new_vault_at_once() {
    let lab = Lab::new();
    let mut text = String::new();
    for n in 0..8 {
        let path = lab.path(&format!("d{n}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("x"), format!("{n}")).unwrap();
        text += &format!(
            "[[directory]]\nname = \"d{n}\"\npath = \"{}\"\n",
            path.display()
        );
    }
    lab.declare(&text);
    let resources = lab.resources(DIRECTORY).await;
    let runs = resources.iter().map(|resource| lab.protect(resource));
    for done in futures::future::join_all(runs).await {
        done.unwrap();
    }
    assert_eq!(lab.snapshots(), 8);
    let configs = lab
        .bank
        .keys()
        .iter()
        .filter(|key| key.ends_with("/config"))
        .count();
    assert_eq!(configs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_restores_into_one_place_exclude_each_other() {
    let lab = lab("");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let operation = lab.operation(OperationType::Restore, &resource);
    let context = |to: &str| {
        let parameters = json!({"restore_to": to, "overwrite": "always"});
        lab.context(OperationType::Restore, checkpoint, &resource, parameters)
    };
    let first = context("monday");
    operation.main(&first).await.unwrap();
    operation.main(&first).await.unwrap();
    let place = lab.path("restore/monday/shop/files");
    for same in ["monday", "monday/shop/files"] {
        let second = context(same);
        let error = operation.main(&second).await.unwrap_err();
        assert!(
            error.message.contains("another restore")
                && error.message.contains(&place.display().to_string()),
            "{error}"
        );
        operation.undo(&second).await.unwrap();
    }
    lab.run(&context("tuesday")).await.unwrap();
    operation.complete(&first).await.unwrap();
    lab.run(&context("monday")).await.unwrap();
    lab.run(&context("monday/shop/files")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protect_that_is_run_again_warns_again() {
    let lab = lab("include = [\"*.none\"]\n");
    let resource = lab.resource(DIRECTORY).await;
    let context = lab.context(
        OperationType::Protect,
        CheckpointId::new(),
        &resource,
        json!({}),
    );
    let report = lab.run(&context).await.unwrap();
    assert!(report["warnings"][0].as_str().unwrap().contains("'*.none'"));
    let lab = lab.restarted();
    assert_eq!(lab.run(&context).await.unwrap(), report);
    // Dead between the snapshot and the metadata: what is not known is said.
    let key = context.data.prefix().to_string() + "/metadata";
    lab.bank
        .delete(&BankKey::parse(&key).unwrap())
        .await
        .unwrap();
    let report = lab.run(&context).await.unwrap();
    assert!(
        report["warnings"][0]
            .as_str()
            .unwrap()
            .contains("is not known"),
        "{report:?}"
    );
    assert_eq!(lab.snapshots(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_a_user_puts_above_the_place_leads_nowhere() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return;
    }
    let lab = Lab::new();
    let (hers, outside) = (lab.path("srv/conf"), lab.path("outside"));
    let place = hers.join("cron.d");
    lab.declare(&format!(
        "[[directory]]\nname = \"jobs\"\npath = \"{}\"",
        place.display()
    ));
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("evil"), "hers").unwrap();
    fs::create_dir_all(outside.join("cron.d")).unwrap();
    for path in [&lab.path("srv"), &hers, &place, &place.join("evil")] {
        std::os::unix::fs::chown(path, Some(12_345), Some(12_345)).unwrap();
    }
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::rename(&hers, lab.path("srv/old")).unwrap();
    symlink(&outside, &hers).unwrap();
    std::os::unix::fs::lchown(&hers, Some(12_345), Some(12_345)).unwrap();
    for overwrite in ["never", "if-changed", "always"] {
        let error = lab
            .restore(checkpoint, &resource, json!({"overwrite": overwrite}))
            .await
            .unwrap_err();
        assert!(error.message.contains("symbolic link"), "{error}");
        let error = error.message;
        assert!(error.contains(hers.to_str().unwrap()), "{error}");
    }
    assert_eq!(tree(&outside).into_keys().collect::<Vec<_>>(), ["cron.d/"]);
    assert_eq!(fs::metadata(outside.join("cron.d")).unwrap().uid(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_cache_is_no_extra() {
    let lab = lab("exclude_caches = true\n");
    let cache = lab.path("files/cache");
    fs::create_dir(&cache).unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    fs::write(cache.join("CACHEDIR.TAG"), tag).unwrap();
    fs::write(cache.join("page"), "can be made again").unwrap();
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let parameters = json!({"overwrite": "if-changed", "delete_extra": true});
    let told = lab.restore(checkpoint, &resource, parameters);
    assert_eq!(told.await.unwrap().get("deleted"), None);
    assert!(cache.join("page").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_since_is_named_or_removed_and_what_was_left_out_stays() {
    let lab = Lab::new();
    let files = lab.path("files");
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{0}\"\nexclude = [\"*.log\"]\n[[sqlite]]\nname = \"db\"\npath = \"{0}/shop.db\"",
        files.display()
    ));
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("segment.1"), "1").unwrap();
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    for name in ["segment.2", "app.log", "shop.db", "shop.db-wal"] {
        fs::write(files.join(name), "since").unwrap();
    }
    let restore = |parameters| lab.restore(checkpoint, &resource, parameters);
    let told = restore(json!({"overwrite": "always"})).await.unwrap();
    assert_eq!((&told["extra"], told.get("deleted")), (&json!(1), None));
    let warning = told["warnings"][0].as_str().unwrap();
    assert!(warning.contains("'segment.2'"), "{warning}");
    let dry = restore(json!({"overwrite": "if-changed", "delete_extra": true, "dry_run": true}))
        .await
        .unwrap();
    assert_eq!(
        dry["changes"],
        json!([{"path": "segment.2", "kind": "delete"}])
    );
    let refused = restore(json!({"delete_extra": true})).await.unwrap_err();
    assert!(
        refused.message.contains("'if-changed' or 'always'"),
        "{refused}"
    );
    assert!(files.join("segment.2").exists());
    let told = restore(json!({"overwrite": "if-changed", "delete_extra": true}))
        .await
        .unwrap();
    assert_eq!(told["deleted"], 1);
    assert!(!told.contains_key("warnings"), "{told:?}");
    let left: Vec<_> = tree(&files).into_keys().collect();
    assert_eq!(left, ["app.log", "segment.1", "shop.db", "shop.db-wal"]);
    // What is not declared any more may have left out anything.
    lab.declare(&format!(
        "[[directory]]\nname = \"other\"\npath = \"{}\"",
        lab.path("other").display()
    ));
    let refused = restore(json!({
        "overwrite": "always", "delete_extra": true, "restore_to": "somewhere",
    }));
    let refused = refused.await.unwrap_err();
    assert!(refused.message.contains("delete_extra"), "{refused}");
}

/// What one checkpoint of many does not hold is perhaps held by none.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_checkpoint_left_out_stays_though_it_would_be_taken_today() {
    let lab = Lab::new();
    let files = lab.path("files");
    let declare = |more: &str, last: &str| {
        lab.declare(&format!(
            "[[directory]]\nname = \"files\"\npath = \"{0}\"\n{more}\n{last}",
            files.display()
        ));
    };
    let database = format!(
        "[[sqlite]]\nname = \"db\"\npath = \"{}/shop.db\"",
        files.display()
    );
    fs::create_dir_all(files.join("uploads")).unwrap();
    fs::create_dir(files.join("cache")).unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    for (name, content) in [
        ("page.html", "1"),
        ("uploads/photo", "the only one"),
        ("shop.db", "transactions"),
        ("shop.db-wal", "more of them"),
        ("cache/CACHEDIR.TAG", tag),
        ("cache/page.html", "can be made again"),
        ("notes.txt", "not included"),
    ] {
        fs::write(files.join(name), content).unwrap();
    }
    declare(
        "exclude = [\"/uploads/\"]\ninclude = [\"*.html\", \"CACHEDIR.TAG\", \"shop.db*\"]\nexclude_caches = true",
        &database,
    );
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = tree(&files);
    declare("", "");
    let wishes = json!({"overwrite": "if-changed", "delete_extra": true});
    let told = lab.restore(checkpoint, &resource, wishes.clone()).await;
    assert_eq!(told.unwrap().get("deleted"), None);
    assert_eq!(tree(&files), before);
    // What both take goes.
    fs::write(files.join("since.html"), "").unwrap();
    let told = lab.restore(checkpoint, &resource, wishes.clone()).await;
    assert_eq!(told.unwrap()["deleted"], 1);
    assert_eq!(tree(&files), before);
    // What is left out today stays as well.
    fs::write(files.join("since.html"), "").unwrap();
    declare("exclude = [\"since.*\"]", "");
    let told = lab.restore(checkpoint, &resource, wishes).await.unwrap();
    assert_eq!(told.get("deleted"), None);
    assert!(files.join("since.html").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_what_was_left_out_was_not_kept_nothing_is_deleted() {
    let lab = lab("exclude = [\"*.log\"]\n");
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    // As checkpoints of earlier versions are.
    let context = lab.context(OperationType::Delete, checkpoint, &resource, json!({}));
    let section = context.writable().unwrap();
    let key = BankKey::parse("metadata").unwrap();
    let bytes = section.read_only().get(&key).await.unwrap();
    let mut kept: Value = serde_json::from_slice(&bytes).unwrap();
    let object = kept.as_object_mut().unwrap();
    assert!(object.remove("left_out").is_some());
    object.remove("sha256");
    let digest = Sha256::digest(kept.to_string());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    kept["sha256"] = json!(digest);
    section.put(&key, kept.to_string().into()).await.unwrap();
    fs::write(lab.path("files/since"), "").unwrap();
    fs::write(lab.path("files/since.log"), "").unwrap();
    let wishes = json!({"overwrite": "if-changed", "delete_extra": true});
    let refused = lab.restore(checkpoint, &resource, wishes).await;
    let refused = refused.unwrap_err().message;
    assert!(refused.contains("'delete_extra'"), "{refused}");
    assert!(lab.path("files/since").exists());
    let told = lab.restore(checkpoint, &resource, json!({"overwrite": "if-changed"}));
    assert_eq!(told.await.unwrap()["extra"], 1);
}
