//! Self-describing shares as text, `ssss1-…`: what survives copying by hand, by e-mail and by telephone.
//!
//! Base32 (RFC 4648, no padding) of set id, threshold, index, payload and a checksum; `docs/src/formats/shares.md` has
//! the rules. One bad share refuses a join, even where the others would do: somebody has to know of it.

use std::fmt;

use zeroize::Zeroizing;

use super::gf256::{self, MAX_SECRET_BYTES, SplitError};
use crate::secret::SecretBytes;

/// What every share begins with, as it is written; read in any case.
pub const PREFIX: &str = "ssss1-";

/// Set id, threshold and index, before the payload.
const HEAD_BYTES: usize = 10;
const CHECKSUM_BYTES: usize = 4;

/// One share of a secret, and all that is needed to know which others it belongs with.
pub struct Share {
    set: [u8; 8],
    m: u8,
    index: u8,
    payload: SecretBytes,
}

static_assertions::assert_not_impl_any!(Share: fmt::Debug, Clone, PartialEq);

/// Why the characters of one share are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Something outside of base32 that is not ignored either.
    #[error("character {position} after `{PREFIX}` is `{}`, which no share has", found.escape_default())]
    Character {
        /// What stands there.
        found: char,
        /// Where, from 1, blanks and line ends counted.
        position: usize,
    },
    /// Characters missing, or one too many.
    #[error("characters are missing, or one is too many")]
    Length,
    /// Over a payload of 1 MiB.
    #[error("it is longer than a share of {MAX_SECRET_BYTES} bytes")]
    TooLong,
    /// The last character carries bits that no share has.
    #[error("its last character is wrong")]
    UnusedBits,
    /// Characters changed, lost or exchanged.
    #[error("its checksum does not match")]
    Checksum,
    /// A threshold or an index of zero, or no payload, under a right checksum.
    #[error("its threshold, index or payload is none")]
    Zero,
}

/// Why shares could not be joined. Shares are counted from 1, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nothing that begins like a share.
    #[error("no share found: a share begins with `{PREFIX}`")]
    NoShare,
    /// Something before the first share.
    #[error("there is text before the first share, which begins with `{PREFIX}`")]
    TextBefore,
    /// The format of gLite, which cannot tell a key from a password.
    #[error("these are shares of gLite's tools, which do not say what they are shares of")]
    BareHex,
    /// A share of a later version.
    #[error("share {share} is of another version (`{version}`); this program reads `{PREFIX}`")]
    Version {
        /// Which one.
        share: usize,
        /// What it begins with.
        version: String,
    },
    /// A share that does not read.
    #[error("share {share} is damaged")]
    Damaged {
        /// Which one.
        share: usize,
        /// How.
        #[source]
        source: Damage,
    },
    /// A share of another splitting.
    #[error("share {share} is of another set than share 1")]
    OtherSet {
        /// Which one.
        share: usize,
    },
    /// A share that claims another threshold or has another length under the same set id.
    #[error("share {share} has another threshold or length than share 1, though the same set")]
    Mixed {
        /// Which one.
        share: usize,
    },
    /// An index for the second time.
    #[error("share {share} repeats share {first}: both have index {index}")]
    Repeated {
        /// Which one.
        share: usize,
        /// The earlier one.
        first: usize,
        /// The index of both.
        index: u8,
    },
    /// Fewer than the threshold.
    #[error("{have} of the {need} shares needed: {} missing", need - have)]
    TooFew {
        /// How many there are.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// More shares than needed, and they contradict each other.
    #[error("the shares do not agree: one at least was forged or mixed up, though every checksum matches")]
    Disagree,
}

/// Splits a secret of 1 byte to 1 MiB into n shares, any m of which join.
///
/// # Errors
/// As [`gf256::split`].
pub fn split(secret: &[u8], m: u8, n: u8) -> Result<Vec<Share>, SplitError> {
    let mut set = [0; 8];
    getrandom::fill(&mut set).map_err(SplitError::Random)?;
    Ok(numbered(set, m, gf256::split(secret, m, n)?))
}

/// Joins the secret from a text of shares; those that are not needed are checked all the same.
///
/// # Errors
/// At the first share that is bad in itself or beside the ones before it; where there are too few, or they disagree.
pub fn join(text: &[u8]) -> Result<SecretBytes, JoinError> {
    let mut shares = Shares::default();
    shares.read(text)?;
    shares.join()
}

fn numbered(set: [u8; 8], m: u8, payloads: Vec<SecretBytes>) -> Vec<Share> {
    (1..=u8::MAX)
        .zip(payloads)
        .map(|(index, payload)| Share { set, m, index, payload })
        .collect()
}

/// Shares of one set while they are gathered.
#[derive(Default)]
pub struct Shares(Vec<Share>);

impl Shares {
    /// Adds all shares of a text.
    ///
    /// # Errors
    /// At the first that is bad in itself or beside the ones before it; it and what follows are not added.
    pub fn read(&mut self, text: &[u8]) -> Result<(), JoinError> {
        let starts: Vec<usize> = starts(text).collect();
        check_before(
            &text[..starts.first().copied().unwrap_or(text.len())],
            starts.is_empty(),
            self.next_number(),
        )?;
        for (position, start) in starts.iter().enumerate() {
            let end = starts.get(position + 1).copied().unwrap_or(text.len());
            let share = decode(&text[start + PREFIX.len()..end], self.next_number())?;
            self.add(share)?;
        }
        Ok(())
    }

    /// Adds one share.
    ///
    /// # Errors
    /// Where it does not belong with the ones before it.
    pub fn add(&mut self, new: Share) -> Result<(), JoinError> {
        let share = self.next_number();
        if let Some(first) = self.0.first() {
            if new.set != first.set {
                return Err(JoinError::OtherSet { share });
            }
            if new.m != first.m || new.payload.len() != first.payload.len() {
                return Err(JoinError::Mixed { share });
            }
        }
        if let Some(earlier) = self.0.iter().position(|old| old.index == new.index) {
            return Err(JoinError::Repeated {
                share,
                first: earlier + 1,
                index: new.index,
            });
        }
        self.0.push(new);
        Ok(())
    }

    /// How many there are.
    pub fn have(&self) -> usize {
        self.0.len()
    }

    /// How many are needed; none as long as there is no share to tell.
    pub fn need(&self) -> Option<usize> {
        self.0.first().map(|share| usize::from(share.m))
    }

    /// Joins the secret.
    ///
    /// # Errors
    /// Where there are too few, or they disagree.
    pub fn join(&self) -> Result<SecretBytes, JoinError> {
        let first = self.0.first().ok_or(JoinError::NoShare)?;
        let points: Vec<(u8, &[u8])> = self
            .0
            .iter()
            .map(|share| (share.index, share.payload.expose()))
            .collect();
        gf256::join(&points, first.m).map_err(|error| match error {
            gf256::JoinError::TooFew { have, need } => JoinError::TooFew { have, need },
            // all else has been seen to by `add`
            _ => JoinError::Disagree,
        })
    }

    fn next_number(&self) -> usize {
        self.0.len() + 1
    }
}

impl Share {
    /// Which splitting it comes from: hex of its random id.
    pub fn set(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.set)
    }

    /// How many shares join.
    pub fn threshold(&self) -> u8 {
        self.m
    }

    /// Which one it is, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The text: one line, lower case, without an end.
    pub fn encode(&self) -> Zeroizing<String> {
        let payload = self.payload.expose();
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + payload.len() + CHECKSUM_BYTES));
        bytes.extend_from_slice(&self.set);
        bytes.extend_from_slice(&[self.m, self.index]);
        bytes.extend_from_slice(payload);
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + (bytes.len() * 8).div_ceil(5)));
        text.push_str(PREFIX);
        base32_into(&bytes, &mut text);
        text
    }
}

/// CRC-32C over the prefix as it is written and what has been encoded so far: another version has another checksum.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(PREFIX.as_bytes()), bytes).to_be_bytes()
}

/// Where shares begin. The `1` is looked for first: no share has one behind its prefix.
fn starts(text: &[u8]) -> impl Iterator<Item = usize> {
    let windows = text.windows(PREFIX.len()).enumerate();
    windows
        .filter(|(_, window)| window[4] == b'1' && window.eq_ignore_ascii_case(PREFIX.as_bytes()))
        .map(|(at, _)| at)
}

fn is_ignored(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'-' | b'\r' | b'\n')
}

/// What stands before the first share, or all of the text where there is none.
fn check_before(before: &[u8], is_all: bool, share: usize) -> Result<(), JoinError> {
    let text = before.trim_ascii();
    if let Some(version) = other_version(text).filter(|(at, _)| *at == 0) {
        return Err(JoinError::Version {
            share,
            version: version.1,
        });
    }
    match (before.iter().all(|byte| is_ignored(*byte)), is_all) {
        (true, false) => Ok(()),
        (true, true) => Err(JoinError::NoShare),
        (false, true) if is_bare_hex(text) => Err(JoinError::BareHex),
        (false, true) => Err(JoinError::NoShare),
        (false, false) => Err(JoinError::TextBefore),
    }
}

/// Whether every word could be an operand of gLite's joining tools.
fn is_bare_hex(text: &[u8]) -> bool {
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.all(|word| word == b"NULL" || (word.len() % 4 == 0 && word.iter().all(u8::is_ascii_hexdigit)))
}

/// The beginning of a share of another version, and where: `ssss`, a number, `-`.
fn other_version(text: &[u8]) -> Option<(usize, String)> {
    text.windows(4)
        .enumerate()
        .filter(|(_, window)| window.eq_ignore_ascii_case(b"ssss"))
        .find_map(|(at, _)| {
            let rest = &text[at + 4..];
            let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
            let ends = digits > 0 && rest.get(digits) == Some(&b'-') && &rest[..digits] != b"1";
            ends.then(|| {
                (
                    at,
                    String::from_utf8_lossy(&text[at..at + 4 + digits + 1]).to_ascii_lowercase(),
                )
            })
        })
}

/// One share from all that follows its prefix, up to the next.
///
/// `ssss2-` could be part of a share that was written in groups, so another version is looked for only in what does
/// not read.
fn decode(body: &[u8], share: usize) -> Result<Share, JoinError> {
    decode_body(body).map_err(|source| match other_version(body) {
        Some((at, version)) if decode_body(&body[..at]).is_ok() => JoinError::Version {
            share: share + 1,
            version,
        },
        _ => JoinError::Damaged { share, source },
    })
}

fn decode_body(body: &[u8]) -> Result<Share, Damage> {
    let mut bytes = base32_decode(body)?;
    let Some(checked) = bytes.len().checked_sub(CHECKSUM_BYTES) else {
        return Err(Damage::Length);
    };
    if bytes[checked..] != checksum(&bytes[..checked]) {
        return Err(Damage::Checksum);
    }
    bytes.truncate(checked);
    let Some((head, payload)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(Damage::Length);
    };
    let [set @ .., m, index] = *head;
    if m == 0 || index == 0 || payload.is_empty() {
        return Err(Damage::Zero);
    }
    if payload.len() > MAX_SECRET_BYTES {
        return Err(Damage::TooLong);
    }
    Ok(Share {
        set,
        m,
        index,
        payload: SecretBytes::new(payload.to_vec()),
    })
}

/// Base32 in lower case, each character by arithmetic: a table would be looked up by secret bits.
fn base32_into(bytes: &[u8], text: &mut String) {
    let (mut buffer, mut bits) = (0u16, 0u8);
    for byte in bytes {
        buffer = (buffer << 8) | u16::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(base32_character((buffer >> bits) as u8 & 31));
        }
    }
    if bits > 0 {
        text.push(base32_character((buffer << (5 - bits)) as u8 & 31));
    }
}

fn base32_character(value: u8) -> char {
    let is_digit = (25u16.wrapping_sub(u16::from(value)) >> 8) as u8;
    char::from((b'a' + value).wrapping_sub(is_digit & (b'a' + 26 - b'2')))
}

/// The five bits of a character in either case; none outside of the alphabet.
fn base32_value(character: u8) -> Option<u8> {
    let letter = (character | 0x20).wrapping_sub(b'a');
    let digit = character.wrapping_sub(b'2');
    let is_letter = (u16::from(letter).wrapping_sub(26) >> 8) as u8;
    let is_digit = (u16::from(digit).wrapping_sub(6) >> 8) as u8;
    (is_letter | is_digit != 0).then_some((letter & is_letter) | (digit.wrapping_add(26) & is_digit))
}

fn base32_decode(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Damage> {
    let characters = body.iter().filter(|byte| !is_ignored(**byte)).count();
    let mut bytes = Zeroizing::new(Vec::with_capacity(characters * 5 / 8));
    let (mut buffer, mut bits) = (0u16, 0u8);
    for (at, byte) in body.iter().enumerate().filter(|(_, byte)| !is_ignored(**byte)) {
        let value = base32_value(*byte).ok_or_else(|| wrong_character(body, at))?;
        buffer = (buffer << 5) | u16::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    if bits >= 5 {
        return Err(Damage::Length);
    }
    if buffer & ((1 << bits) - 1) != 0 {
        return Err(Damage::UnusedBits);
    }
    Ok(bytes)
}

fn wrong_character(body: &[u8], at: usize) -> Damage {
    let found = String::from_utf8_lossy(&body[at..body.len().min(at + 4)]);
    Damage::Character {
        found: found.chars().next().unwrap_or_default(),
        position: at + 1,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn hex(value: &Value) -> Vec<u8> {
        HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    fn byte(value: &Value) -> u8 {
        u8::try_from(value.as_u64().unwrap()).unwrap()
    }

    fn split_given(given: &Value) -> Result<Vec<Share>, SplitError> {
        let coefficients: Vec<Vec<u8>> = given["coefficients"].as_array().unwrap().iter().map(hex).collect();
        let payloads = gf256::split_by(
            &hex(&given["secret"]),
            byte(&given["m"]),
            byte(&given["n"]),
            &coefficients,
        )?;
        Ok(numbered(
            hex(&given["set"]).try_into().unwrap(),
            byte(&given["m"]),
            payloads,
        ))
    }

    fn refusal(error: &JoinError) -> Value {
        match error {
            JoinError::NoShare | JoinError::TextBefore => json!({"code": "no-share"}),
            JoinError::BareHex => json!({"code": "bare-hex"}),
            JoinError::Version { share, .. } => json!({"code": "version", "share": share}),
            JoinError::Damaged { share, .. } => json!({"code": "damaged", "share": share}),
            JoinError::OtherSet { share } => json!({"code": "other-set", "share": share}),
            JoinError::Mixed { share } => json!({"code": "mixed", "share": share}),
            JoinError::Repeated { share, .. } => json!({"code": "repeated", "share": share}),
            JoinError::TooFew { have, need } => json!({"code": "too-few", "missing": need - have}),
            JoinError::Disagree => json!({"code": "disagree"}),
        }
    }

    #[test]
    fn all_share_vectors_hold() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/formats.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let mut count = 0;
        for vector in vectors["vectors"].as_array().unwrap() {
            let (given, name) = (&vector["in"], &vector["name"]);
            let outcome = match vector["op"].as_str().unwrap() {
                "share-split" => match split_given(given) {
                    Ok(shares) => {
                        json!({"ok": {"lines": shares.iter().map(|share| share.encode().to_string()).collect::<Vec<_>>()}})
                    }
                    Err(SplitError::Shape { .. }) => json!({"refuse": {"code": "shape"}}),
                    Err(SplitError::SecretLength { .. }) => json!({"refuse": {"code": "secret-length"}}),
                    Err(error) => panic!("{name}: {error}"),
                },
                "share-encode" => {
                    let share = Share {
                        set: hex(&given["set"]).try_into().unwrap(),
                        m: byte(&given["m"]),
                        index: byte(&given["index"]),
                        payload: SecretBytes::new(hex(&given["payload"])),
                    };
                    json!({"ok": {"text": share.encode().as_str()}})
                }
                "share-join" => match join(given["text"].as_str().unwrap().as_bytes()) {
                    Ok(secret) => json!({"ok": {"secret": HEXLOWER.encode(secret.expose())}}),
                    Err(error) => json!({"refuse": refusal(&error)}),
                },
                _ => continue,
            };
            assert_eq!(outcome, vector["expect"], "{name}");
            count += 1;
        }
        assert!(count >= 37, "only {count} share vectors found");
    }

    #[test]
    fn base32_is_that_of_the_rfc() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37).wrapping_add(length)).collect();
            let mut text = String::new();
            base32_into(&bytes, &mut text);
            assert_eq!(text.to_ascii_uppercase(), data_encoding::BASE32_NOPAD.encode(&bytes));
            assert_eq!(*base32_decode(text.as_bytes()).unwrap(), bytes);
        }
        let alphabet = "abcdefghijklmnopqrstuvwxyz234567ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for character in 0..=255 {
            assert_eq!(
                base32_value(character).is_some(),
                alphabet.contains(char::from(character)),
                "{character}"
            );
        }
    }

    fn lines(shares: &[Share]) -> String {
        shares.iter().map(|share| format!("{}\n", *share.encode())).collect()
    }

    #[test]
    fn every_changed_character_is_damage() {
        let shares = split(b"a secret", 1, 1).unwrap();
        let text = lines(&shares);
        for at in PREFIX.len()..text.trim_end().len() {
            for other in "abcdefghijklmnopqrstuvwxyz234567".bytes() {
                let mut changed = text.clone().into_bytes();
                if changed[at] == other {
                    continue;
                }
                changed[at] = other;
                assert!(
                    matches!(join(&changed), Err(JoinError::Damaged { share: 1, .. })),
                    "{other} at {at}"
                );
            }
        }
    }

    #[test]
    fn every_cut_is_damage_or_too_few() {
        let text = lines(&split(b"a secret", 2, 2).unwrap());
        for end in 0..text.trim_end().len() {
            let error = join(&text.as_bytes()[..end]).err().unwrap();
            let expected = matches!(
                error,
                JoinError::NoShare | JoinError::Damaged { .. } | JoinError::TooFew { have: 1, need: 2 }
            );
            assert!(expected, "{end}: {error}");
        }
    }

    #[test]
    fn a_wrong_character_is_shown_and_located() {
        let text = lines(&split(b"x", 1, 1).unwrap());
        let damage = |text: String| match join(text.as_bytes()).err() {
            Some(JoinError::Damaged { source, .. }) => source,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            damage(text.trim_end().to_owned() + "=\n"),
            Damage::Character {
                found: '=',
                position: 25
            }
        );
        assert_eq!(
            damage(text.replacen('-', "-ä", 1)),
            Damage::Character {
                found: 'ä',
                position: 1
            }
        );
        assert_eq!(
            damage(text.replacen('-', "-\u{feff}", 1)),
            Damage::Character {
                found: '\u{feff}',
                position: 1
            }
        );
        let binary = [PREFIX.as_bytes(), &[0xff, 0xfe]].concat();
        assert!(matches!(join(&binary), Err(JoinError::Damaged { share: 1, .. })));
    }

    #[test]
    fn another_version_is_named_wherever_it_stands() {
        let good = lines(&split(b"x", 2, 2).unwrap());
        let (first, second) = good.split_once('\n').unwrap();
        let version = |text: String| match join(text.as_bytes()).err() {
            Some(JoinError::Version { share, version }) => (share, version),
            other => panic!("{other:?}"),
        };
        assert_eq!(version(format!("SSSS2-abc\n{second}")), (1, "ssss2-".to_owned()));
        assert_eq!(version("ssss12-abc".to_owned()), (1, "ssss12-".to_owned()));
        assert_eq!(version(format!("{good}ssss0-abc\n")), (3, "ssss0-".to_owned()));
        assert_eq!(version(format!("{first}ssss2-abc")), (2, "ssss2-".to_owned()));
        // a damaged share before it is told first
        assert!(matches!(
            join(format!("{}ssss2-abc", &first[..first.len() - 1]).as_bytes()),
            Err(JoinError::Damaged { share: 1, .. })
        ));
    }

    #[test]
    fn bare_hex_is_told_from_other_text() {
        let refused = |text: &str| join(text.as_bytes()).err().unwrap();
        assert_eq!(refused("137c9547aba101ef NULL 1256BCC160EDA592 "), JoinError::BareHex);
        assert_eq!(refused("NULL"), JoinError::BareHex);
        assert_eq!(refused("deadbeef5"), JoinError::NoShare);
        assert_eq!(refused("hello"), JoinError::NoShare);
        assert_eq!(refused(""), JoinError::NoShare);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_m_shares_join_however_they_were_copied(
            secret in proptest::collection::vec(any::<u8>(), 1..200),
            (m, n) in (1..=6u8).prop_flat_map(|m| (Just(m), m..=9)),
            order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
            extra in 0..4usize,
            noise in proptest::collection::vec((any::<bool>(), 0..12usize), 64),
        ) {
            let shares = split(&secret, m, n).unwrap();
            let chosen = order.iter().filter_map(|at| shares.get(*at)).take(usize::from(m) + extra);
            let mut text = String::new();
            for share in chosen {
                let mut noise = noise.iter().cycle();
                for (at, c) in share.encode().chars().enumerate() {
                    let (upper, gap) = noise.next().unwrap();
                    text.push(if *upper { c.to_ascii_uppercase() } else { c });
                    if at + 1 >= PREFIX.len() {
                        text.push_str(["", " ", "\t", "-", "\r\n", "\n  "].get(*gap).unwrap_or(&""));
                    }
                }
            }
            prop_assert!(join(text.as_bytes()).unwrap().expose() == secret);
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(
            prop_oneof![Just(b's'), Just(b'1'), Just(b'2'), Just(b'-'), any::<u8>()], 0..200)) {
            let _ = join(&text);
        }
    }
}
