//! The pipeline: chunks of some segments are read, sealed or opened where they lie, and written.
//!
//! Every worker does all three for the chunk that it took, so that with two of them reading, cryptography and writing
//! overlap without a queue, and memory is a chunk for each worker whatever the size of the file. Where both sides have
//! offsets (regular files), workers share nothing but a counter; a side without offsets (a pipe) is used in turn.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::stream::{CipherError, FileCipher, Layout, STREAM_HEADER_LENGTH, TAG_LENGTH};

/// Bytes of ciphertext in a chunk: few enough to stay in a core's cache between reading and writing, enough that
/// threads seldom meet where they take turns.
const CHUNK_BYTES: u64 = 512 * 1024;

/// The same where one side has no offsets: workers wait there for their turn at reading and at writing, the shorter the
/// sooner.
const CHUNK_BYTES_IN_TURN: u64 = 128 * 1024;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Seal,
    Open,
}

/// Why a pipeline stopped. Files have their names one level up.
#[derive(Debug)]
pub(super) enum Stop {
    Read(io::Error),
    Write(io::Error),
    /// A regular input ended before its size.
    Changed,
    /// The input has more segments than the format can count.
    Large,
    /// Segment (index, sealed bytes of it that there are) does not verify.
    Forged(u64, u64),
    /// The input ends this many bytes into this segment, where no file ends.
    Cut(u64, u64),
    Cipher(CipherError),
    Cancelled,
}

/// What came of a whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) plaintext_bytes: u64,
    pub(super) sealed_bytes: u64,
}

/// Chunks of a layout. A chunk lies in memory as in the body: segment j of it at j segment sizes, tags in their place,
/// so plaintext has gaps of a tag. Chunk 0 has the stream header's room in front, for the same arithmetic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    layout: Layout,
    segments: u64,
}

impl Chunks {
    /// Chunks that suit files, or streams.
    pub(super) fn of(layout: Layout, is_in_turn: bool) -> Self {
        let bytes = if is_in_turn { CHUNK_BYTES_IN_TURN } else { CHUNK_BYTES };
        Self::with_segments(layout, bytes / layout.segment_size())
    }

    pub(super) fn with_segments(layout: Layout, segments: u64) -> Self {
        Self {
            layout,
            // One call reads or writes a chunk, and the system takes 1024 pieces in a call.
            segments: segments.clamp(1, 1024),
        }
    }

    fn buffer_bytes(self) -> u64 {
        self.segments * self.layout.segment_size()
    }

    /// How far one chunk is from the next, on the side of the plaintext or of the body.
    fn stride(self, side: Side) -> u64 {
        match side {
            Side::Plain => self.segments * self.layout.segment_plaintext(),
            Side::Sealed => self.buffer_bytes(),
        }
    }

    /// Where a chunk begins in the plaintext, or behind the stream header.
    fn start(self, side: Side, chunk: u64) -> u64 {
        (chunk * self.stride(side)).saturating_sub(STREAM_HEADER_LENGTH as u64)
    }

    fn capacity(self, side: Side, chunk: u64) -> u64 {
        self.start(side, chunk + 1) - self.start(side, chunk)
    }

    /// How many chunks hold so many bytes.
    fn count(self, side: Side, bytes: u64) -> u64 {
        (bytes + STREAM_HEADER_LENGTH as u64).div_ceil(self.stride(side)).max(1)
    }

    /// The pieces of a chunk in memory, as one side sees them: the plaintext in pieces, the ciphertext in one.
    fn pieces(self, side: Side, chunk: u64, buffer: &mut [u8]) -> Vec<&mut [u8]> {
        let lead = if chunk == 0 { STREAM_HEADER_LENGTH } else { 0 };
        match side {
            Side::Sealed => vec![&mut buffer[lead..]],
            Side::Plain => {
                let segments = buffer.chunks_mut(self.layout.segment_size() as usize);
                let plain = segments.enumerate().map(|(number, segment)| {
                    let end = segment.len() - TAG_LENGTH;
                    &mut segment[if number == 0 { lead } else { 0 }..end]
                });
                plain.collect()
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Plain,
    Sealed,
}

impl Direction {
    fn input(self) -> Side {
        match self {
            Self::Seal => Side::Plain,
            Self::Open => Side::Sealed,
        }
    }

    fn output(self) -> Side {
        match self {
            Self::Seal => Side::Sealed,
            Self::Open => Side::Plain,
        }
    }
}

/// Where bytes come from. What was read before the first chunk (header, stream header) is not counted.
pub(super) enum Source<'a> {
    /// A regular file: `total` bytes from offset `base`.
    At { file: &'a File, base: u64, total: u64 },
    /// Anything else, read in turn to its end.
    InTurn(Box<dyn Read + Send + 'a>),
}

/// Where bytes go.
pub(super) enum Sink<'a> {
    /// A regular file, from offset `base`.
    At { file: &'a File, base: u64 },
    /// Anything else, written in turn.
    InTurn(&'a File),
    /// Whatever takes bytes, in turn.
    Writer(&'a WriteFn<'a>),
}

/// Takes bytes, from whatever thread, and answers how many.
pub(super) type WriteFn<'a> = dyn Fn(&[u8]) -> io::Result<usize> + Sync + 'a;

/// A [`WriteFn`] as a writer.
pub(super) struct Writing<'a>(pub(super) &'a WriteFn<'a>);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the caller wants to be told, and to tell.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    /// Called with the plaintext bytes done so far.
    pub(super) progress: Option<&'a (dyn Fn(u64) + Sync)>,
    pub(super) cancel: Option<&'a AtomicBool>,
}

/// A chunk that a worker took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    chunk: u64,
    bytes: u64,
    last: bool,
}

struct InTurn<'a> {
    reader: Box<dyn Read + Send + 'a>,
    next: u64,
    /// The byte behind the last chunk: only who saw it knows that the chunk before was not the last.
    ahead: Option<u8>,
    ended: bool,
}

/// Whose turn it is to write.
#[derive(Default)]
struct Turn {
    next: u64,
    failed: bool,
}

struct Run<'a> {
    chunks: Chunks,
    direction: Direction,
    cipher: &'a FileCipher,
    source: SourceState<'a>,
    sink: Sink<'a>,
    watch: Watch<'a>,
    stopped: AtomicBool,
    turn: Mutex<Turn>,
    turned: Condvar,
    /// Held while a chunk is written at its offset. The system lets one thread at a time write to a file, and who waits
    /// for that inside the system burns its processor.
    writing: Mutex<()>,
    plaintext_bytes: AtomicU64,
    sealed_bytes: AtomicU64,
    written_in_turn: AtomicU64,
}

enum SourceState<'a> {
    At {
        file: &'a File,
        base: u64,
        total: u64,
        chunks: u64,
        next: AtomicU64,
    },
    InTurn(Mutex<InTurn<'a>>),
}

/// A failure, with the chunk that it happened in, so that of several the first in the file is reported.
struct Failed {
    chunk: u64,
    stop: Stop,
}

/// What a run that failed had already written in turn, all of it good.
pub(super) struct Failure {
    pub(super) stop: Stop,
    pub(super) written: u64,
}

/// Moves everything from `source` to `sink`, sealing or opening it, on up to `threads` threads.
///
/// Of several failures the first in the file is answered, whatever the workers' order; in turn, everything before it
/// has been written and nothing else.
pub(super) fn run(
    chunks: Chunks,
    direction: Direction,
    cipher: &FileCipher,
    source: Source<'_>,
    sink: Sink<'_>,
    threads: usize,
    watch: Watch<'_>,
) -> Result<Totals, Failure> {
    let (source, most) = match source {
        Source::At { file, base, total } => {
            let count = chunks.count(direction.input(), total);
            let next = AtomicU64::new(0);
            let state = SourceState::At {
                file,
                base,
                total,
                chunks: count,
                next,
            };
            (state, usize::try_from(count).unwrap_or(usize::MAX))
        }
        Source::InTurn(reader) => {
            let state = InTurn {
                reader,
                next: 0,
                ahead: None,
                ended: false,
            };
            (SourceState::InTurn(Mutex::new(state)), usize::MAX)
        }
    };
    let run = Run {
        chunks,
        direction,
        cipher,
        source,
        sink,
        watch,
        stopped: AtomicBool::new(false),
        turn: Mutex::default(),
        turned: Condvar::new(),
        writing: Mutex::default(),
        plaintext_bytes: AtomicU64::new(0),
        sealed_bytes: AtomicU64::new(0),
        written_in_turn: AtomicU64::new(0),
    };
    run.on_threads(threads.clamp(1, most)).map_err(|stop| Failure {
        stop,
        written: run.written_in_turn.load(Ordering::Relaxed),
    })?;
    Ok(Totals {
        plaintext_bytes: run.plaintext_bytes.load(Ordering::Relaxed),
        sealed_bytes: run.sealed_bytes.load(Ordering::Relaxed),
    })
}

impl Run<'_> {
    fn on_threads(&self, threads: usize) -> Result<(), Stop> {
        let first = Mutex::new(None::<Failed>);
        let work = || {
            let Err(failed) = self.work() else { return };
            let mut first = lock(&first);
            if first.as_ref().is_none_or(|before| failed.chunk < before.chunk) {
                *first = Some(failed);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // A system without another thread to give is no reason to fail: this one does the work alone.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(failed) => Err(failed.stop),
        }
    }

    /// One worker: takes chunks until there are none.
    fn work(&self) -> Result<(), Failed> {
        let mut buffer = Zeroizing::new(Vec::new());
        let bytes = self.buffer_bytes();
        buffer.resize(bytes, 0);
        while let Some(taken) = self.take(&mut buffer)? {
            let fail = |stop| Failed {
                chunk: taken.chunk,
                stop,
            };
            let done = self.transform(taken, &mut buffer);
            let written = self.put(taken.chunk, &mut buffer, done).map_err(|stop| {
                self.stopped.store(true, Ordering::Relaxed);
                fail(stop)
            })?;
            let Some(totals) = written else { break };
            self.sealed_bytes.fetch_add(totals.sealed_bytes, Ordering::Relaxed);
            let before = self
                .plaintext_bytes
                .fetch_add(totals.plaintext_bytes, Ordering::Relaxed);
            if let Some(progress) = self.watch.progress {
                progress(before + totals.plaintext_bytes);
            }
        }
        Ok(())
    }

    /// A buffer is no larger than what a small file needs: wiping it costs.
    fn buffer_bytes(&self) -> usize {
        let whole = self.chunks.buffer_bytes();
        let needed = match &self.source {
            SourceState::At { total, .. } if *total < whole => {
                let segment = self.chunks.layout.segment_size();
                (total + STREAM_HEADER_LENGTH as u64 + TAG_LENGTH as u64 * (self.chunks.segments + 1))
                    .next_multiple_of(segment)
                    .min(whole)
            }
            _ => whole,
        };
        needed as usize
    }

    /// Takes the next chunk and reads it. None at the end, and after a failure elsewhere.
    fn take(&self, buffer: &mut [u8]) -> Result<Option<Taken>, Failed> {
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let side = self.direction.input();
        let cancelled = || self.watch.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        let (chunk, read) = match &self.source {
            SourceState::At {
                file,
                base,
                total,
                chunks,
                next,
            } => {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= *chunks {
                    return Ok(None);
                }
                let start = self.chunks.start(side, chunk);
                let bytes = self.chunks.capacity(side, chunk).min(total - start);
                let pieces = self.chunks.pieces(side, chunk, buffer);
                let taken = Taken {
                    chunk,
                    bytes,
                    last: chunk + 1 == *chunks,
                };
                (chunk, read_at(file, pieces, bytes, base + start).map(|()| Some(taken)))
            }
            SourceState::InTurn(state) => {
                let mut state = lock(state);
                // It may have become known while this worker waited for its turn.
                if self.stopped.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let chunk = state.next;
                let pieces = self.chunks.pieces(side, chunk, buffer);
                (chunk, state.take(pieces))
            }
        };
        let taken = match read {
            Ok(_) if cancelled() => Err(Stop::Cancelled),
            Ok(Some(taken)) => self.countable(taken).map(Some),
            other => other,
        };
        taken.map_err(|stop| self.fail_in_turn(chunk, stop))
    }

    /// A chunk whose last segment still has an index of 32 bits.
    fn countable(&self, taken: Taken) -> Result<Taken, Stop> {
        let most = 1 << 32;
        let fits = taken
            .chunk
            .checked_add(1)
            .and_then(|end| end.checked_mul(self.chunks.segments));
        let fits = fits.is_some_and(|end| end <= most);
        if fits {
            return Ok(taken);
        }
        let layout = self.chunks.layout;
        let end = self.chunks.start(self.direction.input(), taken.chunk) + taken.bytes;
        let counted = match self.direction {
            Direction::Seal => layout.segments(end).is_some(),
            Direction::Open => layout.plaintext_size(end + STREAM_HEADER_LENGTH as u64).is_ok(),
        };
        if counted { Ok(taken) } else { Err(Stop::Large) }
    }

    /// What failed before it could be written still waits for its turn, so that all that is before it gets written.
    fn fail_in_turn(&self, chunk: u64, stop: Stop) -> Failed {
        self.stopped.store(true, Ordering::Relaxed);
        if !matches!(self.sink, Sink::At { .. }) && self.await_turn(chunk) {
            self.end_turn(true);
        }
        Failed { chunk, stop }
    }

    /// Seals or opens a chunk where it lies. Answers what is good, and why no more.
    fn transform(&self, taken: Taken, buffer: &mut [u8]) -> (Totals, Result<(), Stop>) {
        let mut totals = Totals::default();
        let mut left = taken.bytes;
        let first = taken.chunk * self.chunks.segments;
        let size = self.chunks.layout.segment_size() as usize;
        for (number, place) in (first..).zip(buffer.chunks_mut(size)) {
            let lead = if number == 0 { STREAM_HEADER_LENGTH } else { 0 };
            let tag = match self.direction {
                Direction::Seal => TAG_LENGTH as u64,
                Direction::Open => 0,
            };
            let room = (place.len() - lead) as u64 - tag;
            let here = left.min(room);
            left -= here;
            let last = taken.last && left == 0;
            let bytes = &mut place[lead..lead + (here + tag) as usize];
            match self.segment(number, last, bytes) {
                Err(stop) => return (totals, Err(stop)),
                Ok(plaintext) => {
                    totals.plaintext_bytes += plaintext;
                    totals.sealed_bytes += plaintext + TAG_LENGTH as u64;
                }
            }
            if left == 0 {
                break;
            }
        }
        (totals, Ok(()))
    }

    fn segment(&self, number: u64, last: bool, bytes: &mut [u8]) -> Result<u64, Stop> {
        let index = u32::try_from(number).map_err(|_| Stop::Large)?;
        let sealed = bytes.len() as u64;
        match self.direction {
            Direction::Seal => {
                let (plaintext, tag) = bytes.split_at_mut(bytes.len() - TAG_LENGTH);
                tag.copy_from_slice(&self.cipher.seal(index, last, plaintext).map_err(Stop::Cipher)?);
                Ok(plaintext.len() as u64)
            }
            // An empty segment behind others is one more way to write the same plaintext: no file has it.
            Direction::Open if sealed < TAG_LENGTH as u64 || (number > 0 && sealed == TAG_LENGTH as u64) => {
                Err(Stop::Cut(number, sealed))
            }
            Direction::Open => match self.cipher.open(index, last, bytes) {
                Ok(plaintext) => Ok(plaintext.len() as u64),
                Err(_) => Err(Stop::Forged(number, sealed)),
            },
        }
    }

    /// Writes what is good of a chunk. None where an earlier chunk failed, and this one is not wanted any more.
    fn put(
        &self,
        chunk: u64,
        buffer: &mut [u8],
        (totals, done): (Totals, Result<(), Stop>),
    ) -> Result<Option<Totals>, Stop> {
        let side = self.direction.output();
        let bytes = match self.direction {
            Direction::Seal => totals.sealed_bytes,
            Direction::Open => totals.plaintext_bytes,
        };
        match &self.sink {
            Sink::At { file, base } => {
                done?;
                let pieces = self.chunks.pieces(side, chunk, buffer);
                let _alone = lock(&self.writing);
                write_at(file, pieces, bytes, base + self.chunks.start(side, chunk)).map_err(Stop::Write)?;
            }
            Sink::InTurn(_) | Sink::Writer(_) => {
                if !self.await_turn(chunk) {
                    return Ok(None);
                }
                let pieces = self.chunks.pieces(side, chunk, buffer);
                let (written, result) = match &self.sink {
                    Sink::Writer(write) => write_all(Writing(*write), pieces, bytes),
                    Sink::InTurn(file) | Sink::At { file, .. } => write_all(*file, pieces, bytes),
                };
                self.written_in_turn.fetch_add(written, Ordering::Relaxed);
                let result = result.map_err(Stop::Write).and(done);
                self.end_turn(result.is_err());
                result?;
            }
        }
        Ok(Some(totals))
    }

    /// Waits until all chunks before this one are written; false where one of them failed.
    fn await_turn(&self, chunk: u64) -> bool {
        let turn = lock(&self.turn);
        let waiting = |turn: &mut Turn| !turn.failed && turn.next != chunk;
        let turn = self.turned.wait_while(turn, waiting);
        !turn.unwrap_or_else(PoisonError::into_inner).failed
    }

    fn end_turn(&self, failed: bool) {
        let mut turn = lock(&self.turn);
        turn.next += 1;
        turn.failed = failed;
        self.turned.notify_all();
    }
}

impl InTurn<'_> {
    /// Reads the next chunk, and a byte more.
    fn take(&mut self, mut pieces: Vec<&mut [u8]>) -> Result<Option<Taken>, Stop> {
        if self.ended {
            return Ok(None);
        }
        let mut bytes = 0;
        if let (Some(byte), Some(piece)) = (self.ahead.take(), pieces.first_mut()) {
            let (front, rest) = std::mem::take(piece).split_at_mut(1);
            front[0] = byte;
            *piece = rest;
            bytes = 1;
        }
        let wanted = bytes + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        bytes += self.fill(&mut pieces).map_err(Stop::Read)?;
        self.ended = bytes < wanted || !self.look_ahead().map_err(Stop::Read)?;
        self.next += 1;
        Ok(Some(Taken {
            chunk: self.next - 1,
            bytes,
            last: self.ended,
        }))
    }

    /// Reads until all is full or the input ends.
    fn fill(&mut self, pieces: &mut [&mut [u8]]) -> io::Result<u64> {
        let mut slices = pieces
            .iter_mut()
            .map(|piece| IoSliceMut::new(piece))
            .collect::<Vec<_>>();
        let mut slices = slices.as_mut_slice();
        let mut bytes = 0;
        IoSliceMut::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.reader.read_vectored(slices) {
                Ok(0) => break,
                Ok(read) => {
                    bytes += read as u64;
                    IoSliceMut::advance_slices(&mut slices, read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    fn look_ahead(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            match self.reader.read(&mut byte) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.ahead = Some(byte[0]);
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first `bytes` of some pieces.
fn first_bytes(pieces: Vec<&mut [u8]>, mut bytes: u64) -> impl Iterator<Item = &mut [u8]> {
    pieces.into_iter().map_while(move |piece| {
        let here = bytes.min(piece.len() as u64);
        bytes -= here;
        (here > 0).then(|| &mut piece[..here as usize])
    })
}

fn read_at(file: &File, pieces: Vec<&mut [u8]>, bytes: u64, mut offset: u64) -> Result<(), Stop> {
    let mut slices = first_bytes(pieces, bytes).map(IoSliceMut::new).collect::<Vec<_>>();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        match rustix::io::preadv(file, slices, offset) {
            // The size said that there was more.
            Ok(0) => return Err(Stop::Changed),
            Ok(read) => {
                offset += read as u64;
                IoSliceMut::advance_slices(&mut slices, read);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Stop::Read(error.into())),
        }
    }
    Ok(())
}

fn write_at(file: &File, pieces: Vec<&mut [u8]>, bytes: u64, mut offset: u64) -> io::Result<()> {
    let mut slices = first_bytes(pieces, bytes)
        .map(|piece| IoSlice::new(piece))
        .collect::<Vec<_>>();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes in turn; answers also how much was written before a failure.
fn write_all(mut file: impl Write, pieces: Vec<&mut [u8]>, bytes: u64) -> (u64, io::Result<()>) {
    let mut slices = first_bytes(pieces, bytes)
        .map(|piece| IoSlice::new(piece))
        .collect::<Vec<_>>();
    let mut slices = slices.as_mut_slice();
    let mut total = 0;
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return (total, Err(ErrorKind::WriteZero.into())),
            Ok(written) => {
                total += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (total, Err(error)),
        }
    }
    (total, Ok(()))
}
