//! A throw-away security fabric: authorities, hosts, users, proxies of any depth, revocation lists, signing policies.
//!
//! Written here rather than with OpenSSL so that tests and the demo need nothing but Rust, and can make what OpenSSL
//! would not: [`Template`] signs anything. [`Pki`] lays a whole fabric out in a directory. Keys are unencrypted and
//! good for nothing but trying out.

mod layout;
pub mod voms;

pub use layout::{HOSTS, MEMBERS, Pki, PkiOptions, USERS, VOS};

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

use crate::der;

/// Why a piece of the fabric could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The cryptography refused.
    #[error("cannot {0}")]
    Crypto(&'static str),
    /// A DN that is not in slash form, or has an attribute that is not known here.
    #[error("`{0}` is no name in slash form")]
    Name(String),
    /// A file or directory.
    #[error("cannot write or read `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory that should be empty.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A directory that should be a test grid's.
    #[error("`{}` is no test grid's fabric: {what}", path.display())]
    NoPki {
        /// Which.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
}

/// A distinguished name, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Each with its SET around it.
    parts: Vec<Vec<u8>>,
    /// What the subject hash of OpenSSL is made of.
    canonical: Vec<Vec<u8>>,
    slash: String,
}

impl Name {
    /// From slash form. Attributes become UTF8String, `DC` and `emailAddress` IA5String, `C` PrintableString.
    ///
    /// # Errors
    /// [`PkiError::Name`] where an attribute has another type than `DC C ST L O OU CN UID emailAddress`.
    pub fn parse(slash: &str) -> Result<Self, PkiError> {
        let bad = || PkiError::Name(slash.to_owned());
        let mut name = Self {
            parts: Vec::new(),
            canonical: Vec::new(),
            slash: String::new(),
        };
        for attribute in slash.strip_prefix('/').ok_or_else(bad)?.split('/') {
            let (kind, value) = attribute.split_once('=').ok_or_else(bad)?;
            name.push(kind, value).ok_or_else(bad)?;
        }
        Ok(name)
    }

    /// This name with one common name more, as proxies have it. Slashes in the value are taken as they are.
    #[must_use]
    pub fn with_common_name(&self, value: &str) -> Self {
        let mut longer = self.clone();
        longer.push("CN", value);
        longer
    }

    fn push(&mut self, kind: &str, value: &str) -> Option<()> {
        let (oid, tag) = match kind {
            "CN" => ("2.5.4.3", 0x0c),
            "C" => ("2.5.4.6", 0x13),
            "L" => ("2.5.4.7", 0x0c),
            "ST" => ("2.5.4.8", 0x0c),
            "O" => ("2.5.4.10", 0x0c),
            "OU" => ("2.5.4.11", 0x0c),
            "UID" => ("0.9.2342.19200300.100.1.1", 0x0c),
            "DC" => ("0.9.2342.19200300.100.1.25", 0x16),
            "emailAddress" => ("1.2.840.113549.1.9.1", 0x16),
            _ => return None,
        };
        let oid = der::oid(oid);
        let part = |tag, value: &str| der::set(&[der::sequence(&[oid.clone(), der::element(tag, value.as_bytes())])]);
        self.parts.push(part(tag, value));
        // OpenSSL hashes strings in lower case, with single blanks, as UTF8String.
        let folded = value
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_ascii_lowercase();
        self.canonical.push(part(0x0c, &folded));
        self.slash.push_str(&format!("/{kind}={value}"));
        Some(())
    }

    /// The DER of it.
    pub fn der(&self) -> Vec<u8> {
        der::sequence(&self.parts)
    }

    /// The slash form.
    pub fn slash(&self) -> &str {
        &self.slash
    }

    /// The hash that OpenSSL finds files by, eight hexadecimal digits.
    pub fn hash(&self) -> String {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.canonical.concat());
        let first: Vec<u8> = digest.as_ref()[..4].iter().rev().copied().collect();
        data_encoding::HEXLOWER.encode(&first)
    }
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// ECDSA on P-256: made in no time.
    #[default]
    Ec,
    /// RSA of 2048 bits, which is what grids have: takes some tenths of a second.
    Rsa,
}

/// A private key that signs.
pub struct Key {
    pair: Pair,
    pkcs8: Vec<u8>,
    public: Vec<u8>,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the system gives no random numbers.
    pub fn generate(kind: KeyKind) -> Result<Self, PkiError> {
        const FAILED: PkiError = PkiError::Crypto("make a key");
        match kind {
            KeyKind::Ec => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| FAILED)?;
                let pkcs8 = pair.to_pkcs8v1().map_err(|_| FAILED)?.as_ref().to_vec();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| FAILED)?;
                let public = public.as_ref().to_vec();
                Ok(Self {
                    pair: Pair::Ec(pair),
                    pkcs8,
                    public,
                })
            }
            KeyKind::Rsa => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| FAILED)?;
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| FAILED)?;
                let pkcs8 = pkcs8.as_ref().to_vec();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| FAILED)?;
                let public = public.as_ref().to_vec();
                Ok(Self {
                    pair: Pair::Rsa(pair),
                    pkcs8,
                    public,
                })
            }
        }
    }

    fn algorithm(&self) -> Vec<u8> {
        match self.pair {
            Pair::Ec(_) => der::sequence(&[der::oid("1.2.840.10045.4.3.2")]),
            Pair::Rsa(_) => der::sequence(&[der::oid("1.2.840.113549.1.1.11"), der::element(5, &[])]),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        const FAILED: PkiError = PkiError::Crypto("sign");
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&random, message).map_err(|_| FAILED)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| FAILED)?;
                Ok(signature)
            }
        }
    }

    /// The public key as it stands in a certificate.
    pub fn public_der(&self) -> &[u8] {
        &self.public
    }

    /// The private key in PKCS #8.
    pub fn pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    fn identifier(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.public).as_ref()[..20].to_vec()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

/// PEM with lines of 64 characters.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// One extension of a certificate.
#[derive(Debug, Clone)]
pub struct Extension {
    oid: Vec<u8>,
    critical: bool,
    value: Vec<u8>,
}

impl Extension {
    /// Any extension: its object identifier in dots and the DER of its value.
    pub fn new(oid: &str, critical: bool, value: Vec<u8>) -> Self {
        Self {
            oid: der::oid(oid),
            critical,
            value,
        }
    }

    /// basicConstraints.
    pub fn basic_constraints(authority: bool) -> Self {
        let content = if authority { der::TRUE.to_vec() } else { Vec::new() };
        Self::new("2.5.29.19", true, der::element(0x30, &content))
    }

    /// keyUsage, as the byte of its first eight bits: digitalSignature is 0x80, keyCertSign 0x04, cRLSign 0x02.
    pub fn key_usage(byte: u8) -> Self {
        Self::new("2.5.29.15", true, der::flags(byte))
    }

    /// extendedKeyUsage for servers, clients or both.
    pub fn purposes(server: bool, client: bool) -> Self {
        let mut purposes = Vec::new();
        if server {
            purposes.push(der::oid("1.3.6.1.5.5.7.3.1"));
        }
        if client {
            purposes.push(der::oid("1.3.6.1.5.5.7.3.2"));
        }
        Self::new("2.5.29.37", false, der::sequence(&purposes))
    }

    /// subjectAltName of host names and addresses.
    pub fn alternative_names(names: &[&str]) -> Self {
        let names: Vec<Vec<u8>> = names
            .iter()
            .map(|name| match name.parse() {
                Ok(std::net::IpAddr::V4(address)) => der::element(0x87, &address.octets()),
                Ok(std::net::IpAddr::V6(address)) => der::element(0x87, &address.octets()),
                Err(_) => der::element(0x82, name.as_bytes()),
            })
            .collect();
        Self::new("2.5.29.17", false, der::sequence(&names))
    }

    /// proxyCertInfo with a policy language by its object identifier.
    pub fn proxy_info(language: &str, path_length: Option<u32>) -> Self {
        let mut parts = Vec::new();
        if let Some(length) = path_length {
            parts.push(der::number(u64::from(length)));
        }
        parts.push(der::sequence(&[der::oid(language)]));
        Self::new("1.3.6.1.5.5.7.1.14", true, der::sequence(&parts))
    }

    fn der(&self) -> Vec<u8> {
        let critical = if self.critical { der::TRUE.to_vec() } else { Vec::new() };
        der::sequence(&[self.oid.clone(), critical, der::octets(&self.value)])
    }
}

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: i64,
    /// The last second.
    pub to: i64,
}

impl Validity {
    /// From an hour ago, so that clocks may differ, for so long from now.
    pub fn lasting(duration: Duration) -> Self {
        let now = now();
        Self {
            from: now - 3600,
            to: now + i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4),
        }
    }

    /// Thirty days.
    pub fn usual() -> Self {
        Self::lasting(Duration::from_secs(30 * 86_400))
    }
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 4)
}

/// A certificate before it is signed. Every field may be nonsense: this is what refusals are tested with.
#[derive(Debug, Clone)]
pub struct Template {
    /// The subject.
    pub subject: Name,
    /// The issuer.
    pub issuer: Name,
    /// The serial number.
    pub serial: u64,
    /// From when to when it is valid.
    pub validity: Validity,
    /// The public key, as it stands in a certificate.
    pub public_key: Vec<u8>,
    /// The extensions, in order.
    pub extensions: Vec<Extension>,
    /// Another signature algorithm than the key's, as the DER of its identifier.
    pub algorithm: Option<Vec<u8>>,
}

impl Template {
    /// Signs it.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn sign(&self, key: &Key) -> Result<Vec<u8>, PkiError> {
        let algorithm = self.algorithm.clone().unwrap_or_else(|| key.algorithm());
        let mut parts = vec![
            der::element(0xa0, &der::number(2)),
            der::number(self.serial),
            algorithm.clone(),
            self.issuer.der(),
            der::sequence(&[der::time(self.validity.from), der::time(self.validity.to)]),
            self.subject.der(),
            self.public_key.clone(),
        ];
        if !self.extensions.is_empty() {
            let extensions: Vec<Vec<u8>> = self.extensions.iter().map(Extension::der).collect();
            parts.push(der::element(0xa3, &der::sequence(&extensions)));
        }
        let signed = der::sequence(&parts);
        let signature = key.sign(&signed)?;
        Ok(der::sequence(&[signed, algorithm, der::bits(&signature)]))
    }
}

/// An authority, with what it has revoked.
#[derive(Debug)]
pub struct Authority {
    name: Name,
    key: Key,
    certificate: Vec<u8>,
    /// What comes below a certificate of its making: itself and those above, but never the last.
    presented: Vec<Vec<u8>>,
    serial: AtomicU64,
    revoked: Vec<u64>,
    crl_number: AtomicU64,
}

impl Authority {
    /// A self-signed one.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn new(dn: &str) -> Result<Self, PkiError> {
        Self::with(dn, KeyKind::Ec, Validity::lasting(Duration::from_secs(31 * 86_400)))
    }

    /// A self-signed one, with its kind of key and validity.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn with(dn: &str, kind: KeyKind, validity: Validity) -> Result<Self, PkiError> {
        let name = Name::parse(dn)?;
        let key = Key::generate(kind)?;
        let template = Template {
            subject: name.clone(),
            issuer: name.clone(),
            serial: 1,
            validity,
            public_key: key.public.clone(),
            extensions: authority_extensions(&key, None),
            algorithm: None,
        };
        let certificate = template.sign(&key)?;
        Ok(Self {
            name,
            key,
            certificate,
            presented: Vec::new(),
            serial: AtomicU64::new(0x1001),
            revoked: Vec::new(),
            crl_number: AtomicU64::new(1),
        })
    }

    /// An authority below this one.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn subordinate(&self, dn: &str) -> Result<Self, PkiError> {
        let name = Name::parse(dn)?;
        let key = Key::generate(KeyKind::Ec)?;
        let extensions = authority_extensions(&key, Some(&self.key));
        let template = self.template(name.clone(), key.public.clone(), extensions);
        let certificate = template.sign(&self.key)?;
        let presented = std::iter::once(&certificate).chain(&self.presented).cloned().collect();
        Ok(Self {
            name,
            key,
            certificate,
            presented,
            serial: AtomicU64::new(0x1001),
            revoked: Vec::new(),
            crl_number: AtomicU64::new(1),
        })
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its key, to sign a [`Template`] with.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its certificate.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", self.certificate())
    }

    /// A certificate by this authority, with the next serial number, for the usual time.
    pub fn template(&self, subject: Name, public_key: Vec<u8>, extensions: Vec<Extension>) -> Template {
        Template {
            subject,
            issuer: self.name.clone(),
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            validity: Validity::usual(),
            public_key,
            extensions,
            algorithm: None,
        }
    }

    /// What an end entity of this authority has besides its purposes and names.
    pub fn usual_extensions(&self, key: &Key) -> Vec<Extension> {
        let usage = match key.pair {
            Pair::Ec(_) => 0x80,
            Pair::Rsa(_) => 0xa0,
        };
        vec![
            Extension::basic_constraints(false),
            Extension::key_usage(usage),
            subject_key(key),
            authority_key(&self.key),
        ]
    }

    /// A user's certificate.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn user(&self, dn: &str) -> Result<Issued, PkiError> {
        self.user_with(dn, KeyKind::Ec, Validity::usual())
    }

    /// A user's certificate, with its kind of key and validity.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn user_with(&self, dn: &str, kind: KeyKind, validity: Validity) -> Result<Issued, PkiError> {
        let key = Key::generate(kind)?;
        let mut extensions = self.usual_extensions(&key);
        extensions.push(Extension::purposes(false, true));
        let mut template = self.template(Name::parse(dn)?, key.public.clone(), extensions);
        template.validity = validity;
        self.issue(template, key)
    }

    /// A host's certificate, for servers and clients, with its names and addresses.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn host(&self, dn: &str, names: &[&str]) -> Result<Issued, PkiError> {
        self.host_with(dn, names, KeyKind::Ec)
    }

    /// A host's certificate, with its kind of key.
    ///
    /// # Errors
    /// [`PkiError`] where the name is none or the key cannot be made.
    pub fn host_with(&self, dn: &str, names: &[&str], kind: KeyKind) -> Result<Issued, PkiError> {
        let key = Key::generate(kind)?;
        let mut extensions = self.usual_extensions(&key);
        extensions.push(Extension::purposes(true, true));
        extensions.push(Extension::alternative_names(names));
        let template = self.template(Name::parse(dn)?, key.public.clone(), extensions);
        self.issue(template, key)
    }

    /// Signs a template whose key is `key`.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn issue(&self, template: Template, key: Key) -> Result<Issued, PkiError> {
        let mut chain = vec![template.sign(&self.key)?];
        chain.extend(self.presented.iter().cloned());
        Ok(Issued {
            name: template.subject,
            serial: template.serial,
            key,
            chain,
        })
    }

    /// Puts a certificate onto the lists made from now on.
    pub fn revoke(&mut self, issued: &Issued) {
        self.revoke_serial(issued.serial);
    }

    /// Puts a serial number onto the lists made from now on.
    pub fn revoke_serial(&mut self, serial: u64) {
        self.revoked.push(serial);
    }

    /// Its serial number, for [`Self::revoke_serial`] at the authority above.
    pub fn own_serial(&self) -> u64 {
        // Authorities of ours take theirs from the one above: it is the third part of the signed part.
        serial_of(self.certificate()).unwrap_or(0)
    }

    /// A revocation list for as long as certificates usually last.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn crl(&self) -> Result<Vec<u8>, PkiError> {
        self.crl_with(Validity::usual())
    }

    /// A revocation list with its dates.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn crl_with(&self, validity: Validity) -> Result<Vec<u8>, PkiError> {
        let algorithm = self.key.algorithm();
        let number = self.crl_number.fetch_add(1, Ordering::Relaxed);
        let extensions = [
            authority_key(&self.key),
            Extension::new("2.5.29.20", false, der::number(number)),
        ];
        let extensions: Vec<Vec<u8>> = extensions.iter().map(Extension::der).collect();
        let mut parts = vec![
            der::number(1),
            algorithm.clone(),
            self.name.der(),
            der::time(validity.from),
            der::time(validity.to),
        ];
        if !self.revoked.is_empty() {
            let entries: Vec<Vec<u8>> = self
                .revoked
                .iter()
                .map(|serial| der::sequence(&[der::number(*serial), der::time(validity.from)]))
                .collect();
            parts.push(der::sequence(&entries));
        }
        parts.push(der::element(0xa0, &der::sequence(&extensions)));
        let signed = der::sequence(&parts);
        let signature = self.key.sign(&signed)?;
        Ok(der::sequence(&[signed, algorithm, der::bits(&signature)]))
    }
}

/// The serial number of a certificate that was made here.
pub fn serial_of(certificate: &[u8]) -> Option<u64> {
    // SEQUENCE, SEQUENCE, [0] version of three bytes: all written above, so their headers are known.
    let mut rest = certificate;
    for _ in 0..2 {
        let header = if rest.get(1)? & 0x80 == 0 {
            2
        } else {
            2 + usize::from(rest[1] & 0x7f)
        };
        rest = rest.get(header..)?;
    }
    let serial = rest.get(5..)?;
    let length = usize::from(*serial.get(1)?);
    Some(
        serial
            .get(2..2 + length)?
            .iter()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    )
}

fn authority_extensions(key: &Key, above: Option<&Key>) -> Vec<Extension> {
    let mut extensions = vec![
        Extension::basic_constraints(true),
        Extension::key_usage(0x06),
        subject_key(key),
    ];
    extensions.extend(above.map(authority_key));
    extensions
}

fn subject_key(key: &Key) -> Extension {
    Extension::new("2.5.29.14", false, der::octets(&key.identifier()))
}

fn authority_key(issuer: &Key) -> Extension {
    Extension::new(
        "2.5.29.35",
        false,
        der::sequence(&[der::element(0x80, &issuer.identifier())]),
    )
}

/// What a proxy is like.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The policy language, by its object identifier.
    pub language: String,
    /// How many proxies may stand above it.
    pub path_length: Option<u32>,
    /// From when to when it is valid.
    pub validity: Validity,
    /// The kind of its key.
    pub key: KeyKind,
    /// Its common name; none: its serial number.
    pub common_name: Option<String>,
    /// Extensions besides keyUsage and proxyCertInfo.
    pub extensions: Vec<Extension>,
}

/// All that the issuer may.
pub const INHERIT_ALL: &str = "1.3.6.1.5.5.7.21.1";
/// Nothing that the issuer may.
pub const INDEPENDENT: &str = "1.3.6.1.5.5.7.21.2";
/// All that the issuer may, but starting jobs.
pub const LIMITED: &str = "1.3.6.1.4.1.3536.1.1.1.9";

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            language: INHERIT_ALL.to_owned(),
            path_length: None,
            validity: Validity::lasting(Duration::from_secs(48 * 3600)),
            key: KeyKind::Ec,
            common_name: None,
            extensions: Vec::new(),
        }
    }
}

impl ProxyOptions {
    /// A limited one.
    #[must_use]
    pub fn limited() -> Self {
        Self {
            language: LIMITED.to_owned(),
            ..Self::default()
        }
    }
}

/// A certificate with its key and those below it.
#[derive(Debug)]
pub struct Issued {
    name: Name,
    serial: u64,
    key: Key,
    chain: Vec<Vec<u8>>,
}

impl Issued {
    /// Its subject.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its subject in slash form.
    pub fn dn(&self) -> &str {
        &self.name.slash
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its own certificate first, then those below it, without the last authority.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// A proxy below this certificate, or below this proxy.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where its key cannot be made.
    pub fn proxy(&self, options: &ProxyOptions) -> Result<Self, PkiError> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| PkiError::Crypto("draw a serial number"))?;
        let serial = u64::from(u32::from_be_bytes(random) & 0x7fff_ffff | 1);
        let key = Key::generate(options.key)?;
        let common_name = options.common_name.clone().unwrap_or_else(|| serial.to_string());
        let mut extensions = vec![
            Extension::key_usage(0x80),
            Extension::proxy_info(&options.language, options.path_length),
        ];
        extensions.extend(options.extensions.iter().cloned());
        let template = Template {
            subject: self.name.with_common_name(&common_name),
            issuer: self.name.clone(),
            serial,
            validity: options.validity,
            public_key: key.public.clone(),
            extensions,
            algorithm: None,
        };
        self.sign(&template, key)
    }

    /// Signs any template with this certificate's key and puts the result above.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn sign(&self, template: &Template, key: Key) -> Result<Self, PkiError> {
        let mut chain = vec![template.sign(&self.key)?];
        chain.extend(self.chain.iter().cloned());
        Ok(Self {
            name: template.subject.clone(),
            serial: template.serial,
            key,
            chain,
        })
    }

    /// Its own certificate and those below it in PEM.
    pub fn certificate_pem(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    /// As grid tools write a credential: certificate, key, the certificates below.
    pub fn credential_pem(&self) -> String {
        let below: String = self.chain[1..].iter().map(|der| pem("CERTIFICATE", der)).collect();
        pem("CERTIFICATE", &self.chain[0]) + &self.key.pem() + &below
    }
}
