//! Revocation lists: whose they are and when they end. webpki reads the entries and verifies the signature.

use rustls::crypto::WebPkiSupportedAlgorithms;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::asn1::{self, BIT_STRING, DerError, GENERALIZED_TIME, INTEGER, Reader, SEQUENCE, UTC_TIME};
use crate::certificate::Certificate;
use crate::{chain, dn, time};

/// Why a revocation list cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// Its frame is broken.
    #[error("revocation list does not parse")]
    Malformed(#[source] DerError),
    /// webpki does not take it: an indirect one, a delta, no version 2.
    #[error("revocation list is of a kind that is not understood")]
    Unsupported(#[source] webpki::Error),
}

/// A revocation list.
pub struct Crl {
    pub(crate) list: CertRevocationList<'static>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) issuer_dn: String,
    pub(crate) this_update: i64,
    pub(crate) next_update: Option<i64>,
}

impl Crl {
    /// The authority that issued it, in slash form.
    pub fn issuer_dn(&self) -> &str {
        &self.issuer_dn
    }
}

/// Parses DER.
///
/// # Errors
/// [`CrlError`] where it is no revocation list of a kind that can be checked.
pub fn parse(der: &[u8]) -> Result<Crl, CrlError> {
    let frame = frame(der).map_err(CrlError::Malformed)?;
    let list = OwnedCertRevocationList::from_der(der).map_err(CrlError::Unsupported)?;
    Ok(Crl {
        list: CertRevocationList::Owned(list),
        issuer: frame.issuer.to_vec(),
        issuer_dn: dn::slash(frame.issuer).map_err(CrlError::Malformed)?,
        this_update: frame.this_update,
        next_update: frame.next_update,
    })
}

/// Whether the list was signed by the key of `issuer`.
pub(crate) fn signed_by(der: &[u8], issuer: &Certificate, algorithms: &WebPkiSupportedAlgorithms) -> bool {
    frame(der).is_ok_and(|frame| chain::signed_by(frame.algorithm, frame.signed, frame.signature, issuer, algorithms))
}

struct Frame<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    this_update: i64,
    next_update: Option<i64>,
}

fn frame(der: &[u8]) -> Result<Frame<'_>, DerError> {
    let mut outer = Reader::new(asn1::only(der, SEQUENCE)?.content);
    let signed = outer.expect(SEQUENCE)?;
    let algorithm = outer.expect(SEQUENCE)?.content;
    let signature = asn1::whole_bits(outer.expect(BIT_STRING)?.content)?;
    outer.end()?;
    let mut list = Reader::new(signed.content);
    list.optional(INTEGER)?;
    list.expect(SEQUENCE)?;
    let issuer = list.expect(SEQUENCE)?.whole;
    let this_update = time::parse(list.next()?)?;
    let next_update = match list.peek() {
        Some(UTC_TIME | GENERALIZED_TIME) => Some(time::parse(list.next()?)?),
        _ => None,
    };
    Ok(Frame {
        signed: signed.whole,
        algorithm,
        signature,
        issuer,
        this_update,
        next_update,
    })
}
