//! Restores onto overlayfs, where a directory of the lower layer is copied when something in it is changed: it keeps
//! its numbers, and counts as made at that moment.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use karbor_vault::{Control, Overwrite, RestoreOptions};

use crate::support::*;

/// More directories in each other than are held open.
const LEVELS: usize = 40;

/// A tree with a hard link, and with a deep directory that others come after.
fn make_tree(at: &Path) {
    fs::create_dir_all(at.join("app")).unwrap();
    fs::write(at.join("app/data"), "as protected").unwrap();
    fs::hard_link(at.join("app/data"), at.join("app/same")).unwrap();
    let deepest = deepest(at);
    fs::create_dir_all(&deepest).unwrap();
    fs::write(deepest.join("file"), "as protected").unwrap();
    symlink("file", deepest.join("link")).unwrap();
    fs::create_dir_all(at.join("last")).unwrap();
    fs::write(at.join("last/file"), "as protected").unwrap();
    let bits = fs::Permissions::from_mode(0o750);
    fs::set_permissions(at.join("app"), bits).unwrap();
}

fn deepest(at: &Path) -> std::path::PathBuf {
    at.join(vec!["deep"; LEVELS].join("/"))
}

/// The tree, after something happened to it.
fn make_damaged(at: &Path) {
    make_tree(at);
    fs::remove_file(at.join("app/same")).unwrap();
    fs::write(at.join("app/data"), "changed").unwrap();
    fs::write(at.join("app/extra"), "").unwrap();
    let bits = fs::Permissions::from_mode(0o700);
    fs::set_permissions(at.join("app"), bits).unwrap();
    fs::remove_file(deepest(at).join("link")).unwrap();
    fs::write(deepest(at).join("file"), "changed").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_layered_file_system_is_whole() {
    if !has_own_mounts("layered::a_restore_onto_a_layered_file_system_is_whole") {
        return;
    }
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    let top = keep.path().canonicalize().unwrap();
    let source = top.join("source");
    make_tree(&source);
    let id = store(&vault, &source).await.unwrap().id;
    make_damaged(&top.join("lower"));
    // The upper layer on the file system of the lower one, and on another.
    for upper in ["", "mount -t tmpfs tmpfs upper && "] {
        let at = top.join(if upper.is_empty() { "one" } else { "two" });
        fs::create_dir_all(at.join("upper")).unwrap();
        fs::create_dir_all(at.join("merged")).unwrap();
        let script = format!(
            "cd \"$0\" && {upper} mkdir upper/data upper/work && exec mount -t overlay overlay \
             -o lowerdir=../lower,upperdir=upper/data,workdir=upper/work merged"
        );
        if !mount(&script, &at) {
            eprintln!("SKIPPED: no overlayfs");
            return;
        }
        let merged = at.join("merged");
        let options = RestoreOptions {
            subpath: subpath(&source),
            overwrite: Overwrite::IfChanged,
            delete_extra: true,
            ..Default::default()
        };
        let done = vault
            .restore_tree(&id, found_at(&merged), options, Control::default())
            .await
            .unwrap();
        assert!(done.warned.is_empty(), "{done:?}");
        assert_same(&describe(&source), &describe(&merged));
        assert!(mount("exec umount \"$0\"", &merged));
    }
}
