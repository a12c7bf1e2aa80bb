//! Restoring as root into places of a user who does all she can meanwhile.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use karbor_vault::{Control, Overwrite, RestoreOptions, RestoreSummary, VaultError};
use rustix::fs::{CWD, RenameFlags};

use crate::support::*;

const MALLORY: u32 = 54_321;
const CHILD: &str = "KARBOR_VAULT_TEST_MALLORY";

/// Not a test of its own: what the user does, until she is stopped. `evil` holds links to what is outside, for the
/// names that she exchanges.
#[test]
fn child_exchanges() {
    let Some(place) = std::env::var_os(CHILD) else {
        return;
    };
    let place = PathBuf::from(place);
    let evil = place.join("evil");
    let pairs: Vec<(PathBuf, PathBuf)> = [
        ("place", "top"),
        ("place/dir", "dir"),
        ("place/dir/inner", "dir"),
        ("place/secret", "dir"),
        ("place/file", "file"),
        ("place/tool", "file"),
        // Another name of what runs with root's rights.
        ("place/tool", "suid"),
        ("place/dir/linked", "file"),
        ("place/link", "file"),
        // Root's own things, by their names: a directory that is not hers keeps its parent (rename(2)).
        ("place/public", "../place/private"),
        ("place/plain", "../key"),
    ]
    .map(|(name, link)| (place.join(name), evil.join(link)))
    .to_vec();
    println!("begun");
    for turn in 0.. {
        for (name, link) in &pairs {
            // It may fail: there and back, or not back.
            let _ = rustix::fs::renameat_with(CWD, name, CWD, link, RenameFlags::EXCHANGE);
            // For moments, and for as long as a restore goes through the place or finishes it.
            for _ in 0..=turn % 50 {
                own_names(&place.join("place"), &evil);
                own_names(&place.join("place/dir"), &evil);
            }
            let _ = rustix::fs::renameat_with(CWD, name, CWD, link, RenameFlags::EXCHANGE);
        }
    }
}

/// Puts links in place of what the restore is making.
fn own_names(dir: &Path, evil: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".karbor-restore-") {
            let link = evil.join(format!("temporary-{}", name.to_string_lossy()));
            let _ = symlink("../../outside/file", &link);
            let _ = rustix::fs::renameat_with(CWD, entry.path(), CWD, link, RenameFlags::EXCHANGE);
            let _ = fs::hard_link(entry.path(), evil.join("kept"));
        }
    }
}

/// Kills the child at the end of a test, also of one that fails.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn give(path: &Path) {
    lchown(path, Some(MALLORY), Some(MALLORY)).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What root keeps in the user's directory is told by the open file, whatever its name is now.
fn held(file: &fs::File) -> (u32, u32, u32) {
    let found = file.metadata().unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// A file of root's in her directory, of the size and time of what the snapshot would have everybody read. She may
/// rename it, and has no other right. A restore may replace it: then there is a new one.
struct Bait {
    path: PathBuf,
    time: std::time::SystemTime,
    file: fs::File,
}

impl Bait {
    fn new(path: &Path, time: std::time::SystemTime) -> Self {
        Self {
            path: path.to_owned(),
            time,
            file: Self::put(path, time),
        }
    }

    fn put(path: &Path, time: std::time::SystemTime) -> fs::File {
        let new = path.with_extension("new");
        fs::write(&new, "plain").unwrap();
        mode(&new, 0o600);
        let file = fs::File::options().read(true).write(true).open(&new);
        let file = file.unwrap();
        file.set_modified(time).unwrap();
        fs::rename(&new, path).unwrap();
        file
    }

    fn put_again(&mut self) {
        if self.file.metadata().unwrap().nlink() == 0 {
            self.file = Self::put(&self.path, self.time);
        }
    }

    /// Whatever became of its name.
    fn is_as_it_was(&self, round: usize) {
        let root = rustix::process::geteuid().as_raw();
        assert_eq!(held(&self.file), (root, root, 0o600), "round {round}");
        let mut content = [0; 10];
        let length = std::os::unix::fs::FileExt::read_at(&self.file, &mut content, 0).unwrap();
        assert_eq!(&content[..length], b"plain", "round {round}");
    }
}

/// A directory of root's beside one that the snapshot would have everybody enter.
struct Private {
    /// Where it is, whatever has that name now.
    place: karbor_fs::Dir,
    dir: karbor_fs::Dir,
}

impl Private {
    fn new(place: &Path) -> Self {
        let place = karbor_fs::Dir::open(place).unwrap();
        let dir = Self::make(&place, "private");
        Self { place, dir }
    }

    fn make(place: &karbor_fs::Dir, name: &str) -> karbor_fs::Dir {
        let dir = place.make_dir(name.as_ref()).unwrap();
        dir.create_file("key".as_ref()).unwrap();
        dir
    }

    fn is_whole(&self) -> bool {
        let key = self.dir.look("key".as_ref()).unwrap();
        key.is_some() && self.dir.is_own().unwrap()
    }

    /// A restore may have removed it, or what is in it, as extra.
    fn put_again(&mut self) {
        if self.is_whole() {
            return;
        }
        self.dir = Self::make(&self.place, "new");
        let put = || {
            let (place, replace) = (&self.place, karbor_fs::Replace::Yes);
            place.rename("new".as_ref(), place, "private".as_ref(), replace)
        };
        while put().is_err() {
            // What has the name, while she exchanges it.
            let _ = self.place.remove_all("private".as_ref());
        }
    }
}

/// One more name for what root has elsewhere, if a restore replaced the last.
fn link_again(file: &Path, link: &Path) {
    if fs::metadata(file).unwrap().nlink() < 2 {
        let new = link.with_extension("new");
        fs::hard_link(file, &new).unwrap();
        fs::rename(&new, link).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_user_exchanges_nothing_outside_changes() {
    if !is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    mode(keep.path(), 0o755);
    let top = keep.path().canonicalize().unwrap();
    let binary = top.join("mallory");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();

    let outside = top.join("outside");
    fs::create_dir_all(outside.join("dir/inner")).unwrap();
    for name in ["file", "dir/f1", "dir/inner/f2", "tool"] {
        fs::write(outside.join(name), "of root").unwrap();
        mode(&outside.join(name), 0o600);
    }
    mode(&outside.join("dir"), 0o700);

    let hers = top.join("hers");
    let source = hers.join("place");
    fs::create_dir_all(source.join("dir/inner")).unwrap();
    fs::create_dir_all(source.join("public")).unwrap();
    fs::create_dir(hers.join("evil")).unwrap();
    for (name, bits) in [
        ("file", 0o644),
        ("tool", 0o4755),
        ("dir/f1", 0o666),
        ("plain", 0o666),
    ] {
        fs::write(source.join(name), name).unwrap();
        give(&source.join(name));
        mode(&source.join(name), bits);
    }
    fs::write(source.join("dir/inner/f2"), "f2").unwrap();
    fs::hard_link(source.join("file"), source.join("dir/linked")).unwrap();
    symlink("file", source.join("link")).unwrap();
    fs::create_dir(source.join("secret")).unwrap();
    fs::write(source.join("secret/key"), "key").unwrap();
    for name in [
        "place",
        "evil",
        "place/dir",
        "place/dir/inner",
        "place/public",
        "place/link",
    ] {
        give(&hers.join(name));
    }
    mode(&source.join("public"), 0o777);
    give(&hers);
    let id = store(&vault, &source).await.unwrap().id;

    for (name, to) in [
        ("dir", "outside/dir"),
        ("file", "outside/file"),
        ("top", "outside"),
    ] {
        let link = hers.join("evil").join(name);
        symlink(top.join(to), &link).unwrap();
        give(&link);
    }
    // Root's, in her directory: she may rename them, and has no other right.
    let mut private = Private::new(&source);
    let time = |name: &str| fs::metadata(source.join(name)).unwrap().modified();
    let mut key = Bait::new(&hers.join("key"), time("plain").unwrap());
    // As the snapshot's, but root's.
    fs::write(outside.join("suid"), "tool").unwrap();
    mode(&outside.join("suid"), 0o4755);
    let suid = fs::File::options()
        .write(true)
        .open(outside.join("suid"))
        .unwrap();
    suid.set_modified(time("tool").unwrap()).unwrap();
    drop(suid);
    let before = describe(&outside);

    let mut mallory = Command::new(&binary)
        .args([
            "--exact",
            "restores_beside_others::child_exchanges",
            "--nocapture",
        ])
        .env(CHILD, &hers)
        .uid(MALLORY)
        .gid(MALLORY)
        .current_dir("/")
        .stdout(Stdio::piped())
        .spawn()
        .map(Stopped)
        .unwrap();
    let mut output = std::io::BufReader::new(mallory.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut output, &mut line).unwrap(),
            0
        );
    }
    let (mut well, mut refused) = (0, 0);
    for round in 0.. {
        // A good part has to be restored beside her.
        if round >= 60 && well >= 20 {
            break;
        }
        assert!(round < 1000, "{refused} were refused");
        key.put_again();
        private.put_again();
        link_again(&outside.join("suid"), &hers.join("evil/suid"));
        let overwrite = [Overwrite::IfChanged, Overwrite::Always, Overwrite::Never][round % 3];
        let deletes = round % 4 == 1;
        let options = RestoreOptions {
            subpath: subpath(&source),
            overwrite,
            goes_on: overwrite == Overwrite::Never,
            delete_extra: deletes,
            ..Default::default()
        };
        let done = match karbor_fs::Dir::find(&source) {
            Ok(found) => vault
                .restore_tree(&id, found, options, Control::default())
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match done {
            Ok(_) => well += 1,
            Err(_) => refused += 1,
        }
        assert_same(&before, &describe(&outside));
        assert!(
            deletes || private.is_whole(),
            "round {round}: root's directory is hers"
        );
        key.is_as_it_was(round);
        let kept = fs::symlink_metadata(hers.join("evil/kept"));
        assert!(
            kept.is_err() || kept.is_ok_and(|kept| kept.is_symlink()),
            "round {round}: she has a name of what was being made"
        );
        assert!(mallory.0.try_wait().unwrap().is_none(), "she gave up");
    }
}

/// The race once more, at its one decisive moment: a directory is exchanged after it was gone through.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_exchanged_gets_no_attributes() {
    if !is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return;
    }
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    mode(keep.path(), 0o755);
    let top = keep.path().canonicalize().unwrap();
    let source = top.join("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), noise(1, 100)).unwrap();
    mode(&source.join("dir"), 0o777);
    let id = store(&vault, &source).await.unwrap().id;
    let hers = top.join("hers");
    fs::create_dir(&hers).unwrap();
    give(&hers);
    fs::create_dir(hers.join("private")).unwrap();
    mode(&hers.join("private"), 0o700);
    struct Exchange(PathBuf);
    impl karbor_plugin::Progress for Exchange {
        fn expect_bytes(&self, _: u64) {}

        // The only file is being written.
        fn add_bytes(&self, _: u64) {
            let (dir, private) = (self.0.join("dir"), self.0.join("private"));
            rustix::fs::renameat_with(CWD, dir, CWD, private, RenameFlags::EXCHANGE).unwrap();
        }
    }
    let control = Control {
        progress: std::sync::Arc::new(Exchange(hers.clone())),
        ..Control::default()
    };
    let options = RestoreOptions {
        subpath: subpath(&source),
        overwrite: Overwrite::Always,
        ..Default::default()
    };
    let failed = vault
        .restore_tree(&id, found_at(&hers), options, control)
        .await
        .unwrap_err();
    assert_exchanged(&failed, &hers.join("dir"));
    let now = |name: &str| fs::metadata(hers.join(name)).unwrap().mode() & 0o7777;
    // Root's own directory, which has the name now, and the new one.
    assert_eq!((now("dir"), now("private")), (0o700, 0o700));
    assert!(hers.join("private/file").exists());
}

/// A file of the checkpoint is not where it belongs, so the restore failed.
fn assert_exchanged(failed: &VaultError, dir: &Path) {
    let told = failed.to_string();
    assert!(told.contains(dir.to_str().unwrap()), "{told}");
    assert!(
        told.contains("put another directory in its place"),
        "{told}"
    );
}

/// Does something when the first bytes are being written.
struct AtBytes<F>(F);

impl<F: Fn() + Send + Sync> karbor_plugin::Progress for AtBytes<F> {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, _: u64) {
        self.0();
    }
}

/// Restores an empty directory `dir`, open to all, to a place of hers. It was made and gone through when something is done.
async fn with_a_new_directory(
    act: impl Fn(&Path) + Send + Sync + 'static,
) -> (Result<RestoreSummary, VaultError>, u32) {
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    mode(keep.path(), 0o755);
    let top = keep.path().canonicalize().unwrap();
    let source = top.join("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::create_dir_all(source.join("next")).unwrap();
    fs::write(source.join("next/file"), noise(1, 100)).unwrap();
    mode(&source.join("dir"), 0o777);
    let id = store(&vault, &source).await.unwrap().id;
    let hers = top.join("hers");
    fs::create_dir(&hers).unwrap();
    give(&hers);
    let dir = hers.join("dir");
    let at = dir.clone();
    let control = Control {
        progress: std::sync::Arc::new(AtBytes(move || act(&at))),
        ..Control::default()
    };
    let options = RestoreOptions {
        subpath: subpath(&source),
        overwrite: Overwrite::IfChanged,
        ..Default::default()
    };
    let done = vault
        .restore_tree(&id, found_at(&hers), options, control)
        .await;
    (done, fs::metadata(&dir).unwrap().mode() & 0o7777)
}

/// ext4 gives a new directory the number of the one that was removed just before.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_place_of_a_new_one_gets_no_attributes_though_it_has_the_same_number() {
    if !is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return;
    }
    let (done, bits) = with_a_new_directory(|dir| {
        let Ok(born) = fs::metadata(dir).unwrap().created() else {
            eprintln!("this file system does not say when a directory was made");
            return;
        };
        // The clock of a file system is coarse.
        while fs::metadata(dir).unwrap().created().unwrap() == born {
            fs::remove_dir(dir).unwrap();
            fs::create_dir(dir).unwrap();
        }
        fs::write(dir.join("key"), "of root").unwrap();
        mode(dir, 0o700);
    })
    .await;
    assert_eq!(bits, 0o700);
    assert_exchanged(&done.unwrap_err(), Path::new("hers/dir"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_directory_that_was_given_to_somebody_meanwhile_counts_as_one_that_was_there() {
    if !is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return;
    }
    let (done, bits) = with_a_new_directory(|dir| {
        fs::write(dir.join("key"), "of somebody").unwrap();
        chown(dir, Some(MALLORY + 1), None).unwrap();
        mode(dir, 0o750);
    })
    .await;
    assert_eq!(bits, 0o750);
    let warned = done.unwrap().warned;
    assert!(warned[0].starts_with("'dir': owner and mode"), "{warned:?}");
}

/// A directory of root's that she renamed: what the snapshot has under that name was hers, and open.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_directory_is_not_given_away_with_what_is_in_it() {
    if !is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return;
    }
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    mode(keep.path(), 0o755);
    let top = keep.path().canonicalize().unwrap();
    let hers = top.join("hers");
    fs::create_dir_all(hers.join("dir")).unwrap();
    fs::write(hers.join("dir/file"), "hers").unwrap();
    for name in ["", "dir", "dir/file"] {
        give(&hers.join(name));
    }
    let before = describe(&hers);
    let id = store(&vault, &hers).await.unwrap().id;
    fs::remove_dir_all(hers.join("dir")).unwrap();
    fs::create_dir(hers.join("dir")).unwrap();
    fs::write(hers.join("dir/key"), "of root").unwrap();
    mode(&hers.join("dir"), 0o700);
    let options = |delete_extra| RestoreOptions {
        subpath: subpath(&hers),
        overwrite: Overwrite::IfChanged,
        delete_extra,
        ..Default::default()
    };
    let done = vault
        .restore_tree(&id, found_at(&hers), options(false), Control::default())
        .await
        .unwrap();
    let found = fs::metadata(hers.join("dir")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o700));
    assert!(
        done.warned[0].starts_with("'dir': owner and mode"),
        "{:?}",
        done.warned
    );
    // Without what is root's in it, it is hers again.
    vault
        .restore_tree(&id, found_at(&hers), options(true), Control::default())
        .await
        .unwrap();
    assert_same(&before, &describe(&hers));
    // A place where only root can have moved things is put right as it is.
    chown(&hers, Some(0), Some(0)).unwrap();
    chown(hers.join("dir"), Some(0), Some(0)).unwrap();
    fs::write(hers.join("dir/made since"), "").unwrap();
    mode(&hers.join("dir"), 0o700);
    vault
        .restore_tree(&id, found_at(&hers), options(false), Control::default())
        .await
        .unwrap();
    let found = fs::metadata(hers.join("dir")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (MALLORY, 0o755));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_whose_server_is_gone_stays_and_the_rest_is_restored() {
    if !has_own_mounts(
        "restores_beside_others::a_mount_whose_server_is_gone_stays_and_the_rest_is_restored",
    ) {
        return;
    }
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    let at = keep.path().canonicalize().unwrap();
    fs::write(at.join("wanted"), "1").unwrap();
    let id = store(&vault, &at).await.unwrap().id;
    fs::write(at.join("wanted"), "changed").unwrap();
    fs::write(at.join("since"), "").unwrap();
    fs::create_dir(at.join("dead")).unwrap();
    let script = "exec 9<>/dev/fuse && exec mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 dead \"$0\"";
    if !mount(script, &at.join("dead")) {
        eprintln!("SKIPPED: no FUSE");
        return;
    }
    assert!(fs::metadata(at.join("dead")).is_err());
    let options = RestoreOptions {
        subpath: subpath(&at),
        overwrite: Overwrite::IfChanged,
        delete_extra: true,
        ..Default::default()
    };
    let done = vault
        .restore_tree(&id, found_at(&at), options, Control::default())
        .await
        .unwrap();
    assert_eq!((done.extra, done.deleted), (2, 1), "{done:?}");
    assert!(done.warned[0].starts_with("'dead': "), "{done:?}");
    assert!(!at.join("since").exists());
    assert_eq!(fs::read(at.join("wanted")).unwrap(), b"1");
    assert!(mount("exec umount \"$0\"", &at.join("dead")));
}

/// Of the same file system, so its device is the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_in_an_extra_is_not_emptied() {
    if !has_own_mounts("restores_beside_others::what_is_mounted_in_an_extra_is_not_emptied") {
        return;
    }
    let (_, vault) = memory().await;
    let keep = tempfile::tempdir().unwrap();
    let top = keep.path().canonicalize().unwrap();
    let (at, home) = (top.join("app"), top.join("home"));
    fs::create_dir(&at).unwrap();
    fs::write(at.join("file"), "1").unwrap();
    let id = store(&vault, &at).await.unwrap().id;
    fs::create_dir_all(at.join("chroot/home")).unwrap();
    fs::create_dir(&home).unwrap();
    fs::write(home.join("hers"), "").unwrap();
    let script = "exec mount --bind \"$0/../../../home\" \"$0\"";
    assert!(mount(script, &at.join("chroot/home")));
    let options = RestoreOptions {
        subpath: subpath(&at),
        overwrite: Overwrite::IfChanged,
        delete_extra: true,
        ..Default::default()
    };
    let done = vault
        .restore_tree(&id, found_at(&at), options, Control::default())
        .await
        .unwrap();
    assert!(home.join("hers").exists());
    assert_eq!((done.extra, done.deleted), (1, 0), "{done:?}");
    assert!(done.warned[0].starts_with("'chroot': "), "{done:?}");
    assert!(mount("exec umount \"$0\"", &at.join("chroot/home")));
}
