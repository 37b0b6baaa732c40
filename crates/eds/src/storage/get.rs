//! `eds-get`: opens a sealed file while it comes in from a storage element.
//!
//! The header comes first and names the key; everything behind it goes through a pipe to the same code that opens files.
//! What that code has verified to the last segment is whole, whatever the storage element says at the end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hydra_cli::command::usage_error;
use hydra_cli::progress::Progress;
use hydra_cli::{Code, Failure};
use hydra_core::sealed::{
    self, Header, Input, OpenError, OpenOptions, Output, OutputError, Pipe, RangeReader, ReadAt, Report, SealedInput,
};
use hydra_core::secret::Key;
use serde_json::json;
use storage_url::{Bytes, Download, Scheme, StorageError, StorageUrl};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;

use super::{Remote, args, first_bytes, storage_url};
use crate::decrypt::{fetch_for_opening, suite1};
use crate::failure::Because;
use crate::operands::{bad_key_id, meant_key_ids, output};
use crate::session::overrides;
use crate::slice::ByteRange;
use crate::voice::Voice;
use crate::work::{clean_up_on_signal, open_failure};

/// Header and stream header: what [`SealedInput`] wants to see first.
pub(super) const START_BYTES: usize = 552;

/// What is read of a range at once.
const RANGE_BYTES: usize = 1 << 20;

/// What is got, and where to.
pub struct Order<'a> {
    /// Where the file is.
    pub url: &'a StorageUrl,
    /// Where it goes.
    pub output: &'a Output,
    /// The key's name as it was typed; none: the one in the header.
    pub key_id: Option<&'a str>,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
}

/// What was got.
#[derive(Debug)]
pub struct Done {
    /// The file's header.
    pub header: Header,
    /// What was opened.
    pub report: Report,
}

/// `eds-get`.
///
/// # Errors
/// What went wrong; there is no output then, but what had gone to a standard stream, all of it verified.
pub fn get(args: &args::Get) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let url = storage_url(&args.url)?;
    let output = output(&args.local);
    if output == Output::Stdout && voice.json {
        return Err(usage_error("--json and the file cannot both go to standard output"));
    }
    let voice = Voice {
        data_on_stdout: output == Output::Stdout,
        ..voice
    };
    let order = Order {
        url: &url,
        output: &output,
        key_id: args.key_id.as_deref(),
        overwrite: args.force,
    };
    order.check()?;
    let remote = Remote::open(&overrides(&args.stores), args.patience.idle())?;
    let (header, plaintext_bytes) = match args.range {
        None => {
            let done = order.carry_out(&remote, voice)?;
            (done.header, done.report.plaintext_bytes)
        }
        Some(range) => order.range(&remote, range, voice)?,
    };
    if let (None, Some(named)) = (order.key_id, &header.key_id) {
        voice.result(named.as_str())?;
    }
    voice.json(&json!({
        "url": url.to_string(),
        "output": args.local.to_string_lossy(),
        "key_id": header.key_id.as_ref().map(ToString::to_string),
        "registration_id": header.registration_id.to_string(),
        "plaintext_bytes": plaintext_bytes,
    }))
}

impl Order<'_> {
    /// What can be told before anybody is asked.
    ///
    /// # Errors
    /// Wrong usage, or an output that is in the way.
    pub fn check(&self) -> Result<(), Failure> {
        if let Some(typed) = self.key_id {
            meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?;
        }
        self.output
            .check(self.overwrite)
            .map_err(|error| open_failure(OpenError::Output(error)))
    }

    /// Gets and opens all of it.
    ///
    /// # Errors
    /// What went wrong; there is no output then.
    pub fn carry_out(&self, remote: &Remote, voice: Voice) -> Result<Done, Failure> {
        let begun = remote.session.wait(async {
            let mut download = remote.storage.get(self.url, 0).await?;
            let start = first_bytes(&mut download, START_BYTES).await?;
            Ok((download, start))
        });
        let (download, start) = begun.map_err(super::failed)?;
        let header = decoded(self.url, &start)?;
        let fetched = fetch_for_opening(&remote.session, self.key_id, &header, voice)?;
        let key = suite1(&fetched)?;
        let _cleaning = clean_up_on_signal();
        let report = self.open(remote, download, start, &key, voice)?;
        Ok(Done { header, report })
    }

    fn open(
        &self,
        remote: &Remote,
        mut download: Download,
        start: Vec<u8>,
        key: &Key,
        voice: Voice,
    ) -> Result<Report, Failure> {
        let no_pipe = |error: io::Error| Failure::new(Code::Failed, Because::new("cannot open out of a pipe", error));
        let (reader, writer) = io::pipe().map_err(no_pipe)?;
        let pipe = Pipe {
            file: File::from(OwnedFd::from(reader)),
            name: self.url.to_string(),
        };
        let bar = (!voice.quiet).then(|| Progress::bytes(&self.url.to_string(), None, false));
        let step = |progress: sealed::Progress| {
            if let Some(bar) = &bar {
                bar.set(progress.done_bytes);
            }
        };
        let options = OpenOptions {
            overwrite: self.overwrite,
            progress: Some(&step),
            ..OpenOptions::default()
        };
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| SealedInput::from_pipe(pipe)?.unseal(key, self.output, &options));
            let pumped = remote.session.wait(pump(&mut download, start, writer.into()));
            let opened = opening.join();
            let opened = opened.map_err(|_| Failure::new(Code::Failed, "opening broke off"))?;
            judge(pumped, opened, voice)
        })
    }

    /// Gets the segments that hold a range of the opened file. Answers the header and how many bytes there were.
    fn range(&self, remote: &Remote, range: ByteRange, voice: Voice) -> Result<(Header, u64), Failure> {
        let stat = remote
            .session
            .wait(remote.storage.stat(self.url))
            .map_err(super::failed)?;
        let no_size = || Failure::new(Code::Io, format!("`{}`: the server does not tell its size", self.url));
        let file = RemoteFile {
            remote,
            url: self.url,
            bytes: stat.bytes.ok_or_else(no_size)?,
            cursor: Mutex::new(None),
        };
        let name = Input::File(self.url.to_string().into());
        let reader = RangeReader::open(&file, name).map_err(open_failure)?;
        let header = reader.header().clone();
        let fetched = fetch_for_opening(&remote.session, self.key_id, &header, voice)?;
        let reader = reader.unlock(&suite1(&fetched)?).map_err(open_failure)?;
        let _cleaning = clean_up_on_signal();
        let written = self.write_range(&reader, range)?;
        Ok((header, written))
    }

    fn write_range<R: ReadAt>(&self, reader: &RangeReader<R>, range: ByteRange) -> Result<u64, Failure> {
        let (first, end) = range.within(reader.plaintext_bytes());
        let mut sink = RangeSink::open(self.output).map_err(|error| self.no_output(error))?;
        let mut at = first;
        loop {
            let length = usize::try_from(end.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(RANGE_BYTES);
            // one that begins at the end, too, is asked for: that it is the end must be verified
            let piece = reader.read(at, length).map_err(open_failure)?;
            sink.write(&piece).map_err(|error| self.not_written(error))?;
            at += piece.len() as u64;
            if piece.is_empty() || at >= end {
                break;
            }
        }
        sink.finish(self.output, self.overwrite)
            .map_err(|error| self.no_output(error))?;
        Ok(at - first)
    }

    fn no_output(&self, source: io::Error) -> Failure {
        let output = self.output.clone();
        open_failure(OpenError::Output(match source.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists { output },
            _ => OutputError::Create { output, source },
        }))
    }

    fn not_written(&self, source: io::Error) -> Failure {
        let output = self.output.clone();
        open_failure(OpenError::Output(OutputError::Write { output, source }))
    }
}

/// Reads the header of a file that is being got.
///
/// # Errors
/// It is no sealed file, or damaged.
pub(super) fn decoded(url: &StorageUrl, start: &[u8]) -> Result<Header, Failure> {
    let file = Input::File(url.to_string().into());
    Header::decode(start).map_err(|source| open_failure(OpenError::Header { file, source }))
}

/// Moves a download into a pipe, until it ends or nobody reads any more.
async fn pump(download: &mut Download, start: Vec<u8>, writer: OwnedFd) -> Result<(), StorageError> {
    let Ok(mut sender) = Sender::from_owned_fd(writer) else {
        return Ok(());
    };
    let mut next = Some(Bytes::from(start));
    while let Some(bytes) = next {
        if sender.write_all(&bytes).await.is_err() {
            // who read from it knows why
            return Ok(());
        }
        next = download.chunk().await?;
    }
    Ok(())
}

/// What came of it: the download's own failure explains one of opening, but cannot take back what was verified.
fn judge(pumped: Result<(), StorageError>, opened: Result<Report, OpenError>, voice: Voice) -> Result<Report, Failure> {
    match (pumped, opened) {
        (Ok(()), Ok(report)) => Ok(report),
        (Err(error), Ok(report)) => {
            voice.warning(&format!("the file came whole, and then: {error}"));
            Ok(report)
        }
        (Ok(()), Err(error)) => Err(open_failure(error)),
        // what had been written stays worth knowing
        (Err(error), Err(partial @ OpenError::Partial { .. })) => {
            let failure = super::failed(error);
            Err(Failure {
                error: Box::new(Because::new(partial.to_string(), failure.error)),
                ..failure
            })
        }
        (Err(_), Err(OpenError::Output(error))) => Err(open_failure(OpenError::Output(error))),
        (Err(error), Err(_)) => Err(super::failed(error)),
    }
}

/// A file on a storage element, read in pieces that mostly follow each other.
struct RemoteFile<'a> {
    remote: &'a Remote,
    url: &'a StorageUrl,
    bytes: u64,
    cursor: Mutex<Option<Cursor>>,
}

/// A download that stands at an offset.
struct Cursor {
    download: Download,
    at: u64,
    /// What came already.
    ready: VecDeque<u8>,
}

impl RemoteFile<'_> {
    /// What lies between two pieces is read over, where going there anew takes as long.
    const READ_OVER: u64 = 1 << 20;

    fn stands_well(&self, cursor: &Cursor, offset: u64) -> bool {
        let from_the_front = !matches!(self.url.scheme(), Scheme::File | Scheme::Https);
        offset >= cursor.at && (from_the_front || offset - cursor.at <= Self::READ_OVER)
    }

    async fn read(
        &self,
        mut cursor: Option<Cursor>,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<(Cursor, usize), StorageError> {
        cursor.take_if(|cursor| !self.stands_well(cursor, offset));
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => Cursor {
                download: self.remote.storage.get(self.url, offset).await?,
                at: offset,
                ready: VecDeque::new(),
            },
        };
        let mut filled = 0;
        while filled < buffer.len() {
            let over = usize::try_from(offset.saturating_sub(cursor.at)).unwrap_or(usize::MAX);
            let over = over.min(cursor.ready.len());
            cursor.ready.drain(..over);
            cursor.at += over as u64;
            if cursor.ready.is_empty() {
                match cursor.download.chunk().await? {
                    Some(bytes) => cursor.ready.extend(bytes.iter()),
                    None => break,
                }
                continue;
            }
            let take = cursor.ready.len().min(buffer.len() - filled);
            for (place, byte) in buffer[filled..].iter_mut().zip(cursor.ready.drain(..take)) {
                *place = byte;
            }
            filled += take;
            cursor.at += take as u64;
        }
        Ok((cursor, filled))
    }
}

impl ReadAt for RemoteFile<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut place = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.remote.session.wait(self.read(place.take(), buffer, offset));
        let (cursor, filled) = read.map_err(io::Error::other)?;
        *place = Some(cursor);
        Ok(filled)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}

/// Where a range goes: a file that gets its name at the end, or something that is written directly.
enum RangeSink {
    Direct(File),
    Staged(tempfile::NamedTempFile),
}

impl RangeSink {
    fn open(output: &Output) -> io::Result<Self> {
        let Output::File(path) = output else {
            let stdout = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?;
            return Ok(Self::Direct(stdout.into()));
        };
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return File::options().write(true).open(path).map(Self::Direct);
        }
        // for its owner alone, as all opened files
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        let named = builder
            .prefix(".eds-")
            .suffix(".part")
            .tempfile_in(folder.unwrap_or(Path::new(".")));
        named.map(Self::Staged)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Direct(file) => file.write_all(bytes),
            Self::Staged(file) => file.write_all(bytes),
        }
    }

    fn finish(self, output: &Output, overwrite: bool) -> io::Result<()> {
        let (Self::Staged(file), Output::File(path)) = (self, output) else {
            return Ok(());
        };
        file.as_file().sync_all()?;
        let named = if overwrite {
            file.persist(path)
        } else {
            file.persist_noclobber(path)
        };
        named.map(drop).map_err(|error| error.error)
    }
}
