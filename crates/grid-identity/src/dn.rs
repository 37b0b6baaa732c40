//! Distinguished names in slash form, `/DC=org/O=People/CN=alice`: how the grid writes who somebody is.
//!
//! Names stand in order of encoding, with OpenSSL's short names. Bytes outside of 0x20-0x7E become `\xHH`, and so does
//! the backslash; `/` and `+` inside a value become `\/` and `\+`, so that two names never look alike: without this,
//! the value `People/CN=admin` of one attribute would read as the DN of somebody else. [`canonical`] brings DNs as
//! people write them into files (`CN=host/fqdn`, `Email=`) to the same form.

use std::fmt::Write as _;

use crate::asn1::{self, DerError, OID, Reader, SEQUENCE, SET};

/// Content bytes of the object identifier of a common name.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Short names of attribute types, as OpenSSL prints them.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
];

/// Other spellings of attribute types in files, in lower case, and ours.
const SPELLINGS: &[(&str, &str)] = &[
    ("e", "emailAddress"),
    ("email", "emailAddress"),
    ("emailaddress", "emailAddress"),
    ("userid", "UID"),
    ("uid", "UID"),
    ("s", "ST"),
    ("cn", "CN"),
    ("c", "C"),
    ("st", "ST"),
    ("l", "L"),
    ("o", "O"),
    ("ou", "OU"),
    ("dc", "DC"),
];

/// The slash form of a DER `Name`.
///
/// # Errors
/// [`DerError`] where the bytes are no name.
pub fn slash(name: &[u8]) -> Result<String, DerError> {
    let mut text = String::new();
    let mut names = Reader::new(asn1::only(name, SEQUENCE)?.content);
    while !names.is_empty() {
        let mut attributes = Reader::new(names.expect(SET)?.content);
        let mut separator = '/';
        loop {
            let mut attribute = attributes.sequence()?;
            let kind = asn1::dotted(attribute.expect(OID)?.content)?;
            let value = attribute.next()?;
            attribute.end()?;
            let short = SHORT_NAMES
                .iter()
                .find(|(oid, _)| *oid == kind)
                .map_or(kind.as_str(), |(_, short)| short);
            text.push(separator);
            text.push_str(short);
            text.push('=');
            push_escaped(&mut text, value.content);
            if attributes.is_empty() {
                break;
            }
            separator = '+';
        }
    }
    Ok(text)
}

fn push_escaped(text: &mut String, value: &[u8]) {
    for &byte in value {
        match byte {
            b'/' | b'+' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'\\' | 0..=0x1f | 0x7f..=0xff => {
                // Writing to a string does not fail.
                let _ = write!(text, "\\x{byte:02X}");
            }
            _ => text.push(char::from(byte)),
        }
    }
}

/// A DN as somebody wrote it into a file, in the form of [`slash`]: slashes that begin no attribute (`CN=host/fqdn`)
/// and pluses that separate none are escaped, attribute types get their usual spelling.
pub fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim();
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let escaped = after.chars().next();
                out.push('\\');
                if let Some(e) = escaped {
                    out.push(e);
                }
                rest = &after[escaped.map_or(0, char::len_utf8)..];
                continue;
            }
            '/' | '+' => match attribute_type(after) {
                Some(kind) => {
                    out.push(c);
                    let lower = kind.to_ascii_lowercase();
                    let usual = SPELLINGS
                        .iter()
                        .find(|(other, _)| *other == lower)
                        .map_or(kind, |(_, usual)| usual);
                    out.push_str(usual);
                    out.push('=');
                    rest = &after[kind.len() + 1..];
                    continue;
                }
                None => {
                    out.push('\\');
                    out.push(c);
                }
            },
            ' '..='~' => out.push(c),
            _ => push_escaped(&mut out, c.to_string().as_bytes()),
        }
        rest = after;
    }
    out
}

/// The attribute type that `text` begins with, when a `=` follows it.
fn attribute_type(text: &str) -> Option<&str> {
    let (kind, _) = text.split_once('=')?;
    let plain = !kind.is_empty()
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
    plain.then_some(kind)
}

/// A slash form without escaped slashes, where that cannot be mistaken for another name: what policies written for
/// `CN=host/fqdn` match against.
pub(crate) fn plain(slash: &str) -> Option<String> {
    if !slash.contains("\\/") {
        return None;
    }
    let mistakable = slash
        .match_indices("\\/")
        .any(|(at, escaped)| attribute_type(&slash[at + escaped.len()..]).is_some());
    (!mistakable).then(|| slash.replace("\\/", "/"))
}

/// Whether `subject` is `issuer` with one more single-valued common name: the name that RFC 3820 gives to a proxy.
///
/// Tools that make a proxy from text write the strings of its issuer's name anew, often as another type of string: the
/// values must agree to the byte, their types only as far as they can be told apart by their values.
pub(crate) fn is_proxy_name(subject: &[u8], issuer: &[u8]) -> Result<bool, DerError> {
    let mut subject = Reader::new(asn1::only(subject, SEQUENCE)?.content);
    let mut issuer = Reader::new(asn1::only(issuer, SEQUENCE)?.content);
    while !issuer.is_empty() {
        let wanted = issuer.expect(SET)?.content;
        if subject.is_empty() || !same_attributes(subject.expect(SET)?.content, wanted)? {
            return Ok(false);
        }
    }
    if subject.is_empty() {
        return Ok(false);
    }
    let mut attributes = Reader::new(subject.expect(SET)?.content);
    let mut attribute = attributes.sequence()?;
    let kind = attribute.expect(OID)?.content;
    Ok(subject.is_empty() && attributes.is_empty() && kind == COMMON_NAME)
}

fn same_attributes(one: &[u8], other: &[u8]) -> Result<bool, DerError> {
    let (mut one, mut other) = (Reader::new(one), Reader::new(other));
    while !one.is_empty() && !other.is_empty() {
        let (mut a, mut b) = (one.sequence()?, other.sequence()?);
        if a.expect(OID)?.content != b.expect(OID)?.content {
            return Ok(false);
        }
        let (a, b) = (a.next()?, b.next()?);
        // UTF8String, PrintableString, IA5String: the same bytes mean the same text in each.
        let text = |tag| matches!(tag, 0x0c | 0x13 | 0x16);
        if a.content != b.content || !(a.tag == b.tag || (text(a.tag) && text(b.tag))) {
            return Ok(false);
        }
    }
    Ok(one.is_empty() && other.is_empty())
}

/// Whether a name ends as those of the first Globus proxies do, `/CN=proxy` or `/CN=limited proxy`.
pub(crate) fn ends_as_legacy_proxy(slash: &str) -> bool {
    slash.ends_with("/CN=proxy") || slash.ends_with("/CN=limited proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, u8::try_from(content.len()).unwrap()];
        out.extend(content);
        out
    }

    fn attribute(oid: &[u8], value: &[u8]) -> Vec<u8> {
        element(SEQUENCE, &[element(OID, oid), element(0x0c, value)].concat())
    }

    fn name(sets: &[&[(&[u8], &[u8])]]) -> Vec<u8> {
        let sets: Vec<u8> = sets
            .iter()
            .flat_map(|set| {
                element(
                    SET,
                    &set.iter()
                        .flat_map(|(oid, value)| attribute(oid, value))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        element(SEQUENCE, &sets)
    }

    const ORGANISATION: &[u8] = &[0x55, 4, 10];

    #[test]
    fn a_value_cannot_look_like_another_attribute() {
        let tricky = name(&[&[(ORGANISATION, b"People/CN=admin")]]);
        let honest = name(&[&[(ORGANISATION, b"People")], &[(COMMON_NAME, b"admin")]]);
        assert_eq!(slash(&tricky).unwrap(), "/O=People\\/CN=admin");
        assert_eq!(slash(&honest).unwrap(), "/O=People/CN=admin");
        assert_eq!(plain(&slash(&tricky).unwrap()), None);

        let tricky = name(&[&[(ORGANISATION, b"a\\")], &[(COMMON_NAME, b"b")]]);
        assert_eq!(slash(&tricky).unwrap(), "/O=a\\x5C/CN=b");
        let plus = name(&[&[(COMMON_NAME, b"a+UID=1")]]);
        assert_eq!(slash(&plus).unwrap(), "/CN=a\\+UID=1");
    }

    #[test]
    fn odd_bytes_and_types_are_shown_as_openssl_shows_them() {
        let odd = name(&[
            &[(&[0x53, 4], b"odd")],
            &[(COMMON_NAME, "é\n".as_bytes()), (ORGANISATION, b"x")],
        ]);
        assert_eq!(slash(&odd).unwrap(), "/2.3.4=odd/CN=\\xC3\\xA9\\x0A+O=x");
    }

    #[test]
    fn dns_as_written_into_files_become_canonical() {
        for (written, expected) in [
            ("/DC=org/CN=host/a.example.org", "/DC=org/CN=host\\/a.example.org"),
            ("/DC=org/CN=host\\/a.example.org", "/DC=org/CN=host\\/a.example.org"),
            (" /c=DE/Email=x@y.z ", "/C=DE/emailAddress=x@y.z"),
            ("/CN=x/E=a@b/USERID=1", "/CN=x/emailAddress=a@b/UID=1"),
            ("/CN=a+UID=1", "/CN=a+UID=1"),
            ("/CN=a+b", "/CN=a\\+b"),
            ("/CN=é", "/CN=\\xC3\\xA9"),
            ("/CN=\\xC3\\xA9", "/CN=\\xC3\\xA9"),
            ("/CN=end\\", "/CN=end\\"),
            ("", ""),
        ] {
            assert_eq!(canonical(written), expected, "{written}");
            assert_eq!(canonical(expected), expected, "canonical twice: {written}");
        }
    }

    #[test]
    fn host_names_have_a_plain_form_and_lookalikes_none() {
        assert_eq!(plain("/CN=host\\/a.org").as_deref(), Some("/CN=host/a.org"));
        assert_eq!(plain("/CN=alice"), None);
        assert_eq!(plain("/O=a\\/CN=b"), None);
        assert_eq!(plain("/O=a\\/b\\/2.5.4.3=c"), None);
    }

    #[test]
    fn a_proxy_name_adds_one_common_name() {
        let user = name(&[&[(ORGANISATION, b"o")], &[(COMMON_NAME, b"alice")]]);
        let good = name(&[
            &[(ORGANISATION, b"o")],
            &[(COMMON_NAME, b"alice")],
            &[(COMMON_NAME, b"1")],
        ]);
        let two = name(&[
            &[(ORGANISATION, b"o")],
            &[(COMMON_NAME, b"alice")],
            &[(COMMON_NAME, b"1")],
            &[(COMMON_NAME, b"2")],
        ]);
        let multi = name(&[
            &[(ORGANISATION, b"o")],
            &[(COMMON_NAME, b"alice")],
            &[(COMMON_NAME, b"1"), (COMMON_NAME, b"2")],
        ]);
        let unit = name(&[
            &[(ORGANISATION, b"o")],
            &[(COMMON_NAME, b"alice")],
            &[(ORGANISATION, b"1")],
        ]);
        let other = name(&[
            &[(ORGANISATION, b"p")],
            &[(COMMON_NAME, b"alice")],
            &[(COMMON_NAME, b"1")],
        ]);
        assert_eq!(is_proxy_name(&good, &user), Ok(true));
        // what openssl makes of the subject of voms-proxy-fake: the same text, as another type of string
        let typed = |tag| {
            let part = |oid: &[u8], value: &[u8]| {
                element(
                    SET,
                    &element(SEQUENCE, &[element(OID, oid), element(tag, value)].concat()),
                )
            };
            element(
                SEQUENCE,
                &[part(ORGANISATION, b"o"), part(COMMON_NAME, b"alice")].concat(),
            )
        };
        assert_eq!(typed(0x0c), user);
        assert_eq!(is_proxy_name(&good, &typed(0x13)), Ok(true));
        assert_eq!(is_proxy_name(&good, &typed(0x1e)), Ok(false));
        for bad in [&user, &two, &multi, &unit, &other] {
            assert_eq!(is_proxy_name(bad, &user), Ok(false));
        }
    }

    proptest::proptest! {
        #[test]
        fn different_names_never_look_alike(a in proptest::collection::vec("[a/+=\\\\CNO]{0,8}", 1..4), b in proptest::collection::vec("[a/+=\\\\CNO]{0,8}", 1..4)) {
            let encode = |values: &[String]| {
                let sets: Vec<[(&[u8], &[u8]); 1]> = values.iter().map(|value| [(COMMON_NAME, value.as_bytes())]).collect();
                let sets: Vec<&[(&[u8], &[u8])]> = sets.iter().map(<[_; 1]>::as_slice).collect();
                slash(&name(&sets)).unwrap()
            };
            proptest::prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = slash(&bytes);
        }
    }
}
