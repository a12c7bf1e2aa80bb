//! Dying processes, full disks, and the order of what reaches the disk.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use karbor_banks::file_system::FileSystemBank;
use karbor_plugin::{Bank, BankError};

use super::{
    children::{OBJECTS, content, with_child},
    key, keys,
};

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

fn unfinished(directory: &Path) -> usize {
    let areas = std::fs::read_dir(directory.join("karbor/+tmp")).unwrap();
    let files = areas.flat_map(|area| std::fs::read_dir(area.unwrap().path()).unwrap());
    files
        .filter(|file| file.as_ref().unwrap().file_name() != "lock")
        .count()
}

/// Writes, kills the writer after `acknowledged` writes, and returns the last version of each
/// object that the writer was told is there.
fn write_and_kill(child: &str, directory: &Path, acknowledged: usize) -> HashMap<usize, u64> {
    let mut command = this_binary();
    let mut child = with_child(&mut command, child, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = HashMap::new();
    let mut seen = 0;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Also what it wrote between our decision and its death.
    for line in lines.by_ref() {
        let line = line.unwrap();
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "wrote")
            .skip(1);
        if let (Some(object), Some(version)) = (words.next(), words.next()) {
            last.insert(object.parse().unwrap(), version.parse().unwrap());
            seen += 1;
        }
        if seen == acknowledged {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    last
}

#[tokio::test]
async fn kill_9_leaves_each_object_old_or_new_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut found_unfinished = 0;
    for round in 0..8 {
        let acknowledged = write_and_kill("writes_until_killed", directory.path(), 3 + 5 * round);
        found_unfinished += unfinished(directory.path());
        let bank = FileSystemBank::open(directory.path()).unwrap();
        assert_eq!(unfinished(directory.path()), 0, "swept at the next start");
        for name in keys(&bank).await {
            let data = bank.get(&key(&name)).await.unwrap();
            let version = u64::from_be_bytes(data[..8].try_into().unwrap());
            assert!(data == content(version), "{name} is not whole");
            let object = name.split('/').nth(1).unwrap().parse().unwrap();
            let told = acknowledged.get(&object).copied().unwrap_or(0);
            if name.starts_with("objects/") {
                assert!(
                    version >= told,
                    "{name} is {version}, but {told} was acknowledged"
                );
            }
            bank.delete(&key(&name)).await.unwrap();
        }
        assert!(acknowledged.len() <= OBJECTS);
        assert!(keys(&bank).await.is_empty());
    }
    // Else the kills came at no interesting moment, and this test shows nothing.
    assert!(found_unfinished > 0, "no kill interrupted a write");
}

/// A killed process blocks nobody's leases, and its own lease is whole or gone.
#[tokio::test]
async fn kill_9_leaves_no_lock_behind() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..8 {
        write_and_kill("leases_until_killed", directory.path(), 1 + 3 * round);
        let bank = FileSystemBank::open(directory.path()).unwrap();
        let ttl = std::time::Duration::from_secs(3600);
        let left = bank.leases(&key("thing")).await.unwrap();
        assert!(left.iter().all(|lease| lease.owner == "child"), "{left:?}");
        let answer = bank.acquire_lease(&key("thing"), "parent", ttl).await;
        match (left.first(), answer) {
            (None, Ok(lease)) => bank.release_lease(&lease).await.unwrap(),
            (Some(lease), Err(BankError::LeaseHeld { .. })) => {
                bank.release_lease(lease).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What this machine does not allow (tracing, mounting) cannot be tested on it; what is only not
/// installed is a failure where every tool is asked for.
fn not_run(test: &str, why: &str, installable: bool) {
    let required = std::env::var_os("KARBOR_REQUIRE_SERVERS").is_some();
    assert!(!(installable && required), "{test}: {why}");
    eprintln!("NOT RUN: {test}: {why}");
}

/// The order of flushes and renames, as the kernel saw it.
#[test]
fn everything_is_flushed_before_it_counts() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("strace");
    let mut strace = Command::new("strace");
    strace
        .args([
            "-f",
            "-y",
            "-e",
            "trace=fsync,fdatasync,/^rename,linkat,/^mkdir,unlinkat",
        ])
        .arg("-o")
        .arg(&log)
        .arg(std::env::current_exe().unwrap());
    let bank = directory.path().join("bank");
    match with_child(&mut strace, "writes_a_little", &bank).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            if text.contains("ptrace") {
                return not_run("flush order", &text, false);
            }
            panic!("{text}{}", String::from_utf8_lossy(&output.stdout));
        }
        Err(error) => return not_run("flush order", &format!("strace: {error}"), true),
    }
    let calls = std::fs::read_to_string(log).unwrap();
    let root = bank.to_str().unwrap();
    let mut from = 0;
    let mut next = |what: &str, wanted: &[&str]| {
        let tail = calls.lines().enumerate().skip(from);
        let found = tail.filter(|(_, line)| wanted.iter().all(|text| line.contains(text)));
        let at = found.map(|(at, _)| at).next();
        let at = at.unwrap_or_else(|| panic!("no '{what}' after line {from} of\n{calls}"));
        from = at + 1;
    };
    let container = format!("{root}/karbor>)");
    let dir = format!("{root}/karbor/new/dir>");
    next("bank made", &["mkdir", root]);
    next(
        "flushed into its parent",
        &["fsync(", directory.path().to_str().unwrap()],
    );
    next("container made", &["mkdir", "karbor\""]);
    next("flushed into its parent", &["fsync(", &format!("{root}>)")]);
    next("first object flushed", &["fsync(", "/+tmp/", "/0>)"]);
    next("directory made", &["mkdirat(", "\"new\""]);
    next("flushed into its parent", &["fsync(", &container]);
    next("directory made", &["mkdirat(", "\"dir\""]);
    next("flushed into its parent", &["fsync(", "/karbor/new>)"]);
    next(
        "moved to its place",
        &["renameat", "\"0\"", &dir, "\"object\""],
    );
    next("directory flushed", &["fsync(", &dir]);
    next("second flushed", &["fsync(", "/+tmp/", "/1>)"]);
    next(
        "moved to its place",
        &["renameat", "\"1\"", &dir, "\"object\""],
    );
    next("directory flushed", &["fsync(", &dir]);
    next("third flushed", &["fsync(", "/+tmp/", "/2>)"]);
    next(
        "moved without replacing",
        &["renameat2", "\"2\"", &dir, "\"fresh\"", "NOREPLACE"],
    );
    next("directory flushed", &["fsync(", &dir]);
    next("removed", &["unlinkat(", &dir, "\"object\""]);
    next("directory flushed", &["fsync(", &dir]);
}

#[test]
fn a_full_disk_and_a_read_only_one_hurt_no_object() {
    let directory = tempfile::tempdir().unwrap();
    // A file system of our own, in a mount namespace of our own.
    let script = r#"
        mount -t tmpfs -o size=3m karbor-test "$KARBOR_TEST_BANK" || exit 77
        "$@" && mount -o remount,ro "$KARBOR_TEST_BANK" || exit
        exec "$0" file_system::children::reads_from_a_read_only_disk --exact --ignored
    "#;
    let binary = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(&binary).arg(&binary);
    match with_child(&mut command, "fills_the_disk", directory.path()).output() {
        Err(error) => not_run("full disk", &format!("unshare: {error}"), true),
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.code() == Some(77) || text.starts_with("unshare:") {
                return not_run("full disk", &text, false);
            }
            panic!("{text}{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
