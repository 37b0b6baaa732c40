//! Files at storage URLs, streamed both ways: `file:`, `https:` and `davs:` (WebDAV), `root:`, `gsiftp:`, `srm:`.
//!
//! [`Storage`] puts, gets, looks and removes; `https:` is spoken here, the rest by the programs that every grid has
//! (`xrdcp`, `xrdfs`, `gfal-copy` and their like), through pipes: nothing is ever kept in a file on the way. What the
//! bytes are does not matter here. The user's page is `docs/src/storage.md`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use storage_url::{Access, Storage, StorageUrl};
//!
//! let storage = Storage::new(Access::default());
//! let url = StorageUrl::parse("file:///data/scan.eds")?;
//! let mut download = storage.get(&url, 0).await?;
//! while let Some(bytes) = download.chunk().await? {
//!     println!("{} bytes", bytes.len());
//! }
//! # Ok(())
//! # }
//! ```

mod checksum;
mod error;
mod gfal;
mod local;
mod program;
mod url;
mod web;
mod xrootd;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::Notify;

pub use checksum::Adler32;
pub use error::{PutError, Reason, Remains, StorageError};
pub use hyper::body::Bytes;
pub use program::end_programs;
pub use url::{MAX_BYTES, Scheme, StorageUrl, UrlError};

/// How long nothing may move before a transfer is given up, unless told otherwise.
pub const IDLE: Duration = Duration::from_secs(60);

/// How long undoing a failed transfer may take.
const UNDO: Duration = Duration::from_secs(20);

/// What is asked for and written at once.
pub(crate) const PIECE: usize = 256 * 1024;

/// Who the user is to storage elements, whom to believe there, and how long to wait.
#[derive(Clone)]
pub struct Access {
    /// For `https:`: presents the credential and knows the trust anchors.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// For the programs that speak the other schemes: variables of their environment, as `X509_USER_PROXY`.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// How long nothing may move.
    pub idle: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            tls: None,
            environment: Vec::new(),
            idle: IDLE,
        }
    }
}

/// How to store a file.
#[derive(Clone, Default)]
pub struct PutOptions {
    /// Whether a file that is there is replaced. A failure may cost the old one.
    pub overwrite: bool,
    /// How many bytes will come, where that is known.
    pub bytes: Option<u64>,
    /// Stops the transfer when it is notified; what is left is taken away as after any failure.
    pub stop: Option<Arc<Notify>>,
}

/// A file that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// How many bytes.
    pub bytes: u64,
    /// Their checksum.
    pub adler32: u32,
    /// Whether the storage element has the same checksum; not, where it keeps none.
    pub checked: bool,
}

/// A file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// How many bytes; none where the server does not say.
    pub bytes: Option<u64>,
}

/// What was at a URL before a file is put there. Only what was not there before is taken away after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Absent,
    /// A file that is to be replaced.
    There,
}

/// A source of bytes. Where it ends with an error the file is not stored, however much of it was sent.
pub type Source = Box<dyn AsyncRead + Send + Unpin>;

/// Storage elements, and the files of this machine.
pub struct Storage {
    access: Access,
}

impl Storage {
    /// With what it takes to reach them. Nothing is connected yet.
    pub fn new(access: Access) -> Self {
        Self { access }
    }

    /// Looks whether a file may be put at a URL.
    ///
    /// # Errors
    /// There is a file and it is not to be replaced, or the server cannot be asked or does not let us look: what could
    /// not be seen before could not be taken away after a failure either.
    pub async fn look(&self, url: &StorageUrl, overwrite: bool) -> Result<Before, StorageError> {
        match self.stat(url).await {
            Ok(_) if !overwrite => Err(StorageError::Exists { url: url.to_string() }),
            Ok(_) => Ok(Before::There),
            Err(StorageError::NotFound { .. }) => Ok(Before::Absent),
            Err(error) => Err(error),
        }
    }

    /// Stores what `source` has; it is there whole when this returns, and compared where the server has a checksum.
    /// `before` is what [`Storage::look`] said.
    ///
    /// # Errors
    /// Why not, and what is left: a part of a file that was begun is taken away again.
    pub async fn put(
        &self,
        url: &StorageUrl,
        source: Source,
        options: &PutOptions,
        before: Before,
    ) -> Result<Stored, PutError> {
        let transfer = self.transfer(url, source, options);
        let stopped = async {
            match &options.stop {
                Some(stop) => stop.notified().await,
                None => std::future::pending().await,
            }
        };
        let stored = tokio::select! {
            stored = transfer => stored,
            () = stopped => Err(StorageError::Stopped { url: url.to_string() }),
        };
        let error = match stored {
            Ok(stored) => return Ok(stored),
            Err(error) => error,
        };
        let may_undo = before == Before::Absent || options.overwrite;
        // a local file appears whole or not at all
        let remains = if error.changed_nothing(url.scheme()) || url.scheme() == Scheme::File || !may_undo {
            Remains::Nothing
        } else {
            self.undo(url).await
        };
        Err(PutError { error, remains })
    }

    async fn undo(&self, url: &StorageUrl) -> Remains {
        let removed = tokio::time::timeout(UNDO, self.remove(url)).await;
        match removed {
            Ok(Ok(()) | Err(StorageError::NotFound { .. })) => Remains::Nothing,
            Ok(Err(error)) => Remains::Perhaps(Box::new(error)),
            Err(_) => Remains::Perhaps(Box::new(StorageError::Idle {
                url: url.to_string(),
                idle: UNDO,
            })),
        }
    }

    async fn transfer(&self, url: &StorageUrl, source: Source, options: &PutOptions) -> Result<Stored, StorageError> {
        match url.scheme() {
            Scheme::File => local::put(url, source, options.overwrite).await,
            Scheme::Https => web::put(&self.access, url, source, options).await,
            Scheme::Root => xrootd::put(&self.access, url, source, options).await,
            Scheme::Gsiftp | Scheme::Srm => gfal::put(&self.access, url, source, options).await,
        }
    }

    /// Begins to read a file, from the byte `offset` on.
    ///
    /// Only files and `https:` begin there without reading what stands before.
    ///
    /// # Errors
    /// There is no such file, or the server does not give it.
    pub async fn get(&self, url: &StorageUrl, offset: u64) -> Result<Download, StorageError> {
        let (from, skip) = match url.scheme() {
            Scheme::File => (Origin::Local(local::get(url, offset).await?), 0),
            Scheme::Https => {
                let (body, skip) = web::get(&self.access, url, offset).await?;
                (Origin::Web(body), skip)
            }
            Scheme::Root => (Origin::Program(Box::new(xrootd::get(&self.access, url)?)), offset),
            Scheme::Gsiftp | Scheme::Srm => (Origin::Program(Box::new(gfal::get(&self.access, url)?)), offset),
        };
        Ok(Download { from, skip })
    }

    /// Looks whether a file is there, and how large it is.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where it is not.
    pub async fn stat(&self, url: &StorageUrl) -> Result<Stat, StorageError> {
        match url.scheme() {
            Scheme::File => local::stat(url).await,
            Scheme::Https => web::stat(&self.access, url).await,
            Scheme::Root => xrootd::stat(&self.access, url).await,
            Scheme::Gsiftp | Scheme::Srm => gfal::stat(&self.access, url).await,
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where there is none.
    pub async fn remove(&self, url: &StorageUrl) -> Result<(), StorageError> {
        match url.scheme() {
            Scheme::File => local::remove(url).await,
            Scheme::Https => web::remove(&self.access, url).await,
            Scheme::Root => xrootd::remove(&self.access, url).await,
            Scheme::Gsiftp | Scheme::Srm => gfal::remove(&self.access, url).await,
        }
    }
}

/// A file that is being read.
pub struct Download {
    from: Origin,
    /// Bytes in front that were not asked for.
    skip: u64,
}

enum Origin {
    Local(local::Reading),
    Web(web::Receiving),
    Program(Box<program::Reading>),
}

impl Download {
    /// The next bytes; none at the end, and then all of them came.
    ///
    /// # Errors
    /// The transfer broke off, nothing moved for too long, or the file is not what the server's checksum says.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let next = match &mut self.from {
                Origin::Local(reading) => reading.chunk().await,
                Origin::Web(receiving) => receiving.chunk().await,
                Origin::Program(reading) => reading.chunk().await,
            };
            let Some(mut bytes) = next? else { return Ok(None) };
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            let bytes = bytes.split_off(usize::try_from(skipped).unwrap_or(bytes.len()));
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// Compares what the server says of a file that was stored with what was sent.
pub(crate) fn compare(
    url: &StorageUrl,
    sent: &Stored,
    bytes: Option<u64>,
    adler32: Option<u32>,
) -> Result<Stored, StorageError> {
    let altered = |what, found: String, sent: String| StorageError::Altered {
        url: url.to_string(),
        what,
        found,
        sent,
    };
    match (bytes, adler32) {
        (Some(found), _) if found != sent.bytes => Err(altered("size", found.to_string(), sent.bytes.to_string())),
        (_, Some(found)) if found != sent.adler32 => {
            let hex = |sum| format!("{sum:08x}");
            Err(altered("Adler-32 checksum", hex(found), hex(sent.adler32)))
        }
        _ => Ok(Stored {
            checked: adler32.is_some(),
            ..*sent
        }),
    }
}
