//! Takes in images and block devices in chunks of 1 MiB: what changes in them does not move the rest, so
//! content need not be searched for boundaries. Holes are found by asking the file system.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::Arc,
};

use rustix::{fs::SeekFrom as Hole, io::Errno};

use super::{
    SnapshotWriter,
    dir::Content,
    intake::{Intake, IntakeError},
};
use crate::{VaultError, id::Id, repository::blocking};

const CHUNK: u64 = 1 << 20;

impl SnapshotWriter {
    pub(super) async fn try_add_image(
        &mut self,
        name: &str,
        file: File,
    ) -> Result<u64, VaultError> {
        self.intake.writer.check()?;
        let mut node = self.stream_node(name)?;
        let content = Arc::new(Content::default());
        let reading = Image {
            intake: self.intake.clone(),
            content: content.clone(),
            file,
            hole: None,
        };
        let label = name.to_owned();
        node.size = blocking(move || {
            let read = reading.read();
            read.map_err(|error| error.of(|reason| VaultError::source(label, reason)))
        })
        .await?;
        self.intake.writer.until_idle().await;
        self.intake.writer.check()?;
        node.content = content.take();
        self.place_stream(name, node)
    }
}

struct Image {
    intake: Intake,
    content: Arc<Content>,
    file: File,
    /// The id of a chunk of zeros, once one was handed in.
    hole: Option<Id>,
}

impl Image {
    fn read(mut self) -> Result<u64, IntakeError> {
        // Also right for block devices, whose `stat` says 0.
        let size = self
            .file
            .seek(SeekFrom::End(0))
            .map_err(IntakeError::Read)?;
        let mut offset = 0;
        let mut data_from = 0;
        while offset < size {
            if data_from < offset + CHUNK {
                data_from = self.next_data(offset, size);
            }
            let length = CHUNK.min(size - offset);
            let stored = if length == CHUNK && data_from >= offset + CHUNK {
                self.hole()
            } else {
                self.chunk(offset, length as usize)
            };
            stored?;
            offset += length;
        }
        Ok(size)
    }

    /// Where the next data are, as far as the file system can tell.
    fn next_data(&self, offset: u64, size: u64) -> u64 {
        match rustix::fs::seek(&self.file, Hole::Data(offset)) {
            Ok(at) => at,
            Err(Errno::NXIO) => size,
            Err(_) => offset,
        }
    }

    fn chunk(&self, offset: u64, length: usize) -> Result<(), IntakeError> {
        let mut data = vec![0; length];
        self.file
            .read_exact_at(&mut data, offset)
            .map_err(|error| {
                IntakeError::Read(match error.kind() {
                    io::ErrorKind::UnexpectedEof => io::Error::other(format!(
                        "it was cut short while it was read, at byte {offset}"
                    )),
                    _ => error,
                })
            })?;
        let slot = self.content.next_blob();
        self.intake
            .blob(data, self.content.clone(), slot)
            .map_err(IntakeError::Vault)
    }

    fn hole(&mut self) -> Result<(), IntakeError> {
        let slot = self.content.next_blob();
        let taken = match self.hole {
            Some(id) => {
                self.intake.writer.control.progress.add_bytes(CHUNK);
                let Intake { shared, writer, .. } = &self.intake;
                shared.submit_known(id, self.content.clone(), slot, writer)
            }
            None => {
                let zeros = vec![0; CHUNK as usize];
                self.hole = Some(Id::of(&zeros));
                self.intake.blob(zeros, self.content.clone(), slot)
            }
        };
        taken.map_err(IntakeError::Vault)
    }
}
