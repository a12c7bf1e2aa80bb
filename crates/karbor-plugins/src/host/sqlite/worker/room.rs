//! How much room a copy may take.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{fs::fstatvfs, io::Errno};

use super::protocol::Failure;

/// How much of a file system of so many bytes no copy takes: the service's own database lies in the scratch
/// directory's, too. A small one can spare no more than a twentieth.
fn reserve(total: u64) -> u64 {
    (total / 20).min(128 << 20)
}

/// How many bytes a copy in this directory may take.
pub(in super::super) fn room(cell: impl AsFd) -> Result<u64, Errno> {
    let system = fstatvfs(cell)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let total = system.f_blocks.saturating_mul(system.f_frsize);
    Ok(free.saturating_sub(reserve(total)))
}

/// Refuses a copy that takes more than there is room for.
pub(super) fn fits(cell: &OwnedFd, bytes: u64, shown: &str) -> Result<(), Failure> {
    let room = room(cell).map_err(|errno| {
        Failure::new(format!(
            "the scratch directory cannot be looked at: {errno}"
        ))
    })?;
    match bytes <= room {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "'{shown}' cannot be copied: the scratch directory has room for {} MiB, and the copy takes {} MiB more: free space there",
            room >> 20,
            bytes.div_ceil(1 << 20)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_system_has_room_for_copies_too() {
        assert_eq!(reserve(1 << 40), 128 << 20);
        assert!(reserve(64 << 20) < 4 << 20);
        assert_eq!(reserve(0), 0);
    }
}
