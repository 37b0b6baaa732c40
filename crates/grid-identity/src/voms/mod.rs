//! Groups and roles: the attribute certificates (RFC 5755) that VOMS servers issue and proxies carry.
//!
//! The proxy nearest to the one presented that has any decides. Each attribute certificate there is verified by itself:
//! it must be issued to the owner of the chain, be valid now, name this host if it names any, and be signed by a server
//! that the VO's LSC file names and the trust anchors verify; all its FQANs must lie in its VO. One that fails gives
//! no FQANs and a [`VomsError`], and never fails a handshake: its owner is still known by DN. See
//! `docs/src/credentials.md`.

mod ac;
mod error;
pub mod fqan;
pub mod lsc;

use std::path::PathBuf;
use std::time::Duration;

use crate::certificate::Certificate;
use crate::chain::{self, ChainError, Parts};
use crate::{asn1, time, tls};

pub use ac::AttributeCertificate;
pub use error::VomsError;
pub use lsc::{Lsc, VomsDirectory};

/// The extension of a proxy that holds attribute certificates.
pub(crate) const EXTENSION: &str = "1.3.6.1.4.1.8005.100.100.5";

/// How far the clock of a VOMS server may be ahead of ours, in seconds. Its attributes end when they say.
pub const CLOCK_TOLERANCE: i64 = 300;

/// RSA with SHA-1: what some VOMS servers still sign with, and accepted for nothing else.
const RSA_SHA1: &str = "1.2.840.113549.1.1.5";

/// Which VOMS servers to believe, and as which hosts.
#[derive(Debug)]
pub struct Voms {
    directory: VomsDirectory,
    hosts: Vec<String>,
}

impl Voms {
    /// Where sites keep the LSC files of the VOs that they support.
    pub const DIRECTORY: &str = "/etc/grid-security/vomsdir";

    /// By the LSC files in a directory, as `X509_VOMS_DIR` names it. One that is not there has none.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self {
            directory: VomsDirectory::new(path),
            hosts: Vec::new(),
        }
    }

    /// The names of this host: attribute certificates for named hosts only are good for these. None: for no host.
    #[must_use]
    pub fn for_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Looks for changed LSC files at most once in `interval`.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.directory = self.directory.with_interval(interval);
        self
    }

    /// Changes when an LSC file does.
    pub(crate) fn generation(&self) -> u64 {
        self.directory.generation()
    }

    /// What the attribute certificates of a chain give now. `signer` verifies a server's chain to the trust anchors,
    /// and says from when to when that holds.
    pub(crate) fn attributes(&self, parts: &Parts<'_>, now: i64, signer: VerifySigner<'_>) -> Attributes {
        let mut found = Attributes::default();
        let Some(value) = nearest(parts) else {
            return found;
        };
        match ac::list(value) {
            Ok(list) => {
                for element in list {
                    let verified = AttributeCertificate::parse(element).and_then(|ac| {
                        self.verify(&ac, parts.end_entity, now, signer)
                            .map(|window| (ac, window))
                    });
                    found.add(verified);
                }
            }
            Err(error) => found.add(Err(error)),
        }
        found
    }

    /// All that makes an attribute certificate good for `owner`, cheap things first. Answers from when to when.
    fn verify(
        &self,
        ac: &AttributeCertificate,
        owner: &Certificate,
        now: i64,
        verify_signer: VerifySigner<'_>,
    ) -> Result<(i64, i64), VomsError> {
        let vo = || ac.vo.clone();
        ac.check_holder(owner)?;
        if now < ac.not_before.saturating_sub(CLOCK_TOLERANCE) {
            let from = time::moment(ac.not_before);
            return Err(VomsError::NotYetValid { vo: vo(), from });
        }
        if now > ac.not_after {
            let since = time::moment(ac.not_after);
            return Err(VomsError::Expired { vo: vo(), since });
        }
        if let Some(oid) = &ac.unknown_critical {
            return Err(VomsError::UnknownExtension {
                vo: vo(),
                oid: oid.clone(),
            });
        }
        if let Some(targets) = &ac.targets
            && !targets.iter().any(|target| self.is_here(target))
        {
            return Err(VomsError::Targets { vo: vo() });
        }
        let Some(signer) = ac.signers.first() else {
            return Err(VomsError::NoSigner { vo: vo() });
        };
        if ac.issuer != signer.dn {
            return Err(VomsError::Issuer {
                vo: vo(),
                issuer: ac.issuer.clone(),
                signer: signer.dn.clone(),
            });
        }
        let names = signer_names(&ac.signers).ok_or_else(|| VomsError::SignerOrder { vo: vo() })?;
        if !self.directory.lsc(&ac.vo, &ac.host)?.names(&names) {
            return Err(VomsError::LscMismatch {
                vo: vo(),
                host: ac.host.clone(),
                signer: signer.dn.clone(),
            });
        }
        let window = verify_signer(&ac.signers).map_err(|source| VomsError::Signer {
            vo: vo(),
            source: Box::new(source),
        })?;
        check_signature(ac, signer)?;
        Ok((
            window.0.max(ac.not_before.saturating_sub(CLOCK_TOLERANCE)),
            window.1.min(ac.not_after),
        ))
    }

    fn is_here(&self, target: &str) -> bool {
        self.hosts.iter().any(|host| host.eq_ignore_ascii_case(target))
    }
}

/// Verifies the certificates of a VOMS server, its own first.
pub(crate) type VerifySigner<'a> = &'a dyn Fn(&[Certificate]) -> Result<(i64, i64), ChainError>;

/// What the attribute certificates of a chain gave.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// In order, each once.
    pub(crate) fqans: Vec<String>,
    /// Why the first that was refused was.
    pub(crate) error: Option<VomsError>,
    /// From when to when the same would come out.
    pub(crate) window: (i64, i64),
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            fqans: Vec::new(),
            error: None,
            window: (i64::MIN, i64::MAX),
        }
    }
}

impl Attributes {
    fn add(&mut self, verified: Result<(AttributeCertificate, (i64, i64)), VomsError>) {
        match verified {
            Ok((ac, window)) => {
                self.window = (self.window.0.max(window.0), self.window.1.min(window.1));
                push_new(&mut self.fqans, ac.fqans);
            }
            Err(error) => {
                match &error {
                    VomsError::NotYetValid { from, .. } => {
                        let begins = time::seconds(*from).saturating_sub(CLOCK_TOLERANCE);
                        self.window.1 = self.window.1.min(begins.saturating_sub(1));
                    }
                    // A clock that was ahead may be set back.
                    VomsError::Expired { since, .. } => {
                        self.window.0 = self.window.0.max(time::seconds(*since).saturating_add(1));
                    }
                    _ => {}
                }
                self.error.get_or_insert(error);
            }
        }
    }
}

/// The FQANs that the attribute certificates of a chain name, verified by nobody; what does not parse names none.
pub(crate) fn claimed(parts: &Parts<'_>) -> Vec<String> {
    let mut fqans = Vec::new();
    let list = nearest(parts).and_then(|value| ac::list(value).ok());
    for element in list.unwrap_or_default() {
        if let Ok(ac) = AttributeCertificate::parse(element) {
            push_new(&mut fqans, ac.fqans);
        }
    }
    fqans
}

/// Parses what a proxy carries, as the extension has it: for each attribute certificate, itself or why it is none.
///
/// # Errors
/// [`VomsError`] where it is no list, or one that is too long.
pub fn parse(value: &[u8]) -> Result<Vec<Result<AttributeCertificate, VomsError>>, VomsError> {
    Ok(ac::list(value)?.into_iter().map(AttributeCertificate::parse).collect())
}

/// The attribute certificates of the proxy nearest to the one presented that has any, good or bad.
fn nearest<'a>(parts: &Parts<'a>) -> Option<&'a [u8]> {
    parts.proxies.iter().find_map(Certificate::attributes)
}

fn push_new(fqans: &mut Vec<String>, more: Vec<String>) {
    for fqan in more {
        if !fqans.contains(&fqan) {
            fqans.push(fqan);
        }
    }
}

/// The server's DN, then that of each issuer; none where one certificate did not issue the one before.
fn signer_names(signers: &[Certificate]) -> Option<Vec<String>> {
    let chained = signers.windows(2).all(|pair| pair[0].issuer == pair[1].subject);
    let own = signers.first().map(|signer| signer.dn.clone());
    let issuers = signers.iter().map(|signer| signer.issuer_dn.clone());
    chained.then(|| own.into_iter().chain(issuers).collect())
}

fn check_signature(ac: &AttributeCertificate, signer: &Certificate) -> Result<(), VomsError> {
    let good = if ac.algorithm_oid == RSA_SHA1 {
        rsa_sha1(&ac.signed, &ac.signature, signer)
    } else if let Some(algorithm) = chain::unaccepted_algorithm(&ac.algorithm_oid) {
        return Err(VomsError::Algorithm {
            vo: ac.vo.clone(),
            algorithm,
        });
    } else {
        let algorithms = tls::provider().signature_verification_algorithms;
        chain::signed_by(&ac.algorithm, &ac.signed, &ac.signature, signer, &algorithms)
    };
    if good {
        Ok(())
    } else {
        Err(VomsError::Signature {
            vo: ac.vo.clone(),
            signer: signer.dn.clone(),
        })
    }
}

fn rsa_sha1(message: &[u8], signature: &[u8], signer: &Certificate) -> bool {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
    let key = || {
        let mut key = asn1::Reader::new(asn1::only(&signer.public_key, asn1::SEQUENCE)?.content);
        key.expect(asn1::SEQUENCE)?;
        asn1::whole_bits(key.expect(asn1::BIT_STRING)?.content)
    };
    let (Ok(key), Some(_)) = (key(), signer.rsa_bits) else {
        return false;
    };
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, key)
        .verify(message, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsa_with_sha1_verifies_as_openssl_made_it_and_nothing_else() {
        // Made with `openssl req -x509 -newkey rsa:2048` and `openssl dgst -sha1 -sign`: aws-lc signs with SHA-1 no
        // more.
        let signer = Certificate::parse(include_bytes!("testdata/rsa-certificate.der")).unwrap();
        let signature = include_bytes!("testdata/rsa-sha1-signature.bin");
        assert!(rsa_sha1(b"what an old VOMS server signs", signature, &signer));
        assert!(!rsa_sha1(b"what an old VOMS server Signs", signature, &signer));
        let mut bad = signature.to_vec();
        bad[100] ^= 1;
        assert!(!rsa_sha1(b"what an old VOMS server signs", &bad, &signer));
    }
}
