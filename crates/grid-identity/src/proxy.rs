//! The proxyCertInfo extension of RFC 3820: how long a chain of proxies may become, and what a proxy may do.

use crate::asn1::{self, DerError, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE};

/// What proxyCertInfo says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyInfo {
    /// How many proxies may stand above this one; none: any number.
    pub path_length: Option<u32>,
    /// What it may do.
    pub language: Language,
}

/// Policy languages of proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Language {
    /// All that its issuer may.
    InheritAll,
    /// All that its issuer may, but starting jobs: identifies its owner like a full one.
    Limited,
    /// Nothing of what its issuer may: an identity of its own, refused here.
    Independent,
    /// Something else, by object identifier: refused here.
    Other(String),
}

/// Parses the value of a proxyCertInfo extension.
///
/// # Errors
/// [`DerError`] where it is none, or where a policy comes with a language that has none.
pub fn parse(value: &[u8]) -> Result<ProxyInfo, DerError> {
    let mut info = Reader::new(asn1::only(value, SEQUENCE)?.content);
    let path_length = match info.optional(INTEGER)? {
        Some(element) => Some(asn1::small_integer(element.content)?),
        None => None,
    };
    let policy = info.sequence()?;
    info.end()?;
    Ok(ProxyInfo {
        path_length,
        language: language(policy)?,
    })
}

/// Parses the value of the extension that the drafts before RFC 3820 had: the policy comes first there, and the length
/// behind it with a tag of its own.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_draft(value: &[u8]) -> Result<ProxyInfo, DerError> {
    let mut info = Reader::new(asn1::only(value, SEQUENCE)?.content);
    let policy = info.sequence()?;
    let path_length = match info.optional(0xa1)? {
        Some(element) => Some(asn1::small_integer(asn1::only(element.content, INTEGER)?.content)?),
        None => None,
    };
    info.end()?;
    Ok(ProxyInfo {
        path_length,
        language: language(policy)?,
    })
}

fn language(mut policy: Reader<'_>) -> Result<Language, DerError> {
    let language = match asn1::dotted(policy.expect(OID)?.content)?.as_str() {
        "1.3.6.1.5.5.7.21.1" => Language::InheritAll,
        "1.3.6.1.5.5.7.21.2" => Language::Independent,
        "1.3.6.1.4.1.3536.1.1.1.9" => Language::Limited,
        other => Language::Other(other.to_owned()),
    };
    let has_policy = policy.optional(OCTET_STRING)?.is_some();
    policy.end()?;
    if has_policy && matches!(language, Language::InheritAll | Language::Independent) {
        return Err(DerError("has a policy where RFC 3820 allows none"));
    }
    Ok(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INHERIT: &[u8] = &[0x30, 12, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 21, 1];

    #[test]
    fn the_usual_extension_parses() {
        assert_eq!(
            parse(INHERIT),
            Ok(ProxyInfo {
                path_length: None,
                language: Language::InheritAll
            })
        );
        let bounded = [0x30, 15, 2, 1, 3, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 21, 2];
        assert_eq!(
            parse(&bounded),
            Ok(ProxyInfo {
                path_length: Some(3),
                language: Language::Independent
            })
        );
    }

    #[test]
    fn drafts_have_their_own_order() {
        let draft = [&[0x30, 17][..], &INHERIT[2..], &[0xa1, 3, 2, 1, 7]].concat();
        let read = parse_draft(&draft).unwrap();
        assert_eq!((read.path_length, read.language), (Some(7), Language::InheritAll));
        assert!(parse(&draft).is_err());
        assert!(parse_draft(INHERIT).is_ok_and(|read| read.path_length.is_none()));
        assert!(parse_draft(&[0x30, 0]).is_err());
    }

    #[test]
    fn damaged_extensions_are_refused() {
        for length in 0..INHERIT.len() {
            assert!(parse(&INHERIT[..length]).is_err(), "cut to {length}");
        }
        assert!(parse(&[INHERIT, &[0]].concat()).is_err());
        let negative = [0x30, 15, 2, 1, 0xff, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 21, 1];
        assert!(parse(&negative).is_err());
        let with_policy = [0x30, 15, 0x30, 13, 6, 8, 0x2b, 6, 1, 5, 5, 7, 21, 1, 4, 1, 0];
        assert!(parse(&with_policy).is_err());
    }
}
