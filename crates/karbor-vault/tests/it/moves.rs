//! What is moved about in a tree while it is read.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use karbor_vault::{OnUnreadable, TreeOptions, VaultError};

use crate::{
    sources::{at_entry, only, restored},
    support::*,
};

/// `archive` is read before `data`, and `incoming` after it.
fn shop() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    for name in ["archive/2025", "data", "incoming/batch"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    for name in [
        "archive/old",
        "archive/2025/old",
        "data/large",
        "incoming/order",
        "incoming/batch/first",
    ] {
        fs::write(path.join(name), name).unwrap();
    }
    (dir, path)
}

/// Moves something, once, when `data` is read.
fn moving(path: &Path, moves: &'static [(&str, &str)]) -> TreeOptions {
    let at = path.to_owned();
    let done = AtomicBool::new(false);
    at_entry("data/large", move || {
        if !done.swap(true, Ordering::SeqCst) {
            for (from, to) in moves {
                fs::create_dir_all(at.join(to).parent().unwrap()).unwrap();
                fs::rename(at.join(from), at.join(to)).unwrap();
            }
        }
    })
}

/// Neither listing has it: that of `archive` was before, that of `incoming` after.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_into_a_directory_that_was_read_is_not_lost() {
    let (_, vault) = memory().await;
    for (moves, files) in [
        (&[("incoming/order", "archive/order")][..], 5),
        (&[("incoming/order", "archive/2025/order")], 5),
        (&[("incoming/batch", "archive/batch")], 5),
        // Into a directory that was made since.
        (&[("incoming/order", "archive/2026/01/order")], 5),
        // Over something that was read.
        (&[("incoming/order", "archive/old")], 4),
        (
            &[
                ("archive/2025", "archive/2024"),
                ("incoming/batch", "archive/2025"),
            ],
            5,
        ),
    ] {
        let (_dir, path) = shop();
        let options = moving(&path, moves);
        let summary = store_with(&vault, &path, meta(), options).await.unwrap();
        assert_eq!(summary.left_out.total, 0, "{moves:?}: {}", summary.left_out);
        let target = restored(&vault, &summary, &path).await;
        for (_, to) in moves {
            assert!(target.path().join(to).exists(), "{moves:?}");
        }
        assert_same(&contents(&path), &contents(target.path()));
        assert!(summary.files >= files, "{moves:?}: {}", summary.files);
    }
}

/// All files with what is in them.
fn contents(root: &Path) -> String {
    let lines = describe(root);
    let files = lines.lines().filter(|line| line.contains(" ="));
    let without_attributes = files.map(|line| {
        let (name, rest) = line.split_once("\" ").unwrap();
        let (_, content) = rest.rsplit_once(" =").unwrap();
        let hash = rest.split(' ').rev().nth(1).unwrap();
        format!("{name} {hash} {content}\n")
    });
    without_attributes.collect()
}

/// From outside, a file each time that the last one is looked at: reading ends, and what is there then and is
/// not stored is named.
#[tokio::test(flavor = "multi_thread")]
async fn where_things_are_moved_all_the_time_what_is_left_in_the_end_is_named() {
    let (_, vault) = memory().await;
    let (_dir, path) = shop();
    let outside = tempfile::tempdir_in(path.parent().unwrap()).unwrap();
    let number = |n: u64| format!("n{n:04}");
    for n in 1..1000 {
        fs::write(outside.path().join(number(n)), "old").unwrap();
    }
    fs::write(path.join("archive").join(number(0)), "old").unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let (at, from, moved) = (
        path.join("archive"),
        outside.path().to_owned(),
        next.clone(),
    );
    let filter = move |relative: &Path, _is_dir: bool| {
        let now = moved.load(Ordering::SeqCst);
        if relative == Path::new("archive").join(number(now)) {
            let name = number(now + 1);
            fs::rename(from.join(&name), at.join(&name)).unwrap();
            moved.store(now + 1, Ordering::SeqCst);
        }
        true
    };
    let options = TreeOptions {
        filter: Some(Arc::new(filter)),
        ..Default::default()
    };
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    // The one before the last was named, and while that was done the last one came.
    let left = next.load(Ordering::SeqCst) - 1;
    assert!(left < 100, "{left}");
    let (named, reason) = only(&summary.left_out);
    assert_eq!(Path::new(named), path.join("archive").join(number(left)));
    assert!(reason.contains("moved here"), "{reason}");
    assert_eq!(summary.files, 5 + left);
    let target = restored(&vault, &summary, &path).await;
    for n in 0..left {
        assert!(target.path().join("archive").join(number(n)).exists());
    }
}

/// It is a file and a link in turns for as long as it is looked at, and then a link.
fn fickle(path: &Path) -> TreeOptions {
    let fickle = path.join("data/fickle");
    fs::write(&fickle, "").unwrap();
    let looks = AtomicU64::new(0);
    at_entry("data/fickle", move || {
        if looks.fetch_add(1, Ordering::SeqCst) < 3 {
            let is_link = fickle.is_symlink();
            fs::remove_file(&fickle).unwrap();
            match is_link {
                true => fs::write(&fickle, "").unwrap(),
                false => std::os::unix::fs::symlink("large", &fickle).unwrap(),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_the_end_is_not_called_unreadable() {
    let (_, vault) = memory().await;
    let (_dir, path) = shop();
    let summary = store_with(&vault, &path, meta(), fickle(&path))
        .await
        .unwrap();
    assert_eq!(summary.unreadable.total, 0, "{}", summary.unreadable);
    let target = restored(&vault, &summary, &path).await;
    assert!(target.path().join("data/fickle").is_symlink());
}

/// What came after it was only looked at.
#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_to_be_read_what_could_not_be_at_first_makes_no_snapshot() {
    let (_, vault) = memory().await;
    let (_dir, path) = shop();
    let options = TreeOptions {
        on_unreadable: OnUnreadable::Fail,
        ..fickle(&path)
    };
    let done = store_with(&vault, &path, meta(), options).await;
    let error = done.unwrap_err();
    let VaultError::Unreadable(unreadable) = &error else {
        panic!("{error:?}")
    };
    let (named, _) = only(unreadable);
    assert_eq!(Path::new(named), path.join("data/fickle"));
    assert!(vault.snapshots().await.unwrap().is_empty());
}
