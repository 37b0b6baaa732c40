//! Sealed files on their way: checksummed as they pass, and whole at the other end or not there.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{Context as Digest, SHA256};
use eds::failure::Because;
use hydra_cli::{Code, Failure};
use mdm_catalog::wire::Entry;
use storage_url::{Adler32, Before, Bytes, Download, PutOptions, Storage, StorageUrl};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// So many pieces wait between a download and what takes them.
const WAITING: usize = 8;
/// What is read of a local file at once.
const PIECE: usize = 256 * 1024;

/// What a file is, by its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) size: Option<u64>,
    pub(super) adler32: Option<String>,
    pub(super) sha256: Option<String>,
}

impl Sums {
    /// What the catalogue says of a file.
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            size: entry.size,
            adler32: entry.adler32.clone(),
            sha256: entry.sha256.clone(),
        }
    }

    /// Where what came is not what it should be.
    fn differs(&self, came: &Self) -> Option<String> {
        let pairs = [
            (
                "size",
                self.size.map(|size| size.to_string()),
                came.size.map(|size| size.to_string()),
            ),
            ("Adler-32", self.adler32.clone(), came.adler32.clone()),
            ("SHA-256", self.sha256.clone(), came.sha256.clone()),
        ];
        pairs.into_iter().find_map(|(what, expected, came)| {
            let (expected, came) = (expected?, came?);
            (!expected.eq_ignore_ascii_case(&came)).then(|| format!("its {what} is {came}, not {expected}"))
        })
    }
}

/// Sums in the making.
struct Counting {
    size: u64,
    adler32: Adler32,
    sha256: Digest,
}

impl Counting {
    fn new() -> Self {
        Self {
            size: 0,
            adler32: Adler32::default(),
            sha256: Digest::new(&SHA256),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.adler32.update(bytes);
        self.sha256.update(bytes);
    }

    fn finish(self) -> Sums {
        let digest = self.sha256.finish();
        Sums {
            size: Some(self.size),
            adler32: Some(format!("{:08x}", self.adler32.value())),
            sha256: Some(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

/// Where bytes come from.
pub(super) enum From<'a> {
    Local(&'a Path),
    Remote(&'a StorageUrl),
}

impl From<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Remote(url) => url.to_string(),
        }
    }

    async fn open(&self, storage: &Storage) -> Result<Reading, Failure> {
        match self {
            Self::Local(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| unreadable(path, error))?;
                Ok(Reading::Local(file))
            }
            Self::Remote(url) => {
                let download = storage.get(url, 0).await.map_err(eds::storage::failed)?;
                Ok(Reading::Remote(Box::new(download)))
            }
        }
    }
}

/// A file that cannot be read.
pub(super) fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::new(
        Code::Io,
        Because::new(format!("cannot read `{}`", path.display()), error),
    )
}

enum Reading {
    Local(tokio::fs::File),
    Remote(Box<Download>),
}

impl Reading {
    async fn chunk(&mut self, from: &From<'_>) -> Result<Option<Bytes>, Failure> {
        use tokio::io::AsyncReadExt;
        match self {
            Self::Local(file) => {
                let mut buffer = vec![0; PIECE];
                let read = file.read(&mut buffer).await;
                let read = read.map_err(|error| unreadable(Path::new(&from.shown()), error))?;
                buffer.truncate(read);
                Ok((read > 0).then(|| buffer.into()))
            }
            Self::Remote(download) => download.chunk().await.map_err(eds::storage::failed),
        }
    }
}

/// Brings a file to a path of this machine. It appears whole, as it should be, or not at all.
///
/// # Errors
/// What went wrong; what is there stays then.
pub(super) async fn to_local(storage: &Storage, from: From<'_>, to: &Path, expected: &Sums) -> Result<Sums, Failure> {
    let unwritable = |error: io::Error| {
        Failure::new(
            Code::Io,
            Because::new(format!("cannot write `{}`", to.display()), error),
        )
    };
    let mut reading = from.open(storage).await?;
    let mut target = Target::open(to).map_err(unwritable)?;
    let mut counting = Counting::new();
    while let Some(bytes) = reading.chunk(&from).await? {
        counting.update(&bytes);
        target.write(&bytes).map_err(unwritable)?;
    }
    let came = counting.finish();
    if let Some(differs) = expected.differs(&came) {
        return Err(altered(&from.shown(), &differs));
    }
    target.finish().map_err(unwritable)?;
    Ok(came)
}

fn altered(from: &str, differs: &str) -> Failure {
    Failure::new(
        Code::Damaged,
        format!("`{from}` is not what the catalogue knows: {differs}"),
    )
}

/// A file that gets its name at the end, or a device that is written to.
enum Target {
    Direct(std::fs::File),
    Staged(tempfile::NamedTempFile, PathBuf),
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        let path = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                return std::fs::File::options().write(true).open(path).map(Self::Direct);
            }
            Ok(_) => path.canonicalize()?,
            Err(_) => path.to_owned(),
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(".lcg-").suffix(".part");
        // less the umask, as for any file that is made
        let file = builder
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        Ok(Self::Staged(file, path))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Direct(file) => file.write_all(bytes),
            Self::Staged(file, _) => file.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        let Self::Staged(file, path) = self else { return Ok(()) };
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

/// Puts a file at a URL where nothing is. It is there as it should be, or not at all.
///
/// # Errors
/// What went wrong, and what could not be taken away again.
pub(super) async fn to_remote(
    storage: &Storage,
    from: From<'_>,
    to: &StorageUrl,
    expected: &Sums,
) -> Result<Sums, Failure> {
    let before = storage.look(to, false).await.map_err(eds::storage::failed)?;
    let mut reading = from.open(storage).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let source = Pieces {
        receiver,
        now: Bytes::new(),
    };
    let options = PutOptions {
        bytes: expected.size,
        ..PutOptions::default()
    };
    let pump = async {
        let mut counting = Counting::new();
        let result = loop {
            match reading.chunk(&from).await {
                Ok(Some(bytes)) => {
                    counting.update(&bytes);
                    // whoever takes them knows why it has stopped
                    if sender.send(Ok(bytes)).await.is_err() {
                        break Ok(None);
                    }
                }
                Ok(None) => {
                    let came = counting.finish();
                    match expected.differs(&came) {
                        Some(differs) => break Err(altered(&from.shown(), &differs)),
                        None => break Ok(Some(came)),
                    }
                }
                Err(failure) => break Err(failure),
            }
        };
        if result.is_err() {
            let _ = sender
                .send(Err(io::Error::other("what was to be stored broke off")))
                .await;
        }
        drop(sender);
        result
    };
    let (pumped, stored) = tokio::join!(pump, storage.put(to, Box::new(source), &options, before));
    let came = match (pumped, stored) {
        (Err(failure), _) => return Err(failure),
        (_, Err(error)) => {
            if let storage_url::Remains::Perhaps(why) = &error.remains {
                hydra_cli::output::warn(&format!("a part of the file may be left at {to}: {why}"));
            }
            return Err(eds::storage::failed(error.error));
        }
        (Ok(came), Ok(_)) => came,
    };
    match came {
        Some(came) => Ok(came),
        None => {
            remove_again(storage, to, before).await;
            Err(Failure::new(Code::Io, format!("`{to}` took only a part of the file")))
        }
    }
}

/// Takes away what was put, where the command fails after it.
pub(super) async fn remove_again(storage: &Storage, url: &StorageUrl, before: Before) {
    if before == Before::Absent
        && let Err(error) = storage.remove(url).await
    {
        hydra_cli::output::warn(&format!("{url} is left there: {error}"));
    }
}

/// Pieces of a file as a source; an error among them ends it as one.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.now.is_empty() {
            match self.receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(piece)) => self.now = piece?,
            }
        }
        let take = self.now.len().min(buffer.remaining());
        let piece = self.now.split_to(take);
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use storage_url::Access;

    use super::*;

    fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_file_comes_and_goes_with_its_sums() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
        std::fs::write(&source, b"Wikipedia").unwrap();
        let url = StorageUrl::parse(&format!("file://{}/stored", folder.path().display())).unwrap();
        let storage = Storage::new(Access::default());
        let sums = wait(to_remote(&storage, From::Local(&source), &url, &Sums::default())).unwrap();
        assert_eq!(sums.adler32.as_deref(), Some("11e60398"));
        assert_eq!((sums.size, sums.sha256.as_ref().map(String::len)), (Some(9), Some(64)));
        let there = wait(to_remote(&storage, From::Local(&source), &url, &Sums::default())).unwrap_err();
        assert_eq!(there.code, Code::CannotCreate);
        assert_eq!(
            wait(to_local(&storage, From::Remote(&url), &copy, &sums)).unwrap(),
            sums
        );
        assert_eq!(std::fs::read(&copy).unwrap(), b"Wikipedia");
    }

    #[test]
    fn what_is_not_as_it_should_be_does_not_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
        std::fs::write(&source, vec![7; 1_000_000]).unwrap();
        std::fs::write(&copy, b"old").unwrap();
        let storage = Storage::new(Access::default());
        let expected = Sums {
            adler32: Some("00000001".into()),
            ..Sums::default()
        };
        let failure = wait(to_local(&storage, From::Local(&source), &copy, &expected)).unwrap_err();
        assert_eq!(failure.code, Code::Damaged);
        assert_eq!(std::fs::read(&copy).unwrap(), b"old");
        let url = StorageUrl::parse(&format!("file://{}/stored", folder.path().display())).unwrap();
        let failure = wait(to_remote(&storage, From::Local(&source), &url, &expected)).unwrap_err();
        assert_eq!(failure.code, Code::Damaged);
        assert!(!folder.path().join("stored").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
