//! Reading a piece of a sealed file: only the segments that it covers are read and opened.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::file::{OpenError, check_size, forged, read_prelude};
use super::header::{self, Header};
use super::place::{Input, InputError};
use super::stream::{FileCipher, Layout, STREAM_HEADER_LENGTH, StreamHeader};
use crate::secret::Key;

/// Sealed bytes that are fetched at once: a range of some megabytes over HTTP takes some requests, not hundreds.
const FETCH_SEGMENTS: u64 = 16;

/// Anything that can be read at an offset: a file, a slice, or ranges over HTTP.
pub trait ReadAt {
    /// Reads at `offset` into `buffer`; fewer bytes are fine, none only at the end.
    ///
    /// # Errors
    /// What the source answers.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes there are.
    ///
    /// # Errors
    /// What the source answers.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

/// A sealed file that is read in pieces.
pub struct RangeReader<R> {
    source: R,
    /// What it is called in errors.
    name: Input,
    bytes: [u8; header::LENGTH],
    header: Header,
    stream: StreamHeader,
    file_bytes: u64,
    plaintext_bytes: u64,
    cipher: Option<FileCipher>,
}

impl<R: ReadAt> RangeReader<R> {
    /// Reads and checks all that can be checked without a key. `name` is what errors call the file.
    ///
    /// # Errors
    /// Among the [`OpenError`]s, those that need no key.
    pub fn open(source: R, name: Input) -> Result<Self, OpenError> {
        let read_error = |source| {
            OpenError::Input(InputError::Read {
                input: name.clone(),
                source,
            })
        };
        let file_bytes = source.size().map_err(read_error)?;
        let mut start = [0; header::LENGTH + STREAM_HEADER_LENGTH];
        let filled = fill(&source, &mut start, 0).map_err(read_error)?;
        let (bytes, header, stream) = read_prelude(&name, &start[..filled])?;
        let plaintext_bytes = check_size(&name, file_bytes)?;
        Ok(Self {
            source,
            name,
            bytes,
            header,
            stream,
            file_bytes,
            plaintext_bytes,
            cipher: None,
        })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The size of the plaintext, by the size of the file: see [`RangeReader::read`] on files that were cut.
    pub fn plaintext_bytes(&self) -> u64 {
        self.plaintext_bytes
    }

    /// Gives it the key that its header asks for. Whether it is the right one shows at the first read.
    ///
    /// # Errors
    /// [`OpenError::Cipher`], which no input causes.
    pub fn unlock(mut self, key: &Key) -> Result<Self, OpenError> {
        let cipher = FileCipher::derive(key, &self.bytes, &self.stream);
        self.cipher = Some(cipher.map_err(|source| OpenError::Cipher {
            file: self.name.clone(),
            source,
        })?);
        Ok(self)
    }

    /// Reads up to `length` bytes at `offset`, fewer only at the end, as `pread` does.
    ///
    /// That a file ends where it seems to, its last segment alone can tell: a read that starts at the end or behind
    /// it verifies that one before it answers that there is nothing. A range vouches for its own bytes alone.
    ///
    /// # Errors
    /// Reading failed, a segment does not verify, or no key was given.
    pub fn read(&self, offset: u64, length: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let layout = Layout::SUITE_1;
        let end = offset.saturating_add(length as u64).min(self.plaintext_bytes);
        let last = layout.segment_of(self.plaintext_bytes.saturating_sub(1));
        let (first, until) = match offset < end {
            true => (layout.segment_of(offset), layout.segment_of(end - 1)),
            false if offset < self.plaintext_bytes => return Ok(Zeroizing::default()),
            false => (last, last),
        };
        let wanted = end.saturating_sub(offset) as usize;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(wanted));
        let mut from = first;
        while from <= until {
            let to = until.min(from + FETCH_SEGMENTS - 1);
            self.read_segments(from, to, last, &mut |start, piece| {
                let skip = offset.saturating_sub(start).min(piece.len() as u64) as usize;
                let take = (wanted - plaintext.len()).min(piece.len() - skip);
                plaintext.extend_from_slice(&piece[skip..skip + take]);
            })?;
            from = to + 1;
        }
        Ok(plaintext)
    }

    /// Fetches segments at once, opens each, and hands it on with the offset of its plaintext.
    fn read_segments(&self, from: u64, to: u64, last: u64, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), OpenError> {
        let layout = Layout::SUITE_1;
        let read_error = |source| {
            OpenError::Input(InputError::Read {
                input: self.name.clone(),
                source,
            })
        };
        let cipher = self.cipher.as_ref();
        let cipher = cipher.ok_or_else(|| read_error(io::Error::other("no key was given for it")))?;
        let in_file = |segment| (header::LENGTH as u64 + layout.body_start(segment)).min(self.file_bytes);
        let begin = in_file(from);
        let mut sealed = Zeroizing::new(vec![0; (in_file(to + 1) - begin) as usize]);
        let filled = fill(&self.source, &mut sealed, begin).map_err(read_error)?;
        if filled < sealed.len() {
            return Err(OpenError::Input(InputError::Changed {
                input: self.name.clone(),
            }));
        }
        for segment in from..=to {
            let place = (in_file(segment) - begin) as usize..(in_file(segment + 1) - begin) as usize;
            let bytes = place.len() as u64;
            let index = u32::try_from(segment).unwrap_or(u32::MAX);
            let opened = cipher.open(index, segment == last, &mut sealed[place]);
            let opened = opened.map_err(|_| forged(&self.name, segment, bytes))?;
            each(layout.plaintext_start(segment), opened);
        }
        Ok(())
    }
}

/// Reads until all is full or the source ends.
fn fill(source: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
