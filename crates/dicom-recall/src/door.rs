//! What our own HTTPS listeners have in common: the host's certificate, whom it believes, who may come in. They answer
//! `dicom-recall serve` at the storage element and STOW-RS of `dicom-recall receive` in the hospital.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_identity::{Identity, Policy, TrustStore, Voms, dn, tls, voms::fqan};
use hydra_cli::{Code, Failure};
use hydra_service::monitor::{self, Ready};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where authorities are looked for unless told otherwise.
const AUTHORITIES: &str = "/etc/grid-security/certificates";

/// The host's certificate, and whom it believes, as a table of a configuration.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct HostTable {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca_dir: Option<PathBuf>,
    voms_dir: Option<PathBuf>,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// PEM, the host's first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// Hashed certificates, revocation lists and signing policies.
    pub ca_dir: PathBuf,
    /// LSC files, which say whose VOMS servers to believe for which VO.
    pub voms_dir: PathBuf,
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// Somebody else listens there, or we may not.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The process cannot do what a server does.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
}

impl HostTable {
    /// Checks it; faults name its keys under `table`, relative paths start from `folder`.
    pub fn check(self, faults: &mut Vec<String>, table: &str, folder: &Path) -> Option<Host> {
        let mut need = |name: &str, value: Option<PathBuf>| {
            if value.is_none() {
                faults.push(format!("`{table}.{name}` is missing"));
            }
            value.map(|path| folder.join(path))
        };
        let (certificate, key) = (need("certificate", self.certificate), need("key", self.key));
        Some(Host {
            certificate: certificate?,
            key: key?,
            ca_dir: folder.join(self.ca_dir.unwrap_or_else(|| AUTHORITIES.into())),
            voms_dir: folder.join(self.voms_dir.unwrap_or_else(|| Voms::DIRECTORY.into())),
        })
    }
}

impl Host {
    /// Reads the files. Clients need a certificate.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(&self) -> Result<(Arc<rustls::ServerConfig>, Arc<TrustStore>), Failure> {
        fn config(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
            Failure::new(Code::Config, error)
        }
        let trust = TrustStore::directory(&self.ca_dir, Policy::server()).map_err(config)?;
        let hosts = self.names()?;
        let trust = Arc::new(trust.with_voms(Voms::directory(&self.voms_dir).for_hosts(hosts)));
        let mut server = tls::server_config(&self.certificate, &self.key, Arc::clone(&trust)).map_err(config)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((Arc::new(server), trust))
    }

    /// What the host is called by its certificate.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        tls::host_names(&self.certificate).map_err(|error| Failure::new(Code::Config, error))
    }
}

/// Who may: DNs and FQANs, in the one form that is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principals(Vec<String>);

impl Principals {
    /// Checks a list called `name`.
    pub fn check(faults: &mut Vec<String>, name: &str, list: &[String]) -> Self {
        let canonical = |text: &String| {
            let first = text.strip_prefix('/')?.split('/').next()?;
            match first {
                "" => None,
                first if first.contains('=') => Some(dn::canonical(text)),
                _ => fqan::canonical(text.as_bytes()),
            }
        };
        let mut checked = Vec::new();
        for text in list {
            match canonical(text) {
                Some(principal) => checked.push(principal),
                None => faults.push(format!("`{name}`: `{text}` is no DN and no FQAN")),
            }
        }
        Self(checked)
    }

    /// Whether somebody is one of them.
    pub fn have(&self, identity: &Identity) -> bool {
        let is = |principal: &String| *principal == identity.dn || identity.fqans.contains(principal);
        self.0.iter().any(is)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks an address to listen on, called `name`.
pub fn address(faults: &mut Vec<String>, name: &str, text: Option<&str>) -> Option<SocketAddr> {
    let Some(text) = text else {
        faults.push(format!("`{name}` is missing"));
        return None;
    };
    let parsed = text.parse();
    if parsed.is_err() {
        faults.push(format!(
            "`{name}`: `{text}` is no address with a port, as `0.0.0.0:8444`"
        ));
    }
    parsed.ok()
}

/// Listens.
///
/// # Errors
/// Where it cannot.
pub async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bound
        .await
        .map_err(|source| Failure::new(Code::Config, DoorError::Listen { address, source }))
}

/// Serves the monitor at an address of its own.
///
/// # Errors
/// Where it cannot.
pub async fn serve_monitor(address: SocketAddr, ready: Ready) -> Result<(), Failure> {
    let (listener, _) = listen(address).await?;
    monitor::serve(listener, ready).map_err(|error| Failure::new(Code::Failed, error))
}

/// The signals that end a server.
pub struct Ends {
    terminate: Signal,
    interrupt: Signal,
    /// With it a limit to the size of files is a write that fails, and not the end of the process.
    _file_size: Signal,
}

impl Ends {
    /// Waits for them from now on.
    ///
    /// # Errors
    /// Where the process cannot.
    pub fn watch() -> Result<Self, Failure> {
        let start = |error| Failure::new(Code::Failed, DoorError::Start(error));
        let terminate = signal(SignalKind::terminate()).map_err(start)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(start)?;
        let file_size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            terminate,
            interrupt,
            _file_size: signal(file_size).map_err(start)?,
        })
    }

    /// Until one of them comes.
    pub async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The runtime of a server.
///
/// # Errors
/// Where there is none to be had.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::new(Code::Failed, DoorError::Start(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(dn: &str, fqans: &[&str]) -> Identity {
        Identity {
            dn: dn.to_owned(),
            fqans: fqans.iter().map(|fqan| (*fqan).to_owned()).collect(),
            voms_error: None,
            method: grid_identity::Method::Proxy,
            limited: false,
            not_after: std::time::SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn principals_are_dns_and_groups_in_one_form_and_nobody_by_default() {
        let mut faults = Vec::new();
        let list = ["/O=Grid/Email=a@b", "/myvo/Role=NULL/Capability=NULL", "alice", "/", ""];
        let allowed = Principals::check(&mut faults, "allow", &list.map(str::to_owned));
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(allowed.have(&identity("/O=Grid/emailAddress=a@b", &[])));
        assert!(allowed.have(&identity("/O=Grid/CN=x", &["/myvo/physicians", "/myvo"])));
        assert!(!allowed.have(&identity("/O=Grid/CN=x", &["/myvo/physicians"])));
        assert!(!Principals::default().have(&identity("", &[""])));
    }

    #[test]
    fn what_is_missing_is_told_with_the_name_of_its_table() {
        let mut faults = Vec::new();
        assert_eq!(HostTable::default().check(&mut faults, "tls", Path::new("/etc")), None);
        assert_eq!(address(&mut faults, "serve.listen", Some("8444")), None);
        assert_eq!(address(&mut faults, "serve.url", None), None);
        let faults = faults.join("\n");
        for words in [
            "`tls.certificate` is missing",
            "`tls.key`",
            "`8444` is no address",
            "`serve.url`",
        ] {
            assert!(faults.contains(words), "{words} in {faults}");
        }
    }
}
