//! TLS with a PACS, called or calling, from PEM files: most have certificates of the hospital's own authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that sign certificates of PACS.
    pub authorities: PathBuf,
    /// Our own certificate and its key, where the PACS wants to know us.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that cannot be read, or has something else in it.
    #[error("cannot read certificates or a key from `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A file without certificates.
    #[error("no certificate in `{}`", .0.display())]
    Empty(PathBuf),
    /// Whoever is called must show a certificate.
    #[error("no certificate of our own is configured")]
    NoOwn,
    /// The authorities cannot be used.
    #[error("the authorities cannot be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// Certificates or a key that cannot be used.
    #[error("the certificates cannot be used")]
    Unusable(#[source] rustls::Error),
}

impl TlsFiles {
    /// Reads the files; `provider` is who does the cryptography.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn client(&self, provider: Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            roots.add(certificate).map_err(TlsError::Unusable)?;
        }
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(TlsError::Unusable)?.with_root_certificates(roots);
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let found = PrivateKeyDer::from_pem_file(key).map_err(|source| file_error(key, source))?;
                builder
                    .with_client_auth_cert(chain, found)
                    .map_err(TlsError::Unusable)?
            }
        };
        Ok(Arc::new(config))
    }
}

impl TlsFiles {
    /// For whoever is called: shows our own certificate, and lets in only who has one of the authorities.
    ///
    /// # Errors
    /// What is wrong with the files; a missing certificate of our own is [`TlsError::NoOwn`].
    pub fn server(&self, provider: Arc<CryptoProvider>) -> Result<Arc<ServerConfig>, TlsError> {
        let (certificate, key) = self.own.as_ref().ok_or(TlsError::NoOwn)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            roots.add(certificate).map_err(TlsError::Unusable)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(TlsError::Verifier)?;
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(TlsError::Unusable)?.with_client_cert_verifier(verifier);
        let chain = certificates(certificate)?;
        let found = PrivateKeyDer::from_pem_file(key).map_err(|source| file_error(key, source))?;
        let config = builder.with_single_cert(chain, found).map_err(TlsError::Unusable)?;
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|source| file_error(path, source))?;
    if found.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(found)
}

fn file_error(path: &Path, source: rustls_pki_types::pem::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        source,
    }
}
