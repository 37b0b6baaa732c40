//! Reads an attribute certificate: the part of RFC 5755 that VOMS servers write, within bounds, without recursion.
//!
//! What is read has not been verified; the signed part is kept as it came.

use super::VomsError;
use super::error::shown;
use super::fqan;
use crate::asn1::{self, BIT_STRING, DerError, Element, Extension, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, SET};
use crate::certificate::Certificate;
use crate::{dn, time};

/// Most attribute certificates in one proxy: one for each VO that its owner asked.
const MOST_CERTIFICATES: usize = 16;
/// Most certificates that come with one, of the server and those above it.
const MOST_SIGNERS: usize = 8;
/// Most FQANs of one.
const MOST_FQANS: usize = 512;
/// Most hosts that one is for.
const MOST_TARGETS: usize = 64;

const FQANS: &str = "1.3.6.1.4.1.8005.100.100.4";
const SIGNERS: &str = "1.3.6.1.4.1.8005.100.100.10";
const GENERIC_ATTRIBUTES: &str = "1.3.6.1.4.1.8005.100.100.11";
const AUTHORITY_KEY: &str = "2.5.29.35";
const TARGETS: &str = "2.5.29.55";
const NO_REVOCATION: &str = "2.5.29.56";

/// The tags of general names that are read: a host, a directory name, a URI.
const DNS_NAME: u8 = 0x82;
const DIRECTORY_NAME: u8 = 0xa4;
const URI: u8 = 0x86;

/// What a VOMS server says about somebody.
#[derive(Debug, Clone)]
pub struct AttributeCertificate {
    pub(super) signed: Vec<u8>,
    pub(super) algorithm: Vec<u8>,
    pub(super) algorithm_oid: String,
    pub(super) signature: Vec<u8>,
    holder: String,
    holder_serial: Vec<u8>,
    pub(super) issuer: String,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) vo: String,
    pub(super) host: String,
    pub(super) fqans: Vec<String>,
    pub(super) signers: Vec<Certificate>,
    pub(super) targets: Option<Vec<String>>,
    pub(super) unknown_critical: Option<String>,
}

/// The attribute certificates in the value of the extension, as encoded.
pub(super) fn list(value: &[u8]) -> Result<Vec<Element<'_>>, VomsError> {
    let malformed = VomsError::Malformed;
    let outer = asn1::only(value, SEQUENCE).map_err(malformed)?;
    let mut list = Reader::new(asn1::only(outer.content, SEQUENCE).map_err(malformed)?.content);
    let mut found = Vec::new();
    while !list.is_empty() {
        if found.len() == MOST_CERTIFICATES {
            let (what, most) = ("attribute certificates", MOST_CERTIFICATES);
            return Err(VomsError::TooMany { what, most });
        }
        found.push(list.expect(SEQUENCE).map_err(malformed)?);
    }
    if found.is_empty() {
        return Err(malformed(DerError("has nothing in it")));
    }
    Ok(found)
}

impl AttributeCertificate {
    pub(super) fn parse(element: Element<'_>) -> Result<Self, VomsError> {
        let raw = Raw::read(element).map_err(VomsError::Malformed)?;
        let extensions = Extensions::read(raw.extensions).map_err(VomsError::Malformed)?;
        let (uri, values) = membership(raw.attributes).map_err(VomsError::Malformed)?;
        let (vo, host) = authority(uri).ok_or_else(|| VomsError::Authority { uri: shown(uri) })?;
        Ok(Self {
            fqans: fqans(&vo, values)?,
            signers: extensions.signers()?,
            targets: extensions.targets()?,
            unknown_critical: extensions.unknown_critical,
            signed: raw.signed.to_vec(),
            algorithm: raw.algorithm.to_vec(),
            algorithm_oid: raw.algorithm_oid,
            signature: raw.signature.to_vec(),
            holder: raw.holder,
            holder_serial: raw.holder_serial.to_vec(),
            issuer: raw.issuer,
            not_before: raw.not_before,
            not_after: raw.not_after,
            vo,
            host,
        })
    }

    /// The VO.
    pub fn vo(&self) -> &str {
        &self.vo
    }

    /// The VOMS server, by which its LSC file is found.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Groups and roles in order, in canonical form.
    pub fn fqans(&self) -> &[String] {
        &self.fqans
    }

    /// To whom it was issued: the owner's certificate, by name and serial number. Servers write the owner's own name
    /// where the standard wants that of the issuer: either will do.
    pub(super) fn check_holder(&self, owner: &Certificate) -> Result<(), VomsError> {
        // Names are compared as they are shown, which is the same only for the same values: servers may encode a
        // string by another type than the certificate does.
        if self.holder != owner.dn && self.holder != owner.issuer_dn {
            return Err(VomsError::Holder {
                vo: self.vo.clone(),
                holder: self.holder.clone(),
                owner: owner.dn.clone(),
            });
        }
        if self.holder_serial != owner.serial {
            return Err(VomsError::HolderSerial {
                vo: self.vo.clone(),
                owner: owner.dn.clone(),
            });
        }
        Ok(())
    }
}

/// What stands in fixed places.
struct Raw<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    algorithm_oid: String,
    signature: &'a [u8],
    holder: String,
    holder_serial: &'a [u8],
    issuer: String,
    not_before: i64,
    not_after: i64,
    attributes: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Raw<'a> {
    fn read(element: Element<'a>) -> Result<Self, DerError> {
        let mut outer = Reader::new(element.content);
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = outer.expect(SEQUENCE)?;
        let signature = asn1::whole_bits(outer.expect(BIT_STRING)?.content)?;
        outer.end()?;

        let mut info = Reader::new(signed.content);
        if asn1::small_integer(info.expect(INTEGER)?.content)? != 1 {
            return Err(DerError("has another version than 2"));
        }
        let (holder, holder_serial) = holder(info.expect(SEQUENCE)?.content)?;
        let issuer = issuer(info.expect(0xa0)?.content)?;
        if info.expect(SEQUENCE)?.whole != algorithm.whole {
            return Err(DerError("names two signature algorithms"));
        }
        info.expect(INTEGER)?;
        let mut validity = info.sequence()?;
        let not_before = time::parse(validity.next()?)?;
        let not_after = time::parse(validity.next()?)?;
        validity.end()?;
        let attributes = info.expect(SEQUENCE)?.content;
        info.optional(BIT_STRING)?;
        let extensions = info.optional(SEQUENCE)?.map_or(&[][..], |element| element.content);
        info.end()?;
        Ok(Self {
            signed: signed.whole,
            algorithm: algorithm.content,
            algorithm_oid: asn1::dotted(Reader::new(algorithm.content).expect(OID)?.content)?,
            signature,
            holder,
            holder_serial,
            issuer,
            not_before,
            not_after,
            attributes,
            extensions,
        })
    }
}

/// The holder by a certificate's name and serial number, which is the only way in use.
fn holder(content: &[u8]) -> Result<(String, &[u8]), DerError> {
    let mut holder = Reader::new(content);
    let mut certificate = Reader::new(holder.expect(0xa0)?.content);
    holder.end()?;
    let name = directory_name(certificate.expect(SEQUENCE)?.content)?;
    let serial = certificate.expect(INTEGER)?.content;
    certificate.optional(BIT_STRING)?;
    certificate.end()?;
    Ok((name, serial))
}

fn issuer(content: &[u8]) -> Result<String, DerError> {
    let mut form = Reader::new(content);
    let name = directory_name(form.expect(SEQUENCE)?.content)?;
    form.end()?;
    Ok(name)
}

/// The one directory name that general names consist of, in slash form.
fn directory_name(names: &[u8]) -> Result<String, DerError> {
    let name = dn::slash(asn1::only(names, DIRECTORY_NAME)?.content)?;
    if name.is_empty() {
        return Err(DerError("has an empty name"));
    }
    Ok(name)
}

/// The attribute that VOMS defines: the URI of its authority, and the values.
fn membership(attributes: &[u8]) -> Result<(&[u8], Reader<'_>), DerError> {
    let mut found = None;
    let mut reader = Reader::new(attributes);
    while !reader.is_empty() {
        let mut attribute = reader.sequence()?;
        let kind = asn1::dotted(attribute.expect(OID)?.content)?;
        let values = attribute.expect(SET)?;
        attribute.end()?;
        if kind != FQANS {
            continue;
        }
        if found.is_some() {
            return Err(DerError("has the attribute of VOMS twice"));
        }
        let mut syntax = Reader::new(asn1::only(values.content, SEQUENCE)?.content);
        let uri = asn1::only(syntax.expect(0xa0)?.content, URI)?.content;
        let values = syntax.sequence()?;
        syntax.end()?;
        found = Some((uri, values));
    }
    found.ok_or(DerError("has no attribute of VOMS"))
}

/// VO and host of `vo://host:port`. Both become parts of a path: nothing but letters, digits, `-`, `_` and inner dots.
fn authority(uri: &[u8]) -> Option<(String, String)> {
    const MOST_BYTES: usize = 255;
    let (vo, server) = std::str::from_utf8(uri).ok()?.split_once("://")?;
    let (host, port) = server.split_once(':').unwrap_or((server, "0"));
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= MOST_BYTES
            && !text.starts_with('.')
            && !text.contains("..")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let fits = plain(vo) && plain(host) && port.parse::<u16>().is_ok();
    fits.then(|| (vo.to_owned(), host.to_owned()))
}

fn fqans(vo: &str, mut values: Reader<'_>) -> Result<Vec<String>, VomsError> {
    let mut fqans: Vec<String> = Vec::new();
    let mut seen = 0;
    while !values.is_empty() {
        seen += 1;
        if seen > MOST_FQANS {
            let (what, most) = ("groups and roles", MOST_FQANS);
            return Err(VomsError::TooMany { what, most });
        }
        let value = values.expect(OCTET_STRING).map_err(VomsError::Malformed)?.content;
        let fqan = fqan::canonical(value).ok_or_else(|| VomsError::Fqan { fqan: shown(value) })?;
        if !fqan::is_of(&fqan, vo) {
            let vo = vo.to_owned();
            return Err(VomsError::ForeignFqan { vo, fqan });
        }
        if !fqans.contains(&fqan) {
            fqans.push(fqan);
        }
    }
    Ok(fqans)
}

/// The extensions that count here, as encoded.
#[derive(Default)]
struct Extensions<'a> {
    signers: Option<&'a [u8]>,
    targets: Option<&'a [u8]>,
    unknown_critical: Option<String>,
}

impl<'a> Extensions<'a> {
    fn read(list: &'a [u8]) -> Result<Self, DerError> {
        let mut found = Self::default();
        for Extension { oid, critical, value } in asn1::extensions(list)? {
            match oid.as_str() {
                SIGNERS => found.signers = Some(value),
                TARGETS => found.targets = Some(value),
                GENERIC_ATTRIBUTES | AUTHORITY_KEY | NO_REVOCATION => {}
                other if critical => {
                    found.unknown_critical.get_or_insert_with(|| other.to_owned());
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The certificate of the server and those above it.
    fn signers(&self) -> Result<Vec<Certificate>, VomsError> {
        let malformed = VomsError::Malformed;
        let Some(value) = self.signers else {
            return Ok(Vec::new());
        };
        let outer = asn1::only(value, SEQUENCE).map_err(malformed)?;
        let mut list = Reader::new(asn1::only(outer.content, SEQUENCE).map_err(malformed)?.content);
        let mut signers = Vec::new();
        while !list.is_empty() {
            if signers.len() == MOST_SIGNERS {
                let (what, most) = ("certificates of a VOMS server", MOST_SIGNERS);
                return Err(VomsError::TooMany { what, most });
            }
            let certificate = list.expect(SEQUENCE).map_err(malformed)?;
            signers.push(Certificate::parse(certificate.whole).map_err(malformed)?);
        }
        Ok(signers)
    }

    /// The hosts that it is for; none: for all. Groups of hosts and certificates name no host here.
    ///
    /// The standard nests targets in two SEQUENCEs, VOMS puts a third around each: all three levels are read alike.
    fn targets(&self) -> Result<Option<Vec<String>>, VomsError> {
        const DEPTH: usize = 4;
        let malformed = VomsError::Malformed;
        let Some(value) = self.targets else {
            return Ok(None);
        };
        let mut hosts = Vec::new();
        let mut seen = 0;
        let mut open = vec![Reader::new(value)];
        while let Some(reader) = open.last_mut() {
            if reader.is_empty() {
                open.pop();
                continue;
            }
            let element = reader.next().map_err(malformed)?;
            seen += 1;
            if seen > MOST_TARGETS * DEPTH {
                let (what, most) = ("targets", MOST_TARGETS);
                return Err(VomsError::TooMany { what, most });
            }
            match element.tag {
                SEQUENCE if open.len() < DEPTH => open.push(Reader::new(element.content)),
                0xa0 => {
                    let mut name = Reader::new(element.content);
                    let found = name.next().map_err(malformed)?;
                    name.end().map_err(malformed)?;
                    hosts.extend(target_host(found));
                }
                0xa1 | 0xa2 => {}
                _ => return Err(malformed(DerError("has a target that does not parse"))),
            }
        }
        Ok(Some(hosts))
    }
}

/// The host of a target: a host name, or a URI of which VOMS writes the host alone.
fn target_host(name: Element<'_>) -> Option<String> {
    let text = std::str::from_utf8(name.content).ok()?;
    let host = match name.tag {
        DNS_NAME => text,
        URI => {
            let server = text.split_once("://").map_or(text, |(_, server)| server);
            let server = server.split('/').next()?;
            server.split(':').next()?
        }
        _ => return None,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_gives_a_vo_and_a_host_and_no_path() {
        let owned = |vo: &str, host: &str| Some((vo.to_owned(), host.to_owned()));
        assert_eq!(authority(b"myvo://voms.org:15000"), owned("myvo", "voms.org"));
        assert_eq!(authority(b"my-vo.org://voms"), owned("my-vo.org", "voms"));
        for bad in [
            &b""[..],
            b"myvo",
            b"://host:1",
            b"myvo://",
            b"myvo://:1",
            b"../myvo://host:1",
            b"..://host:1",
            b"my/vo://host:1",
            b"/etc://host:1",
            b".hidden://host:1",
            b"a..b://host:1",
            b"myvo://../host:1",
            b"myvo://host/../x:1",
            b"myvo://host:1/..",
            b"myvo://host:99999",
            b"myvo://host:1:2",
            b"my\0vo://host:1",
            b"my vo://host:1",
            b"myvo://h\xff:1",
        ] {
            assert_eq!(authority(bad), None, "{:?}", shown(bad));
        }
        assert_eq!(authority(format!("{}://h:1", "v".repeat(256)).as_bytes()), None);
    }

    #[test]
    fn targets_are_hosts_however_they_are_written() {
        let host = |tag, text: &'static str| {
            let content = text.as_bytes();
            target_host(Element {
                tag,
                content,
                whole: content,
            })
        };
        for text in ["a.org", "a.org:8443", "https://a.org:8443/x", "https://a.org/x"] {
            assert_eq!(host(URI, text).as_deref(), Some("a.org"), "{text}");
        }
        assert_eq!(host(DNS_NAME, "a.org").as_deref(), Some("a.org"));
        assert_eq!(host(DIRECTORY_NAME, "a.org"), None);
        assert_eq!(host(URI, ""), None);
    }
}
