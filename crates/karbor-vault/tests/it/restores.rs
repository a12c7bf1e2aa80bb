//! Restoring: over what is there, under attack, half-way.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use karbor_fs::{Dir, Trail};
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
        .restore_tree(id, found_at(target), options, Control::default())
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

    // Again: there is nothing to do but for what runs with its owner's rights, which is always made anew.
    let again = restore(&vault, &stored.id, zoo.path(), &new, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_eq!(
        (again.files, again.bytes, again.dirs),
        (1, 6, 0),
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
    // The folder itself was written to.
    let if_changed = list(&[
        (".", Metadata),
        ("dir", Create),
        ("dir/inner", Create),
        ("edited", Replace),
        ("missing", Create),
        ("touched", Metadata),
    ]);
    let always = list(&[
        (".", Metadata),
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
            ..Default::default()
        };
        let dry = vault
            .restore_tree(&id, found_at(at), options, Control::default())
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
    // What differs in its mode only is another file afterwards: somebody may have the old one open.
    assert_eq!((summary.unchanged, summary.files), (3, 2));
    assert_eq!((summary.extra, summary.deleted), (1, 0));
    assert_eq!(summary.extras, [Path::new("extra")]);
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
        .restore_tree(&stored.id, found_at(&target), options, Control::default())
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
            found_at(target.path()),
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
        .restore_tree(&id, found_at(target.path()), options, control)
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
        let bank = karbor_banks::file_system::FileSystemBank::open(Path::new(bank)).unwrap();
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

/// What a file on disk is: which one, owner, mode.
fn which(path: &Path) -> (u64, u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::symlink_metadata(path).unwrap();
    (found.ino(), found.uid(), found.mode() & 0o7777)
}

fn same_time(path: &Path, content: &[u8]) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn if_changed_finds_damage_of_the_same_size_and_time() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let at = source.path();
    fs::write(at.join("small"), "good content").unwrap();
    fs::write(at.join("large"), noise(1, 5_000_000)).unwrap();
    fs::write(at.join("right"), noise(2, 100_000)).unwrap();
    let before = describe(at);
    let id = store(&vault, at).await.unwrap().id;
    same_time(&at.join("small"), b"BAD! content");
    let mut damaged = noise(1, 5_000_000);
    damaged[4_999_999] ^= 1;
    same_time(&at.join("large"), &damaged);
    let options = RestoreOptions {
        subpath: subpath(at),
        overwrite: Overwrite::IfChanged,
        dry_run: true,
        ..Default::default()
    };
    let dry = vault
        .restore_tree(&id, found_at(at), options, Control::default())
        .await
        .unwrap();
    let expected = ["large", "small"].map(|name| (name.to_owned(), ChangeKind::Overwrite));
    assert_eq!(changes(&dry), expected);
    let done = restore(&vault, &id, at, at, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_eq!((done.files, done.unchanged), (2, 1), "{done:?}");
    assert_same(&before, &describe(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn if_changed_puts_back_what_is_lost_besides_content() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let at = source.path();
    fs::create_dir(at.join("dir")).unwrap();
    for name in ["lost", "more", "acl", "tool"] {
        fs::write(at.join(name), name).unwrap();
    }
    xattr::set(at.join("lost"), "user.colour", b"blue").unwrap();
    xattr::set(at.join("dir"), "user.colour", b"green").unwrap();
    // An access list: u::rw-, u:1234:r--, g::r--, m::r--, o::r--.
    let entry = |tag: u16, perm: u16, id: u32| {
        let (tag, perm) = (tag.to_le_bytes(), perm.to_le_bytes());
        [&tag[..], &perm[..], &id.to_le_bytes()[..]].concat()
    };
    let none = u32::MAX;
    let entries = [
        entry(0x01, 6, none),
        entry(0x02, 4, 1234),
        entry(0x04, 4, none),
        entry(0x10, 4, none),
        entry(0x20, 4, none),
    ];
    let list = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    xattr::set(at.join("acl"), "system.posix_acl_access", &list).unwrap();
    if is_root() {
        // cap_net_bind_service=ep, version 2.
        let words = [0x0200_0001_u32, 1 << 10, 0, 0, 0];
        let capability: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        xattr::set(at.join("tool"), "security.capability", &capability).unwrap();
    }
    fs::hard_link(at.join("lost"), at.join("dir/linked")).unwrap();
    let before = describe(at);
    let id = store(&vault, at).await.unwrap().id;

    xattr::remove(at.join("lost"), "user.colour").unwrap();
    xattr::set(at.join("more"), "user.new", b"").unwrap();
    xattr::set(at.join("dir"), "user.colour", b"red").unwrap();
    xattr::remove(at.join("acl"), "system.posix_acl_access").unwrap();
    if is_root() {
        xattr::remove(at.join("tool"), "security.capability").unwrap();
    }
    // The link is a file of its own now, equal in all else.
    fs::copy(at.join("lost"), at.join("dir/copy")).unwrap();
    let time = fs::metadata(at.join("lost")).unwrap().modified().unwrap();
    let copy = fs::File::options()
        .write(true)
        .open(at.join("dir/copy"))
        .unwrap();
    copy.set_modified(time).unwrap();
    xattr::set(at.join("dir/copy"), "user.colour", b"blue").unwrap();
    fs::rename(at.join("dir/copy"), at.join("dir/linked")).unwrap();

    let options = RestoreOptions {
        subpath: subpath(at),
        overwrite: Overwrite::IfChanged,
        dry_run: true,
        ..Default::default()
    };
    let dry = vault
        .restore_tree(&id, found_at(at), options, Control::default())
        .await
        .unwrap();
    let told = changes(&dry);
    for (name, kind) in [
        ("lost", ChangeKind::Metadata),
        ("more", ChangeKind::Metadata),
        ("acl", ChangeKind::Metadata),
        ("dir", ChangeKind::Metadata),
        ("dir/linked", ChangeKind::Overwrite),
    ] {
        assert!(told.contains(&(name.to_owned(), kind)), "{name}: {told:?}");
    }
    restore(&vault, &id, at, at, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_same(&before, &describe(at));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_has_open_never_gets_rights() {
    if !is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return;
    }
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let at = source.path();
    for (name, mode) in [("tool", 0o4755), ("private", 0o600), ("plain", 0o644)] {
        fs::write(at.join(name), "of root").unwrap();
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let before = describe(at);
    let id = store(&vault, at).await.unwrap().id;
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        // Right in content and time, but hers: she has it open.
        for name in ["private", "plain"] {
            chown(at.join(name), Some(12_345), None).unwrap();
        }
        let names = ["tool", "private", "plain"];
        let old = names.map(|name| which(&at.join(name)));
        let hers = names.map(|name| fs::File::open(at.join(name)).unwrap());
        restore(&vault, &id, at, at, overwrite).await.unwrap();
        assert_same(&before, &describe(at));
        for (number, name) in names.iter().enumerate() {
            use std::os::unix::fs::MetadataExt as _;
            assert_ne!(which(&at.join(name)).0, old[number].0, "{name}");
            let open = hers[number].metadata().unwrap();
            assert_eq!((open.uid(), open.nlink()), (old[number].1, 0), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_snapshot_does_not_have_is_told_and_removed_only_when_asked() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let at = source.path();
    fs::create_dir(at.join("dir")).unwrap();
    fs::write(at.join("dir/segment.1"), "1").unwrap();
    let id = store(&vault, at).await.unwrap().id;
    let before = describe(at);
    fs::write(at.join("dir/segment.2"), "2").unwrap();
    fs::create_dir_all(at.join("made/since")).unwrap();
    fs::write(at.join("made/since/file"), "").unwrap();
    symlink("/etc", at.join("made/etc")).unwrap();
    fs::create_dir(at.join("half")).unwrap();
    fs::write(at.join("half/made since"), "").unwrap();
    fs::write(at.join("half/app.log"), "left out by choice").unwrap();
    fs::write(at.join("dir/app.log"), "left out by choice").unwrap();
    let options = |delete_extra, dry_run| RestoreOptions {
        subpath: subpath(at),
        overwrite: Overwrite::Always,
        delete_extra,
        dry_run,
        filter: Some(Arc::new(|path: &Path, _| {
            path.extension().is_none_or(|end| end != "log")
        })),
        ..Default::default()
    };
    let named = ["half", "made", "dir/segment.2"].map(Path::new);
    for dry_run in [true, false] {
        let done = vault
            .restore_tree(
                &id,
                found_at(at),
                options(false, dry_run),
                Control::default(),
            )
            .await
            .unwrap();
        assert_eq!((done.extra, done.deleted), (3, 0), "{done:?}");
        assert_eq!(done.extras, named);
        assert!(at.join("dir/segment.2").exists());
    }
    let dry = vault
        .restore_tree(&id, found_at(at), options(true, true), Control::default())
        .await
        .unwrap();
    let deleted = changes(&dry);
    let mut deleted = deleted
        .iter()
        .filter(|(_, kind)| *kind == ChangeKind::Delete);
    assert_eq!(deleted.next().unwrap().0, "dir/segment.2");
    assert_eq!(deleted.next().unwrap().0, "half");
    assert_eq!(deleted.next().unwrap().0, "made");
    assert!(at.join("made").exists());
    let done = vault
        .restore_tree(&id, found_at(at), options(true, false), Control::default())
        .await
        .unwrap();
    // One of them holds what was left out by choice, and stays with it.
    assert_eq!((done.extra, done.deleted), (3, 2), "{done:?}");
    assert_eq!(
        fs::read(at.join("dir/app.log")).unwrap(),
        b"left out by choice"
    );
    assert!(Path::new("/etc/passwd").exists());
    assert_eq!(names(&at.join("half")), [c"app.log".to_owned()]);
    fs::remove_dir_all(at.join("half")).unwrap();
    fs::remove_file(at.join("dir/app.log")).unwrap();
    restore(&vault, &id, at, at, Overwrite::IfChanged)
        .await
        .unwrap();
    assert_same(&before, &describe(at));
}

/// Looks at a path each time that something was restored.
struct Watch<F>(F);

impl<F: Fn() + Send + Sync> Progress for Watch<F> {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, _: u64) {
        self.0();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_directories_are_closed_until_all_is_restored_and_after_a_failure() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("inner")).unwrap();
    for n in 0..20_u64 {
        fs::write(source.path().join(format!("inner/f{n}")), noise(n, 500_000)).unwrap();
    }
    for name in ["", "inner"] {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(source.path().join(name), open).unwrap();
    }
    let id = store(&vault, source.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    for fails in [true, false] {
        let place = target.path().join(format!("place-{fails}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let control = Control::default();
        let (watched, cancel) = (seen.clone(), control.cancel.clone());
        let top = place.clone();
        let control = Control {
            progress: Arc::new(Watch(move || {
                let modes = [&top, &top.join("inner")].map(|at| which(at).2);
                watched.lock().unwrap().push(modes);
                if fails && watched.lock().unwrap().len() > 5 {
                    cancel.cancel();
                }
            })),
            ..control
        };
        let options = RestoreOptions {
            subpath: subpath(source.path()),
            ..Default::default()
        };
        let done = vault
            .restore_tree(&id, found_at(&place), options, control)
            .await;
        assert_eq!(done.is_err(), fails);
        let seen = seen.lock().unwrap();
        assert!(seen.len() > 5);
        assert!(
            seen.iter().all(|modes| *modes == [0o700, 0o700]),
            "{seen:?}"
        );
        let in_the_end = if fails { 0o700 } else { 0o755 };
        assert_eq!(which(&place).2, in_the_end);
        assert_eq!(which(&place.join("inner")).2, in_the_end);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_folders_above_come_back_as_the_snapshot_knows_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    let top = keep.path().canonicalize().unwrap();
    let place = top.join("private/shared/data");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("file"), "").unwrap();
    let modes = [("private", 0o700), ("private/shared", 0o2775)];
    for (name, mode) in modes {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    if is_root() {
        std::os::unix::fs::chown(top.join("private"), Some(12), Some(34)).unwrap();
    }
    let before = which(&top.join("private"));
    let id = store(&vault, &place).await.unwrap().id;
    fs::remove_dir_all(top.join("private")).unwrap();
    restore(&vault, &id, &place, &place, Overwrite::Never)
        .await
        .unwrap();
    assert!(place.join("file").exists());
    let after = which(&top.join("private"));
    assert_eq!((after.1, after.2), (before.1, before.2));
    assert_eq!(which(&top.join("private/shared")).2, 0o2775);
    // To another place, they are the service's own.
    let elsewhere = top.join("a/b/c");
    restore(&vault, &id, &place, &elsewhere, Overwrite::Never)
        .await
        .unwrap();
    for name in ["a", "a/b"] {
        assert_eq!(which(&top.join(name)).2, 0o755, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_nested_deeper_than_any_path_are_stored_verified_and_restored() {
    const LEVELS: usize = 1000;
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    let top = Dir::open(&keep.path().canonicalize().unwrap()).unwrap();
    let source = top.make_dir("source".as_ref()).unwrap();
    let mut at = source.clone();
    for _ in 0..LEVELS {
        at = at.make_dir("nested".as_ref()).unwrap();
    }
    at.create_file("innermost".as_ref()).unwrap();
    let id = store(&vault, source.path()).await.unwrap().id;
    let verified = vault
        .verify(&id, karbor_vault::VerifyLevel::Metadata, Control::default())
        .await
        .unwrap();
    assert!(verified.trees > LEVELS as u64);
    let target = keep.path().join("target");
    let options = |dry_run, overwrite| RestoreOptions {
        subpath: subpath(source.path()),
        dry_run,
        overwrite,
        ..Default::default()
    };
    for (dry_run, overwrite) in [
        (true, Overwrite::Never),
        (false, Overwrite::Never),
        (false, Overwrite::Always),
        (true, Overwrite::IfChanged),
    ] {
        let done = vault
            .restore_tree(
                &id,
                found_at(&target),
                options(dry_run, overwrite),
                Control::default(),
            )
            .await
            .unwrap();
        if dry_run && overwrite == Overwrite::Never {
            assert_eq!(done.changes_total, LEVELS as u64 + 1);
            assert!(!target.exists());
        } else if dry_run {
            assert_eq!(done.changes_total, 0, "{:?}", done.changes);
        }
    }
    let mut trail = Trail::new(Dir::open(&target).unwrap()).unwrap();
    for _ in 0..LEVELS {
        trail.enter("nested".as_ref(), None).unwrap();
    }
    assert_eq!(trail.dir().names().unwrap(), ["innermost"]);
    drop(trail);
    for name in ["source", "target"] {
        top.remove_all(name.as_ref()).unwrap();
    }
}
