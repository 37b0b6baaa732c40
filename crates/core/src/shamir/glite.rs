//! The shares of gLite's `glite-ssss-*` tools: hex, each group of four digits shared by itself over the field of 65521.
//!
//! A share says neither its index nor how many are needed, and carries no checksum: too few, exchanged or altered ones
//! join to a wrong key without a word. Made and read for those who have such shares
//! (`docs/src/formats/glite-shares.md`). Where a share lies (x) is public, all else is secret: no branch and no address
//! depends on a group that is legal.

use zeroize::{Zeroize, Zeroizing};

use crate::secret::SecretBytes;

/// The field: the largest prime below 2^16.
const PRIME: u32 = 65521;

/// The most shares there can be: the one at x = 65521 would be the secret itself.
pub const MAX_SHARES: u32 = PRIME - 1;

/// The longest key, in hex digits (1 MiB of bytes).
pub const MAX_KEY_DIGITS: usize = 2 << 20;

/// The longest password, in bytes: its length is itself a group.
pub const MAX_PASSWORD_BYTES: usize = (PRIME - 1) as usize;

/// What stands for a share that is not there, to keep the place of those after it.
pub const MISSING: &str = "NULL";

/// Why a key or password could not be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Not 1 <= needed <= shares <= 65520.
    #[error("cannot make {shares} shares of which {needed} join: 1 <= needed <= shares <= {MAX_SHARES}")]
    Shape {
        /// How many are to be made.
        shares: u32,
        /// How many are to join.
        needed: u32,
    },
    /// No digits, not a multiple of four, or more than [`MAX_KEY_DIGITS`].
    #[error("a key has 4 to {MAX_KEY_DIGITS} hex digits, a multiple of 4; this one has {digits}")]
    Length {
        /// How many it has.
        digits: usize,
    },
    /// Not a hex digit.
    #[error("character {position} of the key is no hex digit")]
    Hex {
        /// Where, from 1.
        position: usize,
    },
    /// `fff1` to `ffff`.
    #[error("group {group} of four digits is fff1 or more, which this format cannot hold")]
    Group {
        /// Which one, from 1; in a password the first is its length.
        group: usize,
    },
    /// Over [`MAX_PASSWORD_BYTES`].
    #[error("a password has at most {MAX_PASSWORD_BYTES} bytes, this one has {bytes}")]
    PasswordLength {
        /// How many it has.
        bytes: usize,
    },
    /// A byte of zero, which no reader of this format would get past.
    #[error("a password cannot hold a byte of zero")]
    PasswordZero,
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system")]
    Random(#[source] getrandom::Error),
}

/// Why shares could not be joined. Shares are counted from 1, missing ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// All missing.
    #[error("no share at all")]
    NoShares,
    /// More places than the field has.
    #[error("there are {shares} places for shares, more than {MAX_SHARES}")]
    TooMany {
        /// How many.
        shares: usize,
    },
    /// Two at one place, or one at x = 0.
    #[error("two shares have the place {x}, or it is none")]
    Place {
        /// Which one.
        x: u16,
    },
    /// No digits, or not a multiple of four.
    #[error("share {share} has {digits} digits, which is no multiple of 4 from 4 on")]
    Length {
        /// Which one.
        share: usize,
        /// How many it has.
        digits: usize,
    },
    /// Shorter or longer than the first.
    #[error("share {share} differs in length from the shares before it")]
    UnequalLengths {
        /// Which one.
        share: usize,
    },
    /// Not a hex digit.
    #[error("character {position} of share {share} is no hex digit")]
    Hex {
        /// Which one.
        share: usize,
        /// Where in it, from 1.
        position: usize,
    },
    /// `fff1` to `ffff`, which no splitting makes.
    #[error("group {group} of share {share} is fff1 or more, which no share has")]
    Group {
        /// Which one.
        share: usize,
        /// Where in it, from 1.
        group: usize,
    },
    /// The length that begins a password does not fit what follows.
    #[error("what the shares join to is no password: its length is wrong (too few shares, or wrong or exchanged ones)")]
    FrameLength,
    /// What fills the last group is not zero.
    #[error(
        "what the shares join to is no password: its padding is wrong (too few shares, or wrong or exchanged ones)"
    )]
    FramePadding,
    /// A byte of zero within.
    #[error("what the shares join to is no password: it holds a zero (too few shares, or wrong or exchanged ones)")]
    FrameZero,
    /// A line of a list of shares is empty.
    #[error("line {line} is empty: {MISSING} stands for a share that is missing")]
    EmptyLine {
        /// Which one, from 1.
        line: usize,
    },
}

/// Splits a key given in hex into shares in hex, the first for x = 1.
///
/// # Errors
/// Where the numbers, the length or a digit is wrong, and where the field cannot hold a group: it is never altered.
pub fn split_key(key: &str, shares: u32, needed: u32) -> Result<Vec<Zeroizing<String>>, SplitError> {
    let groups = groups_of_hex(key.as_bytes()).map_err(|fault| fault.of_key(key.len()))?;
    Ok(split_groups(&groups, shares, needed)?
        .iter()
        .map(|share| hex_of_groups(share))
        .collect())
}

/// Joins a key in hex from all the shares given, each in its place; none where one is missing.
///
/// # Errors
/// Where a share is malformed, or there is none. That they are enough and the right ones, nobody can tell.
pub fn join_key(shares: &[Option<&str>]) -> Result<Zeroizing<String>, JoinError> {
    Ok(hex_of_groups(&join_hex(shares)?))
}

/// Splits a password, any bytes but zero, framed by its length.
///
/// # Errors
/// As [`split_key`], and where the password is too long or holds a zero.
pub fn split_password(password: &[u8], shares: u32, needed: u32) -> Result<Vec<Zeroizing<String>>, SplitError> {
    let groups = frame(password)?;
    Ok(split_groups(&groups, shares, needed)?
        .iter()
        .map(|share| hex_of_groups(share))
        .collect())
}

/// Joins a password; its frame shows nearly every case of too few or wrong shares.
///
/// # Errors
/// As [`join_key`], and where the frame is wrong.
pub fn join_password(shares: &[Option<&str>]) -> Result<SecretBytes, JoinError> {
    unframe(&join_hex(shares)?)
}

/// A random key of so many hex digits that every group can be shared.
///
/// # Errors
/// Where the number is no multiple of 4 from 4 to [`MAX_KEY_DIGITS`], or there are no random numbers.
pub fn generate_key(digits: usize) -> Result<Zeroizing<String>, SplitError> {
    if digits == 0 || !digits.is_multiple_of(4) || digits > MAX_KEY_DIGITS {
        return Err(SplitError::Length { digits });
    }
    let mut groups = Zeroizing::new(vec![0; digits / 4]);
    fill_random(&mut groups)?;
    Ok(hex_of_groups(&groups))
}

/// [`split_key`] for a key in bytes, into shares in bytes, two a group: what stores hold under `gf65521-1`.
///
/// # Errors
/// As [`split_key`]; the length counts two digits a byte.
pub fn split_bytes(key: &[u8], shares: u32, needed: u32) -> Result<Vec<SecretBytes>, SplitError> {
    let groups = groups_of_bytes(key).map_err(|fault| fault.of_key(2 * key.len()))?;
    Ok(split_groups(&groups, shares, needed)?
        .iter()
        .map(|share| bytes_of_groups(share))
        .collect())
}

/// The value at x = `at` through all `points`, each an x and a share in bytes: the key at 0, elsewhere a share.
///
/// # Errors
/// Where there is no point, one at x = 0, two at one x, or a malformed one.
pub fn interpolate_bytes(points: &[(u16, &[u8])], at: u16) -> Result<SecretBytes, JoinError> {
    // One share is the whole polynomial, of degree 0, at any place. Nothing is computed, so a key that never was split
    // (the original's first databases) may have groups that the field has no room for.
    if let [(x, bytes)] = points
        && (1..PRIME).contains(&u32::from(*x))
        && !bytes.is_empty()
        && bytes.len().is_multiple_of(2)
    {
        return Ok(SecretBytes::new(bytes.to_vec()));
    }
    let mut groups = Vec::with_capacity(points.len());
    for (position, (x, bytes)) in points.iter().enumerate() {
        let taken = points[..position].iter().any(|(other, _)| other == x);
        if taken || *x == 0 || u32::from(*x) >= PRIME {
            return Err(JoinError::Place { x: *x });
        }
        let share = groups_of_bytes(bytes).map_err(|fault| fault.of_share(position + 1, 2 * bytes.len()))?;
        groups.push((u32::from(*x), share));
    }
    Ok(bytes_of_groups(&interpolate(&groups, u32::from(at) % PRIME)?))
}

/// A list of shares, one on each line, as operands for joining: line k is the share at x = k.
///
/// # Errors
/// An empty line before the last share would make the places doubtful.
pub fn shares_of_lines(text: &str) -> Result<Vec<Option<&str>>, JoinError> {
    let lines = text.trim_end().lines().enumerate();
    lines
        .map(|(number, line)| match line.trim() {
            "" => Err(JoinError::EmptyLine { line: number + 1 }),
            share => Ok(operand(share)),
        })
        .collect()
}

/// One operand of joining: none for [`MISSING`], which is matched exactly.
pub fn operand(text: &str) -> Option<&str> {
    (text != MISSING).then_some(text)
}

/// A secret as elements of the field, each below [`PRIME`].
type Groups = Zeroizing<Vec<u16>>;

/// What is wrong with digits or bytes that should be groups; positions from 1.
enum Fault {
    Length,
    Hex { position: usize },
    Group { group: usize },
}

impl Fault {
    fn of_key(self, digits: usize) -> SplitError {
        match self {
            Self::Length => SplitError::Length { digits },
            Self::Hex { position } => SplitError::Hex { position },
            Self::Group { group } => SplitError::Group { group },
        }
    }

    fn of_share(self, share: usize, digits: usize) -> JoinError {
        match self {
            Self::Length => JoinError::Length { share, digits },
            Self::Hex { position } => JoinError::Hex { share, position },
            Self::Group { group } => JoinError::Group { share, group },
        }
    }
}

fn groups_of_hex(text: &[u8]) -> Result<Groups, Fault> {
    if text.is_empty() || !text.len().is_multiple_of(4) || text.len() > MAX_KEY_DIGITS {
        return Err(Fault::Length);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for (pair, digits) in text.chunks_exact(2).enumerate() {
        let mut byte = 0;
        for (at, digit) in digits.iter().enumerate() {
            byte = byte << 4
                | hex_value(*digit).ok_or(Fault::Hex {
                    position: 2 * pair + at + 1,
                })?;
        }
        bytes.push(byte);
    }
    groups_of_bytes(&bytes)
}

fn groups_of_bytes(bytes: &[u8]) -> Result<Groups, Fault> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) || 2 * bytes.len() > MAX_KEY_DIGITS {
        return Err(Fault::Length);
    }
    let groups: Groups = Zeroizing::new(
        bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect(),
    );
    match groups.iter().position(|group| u32::from(*group) >= PRIME) {
        Some(position) => Err(Fault::Group { group: position + 1 }),
        None => Ok(groups),
    }
}

/// The value of a digit by arithmetic: a table would be looked up by a secret.
fn hex_value(digit: u8) -> Option<u8> {
    let letter = (digit | 0x20).wrapping_sub(b'a');
    let number = digit.wrapping_sub(b'0');
    let is_letter = (u16::from(letter).wrapping_sub(6) >> 8) as u8;
    let is_number = (u16::from(number).wrapping_sub(10) >> 8) as u8;
    (is_letter | is_number != 0).then_some((letter.wrapping_add(10) & is_letter) | (number & is_number))
}

fn hex_digit(value: u8) -> char {
    let is_letter = (9u16.wrapping_sub(u16::from(value)) >> 8) as u8;
    char::from(b'0' + value + (is_letter & (b'a' - b'0' - 10)))
}

fn hex_of_groups(groups: &[u16]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4 * groups.len()));
    for group in groups {
        for shift in [12, 8, 4, 0] {
            text.push(hex_digit((group >> shift) as u8 & 15));
        }
    }
    text
}

fn bytes_of_groups(groups: &[u16]) -> SecretBytes {
    SecretBytes::new(groups.iter().flat_map(|group| group.to_be_bytes()).collect())
}

/// The length of a password in a group, its bytes, and a zero where they are odd.
fn frame(password: &[u8]) -> Result<Groups, SplitError> {
    let length = u16::try_from(password.len())
        .ok()
        .filter(|length| u32::from(*length) < PRIME);
    let length = length.ok_or(SplitError::PasswordLength { bytes: password.len() })?;
    if password.contains(&0) {
        return Err(SplitError::PasswordZero);
    }
    let mut framed = Zeroizing::new(Vec::with_capacity(password.len() + 3));
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(password);
    if password.len() % 2 == 1 {
        framed.push(0);
    }
    groups_of_bytes(&framed).map_err(|fault| fault.of_key(2 * framed.len()))
}

fn unframe(groups: &[u16]) -> Result<SecretBytes, JoinError> {
    let Some((length, rest)) = groups.split_first() else {
        return Err(JoinError::FrameLength);
    };
    let length = usize::from(*length);
    if rest.len() != length.div_ceil(2) {
        return Err(JoinError::FrameLength);
    }
    let mut bytes: Zeroizing<Vec<u8>> = Zeroizing::new(rest.iter().flat_map(|group| group.to_be_bytes()).collect());
    if bytes[length..].iter().any(|padding| *padding != 0) {
        return Err(JoinError::FramePadding);
    }
    bytes.truncate(length);
    if bytes.contains(&0) {
        return Err(JoinError::FrameZero);
    }
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

fn split_groups(secret: &[u16], shares: u32, needed: u32) -> Result<Vec<Groups>, SplitError> {
    if needed == 0 || needed > shares || shares > MAX_SHARES {
        return Err(SplitError::Shape { shares, needed });
    }
    let mut coefficients = Zeroizing::new(vec![0; needed as usize - 1]);
    split_groups_with(secret, shares, |_| {
        fill_random(&mut coefficients)?;
        Ok(coefficients.clone())
    })
}

/// Splitting with given coefficients for each group: the j-th multiplies x^(j+1).
fn split_groups_with(
    secret: &[u16],
    shares: u32,
    mut draw: impl FnMut(usize) -> Result<Groups, SplitError>,
) -> Result<Vec<Groups>, SplitError> {
    let mut all: Vec<Groups> = (0..shares)
        .map(|_| Zeroizing::new(Vec::with_capacity(secret.len())))
        .collect();
    for (position, constant) in secret.iter().enumerate() {
        let coefficients = draw(position)?;
        for (x, share) in (1..=shares).zip(&mut all) {
            // Horner's rule, from the highest power down
            let powers = coefficients
                .iter()
                .rev()
                .fold(0, |value, next| multiply(add(value, u32::from(*next)), x));
            share.push(add(powers, u32::from(*constant)) as u16);
        }
    }
    Ok(all)
}

fn fill_random(groups: &mut [u16]) -> Result<(), SplitError> {
    fill_from(groups, getrandom::fill)
}

/// Elements drawn alike: what is not below the prime is drawn again.
fn fill_from(
    groups: &mut [u16],
    mut fill: impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
) -> Result<(), SplitError> {
    let mut bytes = Zeroizing::new(vec![0; 2 * groups.len()]);
    fill(&mut bytes).map_err(SplitError::Random)?;
    for (group, pair) in groups.iter_mut().zip(bytes.chunks_exact(2)) {
        let mut drawn = [pair[0], pair[1]];
        while u32::from(u16::from_be_bytes(drawn)) >= PRIME {
            fill(&mut drawn).map_err(SplitError::Random)?;
        }
        *group = u16::from_be_bytes(drawn);
        drawn.zeroize();
    }
    Ok(())
}

fn join_hex(shares: &[Option<&str>]) -> Result<Groups, JoinError> {
    if shares.len() > MAX_SHARES as usize {
        return Err(JoinError::TooMany { shares: shares.len() });
    }
    let mut points = Vec::new();
    for (x, share) in (1..).zip(shares) {
        if let Some(text) = share {
            let groups = groups_of_hex(text.as_bytes()).map_err(|fault| fault.of_share(x as usize, text.len()))?;
            points.push((x, groups));
        }
    }
    interpolate(&points, 0)
}

/// Lagrange's formula through all points, whose places differ and are not 0.
fn interpolate(points: &[(u32, Groups)], at: u32) -> Result<Groups, JoinError> {
    let Some((_, first)) = points.first() else {
        return Err(JoinError::NoShares);
    };
    if let Some((x, _)) = points.iter().find(|(_, groups)| groups.len() != first.len()) {
        return Err(JoinError::UnequalLengths { share: *x as usize });
    }
    let mut sums = Zeroizing::new(vec![0; first.len()]);
    for (own, groups) in points {
        let others = points.iter().map(|(x, _)| *x).filter(|x| x != own);
        let (above, below) = others.fold((1, 1), |(above, below), other| {
            (
                multiply(above, subtract(at, other)),
                multiply(below, subtract(*own, other)),
            )
        });
        let weight = multiply(above, inverse(below));
        for (sum, group) in sums.iter_mut().zip(groups.iter()) {
            *sum = add(u32::from(*sum), multiply(u32::from(*group), weight)) as u16;
        }
    }
    Ok(sums)
}

/// Below the prime again, without division and branch: 2^16 is 15 here.
fn reduce(value: u32) -> u32 {
    let once = (value & 0xffff) + 15 * (value >> 16);
    let twice = (once & 0xffff) + 15 * (once >> 16);
    let less = twice.wrapping_sub(PRIME);
    // the top bit is set where `twice` was below the prime already
    less.wrapping_add(PRIME & 0u32.wrapping_sub(less >> 31))
}

fn add(a: u32, b: u32) -> u32 {
    reduce(a + b)
}

fn subtract(a: u32, b: u32) -> u32 {
    reduce(a + PRIME - b)
}

fn multiply(a: u32, b: u32) -> u32 {
    reduce(a * b)
}

/// a^(p-2), which is 1/a.
fn inverse(a: u32) -> u32 {
    let exponent = PRIME - 2;
    (0..16).rev().fold(1, |power, bit| {
        let square = multiply(power, power);
        if exponent >> bit & 1 == 1 {
            multiply(square, a)
        } else {
            square
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn cases() -> Vec<Value> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/ssss-glite.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let cases = vectors["cases"].as_array().unwrap().clone();
        assert_eq!(cases.len() as u64, vectors["count"].as_u64().unwrap());
        cases
    }

    fn text<'a>(case: &'a Value, field: &str) -> &'a str {
        case[field].as_str().unwrap()
    }

    fn number(case: &Value, field: &str) -> u32 {
        u32::try_from(case[field].as_u64().unwrap()).unwrap()
    }

    fn operands(case: &Value) -> Vec<Option<&str>> {
        case["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| operand(arg.as_str().unwrap()))
            .collect()
    }

    fn why_joined_not(error: JoinError) -> &'static str {
        match error {
            JoinError::NoShares => "no shares",
            JoinError::UnequalLengths { .. } => "unequal lengths",
            JoinError::Length { .. } => "length",
            JoinError::Hex { .. } => "hex",
            JoinError::Group { .. } => "group",
            JoinError::FrameLength => "frame length",
            other => panic!("{other}"),
        }
    }

    fn why_split_not(error: &SplitError) -> &'static str {
        match error {
            SplitError::Shape { .. } => "n-k",
            SplitError::Group { .. } => "group",
            other => panic!("{other}"),
        }
    }

    fn present(shares: &[Zeroizing<String>], which: &[usize]) -> Vec<Option<String>> {
        shares
            .iter()
            .enumerate()
            .map(|(at, share)| which.contains(&at).then(|| share.to_string()))
            .collect()
    }

    fn borrowed(shares: &[Option<String>]) -> Vec<Option<&str>> {
        shares.iter().map(Option::as_deref).collect()
    }

    #[test]
    fn all_vectors_hold() {
        for case in cases() {
            let id = text(&case, "id");
            // how many operands a command needs is the command's own matter
            if case["why"] == "usage" {
                continue;
            }
            match text(&case, "op") {
                "join-key" => match join_key(&operands(&case)) {
                    Ok(key) => assert_eq!(*key, text(&case, "output"), "{id}"),
                    Err(error) => assert_eq!(why_joined_not(error), case["why"], "{id}"),
                },
                "join-passwd" => match join_password(&operands(&case)) {
                    Ok(password) => assert_eq!(password.expose(), text(&case, "password").as_bytes(), "{id}"),
                    Err(error) => assert_eq!(why_joined_not(error), case["why"], "{id}"),
                },
                "evaluate" => {
                    let secret = groups_of_hex(text(&case, "secret").as_bytes()).ok().unwrap();
                    let shares = split_groups_with(&secret, number(&case, "n"), |group| {
                        let coefficients = case["coefficients"][group].as_array().unwrap();
                        let of = |value: &Value| u16::try_from(value.as_u64().unwrap()).unwrap();
                        Ok(Zeroizing::new(coefficients.iter().map(of).collect()))
                    });
                    let shares: Vec<_> = shares.unwrap().iter().map(|share| hex_of_groups(share)).collect();
                    let expected = case["shares"].as_array().unwrap().iter();
                    assert!(expected.eq(shares.iter().map(|share| share.as_str())), "{id}");
                }
                "split-key" => {
                    let made = split_key(text(&case, "secret"), number(&case, "n"), number(&case, "k"));
                    match made {
                        Ok(shares) => {
                            let pair = present(&shares, &[0, 2]);
                            assert_eq!(*join_key(&borrowed(&pair)).unwrap(), text(&case, "secret"), "{id}");
                        }
                        Err(error) => assert_eq!(why_split_not(&error), case["why"], "{id}"),
                    }
                }
                "split-passwd" => {
                    let password = text(&case, "password").as_bytes();
                    let k = number(&case, "k");
                    let shares = split_password(password, number(&case, "n"), k).unwrap();
                    let digits = usize::try_from(number(&case, "share_digits")).unwrap();
                    assert!(shares.iter().all(|share| share.len() == digits), "{id}");
                    let some = present(&shares, &(0..k as usize).collect::<Vec<_>>());
                    assert_eq!(join_password(&borrowed(&some)).unwrap().expose(), password, "{id}");
                }
                other => panic!("{id}: unknown operation {other}"),
            }
        }
    }

    #[test]
    fn a_secret_that_the_field_cannot_hold_is_refused_and_never_altered() {
        for group in ["fff1", "ffff", "FFF1"] {
            let refused = split_key(&format!("0000{group}"), 3, 2);
            assert!(matches!(refused, Err(SplitError::Group { group: 2 })), "{group}");
        }
        assert!(matches!(
            split_password(b"\xff\xf1", 3, 2),
            Err(SplitError::Group { group: 2 })
        ));
        assert!(split_password(b"x\xff\xf1x", 3, 2).is_ok());
        assert!(matches!(split_password(b"a\0b", 3, 2), Err(SplitError::PasswordZero)));
        assert!(matches!(
            split_password(&[1; 65521], 3, 2),
            Err(SplitError::PasswordLength { bytes: 65521 })
        ));
        assert!(matches!(
            split_bytes(b"\0\0\xff\xff", 3, 2),
            Err(SplitError::Group { group: 2 })
        ));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        for key in ["", "1", "123", "12345"] {
            assert!(matches!(split_key(key, 3, 2), Err(SplitError::Length { .. })), "{key}");
        }
        assert!(matches!(split_key("12g4", 3, 2), Err(SplitError::Hex { position: 3 })));
        assert!(matches!(split_key("1234", 65521, 2), Err(SplitError::Shape { .. })));
        assert!(matches!(split_key("1234", 0, 0), Err(SplitError::Shape { .. })));
        assert!(split_key("1234", 65520, 1).is_ok());
    }

    #[test]
    fn frames_that_are_none_are_told_apart() {
        let joined = |key: &str| join_password(&[Some(key), None]).err();
        assert_eq!(joined("00036162"), Some(JoinError::FrameLength));
        assert_eq!(joined("00016161"), Some(JoinError::FramePadding));
        assert_eq!(joined("00026100"), Some(JoinError::FrameZero));
        assert!(joined("0000").is_none());
    }

    #[test]
    fn generated_keys_can_always_be_shared() {
        for digits in [0, 2, 6, MAX_KEY_DIGITS + 4] {
            assert!(
                matches!(generate_key(digits), Err(SplitError::Length { .. })),
                "{digits}"
            );
        }
        // of 65536 random groups fifteen would be too large
        let key = generate_key(4 << 16).unwrap();
        assert!(groups_of_hex(key.as_bytes()).is_ok());
        assert_ne!(*generate_key(32).unwrap(), *generate_key(32).unwrap());
    }

    /// The original took what is too large less the prime, so 0 to 14 came twice as often (D-4).
    #[test]
    fn d4_what_the_field_does_not_have_is_drawn_again_and_never_reduced() {
        let drawn = [0xfff0, 0xfff1, 0xffff, 0xfff1, 0x000e, 0x0000_u16];
        let mut stream = drawn.iter().flat_map(|group| group.to_be_bytes());
        let mut groups = [1; 3];
        fill_from(&mut groups, |bytes| {
            bytes.iter_mut().for_each(|byte| *byte = stream.next().unwrap());
            Ok(())
        })
        .unwrap();
        // three at once; the second and the third are drawn again, one of them twice
        assert_eq!((groups, stream.next()), ([0xfff0, 0x000e, 0x0000], None));
    }

    /// The original's library says -1, which it took for success (D-4).
    #[test]
    fn d4_a_source_of_random_numbers_that_fails_is_a_failure_also_when_it_is_asked_again() {
        for good in [0, 1] {
            let mut asked = 0;
            let failed = fill_from(&mut [0; 2], |bytes| {
                asked += 1;
                bytes.fill(0xff);
                if asked > good {
                    Err(getrandom::Error::UNSUPPORTED)
                } else {
                    Ok(())
                }
            });
            assert!(matches!(failed, Err(SplitError::Random(_))), "{failed:?}");
        }
    }

    #[test]
    fn lines_keep_their_places() {
        assert_eq!(
            shares_of_lines("aa\r\nNULL\n bb \n\n"),
            Ok(vec![Some("aa"), None, Some("bb")])
        );
        assert_eq!(shares_of_lines("aa\n\nbb"), Err(JoinError::EmptyLine { line: 2 }));
        assert_eq!(shares_of_lines(""), Ok(vec![]));
        assert_eq!(join_key(&[]).err(), Some(JoinError::NoShares));
    }

    #[test]
    fn places_are_checked() {
        assert_eq!(
            interpolate_bytes(&[(0, b"ab")], 0).err(),
            Some(JoinError::Place { x: 0 })
        );
        assert_eq!(
            interpolate_bytes(&[(2, b"ab"), (2, b"ab")], 0).err(),
            Some(JoinError::Place { x: 2 })
        );
        assert_eq!(
            interpolate_bytes(&[(65521, b"ab")], 0).err(),
            Some(JoinError::Place { x: 65521 })
        );
        assert_eq!(interpolate_bytes(&[], 0).err(), Some(JoinError::NoShares));
    }

    /// One share of two fixed: the one coefficient that puts it there exists, once, for every secret of the field.
    #[test]
    fn one_share_of_two_leaves_every_secret_as_likely() {
        let (x, fixed) = (3, 0x1234);
        for secret in 0..PRIME {
            let coefficient = multiply(subtract(fixed, secret), inverse(x));
            assert_eq!(add(secret, multiply(coefficient, x)), fixed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_field_agrees_with_division(a in 0..PRIME, b in 0..PRIME) {
            prop_assert_eq!(multiply(a, b), (u64::from(a) * u64::from(b) % u64::from(PRIME)) as u32);
            prop_assert_eq!(add(a, b), (a + b) % PRIME);
            prop_assert_eq!(subtract(a, b), (a + PRIME - b) % PRIME);
            prop_assert!(a == 0 || multiply(a, inverse(a)) == 1);
        }

        #[test]
        fn any_k_shares_join(
            key in proptest::collection::vec(0..PRIME as u16, 1..20),
            (k, n) in (1..=6u32).prop_flat_map(|k| (Just(k), k..=9)),
            order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let key = bytes_of_groups(&key);
            let hex = data_encoding::HEXLOWER.encode(key.expose());
            let chosen: Vec<usize> = order.into_iter().filter(|at| *at < n as usize).take(k as usize).collect();
            let shares = split_key(&hex, n, k).unwrap();
            prop_assert!(*join_key(&borrowed(&present(&shares, &chosen))).unwrap() == hex);

            let shares = split_bytes(key.expose(), n, k).unwrap();
            let points: Vec<(u16, &[u8])> =
                chosen.iter().map(|at| (*at as u16 + 1, shares[*at].expose())).collect();
            prop_assert!(interpolate_bytes(&points, 0).unwrap().expose() == key.expose());
            for (x, share) in (1..).zip(&shares) {
                prop_assert!(interpolate_bytes(&points, x).unwrap().expose() == share.expose());
            }
        }

        #[test]
        fn passwords_come_back(password in proptest::collection::vec(1..0xffu8, 0..50), k in 1..=5u32) {
            let shares = split_password(&password, 5, k).unwrap();
            let chosen: Vec<usize> = (5 - k as usize..5).collect();
            let joined = join_password(&borrowed(&present(&shares, &chosen))).unwrap();
            prop_assert!(joined.expose() == password);
        }
    }
}
