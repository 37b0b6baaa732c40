//! `eds-put`: registers a key, seals a file under it while it goes out, and undoes both if it does not arrive.
//!
//! A key of the original's ciphers makes one of the original's files, which does not name its key.
//!
//! The order is: look whether the place is free, register, send, compare. What was begun and did not end is taken away,
//! file and key, also after a signal; what cannot be taken away is named.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hydra_cli::progress::Progress;
use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::{KeyId, KeyIdError};
use hydra_core::keystore::hydra::{Purpose, RegisterError, RegisterOptions};
use hydra_core::sealed::{self, Input, Pipe, Report, SealError, SealOptions, Trouble};
use serde_json::json;
use storage_url::{Before, PutOptions, Remains, Source, StorageUrl, Stored};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::{Remote, Undoing, args, storage_url};
use crate::failure::{self, Because, quoted};
use crate::legacy::{self, NewKey, Sealer};
use crate::operands::{bad_key_id, input, meant_key_ids, new_key_id};
use crate::session::overrides;
use crate::voice::Voice;
use crate::work::seal_failure;

/// What is put where.
pub struct Order<'a> {
    /// What to seal.
    pub input: &'a Input,
    /// Where to.
    pub url: &'a StorageUrl,
    /// The key's name as it was typed; none: the path in the URL.
    pub key_id: Option<&'a str>,
    /// Whether the key is registered already.
    pub existing_key: bool,
    /// Whether a file that is there is replaced.
    pub overwrite: bool,
    /// What key is made; none: one of our suite.
    pub new_key: Option<&'a NewKey>,
    /// Whether the file goes as it is, though a key is made for it: the original could be asked to.
    pub plain: bool,
}

/// What was put.
#[derive(Debug)]
pub struct Done {
    /// The name of the key.
    pub key_id: KeyId,
    /// Its registration.
    pub registration_id: RegistrationId,
    /// Whether the file says which key it needs.
    pub names_its_key: bool,
    /// What was sealed.
    pub report: Report,
    /// What was stored.
    pub stored: Stored,
}

/// Why nothing was put.
#[derive(Debug)]
pub enum PutFailure {
    /// The key was not registered.
    Register(RegisterError),
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for PutFailure {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<PutFailure> for Failure {
    fn from(failure: PutFailure) -> Self {
        match failure {
            PutFailure::Register(error) => failure::register(error),
            PutFailure::Other(failure) => failure,
        }
    }
}

/// `eds-put`.
///
/// # Errors
/// What went wrong; what could not be undone is told in warnings.
pub fn put(args: &args::Put) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let url = storage_url(&args.url)?;
    let input = input(&args.local);
    let order = Order {
        input: &input,
        url: &url,
        key_id: args.key_id.as_deref(),
        existing_key: args.existing_key,
        overwrite: args.force,
        new_key: None,
        plain: false,
    };
    order.check()?;
    let remote = Remote::open(&overrides(&args.stores), args.patience.idle())?;
    let done = order.carry_out(&remote, voice)?;
    let place = url.to_string();
    voice.result(&format!(
        "put {place} under {}, registration {}",
        done.key_id, done.registration_id
    ))?;
    voice.json(&json!({
        "url": place,
        "key_id": done.key_id.as_str(),
        "registration_id": done.registration_id.to_string(),
        "plaintext_bytes": done.report.plaintext_bytes,
        "file_bytes": done.stored.bytes,
        "adler32": format!("{:08x}", done.stored.adler32),
        "checksum_compared": done.stored.checked,
    }))?;
    let named = if done.names_its_key || done.key_id.as_str() == url.name() {
        String::new()
    } else {
        format!("--key-id {} ", quoted(done.key_id.as_str()))
    };
    voice.hint(&format!("get it with: eds-get {named}{} LOCAL", quoted(&place)));
    Ok(())
}

/// How a file goes out.
enum Way {
    Sealed(Sealer),
    AsItIs,
}

impl Way {
    fn send(&self, input: &Input, pipe: Pipe, options: &SealOptions<'_>) -> Result<Report, SealError> {
        match self {
            Self::Sealed(sealer) => sealer.seal_into(input, pipe, options),
            Self::AsItIs => sealed::pass_into(input, pipe, options),
        }
    }

    fn file_bytes(&self, plaintext_bytes: u64) -> Option<u64> {
        match self {
            Self::Sealed(sealer) => sealer.file_bytes(plaintext_bytes),
            Self::AsItIs => Some(plaintext_bytes),
        }
    }
}

/// How a file goes out, its key, and whether this command made that.
struct Sealing {
    way: Way,
    key_id: KeyId,
    registration_id: RegistrationId,
    is_new: bool,
}

impl Order<'_> {
    /// What can be told before anybody is asked.
    ///
    /// # Errors
    /// Wrong usage, or an input that is not there.
    pub fn check(&self) -> Result<(), Failure> {
        if let Some(typed) = self.key_id {
            new_key_id(typed).map_err(|error| bad_key_id(typed, error))?;
        } else {
            self.own_key_id()?;
        }
        let Input::File(path) = self.input else { return Ok(()) };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(Failure::new(Code::Usage, format!("{} is a folder", self.input))),
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("cannot open {}", self.input);
                Err(Failure::new(Code::Io, Because::new(text, error)))
            }
        }
    }

    /// The key is called like the file on its storage element.
    fn own_key_id(&self) -> Result<KeyId, Failure> {
        let name = self.url.name();
        KeyId::new(&name).map_err(|error: KeyIdError| {
            let text = format!("`{name}`, the path in the URL, is no key id");
            Failure::new(Code::Usage, Because::new(text, error)).advise("--key-id KEY_ID")
        })
    }

    /// Does it.
    ///
    /// # Errors
    /// What went wrong. File and key are then undone as far as possible, and what is left is told in warnings.
    pub fn carry_out(&self, remote: &Remote, voice: Voice) -> Result<Done, PutFailure> {
        let before = remote.session.wait(remote.storage.look(self.url, self.overwrite));
        let before = before.map_err(super::failed)?;
        let undoing = Undoing::begin();
        let sealing = self.sealing(remote, voice)?;
        let Sealing {
            way,
            key_id,
            registration_id,
            is_new,
        } = sealing;
        let names_its_key = matches!(way, Way::Sealed(Sealer::Suite1(_)));
        let sent = self.send(remote, way, before, &undoing, voice);
        let sent = sent.inspect_err(|_| {
            if is_new {
                take_back(remote, &key_id, registration_id, voice);
            }
        });
        let (report, stored) = undoing.end(sent)?;
        Ok(Done {
            key_id,
            registration_id,
            names_its_key,
            report,
            stored,
        })
    }

    /// A new key, or the one that is there.
    fn sealing(&self, remote: &Remote, voice: Voice) -> Result<Sealing, PutFailure> {
        let session = &remote.session;
        let (key_ids, registered) = match (self.key_id, self.existing_key) {
            (Some(typed), true) => (meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?, None),
            (typed, _) => {
                let key_id = match typed {
                    Some(typed) => new_key_id(typed).map_err(|error| bad_key_id(typed, error))?,
                    None => self.own_key_id()?,
                };
                let registered = legacy::register(session, &key_id, self.new_key, RegisterOptions::default());
                let registration_id = registered.map_err(PutFailure::Register)?.registration_id;
                if self.plain {
                    return Ok(Sealing {
                        way: Way::AsItIs,
                        key_id,
                        registration_id,
                        is_new: true,
                    });
                }
                (vec![key_id], Some(registration_id))
            }
        };
        let fetched = match session.fetch(&key_ids, Purpose::Seal).map_err(failure::fetch) {
            Ok(fetched) if registered.is_none_or(|ours| ours == fetched.constants.registration_id) => Ok(fetched),
            Ok(fetched) => {
                let text = format!(
                    "key `{}` was registered anew by somebody else meanwhile",
                    fetched.key_id
                );
                Err(Failure::new(Code::TryLater, text))
            }
            Err(failure) => Err(failure),
        };
        let undo = |failure| {
            if let (Some(registration_id), [key_id]) = (registered, key_ids.as_slice()) {
                take_back(remote, key_id, registration_id, voice);
            }
            PutFailure::Other(failure)
        };
        let fetched = fetched.map_err(undo)?;
        let (key_id, registration_id) = (fetched.key_id.clone(), fetched.constants.registration_id);
        Ok(Sealing {
            way: Way::Sealed(Sealer::of(fetched, voice).map_err(undo)?),
            key_id,
            registration_id,
            is_new: registered.is_some(),
        })
    }

    fn send(
        &self,
        remote: &Remote,
        way: Way,
        before: Before,
        undoing: &Undoing,
        voice: Voice,
    ) -> Result<(Report, Stored), Failure> {
        let no_pipe = |error: io::Error| Failure::new(Code::Failed, Because::new("cannot seal into a pipe", error));
        let (reader, writer) = io::pipe().map_err(no_pipe)?;
        let plaintext_bytes = self.plaintext_bytes();
        let bar = (!voice.quiet).then(|| Progress::bytes(&self.input.to_string(), plaintext_bytes, false));
        let file_bytes = plaintext_bytes.and_then(|bytes| way.file_bytes(bytes));
        let verdict = seal_beside(way, self.input.clone(), self.url.to_string(), writer, bar).map_err(no_pipe)?;
        let outcome = Arc::new(Mutex::new(None));
        let options = PutOptions {
            overwrite: self.overwrite,
            bytes: file_bytes,
            stop: Some(undoing.stop()),
        };
        let stored = remote.session.wait(async {
            let source = Vouched::new(reader, verdict, Arc::clone(&outcome)).map_err(no_pipe)?;
            let source: Source = Box::new(source);
            let put = remote.storage.put(self.url, source, &options, before).await;
            put.map_err(|error| {
                told_remains(&error.remains, self.url, voice);
                super::failed(error.error)
            })
        });
        let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (stored, outcome) {
            (Ok(stored), Some(Ok(report))) => Ok((report, stored)),
            // that it wants no more is the storage element's own failure
            (Err(_), Some(Err(error))) if error.trouble() != Trouble::Cancelled => Err(seal_failure(error)),
            (Err(failure), _) => Err(failure),
            (Ok(_), _) => Err(Failure::new(Code::Failed, "the file was stored before it was sealed")),
        }
    }

    /// The size of a regular file, as sealing will see it.
    fn plaintext_bytes(&self) -> Option<u64> {
        let Input::File(path) = self.input else { return None };
        let metadata = std::fs::metadata(path).ok()?;
        (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
    }
}

fn told_remains(remains: &Remains, url: &StorageUrl, voice: Voice) {
    let Remains::Perhaps(error) = remains else { return };
    let what = format!("a part of the file may be left at `{url}`: {error}");
    voice.warning(&what);
    voice.note(&format!("  try: eds-rm --keep-key {}", quoted(&url.to_string())));
}

/// Removes a key that nothing was sealed under, or says that it is left.
fn take_back(remote: &Remote, key_id: &KeyId, registration_id: RegistrationId, voice: Voice) {
    let removed = remote
        .session
        .wait(remote.session.hydra.unregister(key_id, Some(registration_id)));
    if let Err(error) = removed {
        voice.warning(&format!(
            "key `{key_id}` is left, though nothing is sealed under it: {error}"
        ));
        voice.note(&format!(
            "  try: eds-key-unregister --registration {registration_id} {}",
            quoted(key_id.as_str())
        ));
    }
}

type Verdict = Result<Report, SealError>;

/// Seals in a thread of its own, which ends by itself as soon as nobody reads any more.
fn seal_beside(
    way: Way,
    input: Input,
    name: String,
    writer: PipeWriter,
    bar: Option<Progress>,
) -> io::Result<oneshot::Receiver<Verdict>> {
    let (tell, verdict) = oneshot::channel();
    let file = File::from(OwnedFd::from(writer));
    std::thread::Builder::new().name("seal".into()).spawn(move || {
        let step = |progress: sealed::Progress| {
            if let Some(bar) = &bar {
                bar.set(progress.done_bytes);
            }
        };
        let options = SealOptions {
            progress: Some(&step),
            ..SealOptions::default()
        };
        let result = way.send(&input, Pipe { file, name }, &options);
        // whoever asked has given up if nobody listens
        let _ = tell.send(result);
    })?;
    Ok(verdict)
}

/// The sealed bytes out of the pipe. They end only when sealing vouches for them: the pipe ends also where it failed.
struct Vouched {
    pipe: Receiver,
    verdict: Option<oneshot::Receiver<Verdict>>,
    outcome: Arc<Mutex<Option<Verdict>>>,
}

impl Vouched {
    fn new(
        reader: PipeReader,
        verdict: oneshot::Receiver<Verdict>,
        outcome: Arc<Mutex<Option<Verdict>>>,
    ) -> io::Result<Self> {
        Ok(Self {
            pipe: Receiver::from_owned_fd(reader.into())?,
            verdict: Some(verdict),
            outcome,
        })
    }
}

impl AsyncRead for Vouched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        let Some(verdict) = self.verdict.as_mut().filter(|_| buffer.filled().len() == before) else {
            return Poll::Ready(Ok(()));
        };
        let verdict = ready!(Pin::new(verdict).poll(context));
        self.verdict = None;
        let broke_off = || io::Error::other("sealing broke off");
        let verdict = verdict.map_err(|_| broke_off())?;
        let vouched = if verdict.is_ok() { Ok(()) } else { Err(broke_off()) };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        Poll::Ready(vouched)
    }
}

#[cfg(test)]
mod tests {
    use hydra_core::sealed::Header;
    use hydra_core::secret::Key;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::encrypt::SealingKey;

    fn read_all(input: Input) -> (io::Result<Vec<u8>>, Option<Verdict>) {
        let key = SealingKey {
            key: Key::random().unwrap(),
            header: Header::of_key_file(),
        };
        let (reader, writer) = io::pipe().unwrap();
        let verdict = seal_beside(
            Way::Sealed(Sealer::Suite1(key)),
            input,
            "https://se/x".into(),
            writer,
            None,
        )
        .unwrap();
        let outcome = Arc::new(Mutex::new(None));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let read = runtime.block_on(async {
            let mut source = Vouched::new(reader, verdict, Arc::clone(&outcome)).unwrap();
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).await.map(|_| bytes)
        });
        let outcome = outcome.lock().unwrap().take();
        (read, outcome)
    }

    #[test]
    fn what_was_not_sealed_to_its_end_never_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        std::fs::write(&path, vec![1; 500_000]).unwrap();
        let (read, outcome) = read_all(Input::File(path));
        let report = outcome.unwrap().unwrap();
        assert_eq!(read.unwrap().len() as u64, report.file_bytes);
        assert_eq!(report.plaintext_bytes, 500_000);
        let (read, outcome) = read_all(Input::File(folder.path().join("none")));
        assert!(read.is_err());
        assert!(matches!(outcome, Some(Err(SealError::Input(_)))));
    }
}
