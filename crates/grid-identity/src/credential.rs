//! What a client presents: a proxy file as grid tools write it, or a certificate and its key.
//!
//! A private key that others than its owner may touch is not used, nor one in a file that somebody else owns: a planted
//! `/tmp/x509up_u1000` must not become anybody's identity. The key is kept in the form rustls signs with, nothing else.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::chain::{self, ChainError};
use crate::pem::{self, PemError, Section};
use crate::{tls, voms};

/// Asks for the passphrase of an encrypted key; none: there is nobody to ask.
pub type AskPassphrase<'a> = &'a dyn Fn() -> Option<Zeroizing<String>>;

/// Why there is no credential in a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the key.
    #[error("the private key in `{}` can be read or changed by others (mode {mode:04o}, 0600 is wanted)", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else's file.
    #[error("the private key in `{}` belongs to user {owner}, not to whom this program runs as", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// No regular file, or too large for one.
    #[error("`{}` is no credential file", path.display())]
    NoFile {
        /// Which file.
        path: PathBuf,
    },
    /// Its PEM is broken.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Nothing to present.
    #[error("there is no certificate in `{}`", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Nothing to sign with.
    #[error("there is no private key in `{}`", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// Encrypted, and nobody gave the passphrase.
    #[error("the private key in `{}` is encrypted, and there is no passphrase", path.display())]
    NoPassphrase {
        /// Which file.
        path: PathBuf,
    },
    /// Encrypted, and the passphrase given does not open it.
    #[error("the passphrase does not open the private key in `{}`", path.display())]
    WrongPassphrase {
        /// Which file.
        path: PathBuf,
    },
    /// Encrypted by means from before PKCS #8, which keep no secrets.
    #[error("the private key in `{}` is encrypted in the old form of PEM, which is not read", path.display())]
    OldEncryption {
        /// Which file.
        path: PathBuf,
    },
    /// Of a kind that TLS does not sign with.
    #[error("the private key in `{}` is of a kind that cannot be used", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Not the key of the first certificate.
    #[error("the private key in `{}` is not that of the first certificate", path.display())]
    Mismatch {
        /// Which file.
        path: PathBuf,
    },
    /// Its certificates make no chain that could be accepted anywhere.
    #[error("the certificates in `{}` cannot be used", path.display())]
    Chain {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<ChainError>,
    },
}

/// A certificate chain with its private key: what a client presents.
pub struct Credential {
    key: Arc<CertifiedKey>,
    dn: String,
    fqans: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    proxy: bool,
    limited: bool,
    source: PathBuf,
}

impl Credential {
    /// Reads a proxy file, or any file that has certificate, key and the certificates below in one.
    ///
    /// # Errors
    /// [`CredentialError`] where the file gives nothing that could be presented. A credential that has expired is read:
    /// ask [`Self::expired_since`].
    pub fn from_file(path: &Path, passphrase: Option<AskPassphrase<'_>>) -> Result<Self, CredentialError> {
        let file = PemFile::read(path)?;
        let key = file.key(passphrase)?;
        Self::new(file.certificates(), key, path, path)
    }

    /// Reads a certificate, with those below it, and its key from two files.
    ///
    /// # Errors
    /// [`CredentialError`], as for one file.
    pub fn from_cert_and_key(
        certificate: &Path,
        key: &Path,
        passphrase: Option<AskPassphrase<'_>>,
    ) -> Result<Self, CredentialError> {
        let certificates = PemFile::read(certificate)?.certificates();
        let private = PemFile::read(key)?.key(passphrase)?;
        Self::new(certificates, private, certificate, key)
    }

    fn new(
        certificates: Vec<CertificateDer<'static>>,
        private: PrivateKeyDer<'static>,
        path: &Path,
        key_path: &Path,
    ) -> Result<Self, CredentialError> {
        let refuse = |source: ChainError| CredentialError::Chain {
            path: path.to_owned(),
            source: Box::new(source),
        };
        if certificates.is_empty() {
            return Err(CredentialError::NoCertificate { path: path.to_owned() });
        }
        let parsed = chain::parse(&certificates).map_err(refuse)?;
        // Whether proxies from before RFC 3820 are accepted is for the server to say.
        let any = chain::OldProxies {
            legacy: true,
            draft: true,
        };
        let parts = chain::cut(&parsed, any).map_err(refuse)?;
        let key = certified_key(certificates, private, key_path)?;
        let (not_before, not_after) = parts.window();
        Ok(Self {
            key: Arc::new(key),
            dn: parts.end_entity.dn.clone(),
            fqans: voms::claimed(&parts),
            not_before: crate::time::moment(not_before),
            not_after: crate::time::moment(not_after),
            proxy: !parts.proxies.is_empty(),
            limited: parts.limited(),
            source: path.to_owned(),
        })
    }

    /// The owner's DN in slash form, never that of a proxy.
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// Groups and roles that the attribute certificates of the proxy name, the primary one first. Nobody has verified
    /// them: they say what the owner asked for, and only a server decides whether it believes that.
    pub fn fqans(&self) -> &[String] {
        &self.fqans
    }

    /// The first moment at which all of the chain is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last moment at which all of the chain is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is a proxy.
    pub fn is_proxy(&self) -> bool {
        self.proxy
    }

    /// Whether it is a limited proxy.
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// The file of the certificate.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Since when it has been useless, where it is.
    pub fn expired_since(&self, now: SystemTime) -> Option<SystemTime> {
        (now > self.not_after).then_some(self.not_after)
    }

    /// The chain as it is presented, the certificate of the key first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("dn", &self.dn)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Joins a chain with its key, in the form that rustls signs with.
pub(crate) fn certified_key(
    certificates: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    key_path: &Path,
) -> Result<CertifiedKey, CredentialError> {
    let signer: Arc<dyn SigningKey> = tls::provider()
        .key_provider
        .load_private_key(private)
        .map_err(|source| CredentialError::Key {
            path: key_path.to_owned(),
            source,
        })?;
    // rustls' own comparison cannot parse a proxy.
    let first = certificates.first().and_then(|first| Certificate::parse(first).ok());
    let same = match (signer.public_key(), first) {
        (Some(public), Some(first)) => public == first.public_key,
        _ => false,
    };
    if !same {
        return Err(CredentialError::Mismatch {
            path: key_path.to_owned(),
        });
    }
    Ok(CertifiedKey::new(certificates, signer))
}

/// The sections of a file, and who may read it.
pub(crate) struct PemFile {
    path: PathBuf,
    sections: Vec<Section>,
    mode: u32,
    owner: u32,
}

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

impl PemFile {
    const MOST_BYTES: u64 = 1 << 20;

    pub(crate) fn read(path: &Path) -> Result<Self, CredentialError> {
        let unreadable = |source| CredentialError::Read {
            path: path.to_owned(),
            source,
        };
        // A FIFO planted in its place would be waited for.
        let mut options = File::options();
        options.read(true).custom_flags(NONBLOCK);
        let file = options.open(path).map_err(unreadable)?;
        // Asked of the open file, so that nobody exchanges it in between.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > Self::MOST_BYTES {
            return Err(CredentialError::NoFile { path: path.to_owned() });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
        file.take(Self::MOST_BYTES).read_to_end(&mut text).map_err(unreadable)?;
        let sections = pem::sections(&text).map_err(|error: PemError| CredentialError::Damaged {
            path: path.to_owned(),
            what: error.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            sections,
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
        })
    }

    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let certificates = self.sections.iter().filter(|section| is_certificate(&section.label));
        certificates
            .map(|section| CertificateDer::from(section.der.to_vec()))
            .collect()
    }

    /// The first private key, after a look at who may read it.
    pub(crate) fn key(&self, passphrase: Option<AskPassphrase<'_>>) -> Result<PrivateKeyDer<'static>, CredentialError> {
        let path = || self.path.clone();
        let section = self
            .sections
            .iter()
            .find(|section| section.label.ends_with("PRIVATE KEY"))
            .ok_or_else(|| CredentialError::NoKey { path: path() })?;
        if self.mode & 0o066 != 0 {
            return Err(CredentialError::Exposed {
                path: path(),
                mode: self.mode,
            });
        }
        let me = rustix::process::geteuid().as_raw();
        if self.owner != me && self.owner != 0 {
            return Err(CredentialError::Foreign {
                path: path(),
                owner: self.owner,
            });
        }
        if section.encrypted_headers {
            return Err(CredentialError::OldEncryption { path: path() });
        }
        let der = section.der.to_vec();
        match section.label.as_str() {
            "PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(der.into())),
            "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(der.into())),
            "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(der.into())),
            "ENCRYPTED PRIVATE KEY" => self.decrypt(&section.der, passphrase),
            other => Err(CredentialError::Damaged {
                path: path(),
                what: format!("`{other}` is an unknown kind of key"),
            }),
        }
    }

    fn decrypt(
        &self,
        encrypted: &[u8],
        passphrase: Option<AskPassphrase<'_>>,
    ) -> Result<PrivateKeyDer<'static>, CredentialError> {
        let path = || self.path.clone();
        let info = pkcs8::EncryptedPrivateKeyInfoRef::try_from(encrypted).map_err(|_| CredentialError::Damaged {
            path: path(),
            what: "its encrypted key is of a form that is not read".to_owned(),
        })?;
        let passphrase = passphrase
            .and_then(|ask| ask())
            .ok_or_else(|| CredentialError::NoPassphrase { path: path() })?;
        let plain = info
            .decrypt(passphrase.as_bytes())
            .map_err(|_| CredentialError::WrongPassphrase { path: path() })?;
        Ok(PrivateKeyDer::Pkcs8(plain.as_bytes().to_vec().into()))
    }
}

fn is_certificate(label: &str) -> bool {
    matches!(label, "CERTIFICATE" | "X509 CERTIFICATE")
}
