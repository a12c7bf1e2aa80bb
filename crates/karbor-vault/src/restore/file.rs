//! Writes files.

use std::{
    ffi::OsString,
    fs::File,
    ops::Range,
    os::{fd::AsFd, unix::fs::FileExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use karbor_fs::{Dir, Refused, Staging};
use rustix::io::Errno;

use super::run::{Job, Restoring, refused};
use crate::{VaultError, engine::Decoder, node::Node, pack::BlobKind};

/// A segment of a file is about so large: several threads write one file.
const SEGMENT: u64 = 16 << 20;
/// Zeros are looked for in blocks of this size, which become holes.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The name under which something is made: no other restore uses it.
pub(super) fn temp_name(run: &Restoring) -> OsString {
    let number = run.temps.fetch_add(1, Ordering::Relaxed);
    karbor_fs::temp_name(run.id, number)
}

/// A file being written.
pub(super) struct Writing {
    staging: Arc<Staging>,
    /// Where it is being made, and its name there.
    dir: Dir,
    temp: OsString,
    file: File,
    node: Node,
    path: PathBuf,
    replaces: bool,
    segments_left: AtomicUsize,
    is_placed: AtomicBool,
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_placed.load(Ordering::Acquire)
            && let Err(error) = self.dir.remove_file(&self.temp)
        {
            tracing::warn!(path = %self.path.display(), %error, "a half-written file stays behind");
        }
    }
}

/// A part of a file, for one thread.
pub(super) struct Segment {
    file: Arc<Writing>,
    blobs: Range<usize>,
    offset: u64,
}

impl Writing {
    /// Begins a file, and cuts it into segments. `replaces`: it was compared with what is there, which
    /// may go whatever the options say.
    pub(super) fn begin(
        run: &Restoring,
        staging: Arc<Staging>,
        node: Node,
        replaces: bool,
    ) -> Result<Vec<Segment>, VaultError> {
        let path = staging.place().path_of(&node.os_name());
        let segments = segments(run, &node, &path)?;
        let failed = |error: Refused| refused(&path, &error);
        let dir = staging.dir().map_err(failed)?;
        let (temp, file) = make_temp(run, &dir).map_err(failed)?;
        let file = Arc::new(Self {
            staging,
            dir,
            temp,
            file,
            node,
            path,
            replaces,
            segments_left: AtomicUsize::new(segments.len()),
            is_placed: AtomicBool::new(false),
        });
        let segments = segments.into_iter().map(|(blobs, offset)| Segment {
            file: file.clone(),
            blobs,
            offset,
        });
        Ok(segments.collect())
    }

    fn failed(&self, error: impl ToString) -> VaultError {
        VaultError::target(self.path.to_string_lossy(), error)
    }

    /// All content is written.
    fn complete(&self, run: &Restoring) -> Result<(), VaultError> {
        // Also makes the hole at the end, if there is one.
        self.file
            .set_len(self.node.size)
            .map_err(|error| self.failed(error))?;
        run.set_attributes(self.file.as_fd(), &self.node, &self.path)?;
        match self.node.links > 1 {
            true => run.stash(&self.file, &self.node),
            false => Ok(()),
        }
    }

    /// It is on stable storage: it gets its name.
    fn place(&self, run: &Restoring) -> Result<(), VaultError> {
        let name = self.node.os_name();
        run.rename(&self.staging, &self.dir, &self.temp, &name, self.replaces)?;
        self.is_placed.store(true, Ordering::Release);
        run.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<(), VaultError> {
        let written = write_sparse(data, offset, |data, offset| {
            self.file.write_all_at(data, offset)
        });
        written.map_err(|error| self.failed(error))
    }
}

/// So often a file is made, should somebody who cleans up be faster.
const TRIES: usize = 8;

/// Makes an empty file, which is locked as long as it is open, so that it is not taken for a dead restore's.
fn make_temp(run: &Restoring, dir: &Dir) -> Result<(OsString, File), Refused> {
    let mut left = TRIES;
    loop {
        let temp = temp_name(run);
        left -= 1;
        match dir.create_file(&temp) {
            Err(refused) if refused.errno() == Some(Errno::AGAIN) && left > 0 => {}
            made => return made.map(|file| (temp, file)),
        }
    }
}

/// Ranges of blobs and where in the file they go; at least one.
fn segments(
    run: &Restoring,
    node: &Node,
    path: &std::path::Path,
) -> Result<Vec<(Range<usize>, u64)>, VaultError> {
    let name = path.to_string_lossy();
    let mut segments = Vec::new();
    let (mut first, mut start, mut offset) = (0, 0, 0);
    for (number, blob) in node.content.iter().enumerate() {
        if offset - start >= SEGMENT {
            segments.push((first..number, start));
            (first, start) = (number, offset);
        }
        let at = run
            .reader
            .locate(BlobKind::Data, blob)
            .map_err(|error| error.for_file(&name))?;
        offset += u64::from(at.plain_length());
    }
    segments.push((first..node.content.len(), start));
    if offset == node.size {
        return Ok(segments);
    }
    let reason = format!(
        "it says that '{name}' has {} bytes, but its blobs have {offset}",
        node.size
    );
    Err(VaultError::damaged("the tree of the snapshot", reason).for_file(&name))
}

impl Job for Segment {
    fn carry_out(
        self: Box<Self>,
        run: &Restoring,
        batch: &mut Batch,
        decoder: &mut Decoder,
    ) -> Result<(), VaultError> {
        match self.write(run, decoder)? {
            Some(file) => batch.add(run, file),
            None => Ok(()),
        }
    }
}

impl Segment {
    pub(super) fn weight() -> usize {
        1
    }

    /// Answers with the file, if this was the last of its segments.
    pub(super) fn write(
        self,
        run: &Restoring,
        decoder: &mut Decoder,
    ) -> Result<Option<Arc<Writing>>, VaultError> {
        let file = &self.file;
        let mut offset = self.offset;
        for blob in &file.node.content[self.blobs.clone()] {
            run.check()?;
            let data = run
                .reader
                .load(BlobKind::Data, blob, decoder)
                .map_err(|error| error.for_file(&file.path.to_string_lossy()))?;
            file.write(&data, offset)?;
            offset += data.len() as u64;
            run.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            run.control.progress.add_bytes(data.len() as u64);
        }
        match file.segments_left.fetch_sub(1, Ordering::AcqRel) {
            1 => {
                file.complete(run)?;
                Ok(Some(self.file))
            }
            _ => Ok(None),
        }
    }
}

/// Files of one thread that are whole, but not on stable storage yet. They get their names only after that:
/// else, after a power cut, a file of the right size and time could be there without its content, and a
/// restore that goes on would keep it. To sync a file system once is much cheaper than many files.
pub(super) struct Batch {
    files: Vec<Arc<Writing>>,
    bytes: u64,
    most: usize,
}

/// So many files of all threads together may wait for their names; each is kept open.
const WAITING_FILES: usize = 128;
/// So much of one thread.
const WAITING_BYTES: u64 = 16 << 20;
/// Fewer files than this are synced one by one: the file system may be busy with others' data.
const WORTH_A_SYNCFS: usize = 4;

impl Batch {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            files: Vec::new(),
            bytes: 0,
            most: (WAITING_FILES / workers.max(1)).max(1),
        }
    }

    pub(super) fn add(&mut self, run: &Restoring, file: Arc<Writing>) -> Result<(), VaultError> {
        self.bytes += file.node.size;
        self.files.push(file);
        match self.files.len() >= self.most || self.bytes >= WAITING_BYTES {
            true => self.place(run),
            false => Ok(()),
        }
    }

    /// All of them get their names.
    pub(super) fn place(&mut self, run: &Restoring) -> Result<(), VaultError> {
        self.bytes = 0;
        let files = std::mem::take(&mut self.files);
        sync(&files)?;
        files.iter().try_for_each(|file| file.place(run))
    }
}

fn sync(files: &[Arc<Writing>]) -> Result<(), VaultError> {
    let mut devices = Vec::new();
    for file in files {
        let stat = rustix::fs::fstat(&file.file).map_err(|error| file.failed(error))?;
        devices.push(stat.st_dev);
    }
    // The target may span several file systems.
    let on_one = devices.windows(2).all(|pair| pair[0] == pair[1]);
    if on_one
        && files.len() >= WORTH_A_SYNCFS
        && let Some(file) = files.last()
    {
        return rustix::fs::syncfs(&file.file).map_err(|error| file.failed(error));
    }
    files
        .iter()
        .try_for_each(|file| file.file.sync_all().map_err(|error| file.failed(error)))
}

/// Writes what is not zero; the file was empty, so the rest are holes.
fn write_sparse<E>(
    data: &[u8],
    offset: u64,
    mut write: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let misaligned = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
    let mut at = 0;
    let mut run = 0..0;
    while at < data.len() {
        let end = if at == 0 {
            BLOCK - misaligned
        } else {
            at + BLOCK
        };
        let end = end.min(data.len());
        let block = &data[at..end];
        if *block == ZEROS[..block.len()] {
            if !run.is_empty() {
                write(&data[run.clone()], offset + run.start as u64)?;
            }
            run = end..end;
        } else {
            run.end = end;
        }
        at = end;
    }
    match run.is_empty() {
        true => Ok(()),
        false => write(&data[run.clone()], offset + run.start as u64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holes_are_left_and_the_rest_is_written(
            pieces in proptest::collection::vec((0_u8..2, 1_usize..10_000), 0..8),
            offset in 0_u64..9000,
        ) {
            let data: Vec<u8> = pieces.iter().flat_map(|(byte, n)| vec![*byte; *n]).collect();
            let mut file = vec![0; offset as usize + data.len()];
            write_sparse(&data, offset, |part, at| {
                let at = at as usize;
                assert!(part.iter().any(|byte| *byte != 0));
                file[at..at + part.len()].copy_from_slice(part);
                Ok::<_, ()>(())
            })
            .unwrap();
            prop_assert!(file[offset as usize..] == data);
        }
    }
}
