//! Sealing and opening of whole files and streams: checks, the pipeline, and outputs that appear whole or not at all.
//!
//! The rules are those of `docs/src/formats/sealed-file.md`, "Reading and writing".

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::engine::{self, Chunks, Direction, Failure, Sink, Source, Stop, Watch, WriteFn, Writing};
use super::header::{self, Header, HeaderError};
use super::legacy_cbc::RawInput;
use super::place::{self, Batch, Input, InputError, OpenInput, OpenOutput, Output, OutputError};
use super::stream::{BodySizeError, CipherError, FileCipher, Layout, STREAM_HEADER_LENGTH, StreamHeader};
use super::synthetic;
use crate::secret::Key;

/// Where the ciphertext begins: behind the header and the stream header.
const PRELUDE_LENGTH: usize = header::LENGTH + STREAM_HEADER_LENGTH;

/// What is digested in memory before reproducible sealing; more goes over a spool.
const MEMORY_LIMIT: u64 = 16 * 1024 * 1024;

/// Two threads at computed offsets are as fast as the page cache lets a file be copied; more gain nothing.
const THREADS: usize = 2;

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Plaintext bytes done.
    pub done_bytes: u64,
    /// Plaintext bytes in all, where that is known.
    pub total_bytes: Option<u64>,
}

/// What was sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Bytes of plaintext.
    pub plaintext_bytes: u64,
    /// Bytes of the sealed file.
    pub file_bytes: u64,
}

/// How to seal.
#[derive(Clone, Copy)]
pub struct SealOptions<'a> {
    /// How many threads may work on large files.
    pub threads: usize,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
    /// Permission bits of the sealed file, before the umask.
    pub mode: u32,
    /// Whether equal plaintext, key and header give an equal file.
    pub reproducible: bool,
    /// Called now and then, from any of the threads.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Whether the output is on disk when the call returns.
    pub sync: bool,
    /// Where the finished output waits for [`Batch::commit`], which then flushes it whatever `sync` says.
    pub batch: Option<&'a Batch>,
    /// Stops the work, with nothing left, as soon as it is set.
    pub cancel: Option<&'a AtomicBool>,
}

impl Default for SealOptions<'_> {
    fn default() -> Self {
        Self {
            threads: THREADS,
            overwrite: false,
            mode: 0o666,
            reproducible: false,
            progress: None,
            sync: true,
            batch: None,
            cancel: None,
        }
    }
}

/// How to open.
#[derive(Clone, Copy)]
pub struct OpenOptions<'a> {
    /// How many threads may work on large files.
    pub threads: usize,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
    /// Permission bits of the opened file, before the umask: its owner's alone by default.
    pub mode: u32,
    /// Called now and then, from any of the threads.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Whether the output is on disk when the call returns.
    pub sync: bool,
    /// Where the finished output waits for [`Batch::commit`], which then flushes it whatever `sync` says.
    pub batch: Option<&'a Batch>,
    /// Stops the work, with nothing left, as soon as it is set.
    pub cancel: Option<&'a AtomicBool>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            threads: THREADS,
            overwrite: false,
            mode: 0o600,
            progress: None,
            sync: true,
            batch: None,
            cancel: None,
        }
    }
}

/// What kind of trouble an error is, for exit codes and advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The same file as input and output, a folder as input: another command line is needed.
    Usage,
    /// The sealed file is damaged, no sealed file, or sealed under another key.
    Damaged,
    /// The output exists or cannot be made.
    CannotCreate,
    /// Reading or writing failed, or the input changed meanwhile.
    Io,
    /// The caller cancelled.
    Cancelled,
    /// Anything else.
    Other,
}

impl InputError {
    /// What kind of trouble it is.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Directory { .. } => Trouble::Usage,
            _ => Trouble::Io,
        }
    }
}

impl OutputError {
    /// What kind of trouble it is.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::SameFile { .. } => Trouble::Usage,
            Self::Exists { .. } | Self::Directory { .. } | Self::Create { .. } => Trouble::CannotCreate,
            Self::Write { .. } => Trouble::Io,
        }
    }
}

/// Why something could not be sealed. No output is left, but where it was no regular file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The input.
    #[error(transparent)]
    Input(InputError),
    /// The output.
    #[error(transparent)]
    Output(OutputError),
    /// The header cannot be written.
    #[error("no header can be made for {output}")]
    Header {
        /// What should have got it.
        output: Output,
        /// Why not.
        #[source]
        source: HeaderError,
    },
    /// More segments than the format can count.
    #[error("{input} is too large for a sealed file")]
    Large {
        /// Which.
        input: Input,
        /// How many there may be.
        #[source]
        source: BodySizeError,
    },
    /// The spool for reproducible sealing.
    #[error("cannot keep a spool for {output}")]
    Spool {
        /// What should have been sealed.
        output: Output,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No random numbers, or the cryptographic library failed.
    #[error("cannot seal {input}")]
    Cipher {
        /// Which.
        input: Input,
        /// Why.
        #[source]
        source: CipherError,
    },
    /// [`SealOptions::cancel`] was set.
    #[error("sealing {input} was cancelled")]
    Cancelled {
        /// Which.
        input: Input,
    },
}

impl SealError {
    /// What kind of trouble it is.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Input(error) => error.trouble(),
            Self::Output(error) => error.trouble(),
            Self::Spool { .. } => Trouble::Io,
            Self::Cancelled { .. } => Trouble::Cancelled,
            _ => Trouble::Other,
        }
    }
}

/// Why a sealed file, or a range of one, could not be opened. No output is left, but where it was no regular file:
/// that got what was before the failure, all of it verified, and the error is [`OpenError::Partial`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The input.
    #[error(transparent)]
    Input(InputError),
    /// The output.
    #[error(transparent)]
    Output(OutputError),
    /// The header.
    #[error("{file} has no header that can be read")]
    Header {
        /// Which file.
        file: Input,
        /// Why not.
        #[source]
        source: HeaderError,
    },
    /// No sealed file has this size.
    #[error("{file} is damaged: no sealed file has its size")]
    Size {
        /// Which file.
        file: Input,
        /// Where it ends.
        #[source]
        source: BodySizeError,
    },
    /// The first byte behind the header is wrong.
    #[error("{file} is damaged: its stream header (byte 512) does not begin with {STREAM_HEADER_LENGTH}")]
    StreamHeader {
        /// Which file.
        file: Input,
    },
    /// A segment does not verify.
    #[error("{file} is damaged{}: segment {segment} (bytes {first_byte} to {last_byte}) does not verify",
        if *.segment == 0 { ", or sealed under another key" } else { "" })]
    Segment {
        /// Which file.
        file: Input,
        /// The index of the segment, from 0.
        segment: u64,
        /// The offset in the file of its first byte.
        first_byte: u64,
        /// The offset in the file of its last byte.
        last_byte: u64,
    },
    /// A file of the original whose size is none of its cipher.
    #[error("{file} is damaged: its {bytes} bytes are no whole number of blocks of {block}")]
    Blocks {
        /// Which file.
        file: Input,
        /// Its size.
        bytes: u64,
        /// Bytes of a block.
        block: usize,
    },
    /// A file of the original whose end does not decrypt.
    #[error("{file} is damaged, or encrypted with another key: its end does not decrypt")]
    Padding {
        /// Which file.
        file: Input,
    },
    /// Some of the plaintext had gone to a standard stream, a pipe or a device when the rest failed.
    #[error("{output} got only the first {written_bytes} bytes, which are verified; the rest is missing")]
    Partial {
        /// Where it went.
        output: Output,
        /// How many bytes.
        written_bytes: u64,
        /// Why no more.
        #[source]
        source: Box<OpenError>,
    },
    /// The cryptographic library failed.
    #[error("cannot open {file}")]
    Cipher {
        /// Which file.
        file: Input,
        /// Why.
        #[source]
        source: CipherError,
    },
    /// [`OpenOptions::cancel`] was set.
    #[error("opening {file} was cancelled")]
    Cancelled {
        /// Which file.
        file: Input,
    },
}

impl OpenError {
    /// What kind of trouble it is.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Input(error) => error.trouble(),
            Self::Output(error) => error.trouble(),
            Self::Header { .. }
            | Self::Size { .. }
            | Self::StreamHeader { .. }
            | Self::Segment { .. }
            | Self::Blocks { .. }
            | Self::Padding { .. } => Trouble::Damaged,
            Self::Partial { source, .. } => source.trouble(),
            Self::Cancelled { .. } => Trouble::Cancelled,
            Self::Cipher { .. } => Trouble::Other,
        }
    }

    /// Whether the file does not begin as a sealed file does; it may then be one of the original's, without a header.
    pub fn is_not_sealed(&self) -> bool {
        let not_sealed = HeaderError::NotSealed;
        matches!(self, Self::Header { source, .. } if *source == not_sealed)
    }
}

/// Seals `input` under `key`, with `header` in front.
///
/// # Errors
/// See [`SealError`]. A regular output is then as it was before.
pub fn seal(
    key: &Key,
    header: &Header,
    input: &Input,
    output: &Output,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let opened = OpenInput::open(input).map_err(SealError::Input)?;
    let destination = OpenOutput::open(output, Some(&opened), options.overwrite, options.mode);
    let destination = destination.map_err(SealError::Output)?;
    let report = seal_opened(key, header, &opened, output, &destination, options)?;
    finish(destination, options.batch, options.sync).map_err(SealError::Output)?;
    Ok(report)
}

/// Seals what is open. `output` is what errors call the destination.
pub(super) fn seal_opened(
    key: &Key,
    header: &Header,
    input: &OpenInput,
    output: &Output,
    destination: &OpenOutput,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    seal_plaintext(
        key,
        header,
        Plaintext::Open(input),
        output,
        To::Output(destination),
        options,
    )
}

/// Seals what `reader` gives, which errors call `name`. Where it fails nothing is left: plaintext that is being made
/// can be taken back until the very last byte.
///
/// # Errors
/// See [`SealError`]. A regular output is then as it was before.
pub fn seal_reader(
    key: &Key,
    header: &Header,
    name: &Input,
    reader: &mut (dyn Read + Send),
    output: &Output,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let destination = OpenOutput::open(output, None, options.overwrite, options.mode).map_err(SealError::Output)?;
    let reader = Mutex::new(reader);
    let read = |buffer: &mut [u8]| reader.lock().unwrap_or_else(PoisonError::into_inner).read(buffer);
    let plaintext = Plaintext::Stream { name, read: &read };
    let report = seal_plaintext(key, header, plaintext, output, To::Output(&destination), options)?;
    finish(destination, options.batch, options.sync).map_err(SealError::Output)?;
    Ok(report)
}

/// Seals what `reader` gives, which errors call `name`, into `writer`, which they call `output`: for what is neither a
/// file nor a pipe. What was written before a failure is of no use. Large plaintext is sealed under a key that nobody
/// keeps while it waits in `spool`, a folder, for reproducible sealing.
///
/// Of the options, those about outputs that get a name have no effect.
///
/// # Errors
/// See [`SealError`].
#[allow(
    clippy::too_many_arguments,
    reason = "two ends with a name each, and what is needed between them"
)]
pub fn seal_reader_into(
    key: &Key,
    header: &Header,
    name: &Input,
    reader: &mut (dyn Read + Send),
    output: &Output,
    writer: &mut (dyn Write + Send),
    spool: &Path,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let (reader, writer) = (Mutex::new(reader), Mutex::new(writer));
    let read = |buffer: &mut [u8]| reader.lock().unwrap_or_else(PoisonError::into_inner).read(buffer);
    let write = |bytes: &[u8]| writer.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    let plaintext = Plaintext::Stream { name, read: &read };
    let write = &write;
    seal_plaintext(key, header, plaintext, output, To::Writer { write, spool }, options)
}

/// Seals plaintext that is in memory, which errors call `name`, into `writer`, as [`seal_reader_into`] does with a
/// reader; no copy of it is made.
///
/// # Errors
/// See [`SealError`].
pub fn seal_bytes_into(
    key: &Key,
    header: &Header,
    name: &Input,
    bytes: &[u8],
    output: &Output,
    writer: &mut (dyn Write + Send),
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let writer = Mutex::new(writer);
    let write = |bytes: &[u8]| writer.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    let plaintext = Plaintext::Memory { name, bytes };
    // nothing of it is ever spooled
    let (write, spool) = (&write, Path::new(""));
    seal_plaintext(key, header, plaintext, output, To::Writer { write, spool }, options)
}

/// Where sealed bytes go.
#[derive(Clone, Copy)]
enum To<'a> {
    Output(&'a OpenOutput),
    Writer { write: &'a WriteFn<'a>, spool: &'a Path },
}

fn seal_plaintext(
    key: &Key,
    header: &Header,
    input: Plaintext<'_>,
    output: &Output,
    destination: To<'_>,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let header = header.encode().map_err(|source| SealError::Header {
        output: output.clone(),
        source,
    })?;
    let sealing = Sealing {
        key,
        header,
        input,
        output,
        options,
        chunks: chunks(input.size(), destination),
    };
    sealing.write_to(destination)
}

pub(super) fn finish(destination: OpenOutput, batch: Option<&Batch>, sync: bool) -> Result<(), OutputError> {
    match (destination, batch) {
        (OpenOutput::Direct(_), _) => Ok(()),
        (OpenOutput::Staged(staged), Some(batch)) => {
            batch.add(staged);
            Ok(())
        }
        (OpenOutput::Staged(staged), None) => staged.finish(sync),
    }
}

/// Where plaintext comes from.
#[derive(Clone, Copy)]
enum Plaintext<'a> {
    /// A file, or a stream that is open like one.
    Open(&'a OpenInput),
    /// Whatever can be read, once.
    Stream { name: &'a Input, read: &'a ReadFn<'a> },
    /// All of it, in memory.
    Memory { name: &'a Input, bytes: &'a [u8] },
}

impl<'a> Plaintext<'a> {
    fn name(self) -> Input {
        match self {
            Self::Open(open) => open.input.clone(),
            Self::Stream { name, .. } | Self::Memory { name, .. } => name.clone(),
        }
    }

    fn size(self) -> Option<u64> {
        match self {
            Self::Open(open) => open.size(),
            Self::Stream { .. } => None,
            Self::Memory { bytes, .. } => Some(bytes.len() as u64),
        }
    }

    /// What was not read yet, in turn.
    fn reader(self) -> Box<dyn Read + Send + 'a> {
        match self {
            Self::Open(open) => Box::new(&open.file),
            Self::Stream { read, .. } => Box::new(Shared(read)),
            Self::Memory { bytes, .. } => Box::new(bytes),
        }
    }

    fn unchanged(self) -> Result<(), SealError> {
        match self {
            Self::Open(open) => open.unchanged().map_err(SealError::Input),
            Self::Stream { .. } | Self::Memory { .. } => Ok(()),
        }
    }

    fn read_error(self, source: std::io::Error) -> SealError {
        let input = self.name();
        SealError::Input(InputError::Read { input, source })
    }
}

/// Reads on, from whatever thread.
type ReadFn<'a> = dyn Fn(&mut [u8]) -> std::io::Result<usize> + Sync + 'a;

/// A reader that is used by one thread after the other.
struct Shared<'a>(&'a ReadFn<'a>);

impl Read for Shared<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.0)(buffer)
    }
}

/// One call of [`seal`] or [`seal_reader`], when both sides are open.
struct Sealing<'a> {
    key: &'a Key,
    header: [u8; header::LENGTH],
    input: Plaintext<'a>,
    output: &'a Output,
    options: &'a SealOptions<'a>,
    chunks: Chunks,
}

impl Sealing<'_> {
    fn write_to(&self, destination: To<'_>) -> Result<Report, SealError> {
        if let Some(size) = self.input.size() {
            Layout::SUITE_1.body_size(size).map_err(|source| self.large(source))?;
        }
        if self.options.reproducible {
            return self.reproducibly(destination);
        }
        let stream = StreamHeader::random().map_err(|source| self.cipher_error(source))?;
        let report = self.with(stream, self.source(), destination)?;
        self.input.unchanged()?;
        Ok(report)
    }

    fn source(&self) -> Source<'_> {
        match self.input {
            Plaintext::Open(open) if open.size().is_some() => Source::At {
                file: &open.file,
                base: 0,
                total: open.size().unwrap_or(0),
            },
            other => Source::InTurn(other.reader()),
        }
    }

    fn with(&self, stream: StreamHeader, source: Source<'_>, destination: To<'_>) -> Result<Report, SealError> {
        let prelude = [self.header.as_slice(), &stream.encode()].concat();
        let sink = sink_of(destination, PRELUDE_LENGTH as u64);
        let written = match &sink {
            Sink::InTurn(file) => (&mut &**file).write_all(&prelude),
            Sink::At { file, .. } => file.write_all_at(&prelude, 0),
            Sink::Writer(write) => Writing(*write).write_all(&prelude),
        };
        written.map_err(|source| SealError::Output(self.write_error(source)))?;
        let cipher = FileCipher::derive(self.key, &self.header, &stream).map_err(|source| self.cipher_error(source))?;
        let total_bytes = self.input.size();
        let progress = self.options.progress.map(|progress| {
            move |done_bytes| {
                progress(Progress {
                    done_bytes,
                    total_bytes,
                });
            }
        });
        let watch = Watch {
            progress: progress.as_ref().map(|progress| progress as &(dyn Fn(u64) + Sync)),
            cancel: self.options.cancel,
        };
        let totals = engine::run(
            self.chunks,
            Direction::Seal,
            &cipher,
            source,
            sink,
            self.options.threads,
            watch,
        );
        let totals = totals.map_err(|failure| self.stopped(failure.stop))?;
        Ok(Report {
            plaintext_bytes: totals.plaintext_bytes,
            file_bytes: PRELUDE_LENGTH as u64 + totals.sealed_bytes,
        })
    }

    /// The digest is taken from copies of the input's bytes, and those are sealed: were the input read twice, whoever
    /// changes it in between would make two plaintexts share a nonce.
    fn reproducibly(&self, destination: To<'_>) -> Result<Report, SealError> {
        let mut digest = digest::Context::new(&digest::SHA256);
        if let Plaintext::Memory { bytes, .. } = self.input {
            digest.update(bytes);
            let stream = self.synthetic(bytes.len() as u64, digest)?;
            return self.with(stream, self.source(), destination);
        }
        let mut start = Zeroizing::new(Vec::new());
        if self.input.size().is_some_and(|size| size > MEMORY_LIMIT) {
            return self.over_spool(start, digest, destination);
        }
        start.reserve_exact(self.input.size().unwrap_or(0) as usize + 1);
        let limited = self.input.reader().take(MEMORY_LIMIT + 1);
        read_wiping(limited, &mut start).map_err(|source| self.input.read_error(source))?;
        if start.len() as u64 <= MEMORY_LIMIT {
            self.input.unchanged()?;
            digest.update(&start);
            let stream = self.synthetic(start.len() as u64, digest)?;
            let source = Source::InTurn(Box::new(Cursor::new(start.as_slice())));
            return self.with(stream, source, destination);
        }
        self.over_spool(start, digest, destination)
    }

    fn synthetic(&self, bytes: u64, digest: digest::Context) -> Result<StreamHeader, SealError> {
        let stream = synthetic::stream_header(self.key, &self.header, bytes, &digest.finish());
        stream.map_err(|source| self.cipher_error(source))
    }

    fn over_spool(
        &self,
        start: Zeroizing<Vec<u8>>,
        mut digest: digest::Context,
        destination: To<'_>,
    ) -> Result<Report, SealError> {
        let spool_error = |source| SealError::Spool {
            output: self.output.clone(),
            source,
        };
        let spool = match destination {
            To::Output(_) => place::anonymous_file(self.output),
            To::Writer { spool, .. } => place::anonymous_file_in(spool),
        };
        let spool = spool.map_err(spool_error)?;
        let throwaway = Key::random().map_err(|_| self.cipher_error(CipherError::Random))?;
        let stream = StreamHeader::random().map_err(|source| self.cipher_error(source))?;
        let cipher = FileCipher::derive(&throwaway, b"spool", &stream).map_err(|source| self.cipher_error(source))?;
        let silent = Watch {
            progress: None,
            cancel: self.options.cancel,
        };
        let rest = self.input.reader();
        let digesting = Digesting {
            reader: Cursor::new(start.as_slice()).chain(rest),
            digest: &mut digest,
        };
        let sink = Sink::At { file: &spool, base: 0 };
        let source = Source::InTurn(Box::new(digesting));
        let spooled = engine::run(
            self.chunks,
            Direction::Seal,
            &cipher,
            source,
            sink,
            self.options.threads,
            silent,
        );
        let spooled = spooled.map_err(|failure| match failure.stop {
            Stop::Write(source) => spool_error(source),
            stop => self.stopped(stop),
        })?;
        drop(start);
        self.input.unchanged()?;
        let stream = self.synthetic(spooled.plaintext_bytes, digest)?;
        let reader = SpoolReader {
            file: &spool,
            cipher: &cipher,
            left: spooled.sealed_bytes,
            segment: 0,
            buffer: Zeroizing::new(Vec::new()),
            open: 0..0,
        };
        self.with(stream, Source::InTurn(Box::new(reader)), destination)
    }

    fn stopped(&self, stop: Stop) -> SealError {
        let input = self.input.name();
        match stop {
            Stop::Read(source) => self.input.read_error(source),
            Stop::Changed => SealError::Input(InputError::Changed { input }),
            Stop::Write(source) => SealError::Output(self.write_error(source)),
            Stop::Large => self.large(BodySizeError::Large),
            Stop::Cipher(source) => SealError::Cipher { input, source },
            Stop::Cancelled => SealError::Cancelled { input },
            // Only opening verifies.
            Stop::Forged(..) | Stop::Cut(..) => self.cipher_error(CipherError::Library),
        }
    }

    fn large(&self, source: BodySizeError) -> SealError {
        SealError::Large {
            input: self.input.name(),
            source,
        }
    }

    fn cipher_error(&self, source: CipherError) -> SealError {
        SealError::Cipher {
            input: self.input.name(),
            source,
        }
    }

    fn write_error(&self, source: std::io::Error) -> OutputError {
        OutputError::Write {
            output: self.output.clone(),
            source,
        }
    }
}

/// How much is worked on at a time between an input, with its size if it is a file, and an output.
fn chunks(input: Option<u64>, destination: To<'_>) -> Chunks {
    let is_in_turn = input.is_none() || !matches!(destination, To::Output(OpenOutput::Staged(_)));
    Chunks::of(Layout::SUITE_1, is_in_turn)
}

fn sink_of(destination: To<'_>, base: u64) -> Sink<'_> {
    match destination {
        To::Output(OpenOutput::Direct(file)) => Sink::InTurn(file),
        To::Output(OpenOutput::Staged(staged)) => Sink::At {
            file: &staged.file,
            base,
        },
        To::Writer { write, .. } => Sink::Writer(write),
    }
}

/// Reads to the end into a vector that never leaves an unwiped copy behind when it grows.
fn read_wiping(mut reader: impl Read, bytes: &mut Zeroizing<Vec<u8>>) -> std::io::Result<()> {
    let mut piece = Zeroizing::new(vec![0; 64 * 1024]);
    loop {
        let read = match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.capacity() - bytes.len() < read {
            let grown = (2 * bytes.capacity())
                .min(MEMORY_LIMIT as usize + 1)
                .max(bytes.len() + read);
            let mut larger = Zeroizing::new(Vec::with_capacity(grown));
            larger.extend_from_slice(bytes);
            *bytes = larger;
        }
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// Takes a digest of all that is read through it.
struct Digesting<'a, R> {
    reader: R,
    digest: &'a mut digest::Context,
}

impl<R: Read> Read for Digesting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads the spool, whose bytes are vouched for by the throwaway key: they are the ones that were digested.
struct SpoolReader<'a> {
    file: &'a File,
    cipher: &'a FileCipher,
    left: u64,
    segment: u32,
    buffer: Zeroizing<Vec<u8>>,
    open: std::ops::Range<usize>,
}

impl SpoolReader<'_> {
    fn next_segment(&mut self) -> std::io::Result<()> {
        let layout = Layout::SUITE_1;
        let start = layout.body_start(self.segment.into());
        let room = layout.body_start(u64::from(self.segment) + 1) - start;
        let bytes = self.left.min(room);
        self.left -= bytes;
        self.buffer.resize(bytes as usize, 0);
        self.file
            .read_exact_at(&mut self.buffer, start - STREAM_HEADER_LENGTH as u64)?;
        let opened = self.cipher.open(self.segment, self.left == 0, &mut self.buffer);
        let opened = opened.map_err(|_| std::io::Error::other("somebody wrote to the spool"))?;
        self.open = 0..opened.len();
        self.segment += 1;
        Ok(())
    }
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.open.is_empty() && self.left > 0 {
            self.next_segment()?;
        }
        let bytes = self.open.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&self.buffer[self.open.start..self.open.start + bytes]);
        self.open.start += bytes;
        Ok(bytes)
    }
}

/// A sealed file whose header has been read and checked, so that the key it needs is known.
pub struct SealedInput {
    input: OpenInput,
    bytes: [u8; header::LENGTH],
    header: Header,
    stream: StreamHeader,
}

/// An input that has been looked at.
pub enum Opened {
    /// It begins as a sealed file does, and its header is good.
    Sealed(Box<SealedInput>),
    /// It does not: one of the original's files, or damage. Only its key can tell.
    Raw(RawInput),
}

impl Opened {
    /// Looks at the beginning of an input. Whatever has the mark of a sealed file is one, or damaged.
    ///
    /// # Errors
    /// As for [`SealedInput::open`], where there is that mark.
    pub fn open(input: &Input) -> Result<Self, OpenError> {
        Self::of(OpenInput::open(input).map_err(OpenError::Input)?)
    }

    fn of(opened: OpenInput) -> Result<Self, OpenError> {
        let mut start = [0; PRELUDE_LENGTH];
        let filled = opened.read_start(&mut start).map_err(OpenError::Input)?;
        let (bytes, header, stream) = match read_prelude(&opened.input, &start[..filled]) {
            Err(error) if error.is_not_sealed() => return Ok(Self::Raw(RawInput::new(opened, &start[..filled]))),
            prelude => prelude?,
        };
        if let Some(size) = opened.size() {
            check_size(&opened.input, size)?;
        }
        Ok(Self::Sealed(Box::new(SealedInput {
            input: opened,
            bytes,
            header,
            stream,
        })))
    }
}

impl SealedInput {
    /// Reads and checks all that can be checked without a key: header, stream header, and the size where it is known.
    ///
    /// # Errors
    /// Among the [`OpenError`]s, those that need no key.
    pub fn open(input: &Input) -> Result<Self, OpenError> {
        Self::of(OpenInput::open(input).map_err(OpenError::Input)?)
    }

    /// The same of an input that is open.
    pub(super) fn of(opened: OpenInput) -> Result<Self, OpenError> {
        match Opened::of(opened)? {
            Opened::Sealed(sealed) => Ok(*sealed),
            Opened::Raw(raw) => Err(raw.not_sealed()),
        }
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The size of the plaintext, where the input is a regular file.
    pub fn plaintext_bytes(&self) -> Option<u64> {
        super::sizes::plaintext_size(self.input.size()?).ok()
    }

    /// Opens it with `key` and writes the plaintext.
    ///
    /// # Errors
    /// See [`OpenError`]. A regular output is then as it was before.
    pub fn unseal(self, key: &Key, output: &Output, options: &OpenOptions<'_>) -> Result<Report, OpenError> {
        let destination = OpenOutput::open(output, Some(&self.input), options.overwrite, options.mode);
        let destination = destination.map_err(OpenError::Output)?;
        let chunks = chunks(self.input.size(), To::Output(&destination));
        let report = self.write_to(key, output, &destination, options, chunks)?;
        self.input.unchanged().map_err(OpenError::Input)?;
        finish(destination, options.batch, options.sync).map_err(OpenError::Output)?;
        Ok(report)
    }

    fn write_to(
        &self,
        key: &Key,
        output: &Output,
        destination: &OpenOutput,
        options: &OpenOptions<'_>,
        chunks: Chunks,
    ) -> Result<Report, OpenError> {
        let file = &self.input.input;
        let cipher = FileCipher::derive(key, &self.bytes, &self.stream).map_err(|source| OpenError::Cipher {
            file: file.clone(),
            source,
        })?;
        let source = match self.input.size() {
            Some(size) => Source::At {
                file: &self.input.file,
                base: PRELUDE_LENGTH as u64,
                total: size - PRELUDE_LENGTH as u64,
            },
            None => Source::InTurn(Box::new(&self.input.file)),
        };
        let total_bytes = self.plaintext_bytes();
        let progress = options.progress.map(|progress| {
            move |done_bytes| {
                progress(Progress {
                    done_bytes,
                    total_bytes,
                });
            }
        });
        let watch = Watch {
            progress: progress.as_ref().map(|progress| progress as &(dyn Fn(u64) + Sync)),
            cancel: options.cancel,
        };
        let sink = sink_of(To::Output(destination), 0);
        let totals = engine::run(chunks, Direction::Open, &cipher, source, sink, options.threads, watch);
        let totals = totals.map_err(|failure| self.stopped(failure, output))?;
        Ok(Report {
            plaintext_bytes: totals.plaintext_bytes,
            file_bytes: PRELUDE_LENGTH as u64 + totals.sealed_bytes,
        })
    }

    fn stopped(&self, Failure { stop, written }: Failure, output: &Output) -> OpenError {
        let file = self.input.input.clone();
        let error = match stop {
            Stop::Read(source) => OpenError::Input(self.input.read_error(source)),
            Stop::Changed => OpenError::Input(self.input.changed()),
            Stop::Write(source) => OpenError::Output(OutputError::Write {
                output: output.clone(),
                source,
            }),
            Stop::Large => OpenError::Size {
                file,
                source: BodySizeError::Large,
            },
            Stop::Forged(segment, bytes) => forged(&file, segment, bytes),
            Stop::Cut(0, bytes) => OpenError::Size {
                file,
                source: BodySizeError::Short {
                    bytes: bytes + STREAM_HEADER_LENGTH as u64,
                },
            },
            Stop::Cut(segment, bytes) => OpenError::Size {
                file,
                source: BodySizeError::Segment { segment, bytes },
            },
            Stop::Cipher(source) => OpenError::Cipher { file, source },
            Stop::Cancelled => OpenError::Cancelled { file },
        };
        if written == 0 {
            return error;
        }
        OpenError::Partial {
            output: output.clone(),
            written_bytes: written,
            source: Box::new(error),
        }
    }
}

/// Names a segment that does not verify, with its place in the file.
pub(super) fn forged(file: &Input, segment: u64, bytes: u64) -> OpenError {
    let first_byte = header::LENGTH as u64 + Layout::SUITE_1.body_start(segment);
    OpenError::Segment {
        file: file.clone(),
        segment,
        first_byte,
        last_byte: first_byte + bytes - 1,
    }
}

/// Reads header and stream header from the first bytes of a file, as many of the 552 as there are.
pub(super) fn read_prelude(
    file: &Input,
    start: &[u8],
) -> Result<([u8; header::LENGTH], Header, StreamHeader), OpenError> {
    let header = Header::decode(start).and_then(|header| {
        let bytes = start.first_chunk().ok_or(HeaderError::Short { bytes: start.len() })?;
        Ok((*bytes, header))
    });
    let (bytes, header) = header.map_err(|source| OpenError::Header {
        file: file.clone(),
        source,
    })?;
    let body = &start[header::LENGTH..];
    let Some(stream) = body.first_chunk() else {
        return Err(OpenError::Size {
            file: file.clone(),
            source: BodySizeError::Short {
                bytes: body.len() as u64,
            },
        });
    };
    let stream = StreamHeader::decode(stream).ok_or_else(|| OpenError::StreamHeader { file: file.clone() })?;
    Ok((bytes, header, stream))
}

/// Refuses a size that no sealed file has; answers that of the plaintext.
pub(super) fn check_size(file: &Input, size: u64) -> Result<u64, OpenError> {
    super::sizes::plaintext_size(size).map_err(|source| OpenError::Size {
        file: file.clone(),
        source,
    })
}
