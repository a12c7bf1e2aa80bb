//! Where content is cut into blobs: FastCDC, seeded by the repository's secret number, 512 KiB to 8 MiB,
//! 1 MiB on average. Boundaries are free in the format, so this need not be restic's Rabin chunker,
//! which costs several times as much.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

pub(crate) const MIN: usize = 512 << 10;
const AVERAGE: usize = 1 << 20;
const MAX: usize = 8 << 20;
/// Usually there is a boundary in so much; more is read only if not.
const FIRST_LOOK: usize = 4 << 20;

/// Finds boundaries.
pub(crate) struct Chunker {
    masks: [u64; 2],
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

/// Why content could not be cut up.
pub(crate) enum ChunkError<E> {
    /// Reading failed.
    Read(io::Error),
    /// The one that takes the chunks failed.
    Taker(E),
}

impl Chunker {
    pub(crate) fn new(seed: u64) -> Self {
        let (strict, loose) = select_masks(AVERAGE, Normalization::Level1);
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Self {
            masks: [strict, loose],
            gear,
            gear_shifted,
        }
    }

    /// The length of the first chunk of `data`; `None` if that cannot be known without more data.
    fn cut(&self, data: &[u8], is_all: bool) -> Option<usize> {
        let [strict, loose] = self.masks;
        let (_, length) = cut_gear(
            data,
            MIN,
            AVERAGE,
            MAX,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        (length > 0 && (length < data.len() || length >= MAX || is_all)).then_some(length)
    }

    /// Reads to the end and hands out chunk after chunk. Answers with the number of bytes.
    pub(crate) fn chunks<E>(
        &self,
        mut source: impl Read,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<u64, ChunkError<E>> {
        let mut window = Window {
            buffer,
            start: 0,
            end: 0,
        };
        let mut look = FIRST_LOOK;
        let mut total = 0;
        let mut is_all = false;
        loop {
            while let Some(length) = self.cut(window.data(), is_all) {
                let chunk = window.data()[..length].to_vec();
                take(chunk).map_err(ChunkError::Taker)?;
                window.start += length;
                total += length as u64;
                look = FIRST_LOOK;
            }
            if is_all {
                return Ok(total);
            }
            is_all = window.fill(&mut source, look).map_err(ChunkError::Read)?;
            look = (look * 2).min(MAX + 1);
        }
    }
}

/// What was read and not yet cut.
struct Window<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    end: usize,
}

impl Window<'_> {
    fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads until there are `size` bytes; `true`: the source is at its end.
    fn fill(&mut self, source: &mut impl Read, size: usize) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        while self.end < size {
            match source.read(&mut self.buffer[self.end..size]) {
                Ok(0) => return Ok(true),
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use fastcdc::v2020::FastCDC;

    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buffer.len()).min(self.0.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            self.1 = self.1 % 700_000 + 13;
            Ok(n)
        }
    }

    fn lengths(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
        let mut all = Vec::new();
        let mut lengths = Vec::new();
        let total = chunker.chunks(Slow(data, 1), &mut Vec::new(), |chunk| {
            lengths.push(chunk.len());
            all.extend_from_slice(&chunk);
            Ok::<_, Infallible>(())
        });
        assert!(matches!(total, Ok(n) if n == data.len() as u64));
        assert!(all == data);
        lengths
    }

    #[test]
    fn reading_in_pieces_cuts_as_if_all_were_there() {
        let mut data = vec![0; 40 << 20];
        crate::crypto::random(&mut data).unwrap();
        data[10 << 20..30 << 20].fill(0);
        let chunker = Chunker::new(77);
        for data in [
            &data[..],
            &data[..(1 << 20) + 1],
            &data[..MIN],
            &data[..MIN + 1],
            b"x",
            b"",
        ] {
            let whole =
                FastCDC::with_level_and_seed(data, MIN, AVERAGE, MAX, Normalization::Level1, 77);
            let expected: Vec<_> = whole.map(|chunk| chunk.length).collect();
            assert_eq!(lengths(&chunker, data), expected);
        }
    }

    #[test]
    fn an_insertion_moves_few_boundaries() {
        let mut data = vec![0; 20 << 20];
        crate::crypto::random(&mut data).unwrap();
        let chunker = Chunker::new(5);
        let before = lengths(&chunker, &data);
        data.splice(3_000_000..3_000_000, *b"inserted");
        let after = lengths(&chunker, &data);
        let same = before
            .iter()
            .rev()
            .zip(after.iter().rev())
            .take_while(|(a, b)| a == b);
        assert!(same.count() + 4 >= before.len());
    }
}
