//! Room that the bank keeps for the day when it is full: the file `+reserve`.
//!
//! An object is replaced by a new file, which needs room before the old one gives its own back. So on a
//! full file system the end of an operation could not be written down, a checkpoint would be in progress for
//! ever, and nothing could be deleted. Small objects that are replaced, and leases, may use the reserve;
//! what is new may not.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FallocateFlags, Mode, OFlags},
    io::Errno,
};

const NAME: &str = "+reserve";

/// So much is kept, or as much of it as there is: each try asks for a page less than the one before.
const MOST: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A replacement larger than this may not use it.
pub(super) const SMALL: usize = 256 << 10;

/// Is this how a file system says that it is full?
pub(super) fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

/// Makes the reserve as large as it can be; says whether that is as large as it should be.
pub(super) fn keep(container: impl AsFd) -> Result<bool, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let opened: OwnedFd = rustix::fs::openat(&container, NAME, flags, mode)?;
    let file = File::from(opened);
    let stat = rustix::fs::fstat(&file)?;
    // What it takes, not what it says: a file may have holes.
    let there = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if there >= MOST {
        return Ok(true);
    }
    let mut size = MOST;
    while size > there {
        match take(&file, size) {
            Ok(()) => return Ok(size == MOST),
            Err(errno) if is_full(errno) => size -= PAGE,
            Err(errno) => return Err(errno),
        }
    }
    if there == 0 {
        give_up(container)?;
    }
    Ok(false)
}

fn take(mut file: &File, size: u64) -> Result<(), Errno> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        // This file system takes room with what is written only.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; usize::try_from(size).unwrap_or(0)];
            let written = file.write_all(&zeros);
            written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
        other => other,
    }
}

/// Gives the room back; says whether there was any.
pub(super) fn give_up(container: impl AsFd) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(container, NAME, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
