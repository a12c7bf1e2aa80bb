//! What the tests share.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fmt::Write as _,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use karbor_banks::file_system::FileSystemBank;
use karbor_fs::{Dir, Found};
use karbor_plugin::{Bank, BankKey, BankSection, Secret, layers::retry};
use karbor_testkit::{FaultyBank, MemoryBank};
use karbor_vault::{
    Control, SnapshotId, SnapshotMeta, SnapshotSummary, TreeOptions, Vault, VaultError,
    VaultOptions,
};
use sha2::{Digest, Sha256};

pub const PASSWORD: &str = "8d0c3b1f56c1b1cf0a7f0a7a4d3cf5c2c4ec2f9be11cbfa5b8b7a6b0b9a7b6d5";

pub fn secret() -> Secret {
    Secret::new(PASSWORD.to_owned())
}

/// A repository in a directory that restic can use too.
pub struct Disk {
    pub dir: tempfile::TempDir,
    pub bank: Arc<FileSystemBank>,
}

impl Disk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bank = Arc::new(FileSystemBank::open(dir.path()).unwrap());
        Self { dir, bank }
    }

    /// Where restic finds the repository.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("karbor/vaults/p/q")
    }

    pub fn section(&self) -> BankSection {
        section(self.bank.clone())
    }

    pub async fn vault(&self) -> Vault {
        vault(self.section()).await
    }
}

/// The section of a repository in a bank that is asked again when it stumbles, as a service opens it.
pub fn section(bank: Arc<dyn Bank>) -> BankSection {
    BankSection::new(retry(bank), BankKey::parse("vaults/p/q").unwrap())
}

pub async fn vault(section: BankSection) -> Vault {
    Vault::open_or_init(section, &secret(), VaultOptions::default())
        .await
        .unwrap()
}

pub type Memory = FaultyBank<MemoryBank>;

/// A vault in memory whose bank fails on command.
pub async fn memory() -> (Arc<Memory>, Vault) {
    let bank = Arc::new(FaultyBank::new(MemoryBank::new()));
    let vault = vault(section(bank.clone())).await;
    (bank, vault)
}

pub fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

pub fn meta() -> SnapshotMeta {
    SnapshotMeta {
        hostname: "host".to_owned(),
        username: "karbor".to_owned(),
        time: time(0),
        tags: vec!["karbor:checkpoint=1".to_owned()],
        parent: None,
    }
}

/// Opens a directory to be stored.
pub fn open(path: &Path) -> Result<karbor_fs::Dir, VaultError> {
    karbor_fs::Dir::open(path).map_err(|error| VaultError::Source {
        path: path.to_string_lossy().into_owned(),
        reason: error.to_string(),
    })
}

pub async fn store(vault: &Vault, path: &Path) -> Result<SnapshotSummary, VaultError> {
    store_with(vault, path, meta(), TreeOptions::default()).await
}

pub async fn store_with(
    vault: &Vault,
    path: &Path,
    meta: SnapshotMeta,
    options: TreeOptions,
) -> Result<SnapshotSummary, VaultError> {
    let mut writer = vault.writer(meta, Control::default()).await?;
    writer.add_tree(&open(path)?, options).await?;
    writer.commit().await
}

/// Stores one stream, and nothing else.
pub async fn store_stream(vault: &Vault, name: &str, data: &[u8]) -> SnapshotId {
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer.add_stream(name, data).await.unwrap();
    writer.commit().await.unwrap().id
}

pub fn subpath(path: &Path) -> Option<String> {
    Some(path.to_str().unwrap().to_owned())
}

/// Where to restore to.
pub fn found_at(path: &Path) -> Found {
    Dir::find(path).unwrap()
}

/// Bytes that look random and do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(len);
    data
}

/// Is the real restic to be had? If it must be and is not, the test fails.
pub fn have_restic() -> bool {
    let found = Command::new("restic").arg("version").output().is_ok();
    if found {
        return true;
    }
    assert!(
        std::env::var_os("KARBOR_REQUIRE_SERVERS").is_none(),
        "KARBOR_REQUIRE_SERVERS is set, but there is no restic: install the package 'restic'"
    );
    eprintln!("SKIPPED: there is no restic on this machine; install the package 'restic'");
    false
}

pub fn try_restic(repository: &Path, args: &[&OsStr]) -> Output {
    Command::new("restic")
        .arg("-r")
        .arg(repository)
        .arg("--no-cache")
        .args(args)
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("GOMAXPROCS", "2")
        .output()
        .unwrap()
}

/// Runs restic, which must succeed; answers with what it printed.
pub fn restic(repository: &Path, args: &[&str]) -> String {
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let output = try_restic(repository, &args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "restic {args:?} failed:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text + &String::from_utf8_lossy(&output.stderr)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mknod(path: &Path, kind: rustix::fs::FileType, device: u64) {
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device).unwrap();
}

fn set_times(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// Every sort of file there is.
pub fn make_zoo(at: &Path) {
    fs::create_dir_all(at.join("dir/deeper/still deeper")).unwrap();
    fs::create_dir(at.join("empty dir")).unwrap();
    fs::write(at.join("empty"), b"").unwrap();
    fs::write(at.join("small.txt"), b"hello\n").unwrap();
    fs::write(at.join("dir/ünïcode 文字 \u{1f600}"), b"unicode").unwrap();
    fs::write(at.join("dir/quotes \"\\' and\nnewline\t"), b"odd").unwrap();
    fs::write(at.join(OsStr::from_bytes(b"dir/latin1-\xe9\xff")), b"bytes").unwrap();
    fs::write(
        at.join("dir/text.sql"),
        b"INSERT INTO t VALUES (1);\n".repeat(100_000),
    )
    .unwrap();
    let mut big = noise(1, 9_000_000);
    big.extend_from_slice(&vec![0; 10_000_000]);
    big.extend_from_slice(&noise(2, 11_000_001));
    fs::write(at.join("dir/deeper/big.bin"), &big).unwrap();
    let sparse = fs::File::create(at.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"in the middle", 30_000_001).unwrap();
    fs::write(at.join("linked 1"), b"one file, three names").unwrap();
    fs::hard_link(at.join("linked 1"), at.join("linked 2")).unwrap();
    fs::hard_link(at.join("linked 1"), at.join("dir/linked 3")).unwrap();
    symlink("../small.txt", at.join("dir/link")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"caf\xe9"), at.join("odd link")).unwrap();
    mknod(&at.join("fifo"), rustix::fs::FileType::Fifo, 0);
    std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
    if is_root() {
        mknod(
            &at.join("null"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::makedev(1, 3),
        );
        mknod(
            &at.join("loop"),
            rustix::fs::FileType::BlockDevice,
            rustix::fs::makedev(7, 250),
        );
        std::os::unix::fs::lchown(at.join("small.txt"), Some(12), Some(34)).unwrap();
        std::os::unix::fs::lchown(at.join("dangling"), Some(56), Some(78)).unwrap();
    }
    xattr::set(at.join("small.txt"), "user.colour", b"blue\0\xff").unwrap();
    xattr::set(at.join("small.txt"), "user.empty", b"").unwrap();
    xattr::set(at.join("dir"), "user.on_a_dir", b"yes").unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("small.txt", 0o6754);
    mode("empty dir", 0o1777);
    mode("dir/deeper", 0o2750);
    mode("dir/text.sql", 0o400);
    set_times(&at.join("dir/text.sql"), 1_234_567_890, 123_456_789);
    set_times(&at.join("empty"), -86_400, 5);
    set_times(&at.join("dangling"), 1_000_000_000, 42);
    set_times(&at.join("dir/deeper"), 1_111_111_111, 999_999_999);
    set_times(at, 1_222_222_222, 1);
}

/// Everything that can be seen of a tree, one line an entry.
pub fn describe(root: &Path) -> String {
    let mut lines = String::new();
    let mut inodes = HashMap::new();
    describe_entry(root, Path::new(""), &mut inodes, &mut lines);
    lines
}

fn describe_entry(
    root: &Path,
    relative: &Path,
    inodes: &mut HashMap<u64, String>,
    lines: &mut String,
) {
    let path = root.join(relative);
    let meta = fs::symlink_metadata(&path).unwrap();
    let kind = meta.file_type();
    let label = format!("{relative:?}");
    write!(
        lines,
        "{label} {:o} {}:{} {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    )
    .unwrap();
    if kind.is_file() {
        let hash = hex::encode(Sha256::digest(fs::read(&path).unwrap()));
        let first = inodes.entry(meta.ino()).or_insert(label);
        write!(lines, " {} {} ={first}", meta.len(), &hash[..16]).unwrap();
    } else if kind.is_symlink() {
        write!(lines, " -> {:?}", fs::read_link(&path).unwrap()).unwrap();
    } else if kind.is_block_device() || kind.is_char_device() {
        write!(lines, " device {}", meta.rdev()).unwrap();
    }
    let mut xattrs: Vec<_> = xattr::list(&path).unwrap().collect();
    xattrs.sort();
    for name in xattrs {
        write!(lines, " {name:?}={:?}", xattr::get(&path, &name).unwrap()).unwrap();
    }
    lines.push('\n');
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            describe_entry(root, &relative.join(name), inodes, lines);
        }
    }
}

/// Without sockets, which nobody restores.
pub fn without_sockets(lines: &str) -> String {
    let keep = |line: &&str| !line.starts_with("\"socket\"");
    lines
        .lines()
        .filter(keep)
        .map(|line| format!("{line}\n"))
        .collect()
}

pub fn assert_same(expected: &str, found: &str) {
    if expected == found {
        return;
    }
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let mut report = String::new();
    for line in expected.iter().filter(|line| !found.contains(line)) {
        writeln!(report, "- {line}").unwrap();
    }
    for line in found.iter().filter(|line| !expected.contains(line)) {
        writeln!(report, "+ {line}").unwrap();
    }
    panic!("the trees differ:\n{report}");
}

/// How many blocks of 512 bytes a file takes.
pub fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

/// The names in a directory, sorted.
pub fn names(path: &Path) -> Vec<CString> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| CString::new(entry.unwrap().file_name().as_bytes()).unwrap())
        .collect();
    names.sort();
    names
}

/// Is this a process of its own, whose mounts nobody else sees? Else runs the test, `module::name`, in one, if
/// that may be made.
pub fn has_own_mounts(test: &str) -> bool {
    const MOUNTS: &str = "KARBOR_VAULT_TEST_MOUNTS";
    if std::env::var_os(MOUNTS).is_some() {
        return true;
    }
    let may = Command::new("unshare").args(["-m", "true"]).output();
    if !may.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: nothing can be mounted here");
        return false;
    }
    let done = Command::new("unshare")
        .arg("-m")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .args(["--nocapture"])
        .env(MOUNTS, "own")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && output.contains("1 passed"),
        "{output}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    false
}

pub fn mount(script: &str, at: &Path) -> bool {
    let done = Command::new("sh").args(["-c", script]).arg(at).status();
    done.unwrap().success()
}
