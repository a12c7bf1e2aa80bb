//! Blobs on their way into a pack and out of it: hashed, compressed, sealed.

use std::io::Read as _;

use zstd::bulk::{Compressor, Decompressor};

use crate::{
    VaultError,
    crypto::{Crypto, NONCE, OVERHEAD},
    id::Id,
    index::Location,
    repository::FileKind,
};

/// Blobs below this size are compressed without asking.
const SAMPLED_FROM: usize = 128 << 10;
const SAMPLE: usize = 8 << 10;
const SAMPLES: usize = 4;

/// Compresses and seals. One per thread.
pub(crate) struct Encoder {
    compressor: Compressor<'static>,
    buffer: Vec<u8>,
    sample: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(level: i32) -> Result<Self, VaultError> {
        let compressor = Compressor::new(level)
            .map_err(|error| VaultError::Internal(format!("zstd: {error}")))?;
        Ok(Self {
            compressor,
            buffer: Vec::new(),
            sample: Vec::new(),
        })
    }

    /// The sealed blob, and its plain length if it was compressed.
    pub(crate) fn encode(
        &mut self,
        data: &[u8],
        crypto: &Crypto,
    ) -> Result<(&[u8], Option<u32>), VaultError> {
        let plain = match self.compress(data) {
            true => u32::try_from(data.len()).ok(),
            false => None,
        };
        if plain.is_none() {
            self.buffer.clear();
            self.buffer.resize(NONCE, 0);
            self.buffer.extend_from_slice(data);
        }
        crypto.seal_in_place(&mut self.buffer)?;
        Ok((&self.buffer, plain))
    }

    /// Compresses into the buffer, after the room for a nonce; `false` if that does not pay.
    fn compress(&mut self, data: &[u8]) -> bool {
        if data.is_empty() || !self.looks_compressible(data) {
            return false;
        }
        let room = NONCE + zstd::zstd_safe::compress_bound(data.len()) + OVERHEAD;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        // Without room for a result that pays, zstd stops early.
        let end = self.buffer.len().min(NONCE + data.len());
        let target = &mut self.buffer[NONCE..end];
        match self.compressor.compress_to_buffer(data, target) {
            Ok(size) if size + 4 < data.len() => {
                self.buffer.truncate(NONCE + size);
                true
            }
            _ => false,
        }
    }

    fn looks_compressible(&mut self, data: &[u8]) -> bool {
        if data.len() < SAMPLED_FROM {
            return true;
        }
        self.sample.clear();
        for n in 0..SAMPLES {
            let at = n * (data.len() - SAMPLE) / (SAMPLES - 1);
            self.sample.extend_from_slice(&data[at..at + SAMPLE]);
        }
        let room = zstd::zstd_safe::compress_bound(self.sample.len());
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let size = self
            .compressor
            .compress_to_buffer(&self.sample[..], &mut self.buffer[..]);
        // Four short pieces compress worse than the whole does.
        size.map_or(true, |size| size < self.sample.len() / 64 * 63)
    }
}

/// Opens and decompresses. One per thread.
pub(crate) struct Decoder {
    decompressor: Decompressor<'static>,
    opened: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Result<Self, VaultError> {
        let decompressor =
            Decompressor::new().map_err(|error| VaultError::Internal(format!("zstd: {error}")))?;
        Ok(Self {
            decompressor,
            opened: Vec::new(),
        })
    }

    /// The blob that `sealed` holds, compared with its id.
    pub(crate) fn decode(
        &mut self,
        id: &Id,
        sealed: &[u8],
        at: &Location,
        crypto: &Crypto,
    ) -> Result<Vec<u8>, VaultError> {
        let damaged = |reason: String| {
            VaultError::damaged(
                FileKind::Pack.object(&at.pack),
                format!("blob {id} at {}: {reason}", at.offset),
            )
        };
        if !crypto.open_into(sealed, &mut self.opened) {
            return Err(damaged("it was changed after it was written".to_owned()));
        }
        let plain = match at.plain {
            None => std::mem::take(&mut self.opened),
            Some(length) => self
                .unpack(length)
                .map_err(|reason| damaged(format!("it cannot be decompressed: {reason}")))?,
        };
        if Id::of(&plain) != *id {
            return Err(damaged("its content does not match its hash".to_owned()));
        }
        Ok(plain)
    }
}

impl Decoder {
    /// Unpacks what was opened to so many bytes. Of much the memory grows with what comes: the length is what
    /// somebody says.
    fn unpack(&mut self, length: u32) -> Result<Vec<u8>, String> {
        const AT_ONCE: u32 = 16 << 20;
        if length <= AT_ONCE {
            let unpacked = self.decompressor.decompress(&self.opened, length as usize);
            return unpacked.map_err(|error| error.to_string());
        }
        let unpacking = zstd::stream::Decoder::new(&self.opened[..]);
        let mut unpacked = Vec::new();
        let read =
            unpacking.and_then(|from| from.take(u64::from(length) + 1).read_to_end(&mut unpacked));
        read.map_err(|error| error.to_string())?;
        match unpacked.len() <= length as usize {
            true => Ok(unpacked),
            false => Err(format!(
                "it has more than the {length} bytes that the index says"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RawKey;

    #[test]
    fn blobs_survive_and_only_what_pays_is_compressed() {
        let crypto = Crypto::new(&RawKey::random().unwrap());
        let mut encoder = Encoder::new(1).unwrap();
        let mut decoder = Decoder::new().unwrap();
        let mut noise = vec![0; 300_000];
        crate::crypto::random(&mut noise).unwrap();
        let text = b"all work and no play ".repeat(20_000);
        for (data, compressed) in [
            (&noise[..], false),
            (&text, true),
            (b"", false),
            (b"x", false),
            (&noise[..999], false),
            (&text, true),
        ] {
            let (sealed, plain) = encoder.encode(data, &crypto).unwrap();
            assert_eq!(plain.is_some(), compressed, "{}", data.len());
            assert!(sealed.len() <= data.len() + OVERHEAD);
            let id = Id::of(data);
            let at = Location {
                pack: id,
                offset: 0,
                length: 0,
                plain,
                pack_end: 0,
            };
            assert_eq!(decoder.decode(&id, sealed, &at, &crypto).unwrap(), data);
            let other = Id([0; 32]);
            assert!(decoder.decode(&other, sealed, &at, &crypto).is_err());
        }
    }

    /// The length is the index's word, the content the pack's.
    #[test]
    fn a_claimed_length_is_no_reason_to_allocate() {
        let mut decoder = Decoder::new().unwrap();
        decoder.opened = zstd::stream::encode_all(&b"small"[..], 3).unwrap();
        let unpacked = decoder.unpack(u32::MAX).unwrap();
        assert_eq!(unpacked, b"small");
        assert!(unpacked.capacity() < 1 << 20);
        decoder.opened = zstd::stream::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
        for claimed in [1 << 10, 20 << 20] {
            assert!(decoder.unpack(claimed).is_err());
        }
    }
}
