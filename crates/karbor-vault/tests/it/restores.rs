//! Restoring: over what is there, under attack, half-way.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use karbor_plugin::Progress;
use karbor_vault::{
    Change, ChangeKind, Control, Overwrite, RestoreOptions, RestoreSummary, SnapshotId, Vault,
    VaultError,
};

use crate::support::*;

async fn restore(
    vault: &Vault,
    id: &SnapshotId,
    source: &Path,
    target: &Path,
    overwrite: Overwrite,
) -> Result<RestoreSummary, VaultError> {
    let options = RestoreOptions {
        subpath: subpath(source),
        overwrite,
        ..Default::default()
    };
    vault
        .restore_tree(id, target, options, Control::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_file_comes_back() {
    let (_, vault) = memory().await;
    let zoo = tempfile::tempdir().unwrap();
    make_zoo(zoo.path());
    let before = without_sockets(&describe(zoo.path()));
    let stored = store(&vault, zoo.path()).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let new = target.path().join("does/not/exist");
    let summary = restore(&vault, &stored.id, zoo.path(), &new, Overwrite::Never)
        .await
        .unwrap();
    assert_same(&before, &without_sockets(&describe(&new)));
    // The socket.
    assert_eq!((summary.warnings, summary.skipped), (1, 0), "{summary:?}");
    assert_eq!(summary.files + 1, stored.files);
    // 50 MB of holes, and 10 MB of zeros in the middle of a file.
    assert!(
        blocks(&new.join("sparse")) < 2000,
        "{}",
        blocks(&new.join("sparse"))
    );
    assert!(blocks(&new.join("dir/deeper/big.bin")) < 21_000_000 / 512);

    // Again: there is nothing to do.
    let again = restore(&vault, &stored.id, zoo.path(), &new, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_eq!(
        (again.files, again.bytes, again.dirs),
        (0, 0, 0),
        "{again:?}"
    );
    assert_same(&before, &without_sockets(&describe(&new)));
    // And again, with everything replaced.
    let again = restore(&vault, &stored.id, zoo.path(), &new, Overwrite::Always)
        .await
        .unwrap();
    assert_eq!(again.files, summary.files);
    assert_same(&before, &without_sockets(&describe(&new)));
}

fn changes(summary: &RestoreSummary) -> Vec<(String, ChangeKind)> {
    let show = |change: &Change| (change.path.to_string_lossy().into_owned(), change.kind);
    let mut changes: Vec<_> = summary.changes.iter().map(show).collect();
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_overwritten_only_when_asked() {
    use ChangeKind::{Create, Metadata, Overwrite as Replace, Skip};
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let at = source.path();
    for name in ["kept", "edited", "missing", "touched"] {
        fs::write(at.join(name), name).unwrap();
    }
    fs::create_dir(at.join("dir")).unwrap();
    fs::write(at.join("dir/inner"), "inner").unwrap();
    let before = describe(at);
    let id = store(&vault, at).await.unwrap().id;
    fs::write(at.join("edited"), "something else").unwrap();
    fs::remove_file(at.join("missing")).unwrap();
    fs::remove_dir_all(at.join("dir")).unwrap();
    fs::write(at.join("extra"), "stays").unwrap();
    fs::set_permissions(
        at.join("touched"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let wrecked = describe(at);

    let list = |kinds: &[(&str, ChangeKind)]| -> Vec<_> {
        kinds
            .iter()
            .map(|(path, kind)| ((*path).to_owned(), *kind))
            .collect()
    };
    let never = list(&[
        ("dir", Create),
        ("dir/inner", Create),
        ("edited", Skip),
        ("kept", Skip),
        ("missing", Create),
        ("touched", Skip),
    ]);
    let if_changed = list(&[
        ("dir", Create),
        ("dir/inner", Create),
        ("edited", Replace),
        ("missing", Create),
        ("touched", Metadata),
    ]);
    let always = list(&[
        ("dir", Create),
        ("dir/inner", Create),
        ("edited", Replace),
        ("kept", Replace),
        ("missing", Create),
        ("touched", Replace),
    ]);
    for (overwrite, expected) in [
        (Overwrite::Never, never),
        (Overwrite::IfChanged, if_changed),
        (Overwrite::Always, always),
    ] {
        let options = RestoreOptions {
            subpath: subpath(at),
            overwrite,
            dry_run: true,
            goes_on: false,
        };
        let dry = vault
            .restore_tree(&id, at, options, Control::default())
            .await
            .unwrap();
        assert_eq!(changes(&dry), expected, "{overwrite:?}");
        assert_same(&wrecked, &describe(at));
    }

    let summary = restore(&vault, &id, at, at, Overwrite::Never)
        .await
        .unwrap();
    assert_eq!((summary.skipped, summary.files), (3, 2));
    assert_eq!(fs::read(at.join("edited")).unwrap(), b"something else");
    let summary = restore(&vault, &id, at, at, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_eq!((summary.unchanged, summary.files), (4, 1));
    assert_eq!(fs::read(at.join("extra")).unwrap(), b"stays");
    fs::remove_file(at.join("extra")).unwrap();
    // Taking the extra file away touched the directory.
    restore(&vault, &id, at, at, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_same(&before, &describe(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_into_nowhere_makes_nothing() {
    let (_, vault) = memory().await;
    let zoo = tempfile::tempdir().unwrap();
    make_zoo(zoo.path());
    let stored = store(&vault, zoo.path()).await.unwrap();
    let target = zoo.path().join("nowhere");
    let options = RestoreOptions {
        dry_run: true,
        ..Default::default()
    };
    let dry = vault
        .restore_tree(&stored.id, &target, options, Control::default())
        .await
        .unwrap();
    assert!(!target.exists());
    assert!(
        dry.changes
            .iter()
            .all(|change| change.kind == ChangeKind::Create)
    );
    assert!(dry.changes_total > stored.files, "{dry:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_target_leads_nowhere() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("dir")).unwrap();
    fs::write(source.path().join("dir/file"), "new").unwrap();
    fs::write(source.path().join("file"), "new").unwrap();
    let id = store(&vault, source.path()).await.unwrap().id;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    for overwrite in [Overwrite::Never, Overwrite::IfChanged, Overwrite::Always] {
        let target = tempfile::tempdir().unwrap();
        symlink(outside.path(), target.path().join("dir")).unwrap();
        symlink(outside.path().join("file"), target.path().join("file")).unwrap();
        let summary = restore(&vault, &id, source.path(), target.path(), overwrite)
            .await
            .unwrap();
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
        assert_eq!(names(outside.path()).len(), 1);
        if overwrite == Overwrite::Never {
            assert_eq!((summary.skipped, summary.files), (2, 0));
        } else {
            assert_eq!(fs::read(target.path().join("dir/file")).unwrap(), b"new");
            assert_eq!(fs::read(target.path().join("file")).unwrap(), b"new");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_never_removed_for_a_file() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("x"), "file").unwrap();
    let id = store(&vault, source.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    fs::create_dir_all(target.path().join("x/precious")).unwrap();
    let error = restore(&vault, &id, source.path(), target.path(), Overwrite::Always)
        .await
        .unwrap_err();
    assert!(matches!(error, VaultError::Target { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("/x' could not be restored: a directory is in its place"),
        "{error}"
    );
    assert!(target.path().join("x/precious").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_and_unknown_paths() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("x"), "file").unwrap();
    let id = store(&vault, source.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    let file = source.path().join("x");
    restore(&vault, &id, &file, target.path(), Overwrite::Never)
        .await
        .unwrap();
    assert_eq!(fs::read(target.path().join("x")).unwrap(), b"file");
    for path in ["/nowhere", "x/y"] {
        let error = restore(
            &vault,
            &id,
            Path::new(path),
            target.path(),
            Overwrite::Never,
        )
        .await;
        assert!(
            matches!(error, Err(VaultError::NoSuchPath { .. })),
            "{path}"
        );
    }
    let unknown: SnapshotId = "00".repeat(32).parse().unwrap();
    let error = restore(&vault, &unknown, &file, target.path(), Overwrite::Never).await;
    assert!(matches!(error, Err(VaultError::NoSuchSnapshot(_))));
    // Without a path, everything comes under its absolute path.
    vault
        .restore_tree(
            &id,
            target.path(),
            RestoreOptions::default(),
            Control::default(),
        )
        .await
        .unwrap();
    assert!(
        target
            .path()
            .join(file.strip_prefix("/").unwrap())
            .is_file()
    );
}

/// Cancels after so many calls.
struct CancelAfter(Mutex<u32>, tokio_util::sync::CancellationToken);

impl Progress for CancelAfter {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, _: u64) {
        let mut left = self.0.lock().unwrap();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.1.cancel();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_leaves_whole_files_only() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    for n in 0..20_u64 {
        fs::write(source.path().join(format!("f{n}")), noise(n, 2_000_000)).unwrap();
    }
    let id = store(&vault, source.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    let control = Control::default();
    let control = Control {
        progress: Arc::new(CancelAfter(Mutex::new(9), control.cancel.clone())),
        ..control
    };
    let options = RestoreOptions {
        subpath: subpath(source.path()),
        ..Default::default()
    };
    let error = vault
        .restore_tree(&id, target.path(), options, control)
        .await
        .unwrap_err();
    assert!(matches!(error, VaultError::Cancelled), "{error:?}");
    for name in names(target.path()) {
        let name = name.into_string().unwrap();
        assert_eq!(
            fs::read(target.path().join(&name)).unwrap(),
            fs::read(source.path().join(&name)).unwrap()
        );
    }
}

const CHILD: &str = "KARBOR_VAULT_TEST_RESTORE";

/// Not a test of its own: what the tests below run in another process.
#[test]
fn child_restores() {
    let Some(arguments) = std::env::var_os(CHILD) else {
        return;
    };
    let arguments = arguments.into_string().unwrap();
    let [bank, id, source, target] = arguments.split('|').collect::<Vec<_>>()[..] else {
        panic!("{arguments}");
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = runtime.block_on(async {
        let bank =
            karbor_plugins::banks::file_system::FileSystemBank::open(Path::new(bank)).unwrap();
        let vault = vault(section(Arc::new(bank))).await;
        let (source, target) = (Path::new(source), Path::new(target));
        restore(
            &vault,
            &id.parse().unwrap(),
            source,
            target,
            Overwrite::Always,
        )
        .await
    });
    // Read by the test that started this process.
    println!("restored: {done:?}");
}

fn child(bank: &Path, id: &SnapshotId, source: &Path, target: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let arguments = [
        bank.to_str().unwrap(),
        &id.to_string(),
        source.to_str().unwrap(),
        target.to_str().unwrap(),
    ];
    command.args(["--exact", "restores::child_restores", "--nocapture"]);
    command
        .env(CHILD, arguments.join("|"))
        .stdout(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_leaves_old_or_new_files_and_the_next_cleans_up() {
    let disk = Disk::new();
    let source = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    for n in 0..30_u64 {
        fs::write(source.path().join(format!("f{n}")), noise(n, 1_500_000)).unwrap();
    }
    let id = store(&disk.vault().await, source.path()).await.unwrap().id;
    let mut half_way = false;
    for attempt in 0..20_usize {
        for n in 0..30_u64 {
            fs::write(
                target.path().join(format!("f{n}")),
                noise(1000 + n, 1_600_000),
            )
            .unwrap();
        }
        let mut process = child(disk.dir.path(), &id, source.path(), target.path())
            .spawn()
            .unwrap();
        // Until so many of the files are new.
        let is_new = |n: u64| {
            let found = fs::metadata(target.path().join(format!("f{n}")));
            found.is_ok_and(|found| found.len() == 1_500_000)
        };
        while (0..30).filter(|n| is_new(*n)).count() <= attempt {
            if process.try_wait().unwrap().is_some() {
                break;
            }
        }
        process.kill().unwrap();
        process.wait().unwrap();
        let mut new = 0;
        for n in 0..30_u64 {
            let found = fs::read(target.path().join(format!("f{n}"))).unwrap();
            let is_new = found == noise(n, 1_500_000);
            assert!(
                is_new || found == noise(1000 + n, 1_600_000),
                "f{n} is neither old nor new"
            );
            new += u32::from(is_new);
        }
        half_way |= (1..30).contains(&new);
        if half_way && attempt >= 5 {
            break;
        }
    }
    assert!(half_way, "no restore was killed half-way");
    let output = child(disk.dir.path(), &id, source.path(), target.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("restored: Ok"));
    assert_eq!(names(target.path()), names(source.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_than_root_restores_what_he_may() {
    if !is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    use std::os::unix::fs::{PermissionsExt, chown};
    let disk = Disk::new();
    let zoo = tempfile::tempdir().unwrap();
    make_zoo(zoo.path());
    let id = store(&disk.vault().await, zoo.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    // Nobody must get at the bank, which it also writes a lock into, and at the target.
    let nobody = 65_534;
    chown(target.path(), Some(nobody), Some(nobody)).unwrap();
    let status = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(disk.dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    let executable = std::env::current_exe().unwrap();
    let reachable = tempfile::tempdir().unwrap();
    fs::set_permissions(reachable.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = reachable.path().join("it");
    fs::copy(&executable, &copy).unwrap();
    let mut command = Command::new(&copy);
    let arguments = [
        disk.dir.path().to_str().unwrap(),
        &id.to_string(),
        zoo.path().to_str().unwrap(),
        target.path().to_str().unwrap(),
    ];
    command.args(["--exact", "restores::child_restores", "--nocapture"]);
    command
        .env(CHILD, arguments.join("|"))
        .uid(nobody)
        .gid(nobody)
        .current_dir("/");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("restored: Ok"), "{text}");
    assert_eq!(
        fs::read(target.path().join("dir/text.sql")).unwrap(),
        fs::read(zoo.path().join("dir/text.sql")).unwrap()
    );
    assert!(!target.path().join("null").exists());
    assert_eq!(
        fs::read_link(target.path().join("dir/link")).unwrap(),
        Path::new("../small.txt")
    );
}
