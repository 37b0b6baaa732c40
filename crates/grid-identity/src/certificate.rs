//! A certificate as the rules of proxies need it: names and signed bytes exactly as encoded, and the few extensions.
//!
//! It does not replace webpki, which parses end entities and authorities again, by its own rules.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use std::time::SystemTime;

use crate::asn1::{self, BIT_STRING, DerError, Extension, INTEGER, OID, Reader, SEQUENCE};
use crate::proxy::{self, ProxyInfo};
use crate::{dn, time, voms};

/// A parsed X.509 certificate.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) der: CertificateDer<'static>,
    /// The signed part, the identifier of the algorithm without its outer SEQUENCE, the signature.
    pub(crate) signed: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) algorithm_oid: String,
    pub(crate) signature: Vec<u8>,
    /// The serial number as encoded.
    pub(crate) serial: Vec<u8>,
    /// Names as encoded, and in slash form.
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) dn: String,
    pub(crate) issuer_dn: String,
    pub(crate) public_key: SubjectPublicKeyInfoDer<'static>,
    /// Modulus of an RSA key; none for other kinds.
    pub(crate) rsa_bits: Option<usize>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) extensions: Extensions,
}

/// The extensions that count here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extensions {
    pub(crate) authority: bool,
    /// The first byte of keyUsage: digitalSignature is its highest bit.
    pub(crate) key_usage: Option<u8>,
    /// Whether extendedKeyUsage, where present, admits clients.
    pub(crate) refuses_clients: bool,
    pub(crate) alternative_name: bool,
    /// subjectAltName, as encoded.
    pub(crate) names: Vec<u8>,
    pub(crate) proxy: Option<ProxyInfo>,
    /// The extension that the drafts before RFC 3820 had.
    pub(crate) draft_proxy: bool,
    /// What it says, where it reads.
    pub(crate) draft: Option<ProxyInfo>,
    /// The attribute certificates of VOMS servers, as encoded.
    pub(crate) attributes: Option<Vec<u8>>,
    /// The first critical extension not known here.
    pub(crate) unknown_critical: Option<String>,
}

const DIGITAL_SIGNATURE: u8 = 0x80;
const CERTIFICATE_SIGN: u8 = 0x04;

impl Certificate {
    /// Parses DER.
    ///
    /// # Errors
    /// [`DerError`] where the bytes are no certificate of RFC 5280, or one extension comes twice.
    pub fn parse(der: &[u8]) -> Result<Self, DerError> {
        let mut outer = Reader::new(asn1::only(der, SEQUENCE)?.content);
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = outer.expect(SEQUENCE)?;
        let signature = asn1::whole_bits(outer.expect(BIT_STRING)?.content)?;
        outer.end()?;

        let mut tbs = Reader::new(signed.content);
        let version = match tbs.optional(0xa0)? {
            Some(element) => asn1::small_integer(asn1::only(element.content, INTEGER)?.content)?,
            None => 0,
        };
        let serial = tbs.expect(INTEGER)?.content;
        if tbs.expect(SEQUENCE)?.whole != algorithm.whole {
            return Err(DerError("names two signature algorithms"));
        }
        let issuer = tbs.expect(SEQUENCE)?.whole;
        let mut validity = tbs.sequence()?;
        let not_before = time::parse(validity.next()?)?;
        let not_after = time::parse(validity.next()?)?;
        validity.end()?;
        let subject = tbs.expect(SEQUENCE)?.whole;
        let public_key = tbs.expect(SEQUENCE)?;
        tbs.optional(0x81)?;
        tbs.optional(0x82)?;
        let extensions = match tbs.optional(0xa3)? {
            Some(element) if version == 2 => extensions(asn1::only(element.content, SEQUENCE)?.content)?,
            Some(_) => return Err(DerError("has extensions, but not version 3")),
            None => Extensions::default(),
        };
        tbs.end()?;

        Ok(Self {
            signed: signed.whole.to_vec(),
            algorithm: algorithm.content.to_vec(),
            algorithm_oid: asn1::dotted(Reader::new(algorithm.content).expect(OID)?.content)?,
            signature: signature.to_vec(),
            serial: serial.to_vec(),
            subject: subject.to_vec(),
            issuer: issuer.to_vec(),
            dn: dn::slash(subject)?,
            issuer_dn: dn::slash(issuer)?,
            rsa_bits: rsa_bits(public_key.content)?,
            public_key: SubjectPublicKeyInfoDer::from(public_key.whole.to_vec()),
            not_before,
            not_after,
            extensions,
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// The subject in slash form.
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// The issuer in slash form.
    pub fn issuer_dn(&self) -> &str {
        &self.issuer_dn
    }

    /// Its first moment.
    pub fn not_before(&self) -> SystemTime {
        time::moment(self.not_before)
    }

    /// Its last moment.
    pub fn not_after(&self) -> SystemTime {
        time::moment(self.not_after)
    }

    /// What proxyCertInfo says, where there is one: a certificate is a proxy by nothing else.
    pub fn proxy(&self) -> Option<&ProxyInfo> {
        self.extensions.proxy.as_ref()
    }

    /// Whether it says that it is an authority.
    pub fn is_authority(&self) -> bool {
        self.extensions.authority
    }

    /// The names of the host that it is for, without addresses.
    pub fn host_names(&self) -> Vec<String> {
        const DNS_NAME: u8 = 0x82;
        let mut found = Vec::new();
        if let Ok(names) = asn1::only(&self.extensions.names, SEQUENCE) {
            let mut names = Reader::new(names.content);
            while let Ok(name) = names.next() {
                if name.tag == DNS_NAME {
                    found.extend(std::str::from_utf8(name.content).map(str::to_owned));
                }
            }
        }
        found
    }

    /// The attribute certificates in it, as encoded: nobody has verified them.
    pub fn attributes(&self) -> Option<&[u8]> {
        self.extensions.attributes.as_deref()
    }

    pub(crate) fn may_sign(&self) -> bool {
        self.extensions
            .key_usage
            .is_none_or(|usage| usage & DIGITAL_SIGNATURE != 0)
    }

    pub(crate) fn may_certify(&self) -> bool {
        self.extensions.authority
            && self
                .extensions
                .key_usage
                .is_none_or(|usage| usage & CERTIFICATE_SIGN != 0)
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("dn", &self.dn)
            .field("issuer", &self.issuer_dn)
            .finish_non_exhaustive()
    }
}

/// The length of the modulus of an RSA key.
fn rsa_bits(public_key: &[u8]) -> Result<Option<usize>, DerError> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
    let mut reader = Reader::new(public_key);
    let kind = reader.sequence()?.expect(OID)?.content;
    let key = asn1::whole_bits(reader.expect(BIT_STRING)?.content)?;
    reader.end()?;
    if kind != RSA && kind != RSA_PSS {
        return Ok(None);
    }
    let modulus = Reader::new(asn1::only(key, SEQUENCE)?.content).expect(INTEGER)?.content;
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    let digits = &modulus[zeros..];
    let unused = digits.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok(Some(digits.len() * 8 - unused))
}

fn extensions(list: &[u8]) -> Result<Extensions, DerError> {
    let mut found = Extensions::default();
    for Extension { oid, critical, value } in asn1::extensions(list)? {
        match oid.as_str() {
            "2.5.29.19" => found.authority = Reader::new(asn1::only(value, SEQUENCE)?.content).optional_true()?,
            "2.5.29.15" => {
                let bits = asn1::only(value, BIT_STRING)?.content;
                found.key_usage = Some(bits.get(1).copied().unwrap_or(0));
            }
            "2.5.29.37" => found.refuses_clients = !admits_clients(value)?,
            "2.5.29.17" => {
                found.alternative_name = true;
                found.names = value.to_vec();
            }
            "2.5.29.18" => found.alternative_name = true,
            "1.3.6.1.5.5.7.1.14" => {
                if !critical {
                    return Err(DerError("has a proxyCertInfo that is not critical"));
                }
                found.proxy = Some(proxy::parse(value)?);
            }
            "1.3.6.1.4.1.3536.1.222" => {
                found.draft_proxy = true;
                found.draft = proxy::parse_draft(value).ok();
            }
            voms::EXTENSION => found.attributes = Some(value.to_vec()),
            other if critical => {
                found.unknown_critical.get_or_insert_with(|| other.to_owned());
            }
            _ => {}
        }
    }
    Ok(found)
}

fn admits_clients(value: &[u8]) -> Result<bool, DerError> {
    let mut purposes = Reader::new(asn1::only(value, SEQUENCE)?.content);
    let mut admits = false;
    while !purposes.is_empty() {
        let purpose = asn1::dotted(purposes.expect(OID)?.content)?;
        admits |= matches!(purpose.as_str(), "1.3.6.1.5.5.7.3.2" | "2.5.29.37.0");
    }
    Ok(admits)
}
