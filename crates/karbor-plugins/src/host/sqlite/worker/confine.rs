//! What a worker gives up before it touches what belongs to somebody else.

use std::{fs, os::fd::OwnedFd};

use rusqlite::Connection;
use rustix::{
    io::Errno,
    process::{
        DumpableBehavior, Resource, Rlimit, Signal, chdir, chroot, fchdir, geteuid,
        set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{
    account::Account,
    protocol::{Failure, Limits},
};

/// Descriptors: a database, its journals, a copy, and what the process had.
const FILES: u64 = 64;
/// Besides SQLite's own memory: buffers, and the shared index of a log.
const BESIDES: u64 = 128 << 20;

/// Bounds what this process can use.
pub(super) fn limit(limits: &Limits) -> Result<(), Failure> {
    let failed = |errno: Errno| Failure::new(format!("the worker cannot be limited: {errno}"));
    let most = |resource, value| {
        let both = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        setrlimit(resource, both)
    };
    let set = || {
        most(Resource::Core, 0)?;
        most(Resource::Nproc, 0)?;
        most(Resource::Nofile, FILES)?;
        // SQLite is asked to stop first.
        most(Resource::Cpu, limits.seconds + 5)?;
        most(Resource::Fsize, limits.file)?;
        most(Resource::As, mapped() + limits.heap + BESIDES)
    };
    set().map_err(failed)?;
    // Of the whole process, so any connection will do.
    let heap = || {
        let any = Connection::open_in_memory()?;
        let set = format!("PRAGMA hard_heap_limit={}", limits.heap);
        any.query_row(&set, [], |_| Ok(()))
    };
    heap().map_err(|error| Failure::new(format!("the worker cannot be limited: {error}")))
}

/// Bytes that are mapped already: the program itself.
fn mapped() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kilobytes.unwrap_or(256_u64 << 10) << 10
}

/// Makes a directory the worker's whole world, where the system lets it, and takes on the account; a worker
/// that has opened all that it needs goes on as it is where it may not.
pub(super) fn enter(
    dir: &OwnedFd,
    account: Option<&Account>,
    shown: &str,
    has_all: bool,
) -> Result<(), Failure> {
    let failed = |errno: Errno| {
        Failure::new(format!(
            "the process for '{shown}' cannot be confined: {errno}"
        ))
    };
    fchdir(dir).map_err(failed)?;
    if let Some(account) = account {
        match chroot(".") {
            Ok(()) => chdir("/").map_err(failed)?,
            // A service that is not allowed to; what it opens is looked at once more.
            Err(Errno::PERM) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match become_account(account) {
            Err(Errno::PERM) if has_all => {}
            Err(errno) => {
                return Err(Failure::new(format!(
                    "'{shown}' is opened with the rights of its owner, and the service may not take on the account {}: {errno} (it needs CAP_SETUID and CAP_SETGID)",
                    account.user
                )));
            }
            Ok(()) => {}
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(failed)?;
    set_no_new_privs(true).map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    // Last: a change of account would clear it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)
}

fn become_account(account: &Account) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(account.user), Gid::from_raw(account.group));
    if account.user == 0 && geteuid().is_root() {
        // Without the right to, it keeps the groups that root has.
        let _ = set_thread_groups(&[]);
        return Ok(());
    }
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    set_thread_res_gid(Some(group), Some(group), Some(group))?;
    set_thread_res_uid(user, user, user)
}
