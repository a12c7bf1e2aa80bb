//! Reads regular files.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    intake::IntakeError,
    walk::{Look, Open, Walker, is_gone},
};
use crate::{
    VaultError, chunker,
    engine::Sink,
    fsio,
    node::{Node, NodeKind},
};

/// How often a file is read that changes while it is read.
const READINGS: u32 = 2;
/// Larger ones are read once only, unless they were cut: whatever writes to them all the time (a database, the
/// disk of a virtual machine) would do so the second time.
const LARGE: u64 = 256 << 20;
/// How often a file with a lease is tried.
const LEASE_PAUSE: Duration = Duration::from_millis(20);
/// How long leases may take in one tree.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a tree's files with leases may be waited for, in all.
pub(super) fn patience() -> Duration {
    PATIENCE
}

/// How long one holder has to give up a lease before the kernel takes it (fcntl(2): 45 seconds unless
/// the administrator says otherwise), and a little more.
fn lease_break_time() -> Duration {
    let told = fs::read_to_string("/proc/sys/fs/lease-break-time");
    let seconds = told.ok().and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(45_u64).saturating_add(5))
}

/// Opens a file to read it, leaving its access time alone if that is allowed. Does not wait for the
/// other end if it is a pipe.
fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may ask for it.
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        done => done,
    }
}

/// What became of the content of a file.
enum Content {
    Stored(u64),
    /// It is read again.
    Again,
    Unreadable(io::Error),
}

impl Walker {
    /// A regular file. `stat` is known if the file may be as it was before. For one that could not be read
    /// before, nobody is waited for again.
    pub(super) fn file(
        &mut self,
        open: &Open<'_>,
        relative: &Path,
        name: &OsStr,
        stat: Option<Stat>,
        before: Option<&Node>,
        was_refused: bool,
    ) -> Result<Look, VaultError> {
        if let (Some(stat), Some(before), Some(parent)) = (&stat, before, &self.parent)
            && parent.is_unmodified(before, stat)
        {
            self.unmodified(open, name, stat, before);
            return Ok(Look::Done);
        }
        for reading in 1..=READINGS {
            let fd = match self.open_patiently(open.fd, name, was_refused)? {
                Ok(fd) => fd,
                Err(error) if is_gone(error) => return Ok(Look::Gone),
                // A link or a socket by now.
                Err(Errno::LOOP | Errno::NXIO) => return Ok(Look::Again),
                Err(Errno::AGAIN) => {
                    self.unreadable(
                        relative,
                        "a process holds a lease on it and does not give it up",
                    );
                    return Ok(Look::Done);
                }
                Err(error) => {
                    self.refused(relative, error)?;
                    return Ok(Look::Done);
                }
            };
            let stat = rustix::fs::fstat(&fd).map_err(|error| self.error(relative, error))?;
            if fsio::kind_of(&stat) != Some(NodeKind::File) {
                return Ok(Look::Again);
            }
            self.met(&stat);
            let mut node = fsio::node_of(name, NodeKind::File, &stat, &self.names);
            node.xattrs = self.fd_xattrs(fd.as_fd(), relative, &mut node.ctime);
            let mut file = File::from(fd);
            if self.is_lost() {
                // Looked at only for the list of what cannot be read.
                if let Err(error) = file.read(&mut [0]) {
                    self.cannot_read(relative, &error)?;
                }
                return Ok(Look::Done);
            }
            let node = open.dir.add(node);
            match self.read(open, relative, node, &file, &stat, reading)? {
                Content::Stored(size) => {
                    open.dir.update(node, |node| node.size = size);
                    self.count_file(size);
                    return Ok(Look::Done);
                }
                Content::Again => {
                    open.dir.drop_node(node);
                }
                Content::Unreadable(error) => {
                    open.dir.drop_node(node);
                    self.cannot_read(relative, &error)?;
                    return Ok(Look::Done);
                }
            }
        }
        Err(VaultError::Internal("a file was read too often".to_owned()))
    }

    fn cannot_read(&mut self, relative: &Path, error: &io::Error) -> Result<(), VaultError> {
        match error.raw_os_error() {
            Some(errno) => self.refused(relative, Errno::from_raw_os_error(errno)),
            None => {
                self.unreadable(relative, error);
                Ok(())
            }
        }
    }

    /// Opens a file. One that a process holds a lease on (Samba does, for its clients) is asked for until
    /// the holder gave it up or the kernel took it: each try that does not wait begins that, too, and
    /// never hangs at a pipe that took the file's place.
    fn open_patiently(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        was_refused: bool,
    ) -> Result<Result<OwnedFd, Errno>, VaultError> {
        let first = open_file(dir, name);
        if was_refused || !matches!(first, Err(Errno::AGAIN)) {
            return Ok(first);
        }
        let since = Instant::now();
        let most = lease_break_time().min(self.patience);
        let opened = loop {
            self.intake.writer.check()?;
            match open_file(dir, name) {
                Err(Errno::AGAIN) if since.elapsed() < most => std::thread::sleep(LEASE_PAUSE),
                done => break done,
            }
        };
        self.spend_patience(since);
        Ok(opened)
    }

    /// Reads the content of a file into its node, and looks whether it stayed as it was meanwhile.
    fn read(
        &mut self,
        open: &Open<'_>,
        relative: &Path,
        node: usize,
        file: &File,
        stat: &Stat,
        reading: u32,
    ) -> Result<Content, VaultError> {
        let size = fsio::size_of(stat);
        let read = self.content(&open.dir, || open.dir.next_blob(node), file, size);
        let found = match read {
            Ok(found) => found,
            Err(IntakeError::Vault(error)) => return Err(error),
            Err(IntakeError::Read(error)) => return Ok(Content::Unreadable(error)),
        };
        let after = match rustix::fs::fstat(file) {
            Ok(after) => after,
            Err(error) => return Ok(Content::Unreadable(error.into())),
        };
        let steady = (after.st_size, fsio::mtime(&after)) == (stat.st_size, fsio::mtime(stat));
        let is_short = found < size;
        if steady {
            if is_short {
                self.warn(
                    relative,
                    format!("it claims a size of {size} bytes and holds {found}, which are stored"),
                );
            }
            return Ok(Content::Stored(found));
        }
        if reading < READINGS && (is_short || size <= LARGE) {
            return Ok(Content::Again);
        }
        self.unsteady(
            relative,
            match is_short {
                true => format!(
                    "it was cut short while it was read: {found} of {size} bytes were there, which are stored"
                ),
                false => "it was written to while it was read".to_owned(),
            },
        );
        Ok(Content::Stored(found))
    }

    fn unmodified(&mut self, open: &Open<'_>, name: &OsStr, stat: &Stat, before: &Node) {
        let mut node = fsio::node_of(name, NodeKind::File, stat, &self.names);
        node.content.clone_from(&before.content);
        node.xattrs.clone_from(&before.xattrs);
        self.count_file(node.size);
        self.summary.unmodified += 1;
        self.intake.writer.control.progress.add_bytes(node.size);
        self.met(stat);
        open.dir.add(node);
    }

    fn count_file(&mut self, size: u64) {
        self.summary.files += 1;
        self.summary.bytes += size;
    }

    /// Reads what a file holds; answers with its size.
    fn content<S: Sink + 'static>(
        &mut self,
        sink: &Arc<S>,
        mut next_slot: impl FnMut() -> usize,
        mut file: &File,
        size: u64,
    ) -> Result<u64, IntakeError> {
        let Self { intake, buffer, .. } = self;
        if size == 0 {
            // Mostly it is just empty: no need for the large buffer.
            let mut probe = [0; 256];
            let n = file.read(&mut probe).map_err(IntakeError::Read)?;
            return match n {
                0 => Ok(0),
                n => intake.cut(probe[..n].chain(file), buffer, sink, next_slot),
            };
        }
        if size <= chunker::MIN as u64 {
            let mut chunk = Vec::with_capacity(size as usize);
            file.take(size)
                .read_to_end(&mut chunk)
                .map_err(IntakeError::Read)?;
            let found = chunk.len() as u64;
            if found > 0 {
                let stored = intake.blob(chunk, sink.clone(), next_slot());
                stored.map_err(IntakeError::Vault)?;
            }
            return Ok(found);
        }
        intake.cut(file.take(size), buffer, sink, next_slot)
    }
}
