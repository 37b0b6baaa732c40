//! `eds-get`: opens a sealed file while it comes in from a storage element.
//!
//! The header comes first and names the key; everything behind it goes through a pipe to the same code that opens
//! files. What that code has verified to the last segment is whole, whatever the storage element says at the end.
//!
//! A file without our mark is one of the original's where its key is for that ([`crate::legacy`]), and damage where it
//! is not. Its key is the one that is called like it, unless the user says otherwise, and it is whole only if the
//! storage element says so too.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hydra_cli::command::usage_error;
use hydra_cli::progress::Progress;
use hydra_cli::signals::{OnSignal, remove_on_signal};
use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchError, FetchedKey, Purpose};
use hydra_core::sealed::legacy_cbc::RawInput;
use hydra_core::sealed::{
    self, Header, HeaderError, Input, OpenError, OpenOptions, Output, OutputError, Pipe, RangeReader, ReadAt, Report,
    SealedInput,
};
use serde_json::json;
use storage_url::{Bytes, Download, Scheme, StorageError, StorageUrl};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;

use super::{Remote, args, first_bytes, storage_url};
use crate::decrypt::{fetch_for_opening, remark_raw, suite1};
use crate::failure::{self, Because};
use crate::legacy::Opener;
use crate::operands::{bad_key_id, meant_key_ids, output};
use crate::session::overrides;
use crate::slice::ByteRange;
use crate::voice::Voice;
use crate::work::{clean_up_on_signal, forgive_reader, open_failure, other_cipher, reader_went_away};

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
    /// The key's name as it was typed; none: the one in the header, or the path in the URL.
    pub key_id: Option<&'a str>,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
}

/// What was got.
#[derive(Debug)]
pub struct Done {
    /// The name of the key: the one in the file's header, where it has one.
    pub key_id: KeyId,
    /// Its registration.
    pub registration_id: RegistrationId,
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
    let (key_id, registration_id, plaintext_bytes) = match args.range {
        None => {
            let done = order.carry_out(&remote, voice)?;
            (Some(done.key_id), done.registration_id, done.report.plaintext_bytes)
        }
        Some(range) => {
            let (header, bytes) = order.range(&remote, range, voice)?;
            (header.key_id, header.registration_id, bytes)
        }
    };
    if let (None, Some(named)) = (order.key_id, &key_id) {
        voice.result(named.as_str())?;
    }
    voice.json(&json!({
        "url": url.to_string(),
        "output": args.local.to_string_lossy(),
        "key_id": key_id.as_ref().map(ToString::to_string),
        "registration_id": registration_id.to_string(),
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
        let fetched = match &header {
            Some(header) => fetch_for_opening(&remote.session, self.key_id, header, voice)?,
            None => self.key_of_unmarked(remote, voice)?,
        };
        let opener = Opener::of(&fetched)?;
        match (&opener, &header) {
            (Opener::Suite1(_), None) => return Err(not_sealed(self.url)),
            (Opener::Legacy(key, name), Some(_)) => return Err(other_cipher(name, key.cipher().name())),
            _ => {}
        }
        let _cleaning = clean_up_on_signal();
        let report = self.open(remote, download, start, &opener, voice)?;
        Ok(Done {
            key_id: header.and_then(|header| header.key_id).unwrap_or(fetched.key_id),
            registration_id: fetched.constants.registration_id,
            report,
        })
    }

    /// The key of a file without our mark, if it can have one.
    fn key_of_unmarked(&self, remote: &Remote, voice: Voice) -> Result<FetchedKey, Failure> {
        let key_ids = match self.key_id {
            Some(typed) => meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?,
            None => vec![KeyId::new(self.url.name()).map_err(|_| not_sealed(self.url))?],
        };
        let fetched = match remote.session.fetch(&key_ids, Purpose::OpenUnmarked) {
            // nobody said that there is such a key
            Err(FetchError::NotFound { .. } | FetchError::Removed { .. }) if self.key_id.is_none() => {
                return Err(not_sealed(self.url));
            }
            fetched => fetched.map_err(failure::fetch)?,
        };
        remark_raw(&fetched, voice);
        Ok(fetched)
    }

    fn open(
        &self,
        remote: &Remote,
        mut download: Download,
        start: Vec<u8>,
        opener: &Opener,
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
        let broke_off = AtomicBool::new(false);
        let options = OpenOptions {
            overwrite: self.overwrite,
            progress: Some(&step),
            ..OpenOptions::default()
        };
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| match opener {
                Opener::Suite1(key) => SealedInput::from_pipe(pipe)?.unseal(key, self.output, &options),
                Opener::Legacy(key, _) => {
                    let options = OpenOptions {
                        cancel: Some(&broke_off),
                        ..options
                    };
                    RawInput::from_pipe(pipe)?.unseal(key, self.output, &options)
                }
            });
            let pumped = remote
                .session
                .wait(pump(&mut download, start, writer.into(), &broke_off));
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
            match sink.write(&piece).map_err(|source| self.not_written(source)) {
                Err(error) if reader_went_away(&error) => return Ok(at - first),
                written => written.map_err(open_failure)?,
            }
            at += piece.len() as u64;
            if piece.is_empty() || at >= end {
                break;
            }
        }
        sink.finish(self.overwrite).map_err(|error| self.no_output(error))?;
        Ok(at - first)
    }

    fn no_output(&self, source: io::Error) -> Failure {
        let output = self.output.clone();
        open_failure(OpenError::Output(match source.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists { output },
            _ => OutputError::Create { output, source },
        }))
    }

    fn not_written(&self, source: io::Error) -> OpenError {
        let output = self.output.clone();
        OpenError::Output(OutputError::Write { output, source })
    }
}

/// Reads the header of a file that is being got; none where it has not the mark of a sealed file.
///
/// # Errors
/// It is damaged.
pub(super) fn decoded(url: &StorageUrl, start: &[u8]) -> Result<Option<Header>, Failure> {
    match Header::decode(start) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderError::NotSealed) => Ok(None),
        Err(source) => Err(no_header(url, source)),
    }
}

/// What is wrong with a file that has not the mark of a sealed one, where its key is for none of the original's
/// ciphers.
pub(super) fn not_sealed(url: &StorageUrl) -> Failure {
    no_header(url, HeaderError::NotSealed)
}

fn no_header(url: &StorageUrl, source: HeaderError) -> Failure {
    let file = Input::File(url.to_string().into());
    open_failure(OpenError::Header { file, source })
}

/// Moves a download into a pipe, until it ends or nobody reads any more. Where it breaks off that is said before the
/// pipe ends.
async fn pump(
    download: &mut Download,
    start: Vec<u8>,
    writer: OwnedFd,
    broke_off: &AtomicBool,
) -> Result<(), StorageError> {
    let Ok(mut sender) = Sender::from_owned_fd(writer) else {
        return Ok(());
    };
    let mut next = Some(Bytes::from(start));
    while let Some(bytes) = next {
        if sender.write_all(&bytes).await.is_err() {
            // who read from it knows why
            return Ok(());
        }
        next = download
            .chunk()
            .await
            .inspect_err(|_| broke_off.store(true, Ordering::Release))?;
    }
    Ok(())
}

/// What came of it: the download's own failure explains one of opening, but cannot take back what was verified.
fn judge(pumped: Result<(), StorageError>, opened: Result<Report, OpenError>, voice: Voice) -> Result<Report, Failure> {
    match (pumped, forgive_reader(opened)) {
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
    Staged {
        file: tempfile::NamedTempFile,
        /// Its name in the end.
        path: PathBuf,
        _on_signal: io::Result<OnSignal>,
    },
}

impl RangeSink {
    fn open(output: &Output) -> io::Result<Self> {
        let Output::File(path) = output else {
            let stdout = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?;
            return Ok(Self::Direct(stdout.into()));
        };
        let path = match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return File::options().write(true).open(path).map(Self::Direct),
            // a link stays one: what it leads to is replaced
            Ok(_) => path.canonicalize()?,
            Err(_) => path.clone(),
        };
        // for its owner alone, as all opened files
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(".eds-").suffix(".part").tempfile_in(folder_of(&path))?;
        Ok(Self::Staged {
            _on_signal: remove_on_signal(file.path()),
            file,
            path,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Direct(file) => file.write_all(bytes),
            Self::Staged { file, .. } => file.write_all(bytes),
        }
    }

    fn finish(self, overwrite: bool) -> io::Result<()> {
        let Self::Staged { file, path, _on_signal } = self else {
            return Ok(());
        };
        file.as_file().sync_all()?;
        let named = if overwrite {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        named.map_err(|error| error.error)?;
        // the name, too, is to outlive a crash; a folder that cannot be opened has no way
        File::open(folder_of(&path)).map_or(Ok(()), |folder| folder.sync_all())
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
