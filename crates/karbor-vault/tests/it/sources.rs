//! Sources that change, fail or vanish while they are read.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
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
use karbor_vault::{
    Control, Mishaps, OnUnreadable, SnapshotSummary, TreeOptions, Vault, VaultError, VaultOptions,
    VerifyLevel,
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::support::*;

/// Does something when a certain entry is looked at, just before it is opened.
pub fn at_entry(name: &'static str, act: impl Fn() + Send + Sync + 'static) -> TreeOptions {
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
    writer
        .add_tree(&open(path)?, TreeOptions::default())
        .await?;
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
        let tree = writer
            .add_tree(&open(&path).unwrap(), options)
            .await
            .unwrap();
        let summary = writer.commit().await.unwrap();
        assert_eq!(tree.left_out.total, 1, "{name}");
        assert_eq!(summary.left_out.total, 1);
        let files = if name == "m/n" { 4 } else { files.max(3) };
        assert_eq!(summary.files, if name == "b" { 4 } else { files });
        let target = tempfile::tempdir().unwrap();
        let options = karbor_vault::RestoreOptions {
            subpath: subpath(&path),
            ..Default::default()
        };
        vault
            .restore_tree(
                &summary.id,
                found_at(target.path()),
                options,
                Control::default(),
            )
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
    assert_eq!((summary.left_out.total, summary.files), (1, 5));
}

async fn refuses(vault: &Vault, done: Result<SnapshotSummary, VaultError>, named: &str) {
    let error = done.unwrap_err();
    assert!(matches!(error, VaultError::Source { .. }), "{error:?}");
    assert!(error.to_string().contains(named), "{error}");
    assert!(vault.snapshots().await.unwrap().is_empty());
}

/// Does something each time bytes were read.
struct AtBytes<F>(F);

impl<F: Fn() + Send + Sync> Progress for AtBytes<F> {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, _: u64) {
        (self.0)();
    }
}

fn at_bytes(act: impl Fn() + Send + Sync + 'static) -> Control {
    Control {
        progress: Arc::new(AtBytes(act)),
        ..Default::default()
    }
}

async fn content(vault: &Vault, summary: &SnapshotSummary, file: &Path) -> Vec<u8> {
    let stream = vault
        .read_stream(&summary.id, file.to_str().unwrap(), Control::default())
        .await;
    let mut found = Vec::new();
    let mut reader = stream.unwrap().into_async_read();
    reader.read_to_end(&mut found).await.unwrap();
    found
}

pub fn only(mishaps: &Mishaps) -> (&str, &str) {
    assert_eq!(mishaps.total, 1, "{mishaps}");
    (&mishaps.named[0].path, &mishaps.named[0].reason)
}

fn cut(file: &Path, size: u64) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_len(size).unwrap();
}

/// A log that is rotated in place: it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_while_it_is_read_is_read_again() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let big = dir.path().join("big");
    let before = noise(1, 30_000_000);
    fs::write(&big, &before).unwrap();
    let victim = big.clone();
    let control = at_first_bytes(move || cut(&victim, 10_000_000));
    let summary = store_while(&vault, dir.path(), control).await.unwrap();
    assert_eq!((summary.files, summary.bytes), (1, 10_000_000));
    assert_eq!(summary.changed.total, 0);
    assert!(content(&vault, &summary, &big).await == before[..10_000_000]);
}

/// One that is cut again and again is stored as it was found, and named.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_all_the_time_is_stored_as_it_was_found() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let big = path.join("a");
    fs::write(&big, noise(1, 40_000_000)).unwrap();
    let (victim, length) = (big.clone(), AtomicU64::new(40_000_000));
    let control = at_bytes(move || {
        let now = length.load(Ordering::SeqCst).saturating_sub(500_000);
        if now >= 1_000_000 {
            length.store(now, Ordering::SeqCst);
            cut(&victim, now);
        }
    });
    let summary = store_while(&vault, &path, control).await.unwrap();
    assert_eq!(summary.files, 5);
    let (named, reason) = only(&summary.changed);
    assert_eq!(named, big.to_str().unwrap());
    assert!(reason.contains("cut short"), "{reason}");
    let found = content(&vault, &summary, &big).await;
    assert!(!found.is_empty() && noise(1, 40_000_000).starts_with(&found));
    let verified = vault.verify(
        &summary.id,
        VerifyLevel::Data { percent: 100 },
        Control::default(),
    );
    verified.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_is_stored_as_long_as_it_was_when_it_was_opened() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let before = noise(1, 9_000_000);
    fs::write(&log, &before).unwrap();
    let growing = log.clone();
    let control = at_bytes(move || {
        let file = File::options().append(true).open(&growing).unwrap();
        (&file).write_all(b"more").unwrap();
    });
    let summary = store_while(&vault, dir.path(), control).await.unwrap();
    assert!(summary.bytes >= 9_000_000);
    let (named, _) = only(&summary.changed);
    assert_eq!(named, log.to_str().unwrap());
    let found = content(&vault, &summary, &log).await;
    assert!(found.len() as u64 == summary.bytes && found.starts_with(&before));
    // Written to once, it is read again, and all is well.
    let growing = log.clone();
    let control = at_first_bytes(move || {
        let file = File::options().append(true).open(&growing).unwrap();
        (&file).write_all(b"last").unwrap();
    });
    let summary = store_while(&vault, dir.path(), control).await.unwrap();
    assert_eq!(summary.changed.total, 0);
    assert!(content(&vault, &summary, &log).await == fs::read(&log).unwrap());
}

fn mem_and_environ() -> TreeOptions {
    let wanted = ["mem", "environ"].map(Path::new);
    TreeOptions {
        filter: Some(Arc::new(move |path: &Path, _| wanted.contains(&path))),
        ..Default::default()
    }
}

/// Reading a process's memory at 0 fails, even for root.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_left_out_and_named() {
    let (_, vault) = memory().await;
    let process = PathBuf::from(format!("/proc/{}", std::process::id()));
    let summary = store_with(&vault, &process, meta(), mem_and_environ())
        .await
        .unwrap();
    assert_eq!(summary.files, 1);
    let (named, reason) = only(&summary.unreadable);
    assert_eq!(Path::new(named), process.join("mem"));
    assert!(reason.contains("nput/output error"), "{reason}");
    let environ = process.join("environ");
    assert!(!content(&vault, &summary, &environ).await.is_empty());
    let missing = vault.read_stream(&summary.id, named, Control::default());
    assert!(matches!(missing.await, Err(VaultError::NoSuchPath { .. })));
}

/// If nothing else is there, a snapshot of nothing would pass for one.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_read_no_snapshot_is_made() {
    let (_, vault) = memory().await;
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    let options = TreeOptions {
        filter: Some(Arc::new(|path: &Path, _| path == Path::new("mem"))),
        ..Default::default()
    };
    let source = open(Path::new("/proc/self")).unwrap();
    let error = writer.add_tree(&source, options).await.unwrap_err();
    assert!(matches!(error, VaultError::Unreadable(_)), "{error:?}");
    // Poisoned: nothing more is taken, and nothing is committed.
    assert!(writer.add_stream("x", &b"x"[..]).await.is_err());
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, VaultError::Poisoned(_)), "{error:?}");
    assert!(error.to_string().contains("/mem'"), "{error}");
    assert!(vault.snapshots().await.unwrap().is_empty());
}

/// All of them, not only the first.
#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_to_be_read_everything_that_cannot_be_is_named() {
    let (_, vault) = memory().await;
    let (task, thread) = ("task", std::process::id().to_string());
    let wanted = move |path: &Path, is_dir: bool| {
        let below = path == Path::new(task) || path == Path::new(task).join(&thread);
        (is_dir && below)
            || path
                .file_name()
                .is_some_and(|name| name == "mem" || name == "comm")
    };
    let options = TreeOptions {
        filter: Some(Arc::new(wanted)),
        on_unreadable: OnUnreadable::Fail,
        ..Default::default()
    };
    let done = store_with(&vault, Path::new("/proc/self"), meta(), options).await;
    let error = done.unwrap_err();
    let VaultError::Unreadable(unreadable) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(unreadable.total, 2, "{error}");
    let told = error.to_string();
    assert!(
        told.starts_with("2 files or directories cannot be read"),
        "{told}"
    );
    assert_eq!(told.matches("/mem'").count(), 2, "{told}");
    assert!(vault.snapshots().await.unwrap().is_empty());
}

/// Files of `/sys` claim a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_lies_is_warned_of() {
    let (_, vault) = memory().await;
    let liar = Path::new("/sys/kernel/mm/transparent_hugepage");
    let name = "enabled";
    let Ok(truth) = fs::read(liar.join(name)) else {
        eprintln!("SKIPPED: there is no {}", liar.display());
        return;
    };
    let options = TreeOptions {
        filter: Some(Arc::new(move |path: &Path, _| path == Path::new(name))),
        ..Default::default()
    };
    let summary = store_with(&vault, liar, meta(), options).await.unwrap();
    assert_eq!(summary.bytes, truth.len() as u64);
    let (named, reason) = only(&summary.warnings);
    assert_eq!(Path::new(named), liar.join(name));
    assert!(reason.contains("4096"), "{reason}");
    assert!(content(&vault, &summary, &liar.join(name)).await == truth);
}

/// Samba does so for its clients. A try that does not wait is refused, and asks the holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_which_a_process_holds_a_lease_is_waited_for() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let program = "import fcntl, os, signal, sys\n\
        fd = os.open(sys.argv[1], os.O_RDWR)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])\n\
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\n\
        signal.sigwait([signal.SIGIO])\n\
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n\
        print('given', flush=True)\n";
    let leased = path.join("b");
    let holder = std::process::Command::new("python3")
        .args(["-c", program])
        .arg(&leased)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(mut holder) = holder else {
        eprintln!("SKIPPED: no python3");
        return;
    };
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    if lines.next().is_none_or(|line| line.unwrap() != "held") {
        eprintln!("SKIPPED: no leases here");
        return;
    }
    let summary = store(&vault, &path).await.unwrap();
    assert_eq!((summary.files, summary.unreadable.total), (5, 0));
    assert_eq!(lines.next().unwrap().unwrap(), "given");
    assert_eq!(
        content(&vault, &summary, &leased).await,
        "b".repeat(100).as_bytes()
    );
    holder.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_size_zero_that_hold_something_are_read() {
    let (_, vault) = memory().await;
    let options = TreeOptions {
        filter: Some(Arc::new(|path: &Path, _| path == Path::new("version"))),
        ..Default::default()
    };
    let summary = store_with(&vault, Path::new("/proc"), meta(), options)
        .await
        .unwrap();
    assert_eq!(
        summary.bytes,
        fs::read("/proc/version").unwrap().len() as u64
    );
}

pub async fn restored(vault: &Vault, summary: &SnapshotSummary, path: &Path) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let options = karbor_vault::RestoreOptions {
        subpath: subpath(path),
        ..Default::default()
    };
    vault
        .restore_tree(
            &summary.id,
            found_at(target.path()),
            options,
            Control::default(),
        )
        .await
        .unwrap();
    target
}

/// `mv m r` and `mv b y` between the listing of their directory and their turn: each is there under its
/// new name, and nothing is said to be lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_renamed_while_its_directory_is_read_is_not_lost() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let at = path.clone();
    let done = AtomicBool::new(false);
    let options = at_entry("a", move || {
        if !done.swap(true, Ordering::SeqCst) {
            fs::rename(at.join("m"), at.join("A")).unwrap();
            fs::rename(at.join("b"), at.join("y")).unwrap();
        }
    });
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    assert_eq!((summary.files, summary.dirs), (5, 3 + above(&path)));
    assert_eq!(summary.left_out.total, 0, "{}", summary.left_out);
    let target = restored(&vault, &summary, &path).await;
    for name in ["a", "y", "A/c", "A/n/d", "z"] {
        assert!(target.path().join(name).exists(), "{name}");
    }
    for name in ["b", "m"] {
        assert!(!target.path().join(name).exists(), "{name}");
    }
}

/// So many folders lead to a place.
fn above(path: &Path) -> u64 {
    path.ancestors()
        .skip(1)
        .filter(|above| above.file_name().is_some())
        .count() as u64
}

/// That is a loss, and it is named, and not called a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_moved_out_of_the_tree_is_named_as_lost() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let outside = tempfile::tempdir_in(path.parent().unwrap()).unwrap();
    let (from, to) = (path.join("m"), outside.path().join("m"));
    let options = at_entry("z", move || {
        if from.exists() {
            fs::rename(&from, &to).unwrap();
        }
    });
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    let (named, reason) = only(&summary.left_out);
    assert_eq!(Path::new(named), path.join("m"));
    assert!(reason.contains("directory"), "{reason}");
    assert_eq!(summary.files, 3);
}

/// Deeper than descriptors are kept open: what is above is found again.
#[tokio::test(flavor = "multi_thread")]
async fn deep_trees_are_read_and_come_back() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let mut at = dir.path().to_owned();
    for level in 0..150 {
        fs::write(at.join("file"), level.to_string()).unwrap();
        fs::create_dir_all(at.join("z/y")).unwrap();
        fs::write(at.join("z/y/leaf"), level.to_string()).unwrap();
        at.push("d");
        fs::create_dir(&at).unwrap();
    }
    let summary = store(&vault, dir.path()).await.unwrap();
    assert_eq!(summary.files, 300);
    assert_eq!(summary.left_out.total, 0);
    let target = restored(&vault, &summary, dir.path()).await;
    let deepest: PathBuf = std::iter::repeat_n("d", 149).collect();
    let leaf = target.path().join(deepest).join("z/y/leaf");
    assert_eq!(fs::read(leaf).unwrap(), b"149");
}

/// Marked as the specification says: nothing but the mark is stored. The tree's own root is stored whole.
/// More than a tree may hold: nothing says that the directory is whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_a_tree_is_left_out_and_named() {
    let bank = Arc::new(karbor_testkit::MemoryBank::new());
    let mut options = VaultOptions::default();
    options.most_entries = 3;
    let vault = Vault::open_or_init(section(bank), &secret(), options)
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("full/inner")).unwrap();
    for name in ["1", "full/a", "full/b", "full/c", "full/d"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let parted = TreeOptions {
        on_unreadable: OnUnreadable::LeaveOut,
        ..Default::default()
    };
    let done = store_with(&vault, dir.path(), meta(), parted)
        .await
        .unwrap();
    assert_eq!(done.unreadable.total, 1, "{}", done.unreadable);
    let named = &done.unreadable.named[0];
    assert_eq!(Path::new(&named.path), dir.path().join("full"));
    assert!(
        named.reason.contains("2 of its entries are left out"),
        "{}",
        named.reason
    );
    let target = restored(&vault, &done, dir.path()).await;
    let left = ["a", "b", "c"].map(|name| std::ffi::CString::new(name).unwrap());
    assert_eq!(names(&target.path().join("full")), left);
    assert!(target.path().join("1").exists());
    // Where all has to be stored, there is no snapshot.
    let all = TreeOptions {
        on_unreadable: OnUnreadable::Fail,
        ..Default::default()
    };
    let refused = store_with(&vault, dir.path(), meta(), all)
        .await
        .unwrap_err();
    let VaultError::Unreadable(mishaps) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(mishaps.total, 1);
    assert_eq!(vault.snapshots().await.unwrap().len(), 1);
    // A directory less is one that fits.
    fs::remove_dir(dir.path().join("full/inner")).unwrap();
    fs::remove_file(dir.path().join("full/d")).unwrap();
    let done = store_with(&vault, dir.path(), meta(), TreeOptions::default())
        .await
        .unwrap();
    assert_eq!((done.unreadable.total, done.files), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_left_out_if_that_is_wanted() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# by a test\n";
    fs::write(path.join("CACHEDIR.TAG"), tag).unwrap();
    fs::write(path.join("m/CACHEDIR.TAG"), tag).unwrap();
    fs::create_dir(path.join("other")).unwrap();
    fs::write(path.join("other/CACHEDIR.TAG"), "not the signature").unwrap();
    fs::write(path.join("other/kept"), "").unwrap();
    for (exclude_caches, files) in [(false, 9), (true, 7)] {
        let options = TreeOptions {
            exclude_caches,
            ..Default::default()
        };
        let summary = store_with(&vault, &path, meta(), options).await.unwrap();
        assert_eq!(summary.files, files);
        let target = restored(&vault, &summary, &path).await;
        assert!(target.path().join("m/CACHEDIR.TAG").exists());
        assert!(target.path().join("other/kept").exists());
        assert_eq!(target.path().join("m/c").exists(), !exclude_caches);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_swapped_for_a_link_is_not_followed() {
    let (_, vault) = memory().await;
    let (_dir, path) = tree();
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("shadow"), "secret").unwrap();
    let (victim, elsewhere) = (path.join("m"), secret.path().to_owned());
    let options = at_entry("m", move || {
        if !victim.is_symlink() {
            fs::remove_dir_all(&victim).unwrap();
            symlink(&elsewhere, &victim).unwrap();
        }
    });
    let summary = store_with(&vault, &path, meta(), options).await.unwrap();
    // The link is stored.
    assert_eq!(summary.files, 4);
    let target = restored(&vault, &summary, &path).await;
    assert_eq!(
        fs::read_link(target.path().join("m")).unwrap(),
        secret.path()
    );
}

/// A user who may write the folder above exchanges the root itself: by then it is open, and what is below the
/// link is not stored under its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_swapped_for_a_link_makes_no_snapshot() {
    let (_, vault) = memory().await;
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("data");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "mine").unwrap();
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("shadow"), "secret").unwrap();
    let (at, elsewhere) = (home.path().to_owned(), secret.path().to_owned());
    let options = at_entry("a", move || {
        fs::rename(at.join("data"), at.join("away")).unwrap();
        symlink(&elsewhere, at.join("data")).unwrap();
    });
    let named = root.to_str().unwrap().to_owned();
    refuses(
        &vault,
        store_with(&vault, &root, meta(), options).await,
        &named,
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
    assert_eq!((summary.files, summary.left_out.total), (5, 0));
    let target = restored(&vault, &summary, &path).await;
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
        writer
            .add_tree(&open(&path).unwrap(), Default::default())
            .await
            .unwrap();
        let error = writer
            .add_tree(&open(&second).unwrap(), Default::default())
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
    fs::create_dir(path.join("o")).unwrap();
    fs::write(path.join("o/a"), "a").unwrap();
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_tree(&open(&path.join("m")).unwrap(), Default::default())
        .await
        .unwrap();
    writer
        .add_tree(&open(&path.join("o")).unwrap(), Default::default())
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
    assert_eq!((summary.files, summary.left_out.total), (4, 0));

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
