//! Locks, ours and restic's.

use std::ffi::OsStr;

use karbor_vault::Control;

use crate::support::*;

fn locks(disk: &Disk) -> usize {
    std::fs::read_dir(disk.path().join("locks")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_there_as_long_as_somebody_works() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let one = vault.writer(meta(), Control::default()).await.unwrap();
    let mut two = vault.writer(meta(), Control::default()).await.unwrap();
    assert_eq!(locks(&disk), 1);
    if have_restic() {
        let listed = restic(&disk.path(), &["list", "locks", "--no-lock"]);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        let prune = try_restic(&disk.path(), &[OsStr::new("prune")]);
        let text = String::from_utf8_lossy(&prune.stderr).into_owned();
        assert!(
            !prune.status.success() && text.contains("already locked"),
            "{text}"
        );
        // Who only reads or backs up does not mind.
        restic(&disk.path(), &["check", "--no-lock"]);
        restic(&disk.path(), &["backup", "/etc/hostname"]);
    }
    drop(one);
    two.add_stream("x", &b"x"[..]).await.unwrap();
    two.commit().await.unwrap();
    assert_eq!(locks(&disk), 0);
    if have_restic() {
        restic(&disk.path(), &["prune"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_lock_does_not_commit() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer.add_stream("x", &b"x"[..]).await.unwrap();
    for lock in std::fs::read_dir(disk.path().join("locks")).unwrap() {
        std::fs::remove_file(lock.unwrap().path()).unwrap();
    }
    let error = writer.commit().await.unwrap_err();
    assert!(
        matches!(error, karbor_vault::VaultError::LockLost(_)),
        "{error:?}"
    );
    assert!(vault.snapshots().await.unwrap().is_empty());
}
