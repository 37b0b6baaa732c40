//! The rules of a chain from the certificate presented down to its owner's own: proxies of RFC 3820, to any depth.
//!
//! Pure: nothing is read here. From the owner's certificate to the authority webpki takes over, see [`crate::trust`].
//! The first certificate is the one presented, each next one issued the one before; the first that is no proxy is the
//! end entity, whose DN counts.

use std::time::SystemTime;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::CertificateDer;

use crate::asn1::DerError;
use crate::certificate::Certificate;
use crate::proxy::{Language, ProxyInfo};
use crate::voms::VomsError;
use crate::{dn, time};

/// Most proxies in a chain. Twenty are legal everywhere; the bound keeps a handshake cheap.
pub const MAX_PROXIES: usize = 32;
/// Most certificates that a peer may send.
pub const MAX_CERTIFICATES: usize = MAX_PROXIES + 8;
/// Most bytes of all of them: attribute certificates make proxies of some ten thousand bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// Which proxies from before RFC 3820 are accepted: none, unless whoever runs a server says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OldProxies {
    /// The first Globus proxies, which nothing but `CN=proxy` or `CN=limited proxy` marks.
    pub legacy: bool,
    /// Those after the drafts of RFC 3820, as the third Globus toolkit made them.
    pub draft: bool,
}

/// Who a verified chain belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The owner's DN in slash form: of the end entity, never of a proxy.
    pub dn: String,
    /// Groups and roles that a VOMS server vouches for, the primary one first; none where nothing was verified.
    pub fqans: Vec<String>,
    /// Why an attribute certificate gave no groups and roles, where one was refused.
    pub voms_error: Option<VomsError>,
    /// By what the owner was recognised.
    pub method: Method,
    /// Whether a proxy of the chain is limited. It identifies its owner like a full one.
    pub limited: bool,
    /// The last moment of the certificate in the chain that ends first.
    pub not_after: SystemTime,
}

/// By what somebody was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The owner's own certificate.
    Certificate,
    /// A proxy.
    Proxy,
}

impl Method {
    /// As it stands in messages: `certificate` or `proxy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Proxy => "proxy",
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Nothing was presented.
    #[error("no certificate was presented")]
    Empty,
    /// More certificates than the bound.
    #[error("the chain has {found} certificates, at most {most} are read")]
    TooLong {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// More bytes than the bound.
    #[error("the chain has {found} bytes, at most {most} are read")]
    TooLarge {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// One does not parse.
    #[error("certificate {position} of the chain does not parse")]
    Malformed {
        /// Which, from 1.
        position: usize,
        /// What is wrong with it.
        #[source]
        source: DerError,
    },
    /// All are proxies: whose they are is not said.
    #[error("the chain ends with the proxy `{dn}` and lacks its owner's certificate")]
    NoEndEntity {
        /// The last subject.
        dn: String,
    },
    /// The first Globus proxies, without proxyCertInfo.
    #[error("`{dn}` is a legacy proxy, which is no longer accepted")]
    LegacyProxy {
        /// Its subject.
        dn: String,
    },
    /// A proxy after a draft of RFC 3820.
    #[error("`{dn}` is a proxy of a draft before RFC 3820, which is not accepted")]
    DraftProxy {
        /// Its subject.
        dn: String,
    },
    /// An independent proxy has none of its owner's rights.
    #[error("`{dn}` is an independent proxy, which has no rights")]
    IndependentProxy {
        /// Its subject.
        dn: String,
    },
    /// A policy language that nobody here understands.
    #[error("proxy `{dn}` has a policy in the unknown language {language}")]
    UnknownLanguage {
        /// Its subject.
        dn: String,
        /// The object identifier of the language.
        language: String,
    },
    /// The next certificate is not the issuer.
    #[error("proxy `{dn}` was issued by `{issuer}`, but `{found}` comes next in the chain")]
    WrongIssuer {
        /// The subject of the proxy.
        dn: String,
        /// Whom it names.
        issuer: String,
        /// Who comes.
        found: String,
    },
    /// A proxy has the name of its issuer with one common name more.
    #[error("proxy `{dn}` is not named after its issuer")]
    ProxyName {
        /// Its subject.
        dn: String,
    },
    /// An extension that a proxy may not have.
    #[error("proxy `{dn}` {what}")]
    ProxyExtension {
        /// Its subject.
        dn: String,
        /// What it does, as a predicate.
        what: &'static str,
    },
    /// A critical extension that is not understood.
    #[error("proxy `{dn}` has the unknown critical extension {oid}")]
    UnknownExtension {
        /// Its subject.
        dn: String,
        /// Which.
        oid: String,
    },
    /// More proxies above one than it allows.
    #[error("proxy `{dn}` allows {allowed} proxies above it, there are {found}")]
    PathLength {
        /// Its subject.
        dn: String,
        /// How many it allows.
        allowed: u32,
        /// How many there are.
        found: usize,
    },
    /// The signature of a proxy is not its issuer's.
    #[error("proxy `{dn}` was not signed by `{issuer}`")]
    ProxySignature {
        /// Its subject.
        dn: String,
        /// Who should have signed it.
        issuer: String,
    },
    /// keyUsage without digitalSignature.
    #[error("the key of `{dn}` is not for signatures")]
    NotForSignatures {
        /// The subject.
        dn: String,
    },
    /// Purposes without that of a client, or of a server.
    #[error("the certificate of `{dn}` is not for {purpose}")]
    Purpose {
        /// The subject.
        dn: String,
        /// `clients`, `servers` or `hosts`.
        purpose: &'static str,
    },
    /// An authority in the place of an end entity.
    #[error("`{dn}` is an authority, not an end entity")]
    Authority {
        /// Its subject.
        dn: String,
    },
    /// Something else in the place of an authority.
    #[error("`{dn}` may not certify others")]
    NotAuthority {
        /// Its subject.
        dn: String,
    },
    /// A name without anything in it names nobody.
    #[error("the certificate has no subject")]
    NoSubject,
    /// Over.
    #[error("the certificate of `{dn}` expired at {}", time::text(time::seconds(*since)))]
    Expired {
        /// Its subject.
        dn: String,
        /// Since when.
        since: SystemTime,
    },
    /// Not begun.
    #[error("the certificate of `{dn}` is not valid before {}", time::text(time::seconds(*from)))]
    NotYetValid {
        /// Its subject.
        dn: String,
        /// From when on it is.
        from: SystemTime,
    },
    /// RSA with less than 2048 bits.
    #[error("the RSA key of `{dn}` has {bits} bits, fewer than 2048")]
    WeakKey {
        /// Its subject.
        dn: String,
        /// The length of the modulus.
        bits: usize,
    },
    /// SHA-1, MD5 or something unknown.
    #[error("the certificate of `{dn}` is signed with {algorithm}, which is not accepted")]
    WeakAlgorithm {
        /// Its subject.
        dn: String,
        /// Name or object identifier.
        algorithm: String,
    },
    /// Nobody that is trusted issued it.
    #[error("the certificate of `{dn}` was issued by `{issuer}`, which is not trusted")]
    UnknownAuthority {
        /// Its subject.
        dn: String,
        /// Its issuer.
        issuer: String,
    },
    /// The signature is not the authority's.
    #[error("the certificate of `{dn}` was not signed by `{issuer}`")]
    Signature {
        /// Its subject.
        dn: String,
        /// Who should have signed it.
        issuer: String,
    },
    /// Revoked by its authority.
    #[error("the certificate of `{dn}` is revoked")]
    Revoked {
        /// Its subject.
        dn: String,
    },
    /// No revocation list of an authority in the chain.
    #[error("there is no revocation list to check the certificate of `{dn}` against (issuer `{issuer}`)")]
    NoRevocationList {
        /// Its subject.
        dn: String,
        /// Whose list is missing, or that of one above.
        issuer: String,
    },
    /// The list should have been replaced.
    #[error(
        "the revocation list to check the certificate of `{dn}` against expired at {} (issuer `{issuer}`)",
        time::text(time::seconds(*since))
    )]
    RevocationListExpired {
        /// Its subject.
        dn: String,
        /// Whose list it is, or that of one above.
        issuer: String,
        /// Since when.
        since: SystemTime,
    },
    /// The list is not the authority's, or of a kind not understood.
    #[error("the revocation list to check the certificate of `{dn}` against cannot be used (issuer `{issuer}`)")]
    RevocationList {
        /// Its subject.
        dn: String,
        /// Whose list it is, or that of one above.
        issuer: String,
        /// What is wrong with it.
        #[source]
        source: webpki::Error,
    },
    /// No file says whom an authority may certify.
    #[error("there is no signing policy for the authority `{authority}`")]
    NoSigningPolicy {
        /// Whose.
        authority: String,
    },
    /// The authority may not certify that subject.
    #[error("the signing policy of the authority `{authority}` does not allow the subject `{dn}`")]
    SigningPolicy {
        /// Whose policy.
        authority: String,
        /// The subject.
        dn: String,
    },
    /// The server is another than the one asked for.
    #[error("the certificate of `{dn}` is not valid for `{name}`")]
    ServerName {
        /// Its subject.
        dn: String,
        /// The name asked for.
        name: String,
    },
    /// Anything else that webpki finds.
    #[error("the certificate of `{dn}` does not verify")]
    Certificate {
        /// Its subject.
        dn: String,
        /// What webpki says.
        #[source]
        source: webpki::Error,
    },
}

/// Parses what a peer presented, within bounds of number and size.
///
/// # Errors
/// [`ChainError`] where there is nothing, too much, or something that is no certificate.
pub fn parse(chain: &[CertificateDer<'_>]) -> Result<Vec<Certificate>, ChainError> {
    if chain.is_empty() {
        return Err(ChainError::Empty);
    }
    if chain.len() > MAX_CERTIFICATES {
        return Err(ChainError::TooLong {
            found: chain.len(),
            most: MAX_CERTIFICATES,
        });
    }
    let bytes = chain.iter().map(|certificate| certificate.len()).sum();
    if bytes > MAX_BYTES {
        return Err(ChainError::TooLarge {
            found: bytes,
            most: MAX_BYTES,
        });
    }
    chain
        .iter()
        .enumerate()
        .map(|(i, der)| {
            Certificate::parse(der).map_err(|source| ChainError::Malformed {
                position: i + 1,
                source,
            })
        })
        .collect()
}

/// A chain cut at its end entity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// From the one presented downwards.
    pub(crate) proxies: &'a [Certificate],
    pub(crate) end_entity: &'a Certificate,
    /// What the peer sent below, to help find the authority.
    pub(crate) rest: &'a [Certificate],
    old: OldProxies,
}

/// What makes a certificate a proxy; none where nothing does that is accepted.
fn proxy_info(certificate: &Certificate, old: OldProxies) -> Option<(Kind, ProxyInfo)> {
    if let Some(info) = certificate.proxy() {
        return Some((Kind::Rfc, info.clone()));
    }
    if certificate.extensions.draft_proxy {
        let info = certificate.extensions.draft.as_ref().filter(|_| old.draft)?;
        return Some((Kind::Draft, info.clone()));
    }
    (old.legacy && is_legacy(certificate)).then(|| {
        let language = if certificate.dn.ends_with("/CN=limited proxy") {
            Language::Limited
        } else {
            Language::InheritAll
        };
        let path_length = None;
        (Kind::Legacy, ProxyInfo { path_length, language })
    })
}

/// The three kinds of proxies. A chain has proxies of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rfc,
    Draft,
    Legacy,
}

fn is_legacy(certificate: &Certificate) -> bool {
    let named_as_proxy = dn::is_proxy_name(&certificate.subject, &certificate.issuer).unwrap_or(false);
    named_as_proxy && dn::ends_as_legacy_proxy(&certificate.dn)
}

/// Cuts a chain at the first certificate that is no proxy, and names proxies of the old kinds for what they are.
pub(crate) fn cut(chain: &[Certificate], old: OldProxies) -> Result<Parts<'_>, ChainError> {
    let is_none = |certificate: &Certificate| proxy_info(certificate, old).is_none();
    let Some(position) = chain.iter().position(is_none) else {
        return Err(chain.last().map_or(ChainError::Empty, |last| ChainError::NoEndEntity {
            dn: last.dn.clone(),
        }));
    };
    if position > MAX_PROXIES {
        return Err(ChainError::TooLong {
            found: position,
            most: MAX_PROXIES,
        });
    }
    let (proxies, below) = chain.split_at(position);
    let Some((end_entity, rest)) = below.split_first() else {
        return Err(ChainError::Empty);
    };
    let dn = || end_entity.dn.clone();
    if end_entity.extensions.draft_proxy {
        return Err(ChainError::DraftProxy { dn: dn() });
    }
    if is_legacy(end_entity) {
        return Err(ChainError::LegacyProxy { dn: dn() });
    }
    if end_entity.dn.is_empty() {
        return Err(ChainError::NoSubject);
    }
    if end_entity.is_authority() {
        return Err(ChainError::Authority { dn: dn() });
    }
    Ok(Parts {
        proxies,
        end_entity,
        rest,
        old,
    })
}

impl Parts<'_> {
    /// What every certificate up to the end entity must hold to, then what makes a proxy one. Answers whether a
    /// proxy of the chain is limited.
    pub(crate) fn check(&self, now: i64, algorithms: &WebPkiSupportedAlgorithms) -> Result<bool, ChainError> {
        let own: Vec<&Certificate> = self.proxies.iter().chain([self.end_entity]).collect();
        for certificate in &own {
            check_alone(certificate, now)?;
        }
        let mut limited = false;
        for (above, pair) in own.windows(2).enumerate() {
            limited |= check_proxy(pair[0], pair[1], above, self.old)?;
        }
        self.check_one_kind()?;
        // Signatures last: they are what costs.
        for pair in own.windows(2) {
            check_signature(pair[0], pair[1], algorithms)?;
        }
        Ok(limited)
    }

    /// Whether any of the proxies says that it is limited.
    pub(crate) fn limited(&self) -> bool {
        let mut infos = self.proxies.iter().filter_map(|proxy| proxy_info(proxy, self.old));
        infos.any(|(_, info)| info.language == Language::Limited)
    }

    fn check_one_kind(&self) -> Result<(), ChainError> {
        let kind = |proxy: &Certificate| proxy_info(proxy, self.old).map(|(kind, _)| kind);
        let other = self.proxies.windows(2).find(|pair| kind(&pair[0]) != kind(&pair[1]));
        other.map_or(Ok(()), |pair| {
            let dn = pair[0].dn.clone();
            let what = "is a proxy of another kind than its issuer";
            Err(ChainError::ProxyExtension { dn, what })
        })
    }

    /// When the first of these certificates begins to be valid last, and ends first.
    pub(crate) fn window(&self) -> (i64, i64) {
        self.proxies
            .iter()
            .chain([self.end_entity])
            .fold((i64::MIN, i64::MAX), |(from, to), certificate| {
                (from.max(certificate.not_before), to.min(certificate.not_after))
            })
    }
}

/// Dates, strength and use of one certificate.
pub(crate) fn check_alone(certificate: &Certificate, now: i64) -> Result<(), ChainError> {
    check_dates(certificate, now)?;
    check_strength(certificate)?;
    if !certificate.may_sign() {
        return Err(ChainError::NotForSignatures {
            dn: certificate.dn.clone(),
        });
    }
    Ok(())
}

pub(crate) fn check_strength(certificate: &Certificate) -> Result<(), ChainError> {
    let dn = || certificate.dn.clone();
    if let Some(bits) = certificate.rsa_bits.filter(|bits| *bits < 2048) {
        return Err(ChainError::WeakKey { dn: dn(), bits });
    }
    if let Some(algorithm) = unaccepted_algorithm(&certificate.algorithm_oid) {
        return Err(ChainError::WeakAlgorithm { dn: dn(), algorithm });
    }
    Ok(())
}

pub(crate) fn check_dates(certificate: &Certificate, now: i64) -> Result<(), ChainError> {
    let dn = || certificate.dn.clone();
    if now < certificate.not_before {
        return Err(ChainError::NotYetValid {
            dn: dn(),
            from: certificate.not_before(),
        });
    }
    if now > certificate.not_after {
        return Err(ChainError::Expired {
            dn: dn(),
            since: certificate.not_after(),
        });
    }
    Ok(())
}

/// The name of a signature algorithm that is not accepted; none where it is.
pub(crate) fn unaccepted_algorithm(oid: &str) -> Option<String> {
    let name = match oid {
        // RSA with SHA-256, SHA-384, SHA-512; PSS; ECDSA with the same; Ed25519.
        "1.2.840.113549.1.1.11"
        | "1.2.840.113549.1.1.12"
        | "1.2.840.113549.1.1.13"
        | "1.2.840.113549.1.1.10"
        | "1.2.840.10045.4.3.2"
        | "1.2.840.10045.4.3.3"
        | "1.2.840.10045.4.3.4"
        | "1.3.101.112" => return None,
        "1.2.840.113549.1.1.5" => "RSA and SHA-1",
        "1.2.840.113549.1.1.4" => "RSA and MD5",
        "1.2.840.10045.4.1" => "ECDSA and SHA-1",
        other => other,
    };
    Some(name.to_owned())
}

/// What RFC 3820 asks of a proxy and its issuer, but the signature. Answers whether it is limited.
fn check_proxy(proxy: &Certificate, issuer: &Certificate, above: usize, old: OldProxies) -> Result<bool, ChainError> {
    let dn = || proxy.dn.clone();
    let refuse = |what| Err(ChainError::ProxyExtension { dn: dn(), what });
    let Some((kind, info)) = proxy_info(proxy, old) else {
        return refuse("has no proxyCertInfo");
    };
    let limited = match &info.language {
        Language::InheritAll => false,
        Language::Limited => true,
        Language::Independent => return Err(ChainError::IndependentProxy { dn: dn() }),
        Language::Other(language) => {
            return Err(ChainError::UnknownLanguage {
                dn: dn(),
                language: language.clone(),
            });
        }
    };
    if proxy.issuer != issuer.subject {
        let (issuer, found) = (proxy.issuer_dn.clone(), issuer.dn.clone());
        return Err(ChainError::WrongIssuer {
            dn: dn(),
            issuer,
            found,
        });
    }
    if !dn::is_proxy_name(&proxy.subject, &proxy.issuer).unwrap_or(false) {
        return Err(ChainError::ProxyName { dn: dn() });
    }
    if proxy.extensions.authority {
        return refuse("says that it is an authority");
    }
    if proxy.extensions.alternative_name {
        return refuse("has an alternative name");
    }
    if proxy.extensions.draft_proxy && kind != Kind::Draft {
        return Err(ChainError::DraftProxy { dn: dn() });
    }
    if proxy.extensions.refuses_clients {
        return Err(ChainError::Purpose {
            dn: dn(),
            purpose: "clients",
        });
    }
    if let Some(oid) = &proxy.extensions.unknown_critical {
        return Err(ChainError::UnknownExtension {
            dn: dn(),
            oid: oid.clone(),
        });
    }
    match info.path_length {
        Some(allowed) if above > allowed as usize => Err(ChainError::PathLength {
            dn: dn(),
            allowed,
            found: above,
        }),
        _ => Ok(limited),
    }
}

/// Whether `issuer` signed `certificate`.
fn check_signature(
    certificate: &Certificate,
    issuer: &Certificate,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), ChainError> {
    if signed_by(
        &certificate.algorithm,
        &certificate.signed,
        &certificate.signature,
        issuer,
        algorithms,
    ) {
        return Ok(());
    }
    let (dn, issuer) = (certificate.dn.clone(), issuer.dn.clone());
    Err(ChainError::ProxySignature { dn, issuer })
}

/// Whether `signature` over `message`, by the algorithm identifier given, is by the key of `issuer`.
pub(crate) fn signed_by(
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
    issuer: &Certificate,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok(key) = webpki::RawPublicKeyEntity::try_from(&issuer.public_key) else {
        return false;
    };
    // ECDSA names the hash but not the curve: one identifier may stand for several algorithms.
    let candidates = algorithms
        .all
        .iter()
        .filter(|candidate| candidate.signature_alg_id().as_ref() == algorithm);
    candidates
        .take(4)
        .any(|candidate| key.verify_signature(*candidate, message, signature).is_ok())
}
