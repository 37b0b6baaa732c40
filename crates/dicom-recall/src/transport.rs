//! How daemon and agent reach each other: one dials, the other listens, over a Unix socket on a single host or over
//! mutual TLS with grid certificates, where each end takes nobody but the one peer that it was told of
//! (`docs/src/formats/recall-line.md`).

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use grid_identity::{Certificate, ChainError, Credential, CredentialError, Policy, TrustError, TrustStore, tls};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// For a connection and its handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Where authorities are looked for unless told otherwise.
const AUTHORITIES: &str = "/etc/grid-security/certificates";

/// What an end of the line is, as a table of a configuration.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct LineTable {
    pub(crate) connect: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) authorities: Option<PathBuf>,
}

/// Where the other end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On this host.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// Who dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We do.
    Connect,
    /// The other end does.
    Listen,
}

/// Files and names for mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Hashed certificates of authorities, as `X509_CERT_DIR` names them.
    pub authorities: PathBuf,
    /// The DN of the only peer that is taken.
    pub peer: String,
}

/// An end of the line that can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineConfig {
    /// Where.
    pub address: Address,
    /// Who dials.
    pub role: Role,
    /// Mutual TLS, for everything but a Unix socket.
    pub security: Option<Security>,
    /// The mode of a Unix socket that we listen on.
    pub mode: u32,
}

impl LineTable {
    /// Whether it says where the other end is.
    pub fn is_given(&self) -> bool {
        self.connect.is_some() || self.listen.is_some()
    }

    /// Checks it; faults name its keys under `table`, relative paths start from `folder`.
    pub fn check(self, faults: &mut Vec<String>, table: &str, folder: &Path) -> Option<LineConfig> {
        let (text, role) = match (self.connect, self.listen) {
            (Some(text), None) => (text, Role::Connect),
            (None, Some(text)) => (text, Role::Listen),
            _ => {
                faults.push(format!("give one of `{table}.connect` and `{table}.listen`"));
                return None;
            }
        };
        let mode = mode(faults, &format!("{table}.mode"), self.mode.as_deref(), 0o600);
        let address = match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(folder.join(path)),
            None if text
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
            {
                Address::Tcp(text)
            }
            None => {
                faults.push(format!("`{table}`: `{text}` is neither `unix:PATH` nor `HOST:PORT`"));
                return None;
            }
        };
        let security = match address {
            Address::Unix(_) => None,
            Address::Tcp(_) => {
                let mut need = |name: &str, value: Option<PathBuf>| {
                    if value.is_none() {
                        faults.push(format!("`{table}.{name}` is missing, which TLS needs"));
                    }
                    value
                };
                let certificate = need("certificate", self.certificate);
                let key = need("key", self.key);
                let peer = need("peer", self.peer.as_ref().map(PathBuf::from));
                let is_dn = |text: &str| {
                    let first = text.strip_prefix('/').and_then(|rest| rest.split('/').next());
                    first.is_some_and(|first| first.contains('='))
                };
                if let Some(text) = self.peer.filter(|text| !is_dn(text)) {
                    faults.push(format!("`{table}.peer`: `{text}` is no DN"));
                }
                Some(Security {
                    certificate: folder.join(certificate?),
                    key: folder.join(key?),
                    authorities: folder.join(self.authorities.unwrap_or_else(|| AUTHORITIES.into())),
                    peer: grid_identity::dn::canonical(&peer?.to_string_lossy()),
                })
            }
        };
        Some(LineConfig {
            address,
            role,
            security,
            mode: mode?,
        })
    }
}

/// A file mode as configurations write it.
pub fn mode(faults: &mut Vec<String>, name: &str, text: Option<&str>, usual: u32) -> Option<u32> {
    let Some(text) = text else { return Some(usual) };
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        faults.push(format!("`{name}`: `{text}` is no mode, for example `0660`"));
    }
    mode
}

/// Why the other end is not reached, or not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody there, or a socket that cannot be made.
    #[error("cannot reach or open `{address}`")]
    Io {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("no connection to `{0}` within {HANDSHAKE:?}")]
    Slow(String),
    /// Our certificate or key cannot be used.
    #[error("cannot use our certificate")]
    Credential(#[source] CredentialError),
    /// The authorities cannot be read.
    #[error("cannot read the authorities")]
    Trust(#[source] TrustError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] tls::TlsError),
    /// The name of the host is none.
    #[error("`{address}` has no name of a host that a certificate could have")]
    Host {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: InvalidDnsNameError,
    },
    /// The handshake failed.
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    /// Its certificates give no identity.
    #[error("the other end has no identity")]
    Identity(#[source] ChainError),
    /// Somebody else.
    #[error("the other end is `{found}`, not `{expected}`")]
    Peer {
        /// Who it is.
        found: String,
        /// Who it should be.
        expected: String,
    },
}

/// What a connection is, whatever is below it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection with the other end.
pub type Stream = Box<dyn Io>;

/// Our end of the line.
pub enum End {
    /// It dials.
    Dialer(Dialer),
    /// It listens.
    Door(Door),
}

impl End {
    /// Opens it: binds where we listen, and reads what TLS needs.
    ///
    /// # Errors
    /// [`TransportError`]
    pub async fn open(config: &LineConfig) -> Result<Self, TransportError> {
        let trust = config.security.as_ref().map(|security| {
            let trust = TrustStore::directory(&security.authorities, Policy::server());
            trust.map(Arc::new).map_err(TransportError::Trust)
        });
        let trust = trust.transpose()?;
        let tls = config.security.clone().zip(trust);
        Ok(match config.role {
            Role::Connect => Self::Dialer(Dialer {
                address: config.address.clone(),
                tls,
            }),
            Role::Listen => Self::Door(Door::open(config, tls).await?),
        })
    }
}

type Tls = (Security, Arc<TrustStore>);

/// Connects to the other end.
pub struct Dialer {
    address: Address,
    tls: Option<Tls>,
}

impl Dialer {
    /// Where it dials.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connects once.
    ///
    /// # Errors
    /// [`TransportError`]
    pub async fn dial(&self) -> Result<Stream, TransportError> {
        let dialed = tokio::time::timeout(HANDSHAKE, self.connect()).await;
        dialed.unwrap_or_else(|_| Err(TransportError::Slow(self.address.to_string())))
    }

    async fn connect(&self) -> Result<Stream, TransportError> {
        let unreached = |source| TransportError::Io {
            address: self.address.to_string(),
            source,
        };
        let address = match &self.address {
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(unreached)?)),
            Address::Tcp(address) => address,
        };
        let stream = TcpStream::connect(address).await.map_err(unreached)?;
        stream.set_nodelay(true).map_err(unreached)?;
        let Some((security, trust)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        // read for each connection: certificates of hosts are renewed
        let credential = Credential::from_cert_and_key(&security.certificate, &security.key, None)
            .map_err(TransportError::Credential)?;
        let config = tls::client_config(&credential, Arc::clone(trust)).map_err(TransportError::Tls)?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let host = ServerName::try_from(host).map_err(|source| TransportError::Host {
            address: address.clone(),
            source,
        })?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(host, stream).await;
        let stream = stream.map_err(TransportError::Handshake)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        known(security, subject(chain))?;
        Ok(Box::new(stream))
    }
}

/// The DN of a host whose chain the handshake has verified.
fn subject(chain: &[CertificateDer<'_>]) -> String {
    let certificate = chain.first().and_then(|first| Certificate::parse(first).ok());
    certificate
        .map(|certificate| certificate.dn().to_owned())
        .unwrap_or_default()
}

fn known(security: &Security, found: String) -> Result<(), TransportError> {
    if found == security.peer {
        return Ok(());
    }
    Err(TransportError::Peer {
        found,
        expected: security.peer.clone(),
    })
}

/// Waits for the other end.
pub struct Door {
    listener: Listener,
    tls: Option<(TlsAcceptor, Arc<Tls>)>,
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Drop for Listener {
    fn drop(&mut self) {
        // nobody answers there any more
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Door {
    async fn open(config: &LineConfig, tls: Option<Tls>) -> Result<Self, TransportError> {
        let opened = |source| TransportError::Io {
            address: config.address.to_string(),
            source,
        };
        let listener = match &config.address {
            Address::Unix(path) => {
                Listener::Unix(unix_listener(path, config.mode).await.map_err(opened)?, path.clone())
            }
            Address::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await.map_err(opened)?),
        };
        let tls = tls.map(|(security, trust)| {
            let config = tls::server_config(&security.certificate, &security.key, Arc::clone(&trust));
            let acceptor = TlsAcceptor::from(Arc::new(config.map_err(TransportError::Tls)?));
            Ok((acceptor, Arc::new((security, trust))))
        });
        Ok(Self {
            listener,
            tls: tls.transpose()?,
        })
    }

    /// Where it listens, the port included that was taken where none was given.
    ///
    /// # Errors
    /// [`TransportError::Io`]
    pub fn address(&self) -> Result<Address, TransportError> {
        match &self.listener {
            Listener::Unix(_, path) => Ok(Address::Unix(path.clone())),
            Listener::Tcp(listener) => {
                let address = listener.local_addr().map_err(|source| TransportError::Io {
                    address: String::new(),
                    source,
                })?;
                Ok(Address::Tcp(address.to_string()))
            }
        }
    }

    /// Waits for somebody, who is not let in yet: that takes as long as they like, up to a deadline.
    ///
    /// # Errors
    /// [`TransportError::Io`]
    pub async fn accept(&self) -> Result<Knock, TransportError> {
        let broken = |source| TransportError::Io {
            address: "a connection".to_owned(),
            source,
        };
        Ok(match &self.listener {
            Listener::Unix(listener, _) => Knock::Unix(listener.accept().await.map_err(broken)?.0),
            Listener::Tcp(listener) => {
                let stream = listener.accept().await.map_err(broken)?.0;
                stream.set_nodelay(true).map_err(broken)?;
                Knock::Tcp(stream, self.tls.clone())
            }
        })
    }
}

/// Somebody at the door.
pub enum Knock {
    /// Whoever may open the socket.
    Unix(UnixStream),
    /// Whoever the handshake shows.
    Tcp(TcpStream, Option<(TlsAcceptor, Arc<Tls>)>),
}

impl Knock {
    /// Lets in the peer, and nobody else.
    ///
    /// # Errors
    /// [`TransportError`]
    pub async fn let_in(self) -> Result<Stream, TransportError> {
        let (stream, acceptor, tls) = match self {
            Self::Unix(stream) => return Ok(Box::new(stream)),
            Self::Tcp(stream, None) => return Ok(Box::new(stream)),
            Self::Tcp(stream, Some((acceptor, tls))) => (stream, acceptor, tls),
        };
        let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
        let accepted = accepted.map_err(|_| TransportError::Slow("a client".to_owned()))?;
        let stream = accepted.map_err(TransportError::Handshake)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let verified = tls.1.verify_client(chain, SystemTime::now());
        known(&tls.0, verified.map_err(TransportError::Identity)?.dn)?;
        Ok(Box::new(stream))
    }
}

/// Listens on a Unix socket with a mode. What a killed process left there is replaced; a socket that somebody answers
/// on, or something that is no socket, is not.
///
/// # Errors
/// Where that cannot be.
pub async fn unix_listener(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() || UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    // nobody is to get in before the mode is set: the socket gets its name afterwards
    let mut early = path.as_os_str().to_owned();
    early.push(format!(".{}", std::process::id()));
    let early = PathBuf::from(early);
    let _ = std::fs::remove_file(&early);
    let listener = UnixListener::bind(&early)?;
    let named = std::fs::set_permissions(&early, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&early, path));
    if let Err(error) = named {
        let _ = std::fs::remove_file(&early);
        return Err(error);
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn checked(text: &str) -> (Option<LineConfig>, String) {
        let mut faults = Vec::new();
        let table: LineTable = toml::from_str(text).unwrap();
        let config = table.check(&mut faults, "place", Path::new("/etc/eds"));
        (config, faults.join("\n"))
    }

    #[test]
    fn either_end_may_dial_and_tls_needs_its_files() {
        let (config, faults) = checked("connect = \"unix:/run/line\"");
        assert_eq!(faults, "");
        assert_eq!(config.unwrap().address, Address::Unix("/run/line".into()));
        let (config, _) = checked("listen = \"0.0.0.0:1\"\ncertificate = \"c\"\nkey = \"k\"\npeer = \"/CN=a/b\"");
        let config = config.unwrap();
        assert_eq!(config.role, Role::Listen);
        assert_eq!(config.security.unwrap().certificate, Path::new("/etc/eds/c"));
        for (text, words) in [
            ("", "give one of `place.connect`"),
            ("connect = \"x\"", "neither `unix:PATH` nor"),
            ("connect = \"host:1\"", "`place.peer` is missing"),
            ("connect = \"unix:x\"\nmode = \"rw\"", "`place.mode`"),
        ] {
            let (config, faults) = checked(text);
            assert!(config.is_none() && faults.contains(words), "{text}: {faults}");
        }
    }

    #[tokio::test]
    async fn a_socket_gets_its_mode_and_replaces_a_dead_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line");
        let mut faults = Vec::new();
        let table = format!("listen = \"unix:{}\"\nmode = \"0660\"", path.display());
        let table: LineTable = toml::from_str(&table).unwrap();
        let config = table.check(&mut faults, "place", folder.path()).unwrap();
        let End::Door(door) = End::open(&config).await.unwrap() else {
            panic!("it listens");
        };
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(End::open(&config).await.is_err());
        // whoever looked whether somebody answers is at the door, too
        drop(door.accept().await.unwrap());
        let dial = LineConfig {
            role: Role::Connect,
            ..config.clone()
        };
        let End::Dialer(dialer) = End::open(&dial).await.unwrap() else {
            panic!("it dials");
        };
        let (dialed, knock) = tokio::join!(dialer.dial(), door.accept());
        let mut there = knock.unwrap().let_in().await.unwrap();
        dialed.unwrap().write_all(b"x").await.unwrap();
        assert_eq!(there.read_u8().await.unwrap(), b'x');
        drop(door);
        assert!(End::open(&config).await.is_ok());
    }
}
