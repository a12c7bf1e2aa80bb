//! Sources that change, fail or vanish while they are read.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use karbor_plugin::Progress;
use karbor_vault::{Control, SnapshotSummary, TreeOptions, Vault, VaultError};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::support::*;

/// Does something when a certain entry is looked at, just before it is opened.
fn at_entry(name: &'static str, act: impl Fn() + Send + Sync + 'static) -> TreeOptions {
    let filter = move |path: &Path, _is_dir: bool| {
        if path == Path::new(name) {
            act();
        }
        true
    };
    TreeOptions {
        filter: Some(Arc::new(filter)),
        ..Default::default()
    }
}

/// Does something when the first bytes were read.
struct AtFirstBytes<F>(AtomicBool, F);

impl<F: Fn() + Send + Sync> Progress for AtFirstBytes<F> {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, _: u64) {
        if !self.0.swap(true, Ordering::SeqCst) {
            self.1();
        }
    }
}

fn at_first_bytes(act: impl Fn() + Send + Sync + 'static) -> Control {
    Control {
        progress: Arc::new(AtFirstBytes(AtomicBool::new(false), act)),
        ..Default::default()
    }
}

async fn store_while(
    vault: &Vault,
    path: &Path,
    control: Control,
) -> Result<SnapshotSummary, VaultError> {
    let mut writer = vault.writer(meta(), control).await?;
    writer.add_tree(path, TreeOptions::default()).await?;
    writer.commit().await
}

fn tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    fs::create_dir_all(path.join("m/n")).unwrap();
    for name in ["a", "b", "m/c", "m/n/d", "z"] {
        fs::write(path.join(name), name.repeat(100)).unwrap();
    }
    (dir, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_before_it_was_opened_is_left_out_and_counted() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    for (name, gone, files) in [("b", "b", 4), ("m", "m", 3), ("m/n", "m/n", 2)] {
        let (_dir, path) = tree();
        let victim = path.join(gone);
        let options = at_entry(name, move || {
            if victim.is_dir() {
                fs::remove_dir_all(&victim).unwrap();
            } else {
                fs::remove_file(&victim).unwrap();
            }
        });
        let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
        let tree = writer.add_tree(&path, options).await.unwrap();
        let summary = writer.commit().await.unwrap();
        assert_eq!(tree.left_out, 1, "{name}");
        assert_eq!(summary.left_out, 1);
        let files = if name == "m/n" { 4 } else { files.max(3) };
        assert_eq!(summary.files, if name == "b" { 4 } else { files });
        let target = tempfile::tempdir().unwrap();
        let options = karbor_vault::RestoreOptions {
            subpath: subpath(&path),
            ..Default::default()
        };
        vault
            .restore_tree(&summary.id, target.path(), options, Control::default())
            .await
            .unwrap();
        assert!(!target.path().join(gone).exists());
        assert!(target.path().join("z").exists());
    }
    // Links and special files too.
    symlink("x", path.join("link")).unwrap();
    let victim = path.join("link");
    let options = at_entry("link", move || fs::remove_file(&victim).unwrap());
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    assert_eq!((summary.left_out, summary.files), (1, 5));
}

async fn refuses(vault: &Vault, done: Result<SnapshotSummary, VaultError>, named: &str) {
    let error = done.unwrap_err();
    assert!(matches!(error, VaultError::Source { .. }), "{error:?}");
    assert!(error.to_string().contains(named), "{error}");
    assert!(vault.snapshots().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_short_makes_no_snapshot() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let big = path.join("big");
    fs::write(&big, noise(1, 30_000_000)).unwrap();
    fs::remove_file(path.join("a")).unwrap();
    fs::remove_file(path.join("b")).unwrap();
    let control = at_first_bytes(move || {
        File::options()
            .write(true)
            .open(&big)
            .unwrap()
            .set_len(10_000_000)
            .unwrap();
    });
    refuses(
        &vault,
        store_while(&vault, &path, control).await,
        "/big' could not be read: it was cut short",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_is_stored_as_long_as_it_was_when_it_was_opened() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let before = noise(1, 9_000_000);
    fs::write(&log, &before).unwrap();
    let growing = log.clone();
    let control = at_first_bytes(move || {
        let file = File::options().write(true).open(&growing).unwrap();
        file.write_all_at(&noise(2, 5_000_000), 9_000_000).unwrap();
    });
    let summary = store_while(&vault, dir.path(), control).await.unwrap();
    assert_eq!((summary.bytes, summary.changed), (9_000_000, 1));
    let stream = vault
        .read_stream(&summary.id, log.to_str().unwrap(), Control::default())
        .await;
    let mut found = Vec::new();
    stream
        .unwrap()
        .into_async_read()
        .read_to_end(&mut found)
        .await
        .unwrap();
    assert!(found == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_makes_no_snapshot() {
    let (_, vault) = memory().await;
    // Reading a process's memory at 0 fails, even for root.
    let unreadable = Path::new("/proc/self/mem");
    refuses(&vault, store(&vault, unreadable).await, "/proc/self/mem").await;
    // In a tree it is the same: this directory holds `mem`.
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    let options = TreeOptions {
        filter: Some(Arc::new(|path: &Path, _| path == Path::new("mem"))),
        ..Default::default()
    };
    let error = writer
        .add_tree(Path::new("/proc/self"), options)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/proc/self/mem"), "{error}");
    // Poisoned: nothing more is taken, and nothing is committed.
    assert!(writer.add_stream("x", &b"x"[..]).await.is_err());
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, VaultError::Poisoned(_)), "{error:?}");
    assert!(error.to_string().contains("/proc/self/mem"), "{error}");
    assert!(vault.snapshots().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_size_zero_that_hold_something_are_read() {
    let (_, vault) = memory().await;
    let summary = store(&vault, Path::new("/proc/version")).await.unwrap();
    assert_eq!(
        summary.bytes,
        fs::read("/proc/version").unwrap().len() as u64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_swapped_for_a_link_is_not_followed() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("shadow"), "secret").unwrap();
    let (victim, elsewhere) = (path.join("m"), secret.path().to_owned());
    let options = at_entry("m", move || {
        fs::remove_dir_all(&victim).unwrap();
        symlink(&elsewhere, &victim).unwrap();
    });
    refuses(
        &vault,
        store_with(&vault, &path, meta(), options).await,
        "/m'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_swapped_for_something_else_is_stored_as_what_it_is() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let victim = path.join("b");
    let swapped = AtomicBool::new(false);
    let options = at_entry("b", move || {
        if !swapped.swap(true, Ordering::SeqCst) {
            fs::remove_file(&victim).unwrap();
            symlink("/etc/passwd", &victim).unwrap();
        }
    });
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    assert_eq!((summary.files, summary.left_out), (5, 0));
    let target = tempfile::tempdir().unwrap();
    let options = karbor_vault::RestoreOptions {
        subpath: subpath(&path),
        ..Default::default()
    };
    vault
        .restore_tree(&summary.id, target.path(), options, Control::default())
        .await
        .unwrap();
    assert_eq!(
        fs::read_link(target.path().join("b")).unwrap(),
        Path::new("/etc/passwd")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_not_there_or_goes_away_makes_no_snapshot() {
    let (_, vault) = memory().await;
    refuses(
        &vault,
        store(&vault, Path::new("/no/such/tree")).await,
        "/no/such/tree",
    )
    .await;
    let (dir, path) = tree();
    let options = at_entry("a", move || {
        fs::remove_dir_all(dir.path()).unwrap();
    });
    let named = path.to_str().unwrap();
    refuses(
        &vault,
        store_with(&vault, &path, meta(), options).await,
        named,
    )
    .await;
}

/// Gives some bytes, then fails.
struct Failing(u64);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(std::io::Error::other("pg_dump was killed by signal 9")));
        }
        let n = buffer.remaining().min(100_000).min(self.0 as usize);
        buffer.put_slice(&vec![7; n]);
        self.0 -= n as u64;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_midway_makes_no_snapshot() {
    let (_, vault) = memory().await;
    for bytes in [0, 1, 100_000, 20_000_000] {
        let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
        writer.add_stream("before", &b"fine"[..]).await.unwrap();
        let error = writer.add_stream("dump", Failing(bytes)).await.unwrap_err();
        assert!(matches!(error, VaultError::Source { .. }), "{error:?}");
        assert!(error.to_string().contains("'dump'") && error.to_string().contains("signal 9"));
        assert!(matches!(
            writer.commit().await,
            Err(VaultError::Poisoned(_))
        ));
    }
    assert!(vault.snapshots().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_images_come_back_as_they_were() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    let file = File::create_new(&image).unwrap();
    file.set_len((40 << 20) + 77).unwrap();
    file.write_all_at(&noise(1, 5_000_000), 3_000_000).unwrap();
    file.write_all_at(b"end", (40 << 20) + 74).unwrap();
    let stream = noise(2, 12_345_678);
    let bytes = Arc::new(Count::default());
    let control = Control {
        progress: bytes.clone(),
        ..Default::default()
    };
    let mut writer = vault.writer(meta(), control).await.unwrap();
    assert_eq!(
        writer
            .add_image("disk", File::open(&image).unwrap())
            .await
            .unwrap(),
        (40 << 20) + 77
    );
    assert_eq!(
        writer.add_stream("dump", &stream[..]).await.unwrap(),
        12_345_678
    );
    assert_eq!(writer.add_stream("empty", &b""[..]).await.unwrap(), 0);
    let summary = writer.commit().await.unwrap();
    assert_eq!(summary.bytes, (40 << 20) + 77 + 12_345_678);
    assert_eq!(bytes.0.load(Ordering::SeqCst), summary.bytes);
    // The holes are one chunk of zeros.
    assert!(summary.new_data < 23_000_000, "{summary:?}");
    for (name, expected) in [
        ("disk", fs::read(&image).unwrap()),
        ("/dump", stream),
        ("empty", vec![]),
    ] {
        let stream = vault
            .read_stream(&summary.id, name, Control::default())
            .await
            .unwrap();
        assert_eq!(stream.size(), expected.len() as u64);
        let mut found = Vec::new();
        stream
            .into_async_read()
            .read_to_end(&mut found)
            .await
            .unwrap();
        assert!(found == expected, "{name}");
    }
    let missing = vault
        .read_stream(&summary.id, "other", Control::default())
        .await;
    assert!(matches!(missing, Err(VaultError::NoSuchPath { .. })));

    // A changed block costs a chunk, not more.
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .write_all_at(b"x", 4_500_000)
        .unwrap();
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_image("disk", File::open(&image).unwrap())
        .await
        .unwrap();
    let summary = writer.commit().await.unwrap();
    assert!(summary.new_data < (1 << 20) + 10_000, "{summary:?}");
}

#[derive(Default)]
struct Count(AtomicU64);

impl Progress for Count {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_in_a_snapshot_are_taken_once() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    for second in [
        path.clone(),
        path.join("m"),
        path.parent().unwrap().to_owned(),
        PathBuf::from("/"),
    ] {
        let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
        writer.add_tree(&path, Default::default()).await.unwrap();
        let error = writer
            .add_tree(&second, Default::default())
            .await
            .unwrap_err();
        assert!(matches!(error, VaultError::Invalid(_)), "{error:?}");
        assert!(writer.commit().await.is_err());
    }
    for name in ["", ".", "..", "a/b", "/a", "a\0b"] {
        let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
        assert!(writer.add_stream(name, &b""[..]).await.is_err(), "{name}");
    }
    let writer = vault.writer(meta(), Control::default()).await.unwrap();
    assert!(matches!(writer.commit().await, Err(VaultError::Invalid(_))));
    // Two trees side by side are fine.
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_tree(&path.join("m"), Default::default())
        .await
        .unwrap();
    writer
        .add_tree(&path.join("a"), Default::default())
        .await
        .unwrap();
    let summary = writer.commit().await.unwrap();
    assert_eq!(summary.files, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filter_refuses_and_other_file_systems_are_left_out() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let options = TreeOptions {
        filter: Some(Arc::new(|path: &Path, is_dir| {
            !(is_dir && path == Path::new("m/n"))
        })),
        ..Default::default()
    };
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    assert_eq!((summary.files, summary.left_out), (4, 0));

    let (dev, shm) = (Path::new("/dev"), Path::new("/dev/shm"));
    let mounted =
        shm.is_dir() && fs::metadata(shm).unwrap().dev() != fs::metadata(dev).unwrap().dev();
    if !mounted {
        eprintln!("SKIPPED: /dev/shm is not a file system of its own here");
        return;
    }
    let inside = tempfile::NamedTempFile::new_in(shm).unwrap();
    let name = inside.path().to_str().unwrap().to_owned();
    for one_file_system in [true, false] {
        let only_shm = |path: &Path, _| path.starts_with("shm");
        let options = TreeOptions {
            filter: Some(Arc::new(only_shm)),
            one_file_system,
            ..Default::default()
        };
        let summary = store_with(&vault, dev, meta(), options).await.unwrap();
        let found = vault
            .read_stream(&summary.id, &name, Control::default())
            .await;
        assert_eq!(found.is_err(), one_file_system);
    }
}
