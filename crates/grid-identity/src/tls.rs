//! Configurations of rustls for both ends: TLS 1.3 alone, certificates of both sides, proxies accepted, nothing
//! resumed.
//!
//! A resumed session would not be verified again: who was revoked since would stay in. Therefore there are no tickets
//! and no cache. TLS 1.2 is left out because its signatures cannot be verified for a proxy with what rustls offers.
//! ALPN is left to the caller.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::Certificate;
use crate::chain::ChainError;
use crate::credential::{Credential, CredentialError, PemFile, certified_key};
use crate::trust::TrustStore;

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The host's certificate or key cannot be used.
    #[error("cannot use the host's certificate")]
    Host(#[source] CredentialError),
    /// rustls does not take it.
    #[error("cannot set up TLS")]
    Rustls(#[source] Error),
}

/// Whether a client may stay without a certificate. One that is presented must verify either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// The handshake fails without one.
    Required,
    /// The server decides what to answer without one.
    Optional,
}

/// The cryptography of all of this: aws-lc.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// A server that requires client certificates, and reads its own again when the files change.
///
/// # Errors
/// [`TlsError`] where the host's certificate or key cannot be used.
pub fn server_config(certificate: &Path, key: &Path, trust: Arc<TrustStore>) -> Result<ServerConfig, TlsError> {
    server_config_with(certificate, key, trust, ClientCertificate::Required)
}

/// As [`server_config`], saying whether clients need a certificate.
///
/// # Errors
/// [`TlsError`] where the host's certificate or key cannot be used.
pub fn server_config_with(
    certificate: &Path,
    key: &Path,
    trust: Arc<TrustStore>,
    client: ClientCertificate,
) -> Result<ServerConfig, TlsError> {
    let host = HostCertificate::read(certificate, key).map_err(TlsError::Host)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_client_cert_verifier(Arc::new(ClientVerifier { trust, client }))
        .with_cert_resolver(Arc::new(host));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The names in a host's certificate: what it is called by attribute certificates that are for some hosts only.
///
/// # Errors
/// [`TlsError`] where the file has no certificate.
pub fn host_names(certificate: &Path) -> Result<Vec<String>, TlsError> {
    let read = || {
        let certificates = PemFile::read(certificate)?.certificates();
        let first = certificates.first().ok_or_else(|| CredentialError::NoCertificate {
            path: certificate.to_owned(),
        })?;
        let parsed = Certificate::parse(first).map_err(|error| CredentialError::Damaged {
            path: certificate.to_owned(),
            what: error.to_string(),
        })?;
        Ok(parsed.host_names())
    };
    read().map_err(TlsError::Host)
}

/// A client that presents a credential, proxies included, and believes the servers that `trust` verifies.
///
/// # Errors
/// [`TlsError`] where rustls refuses.
pub fn client_config(credential: &Credential, trust: Arc<TrustStore>) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { trust }))
        .with_client_cert_resolver(Arc::new(Presents(credential.certified_key())));
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What a refusal becomes inside rustls: the other side is told by an alert, and this side finds the [`ChainError`]
/// with [`refusal`].
fn rustls_error(error: ChainError) -> Error {
    let alert = match &error {
        ChainError::Empty => return Error::NoCertificatesPresented,
        ChainError::Malformed { .. } => CertificateError::BadEncoding,
        ChainError::Expired { .. } => CertificateError::Expired,
        ChainError::NotYetValid { .. } => CertificateError::NotValidYet,
        ChainError::Revoked { .. } => CertificateError::Revoked,
        ChainError::UnknownAuthority { .. } => CertificateError::UnknownIssuer,
        _ => CertificateError::Other(OtherError(Arc::new(error))),
    };
    Error::InvalidCertificate(alert)
}

/// The [`ChainError`] in an error of a handshake, where it is carried along. What has an alert of its own (expired,
/// revoked, unknown authority) says itself.
pub fn refusal(error: &Error) -> Option<&ChainError> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => other.downcast_ref(),
        _ => None,
    }
}

fn system_time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())
}

fn joined<'a>(first: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(first).chain(rest).cloned().collect()
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    // rustls' own helper parses the certificate with webpki, which cannot read a proxy.
    let certificate =
        Certificate::parse(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let algorithms = &provider().signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &certificate.public_key, signature, algorithms)
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

#[derive(Debug)]
struct ClientVerifier {
    trust: Arc<TrustStore>,
    client: ClientCertificate,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client == ClientCertificate::Required
    }

    // None: a client with a proxy would look in vain for its issuer among authorities.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self
            .trust
            .check_client(&joined(end_entity, intermediates), system_time(now))
        {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(error = %error, cause, "client certificate refused");
                Err(rustls_error(error))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct ServerVerifier {
    trust: Arc<TrustStore>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trust
            .verify_server(&joined(end_entity, intermediates), server_name, system_time(now))
            .map(|_| ServerCertVerified::assertion())
            // A client has nobody but its user to tell: all of it.
            .map_err(|error| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Presents one chain to whoever asks.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A host's certificate and key, read again when either file changes.
#[derive(Debug)]
struct HostCertificate {
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<HostState>,
}

#[derive(Debug)]
struct HostState {
    looked: Instant,
    modified: [Option<SystemTime>; 2],
    current: Arc<CertifiedKey>,
}

impl HostCertificate {
    const INTERVAL: Duration = Duration::from_secs(5);

    fn read(certificate: &Path, key: &Path) -> Result<Self, CredentialError> {
        let modified = [modified(certificate), modified(key)];
        let current = Arc::new(read_host(certificate, key)?);
        let state = Mutex::new(HostState {
            looked: Instant::now(),
            modified,
            current,
        });
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            state,
        })
    }

    fn current(&self, interval: Duration) -> Arc<CertifiedKey> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= interval {
            state.looked = Instant::now();
            let modified = [modified(&self.certificate), modified(&self.key)];
            if modified != state.modified {
                match read_host(&self.certificate, &self.key) {
                    Ok(fresh) => {
                        tracing::info!(path = %self.certificate.display(), "read the host's certificate again");
                        state.current = Arc::new(fresh);
                        state.modified = modified;
                    }
                    // Between the exchange of one file and the other they do not match: the next look will tell.
                    Err(error) => {
                        tracing::warn!(path = %self.certificate.display(), error = %error, "cannot read the host's certificate again");
                    }
                }
            }
        }
        Arc::clone(&state.current)
    }
}

impl ResolvesServerCert for HostCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(Self::INTERVAL))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read_host(certificate: &Path, key: &Path) -> Result<CertifiedKey, CredentialError> {
    let certificates = PemFile::read(certificate)?.certificates();
    if certificates.is_empty() {
        return Err(CredentialError::NoCertificate {
            path: certificate.to_owned(),
        });
    }
    let private = PemFile::read(key)?.key(None)?;
    certified_key(certificates, private, key)
}
