//! LSC files: whose VOMS server to believe for a VO, by the DNs of its certificate and of those above.
//!
//! `VO/HOST.lsc` in the directory of VOs has the server's DN in its first line, that of its issuer in the next, and so
//! on; a line that begins with `------` separates alternatives. Some tools write the DNs in pairs of subject and
//! issuer, so that one stands there twice in a row: that means the same.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::VomsError;
use crate::dn;
use crate::trust::{Stamp, TrustStore, stamp};

/// Most bytes of an LSC file.
pub const MOST_BYTES: usize = 64 * 1024;

/// Why a file is no LSC file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LscError {
    /// More than such a file can have.
    #[error("has more than {MOST_BYTES} bytes")]
    TooLarge,
    /// Not text.
    #[error("is no text")]
    NoText,
    /// A line that is no DN.
    #[error("line {line} is no DN in slash form")]
    NoDn {
        /// Which, from 1.
        line: usize,
    },
    /// A server without its issuer.
    #[error("does not name a server and its issuer")]
    TooFew,
}

/// What an LSC file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsc {
    chains: Vec<Vec<String>>,
}

impl Lsc {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`LscError`] where a line is neither a DN nor a separator, or a DN stands alone.
    pub fn parse(text: &[u8]) -> Result<Self, LscError> {
        if text.len() > MOST_BYTES {
            return Err(LscError::TooLarge);
        }
        let text = std::str::from_utf8(text).map_err(|_| LscError::NoText)?;
        let mut chains = vec![Vec::new()];
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            match line.chars().next() {
                None | Some('#') => {}
                Some('-') if line.starts_with("------") => chains.push(Vec::new()),
                Some('/') if !line.chars().any(char::is_control) => {
                    if let Some(chain) = chains.last_mut() {
                        chain.push(dn::canonical(line));
                    }
                }
                Some(_) => return Err(LscError::NoDn { line: number + 1 }),
            }
        }
        chains.retain(|chain| !chain.is_empty());
        if chains.is_empty() || chains.iter().any(|chain| chain.len() < 2) {
            return Err(LscError::TooFew);
        }
        for chain in &mut chains {
            chain.dedup();
        }
        Ok(Self { chains })
    }

    /// Whether these are the DNs of one of its servers and all above it, in order.
    pub fn names(&self, dns: &[String]) -> bool {
        let mut dns = dns.to_vec();
        dns.dedup();
        self.chains.contains(&dns)
    }
}

/// A directory of LSC files. They are read when they are needed, once for each connection; whether any has changed
/// since is looked at now and then.
#[derive(Debug)]
pub struct VomsDirectory {
    path: PathBuf,
    interval: Duration,
    generation: AtomicU64,
    watch: Mutex<Watch>,
}

#[derive(Debug)]
struct Watch {
    looked: Instant,
    stamps: Vec<Stamp>,
}

impl VomsDirectory {
    /// Most files that are looked at for changes.
    const MOST_FILES: usize = 10_000;

    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let watch = Watch {
            looked: Instant::now(),
            stamps: stamps(&path),
        };
        Self {
            path,
            interval: TrustStore::INTERVAL,
            generation: AtomicU64::new(0),
            watch: Mutex::new(watch),
        }
    }

    pub(super) fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Changes when a file does.
    pub(super) fn generation(&self) -> u64 {
        // Whoever finds another looking takes what there is.
        if let Ok(mut watch) = self.watch.try_lock()
            && watch.looked.elapsed() >= self.interval
        {
            watch.looked = Instant::now();
            let stamps = stamps(&self.path);
            if stamps != watch.stamps {
                tracing::info!(path = %self.path.display(), "LSC files have changed");
                watch.stamps = stamps;
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.generation.load(Ordering::Acquire)
    }

    /// The file of a VO and a server, both known to be single names.
    pub(super) fn lsc(&self, vo: &str, host: &str) -> Result<Lsc, VomsError> {
        let path = self.path.join(vo).join(format!("{host}.lsc"));
        let useless = |what: String| VomsError::Lsc {
            vo: vo.to_owned(),
            host: host.to_owned(),
            what,
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(VomsError::NoLsc {
                    vo: vo.to_owned(),
                    host: host.to_owned(),
                });
            }
            Err(error) => return Err(useless(error.kind().to_string())),
        };
        Lsc::parse(&text).map_err(|error| useless(error.to_string()))
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // A FIFO in its place would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// All files of all VOs, in order; what cannot be read is not there.
fn stamps(path: &Path) -> Vec<Stamp> {
    let files = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let mut stamps: Vec<Stamp> = files(path)
        .flat_map(|vo| files(&vo.path()))
        .filter(|file| file.file_name().as_encoded_bytes().ends_with(b".lsc"))
        .take(VomsDirectory::MOST_FILES)
        .filter_map(|file| stamp(file.path()).ok())
        .collect();
    stamps.sort();
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(dns: &[&str]) -> Vec<String> {
        dns.iter().map(|&dn| dn.to_owned()).collect()
    }

    #[test]
    fn a_file_names_one_chain_or_several() {
        let text = b"# the server\n/CN=host/a.org\r\n /C=IT/CN=CA\n\n------ NEXT CHAIN ------\n/Email=x@y/CN=b\n/CN=Sub\n/CN=Root\n";
        let lsc = Lsc::parse(text).unwrap();
        assert!(lsc.names(&owned(&["/CN=host\\/a.org", "/C=IT/CN=CA"])));
        assert!(lsc.names(&owned(&["/emailAddress=x@y/CN=b", "/CN=Sub", "/CN=Root"])));
        assert!(lsc.names(&owned(&["/emailAddress=x@y/CN=b", "/CN=Sub", "/CN=Root", "/CN=Root"])));
        for other in [
            &["/CN=host\\/a.org"][..],
            &["/C=IT/CN=CA", "/CN=host\\/a.org"],
            &["/emailAddress=x@y/CN=b", "/CN=Sub"],
            &["/CN=host\\/a.org", "/CN=Sub", "/CN=Root"],
            &["/CN=host\\/a.org", "/C=IT/CN=CA", "/CN=more"],
            &[],
        ] {
            assert!(!lsc.names(&owned(other)), "{other:?}");
        }
    }

    #[test]
    fn pairs_of_subject_and_issuer_mean_the_same() {
        let pairs = Lsc::parse(b"/CN=a\n/CN=Sub\n/CN=Sub\n/CN=Root\n").unwrap();
        assert_eq!(pairs, Lsc::parse(b"/CN=a\n/CN=Sub\n/CN=Root\n").unwrap());
    }

    #[test]
    fn what_is_no_lsc_file_is_refused() {
        assert_eq!(Lsc::parse(b""), Err(LscError::TooFew));
        assert_eq!(Lsc::parse(b"/CN=alone\n"), Err(LscError::TooFew));
        assert_eq!(Lsc::parse(b"/CN=a\n/CN=b\n------\n/CN=c"), Err(LscError::TooFew));
        assert_eq!(Lsc::parse(b"/CN=a\nCN=b\n"), Err(LscError::NoDn { line: 2 }));
        assert_eq!(Lsc::parse(b"/CN=a\0\n/CN=b\n"), Err(LscError::NoDn { line: 1 }));
        assert_eq!(Lsc::parse(b"\xff\n"), Err(LscError::NoText));
        assert_eq!(Lsc::parse(&vec![b'\n'; MOST_BYTES + 1]), Err(LscError::TooLarge));
    }
}
