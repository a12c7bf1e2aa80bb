//! Takes in streams: an async reader on one side, the chunker (CPU work) on a thread of its own on the other.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::{Placed, SnapshotWriter, dir::Content};
use crate::{VaultError, repository::blocking};

/// So much is read at once, and so many such pieces wait for the chunker.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// The chunker's side of the channel. It ends only if the reader ended: a sender that vanishes without
/// saying so is an error.
struct Pieces {
    pieces: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.ended = true,
                None => return Err(io::Error::other("the stream was given up")),
            }
        }
        let n = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

impl SnapshotWriter {
    pub(super) async fn try_add_stream(
        &mut self,
        name: &str,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<u64, VaultError> {
        self.intake.writer.check()?;
        let mut node = self.stream_node(name)?;
        let content = Arc::new(Content::default());
        let (sender, pieces) = mpsc::channel(PIECES);
        let source = Pieces {
            pieces,
            piece: Bytes::new(),
            ended: false,
        };
        let intake = self.intake.clone();
        let sink = content.clone();
        let label = name.to_owned();
        let chunked = blocking(move || {
            intake
                .cut(source, &mut Vec::new(), &sink, || sink.next_blob())
                .map_err(|error| error.of(|reason| VaultError::source(&label, reason)))
        });
        let (fed, chunked) = tokio::join!(self.feed(name, reader, sender), chunked);
        // If the reader failed, that is why the chunker did.
        fed?;
        node.size = chunked?;
        self.intake.writer.until_idle().await;
        self.intake.writer.check()?;
        node.content = content.take();
        self.place_stream(name, node)
    }

    pub(super) fn place_stream(
        &mut self,
        name: &str,
        node: crate::node::Node,
    ) -> Result<u64, VaultError> {
        let size = node.size;
        self.totals.files += 1;
        self.totals.bytes += size;
        self.paths.push(format!("/{name}"));
        self.layout.insert(Placed {
            above: Vec::new(),
            node,
        })?;
        Ok(size)
    }

    async fn feed(
        &self,
        name: &str,
        mut reader: impl AsyncRead + Send + Unpin,
        sender: mpsc::Sender<Option<Bytes>>,
    ) -> Result<(), VaultError> {
        let cancel = &self.intake.writer.control.cancel;
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            let ended = tokio::select! {
                () = cancel.cancelled() => return Err(VaultError::Cancelled),
                filled = fill(&mut reader, &mut piece) => {
                    filled.map_err(|error| VaultError::source(name, error))?
                }
            };
            if !piece.is_empty() && sender.send(Some(piece.freeze())).await.is_err() {
                // The chunker has stopped, and says why.
                return Ok(());
            }
            if ended {
                sender.send(None).await.ok();
                return Ok(());
            }
        }
    }
}

/// Fills a piece; `true`: the reader is at its end.
async fn fill(reader: &mut (impl AsyncRead + Unpin), piece: &mut BytesMut) -> io::Result<bool> {
    while piece.len() < PIECE {
        let room = PIECE - piece.len();
        if reader.take(room as u64).read_buf(piece).await? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
