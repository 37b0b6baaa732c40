//! Shamir's secret sharing byte by byte over GF(2^8), polynomial 0x11b: the secret at x = 0, share i the value at x =
//! i.
//!
//! The field does just what sharing needs. Where a share lies (x), m and n are public; every byte of a secret, a share
//! or a coefficient is secret, and neither a branch nor an address depends on one: what is looked up is looked up by
//! public numbers, and secret bytes are multiplied by them in bit planes, 128 at a time. See
//! `docs/src/formats/shares.md`.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::secret::SecretBytes;

/// The longest secret that is split, in bytes.
pub const MAX_SECRET_BYTES: usize = 1 << 20;

/// Why a secret could not be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Not 1 <= m <= n (<= 255).
    #[error("cannot make {n} shares of which {m} join: the threshold is from 1 to the number of shares")]
    Shape {
        /// How many are to join.
        m: u8,
        /// How many are to be made.
        n: u8,
    },
    /// Empty, or over [`MAX_SECRET_BYTES`].
    #[error("a secret has 1 to {MAX_SECRET_BYTES} bytes, this one has {bytes}")]
    SecretLength {
        /// Its length.
        bytes: usize,
    },
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system")]
    Random(#[source] getrandom::Error),
}

/// Why shares could not be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A threshold of zero.
    #[error("a threshold is 1 at least")]
    Threshold,
    /// Fewer than the threshold, or none.
    #[error("{have} of the {need} shares needed")]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many are needed.
        need: usize,
    },
    /// A share at x = 0, where the secret lies.
    #[error("a share has index 0, which is the place of the secret")]
    IndexZero,
    /// Two shares at one x.
    #[error("two shares have the index {x}")]
    Repeated {
        /// Their index.
        x: u8,
    },
    /// Shares that differ in length, or are empty.
    #[error("the shares differ in length, or are empty")]
    Lengths,
    /// More shares than needed, and they lie on no one polynomial of the degree.
    #[error("the shares do not agree: one at least is wrong")]
    Disagree,
}

/// Splits `secret` into n shares, any m of which join; share i, at x = i, is the i-th of the answer, counted from 1.
///
/// # Errors
/// Where not 1 <= m <= n, where the secret is empty or over 1 MiB, or where there are no random numbers.
pub fn split(secret: &[u8], m: u8, n: u8) -> Result<Vec<SecretBytes>, SplitError> {
    let mut coefficients = Zeroizing::new(Vec::new());
    split_with(secret, m, n, |block, wanted| {
        coefficients.resize(wanted.len() * block.len(), 0);
        getrandom::fill(&mut coefficients).map_err(SplitError::Random)?;
        for (planes, bytes) in wanted.iter_mut().zip(coefficients.chunks_exact(block.len())) {
            *planes = Block::load(bytes);
        }
        Ok(())
    })
}

/// [`split`] with given coefficients: `coefficients[j]` multiplies x^(j+1), a byte for each byte of the secret.
#[cfg(test)]
pub(crate) fn split_by(secret: &[u8], m: u8, n: u8, coefficients: &[Vec<u8>]) -> Result<Vec<SecretBytes>, SplitError> {
    split_with(secret, m, n, |block, wanted| {
        assert_eq!(wanted.len(), coefficients.len(), "one coefficient for each power");
        for (planes, bytes) in wanted.iter_mut().zip(coefficients) {
            *planes = Block::load(&bytes[block.clone()]);
        }
        Ok(())
    })
}

/// The value at x = `at` of the one polynomial of the lowest degree through all `points`, each an x and its bytes.
///
/// At 0 that is the secret, elsewhere the share of that index: so a missing share is made again.
///
/// # Errors
/// Where there is no point, one at x = 0, two at one x, or where their lengths differ.
pub fn interpolate(points: &[(u8, &[u8])], at: u8) -> Result<SecretBytes, JoinError> {
    check(points)?;
    value_at(points, at, &[])
}

/// Joins the secret from the first m of `points`, and holds all others against them.
///
/// # Errors
/// As [`interpolate`], and where there are fewer than m points, or some that do not agree.
pub fn join(points: &[(u8, &[u8])], m: u8) -> Result<SecretBytes, JoinError> {
    let need = usize::from(m);
    if need == 0 {
        return Err(JoinError::Threshold);
    }
    if points.len() < need {
        let have = points.len();
        return Err(JoinError::TooFew { have, need });
    }
    check(points)?;
    let (used, extra) = points.split_at(need);
    value_at(used, 0, extra)
}

/// All that must hold before arithmetic begins; points on one polynomial of bytes each.
fn check(points: &[(u8, &[u8])]) -> Result<(), JoinError> {
    let Some((_, first)) = points.first() else {
        return Err(JoinError::TooFew { have: 0, need: 1 });
    };
    let mut seen = [false; 256];
    for (x, bytes) in points {
        if *x == 0 {
            return Err(JoinError::IndexZero);
        }
        if std::mem::replace(&mut seen[usize::from(*x)], true) {
            return Err(JoinError::Repeated { x: *x });
        }
        if bytes.len() != first.len() || bytes.is_empty() {
            return Err(JoinError::Lengths);
        }
    }
    Ok(())
}

/// The whole of splitting but for where coefficients come from: `draw` is told a range of the secret's bytes (never
/// longer than a block) and writes the m-1 coefficients for it, that of x first.
fn split_with(
    secret: &[u8],
    m: u8,
    n: u8,
    mut draw: impl FnMut(std::ops::Range<usize>, &mut [Block]) -> Result<(), SplitError>,
) -> Result<Vec<SecretBytes>, SplitError> {
    if m == 0 || m > n {
        return Err(SplitError::Shape { m, n });
    }
    if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
        return Err(SplitError::SecretLength { bytes: secret.len() });
    }
    let mut shares: Vec<Zeroizing<Vec<u8>>> = (0..n).map(|_| Zeroizing::new(vec![0; secret.len()])).collect();
    let sums: Vec<Sum> = (1..=n).map(|x| Sum::new(powers(x).take(usize::from(m)))).collect();
    // the polynomials of one block of the secret, the constant term first
    let mut terms = Zeroizing::new(vec![Block::ZERO; usize::from(m)]);
    let mut quads = no_quads(terms.len());
    for start in (0..secret.len()).step_by(Block::BYTES) {
        let range = start..secret.len().min(start + Block::BYTES);
        terms[0] = Block::load(&secret[range.clone()]);
        draw(range.clone(), &mut terms[1..])?;
        quads_into(&terms, &mut quads);
        for (sum, share) in sums.iter().zip(&mut shares) {
            sum.of(&quads).store(&mut share[range.clone()]);
        }
    }
    Ok(shares
        .iter_mut()
        .map(|share| SecretBytes::new(std::mem::take(share)))
        .collect())
}

/// The value at x = `at` through `used`, where every one of `extra` lies on the same polynomial; all have been checked.
fn value_at(used: &[(u8, &[u8])], at: u8, extra: &[(u8, &[u8])]) -> Result<SecretBytes, JoinError> {
    let length = used.first().map_or(0, |(_, bytes)| bytes.len());
    let sum = lagrange(used, at);
    let checks: Vec<Sum> = extra.iter().map(|(x, _)| lagrange(used, *x)).collect();
    let mut value = Zeroizing::new(vec![0; length]);
    let mut blocks = Zeroizing::new(vec![Block::ZERO; used.len()]);
    let mut quads = no_quads(used.len());
    let mut expected = Zeroizing::new([0; Block::BYTES]);
    for start in (0..length).step_by(Block::BYTES) {
        let range = start..length.min(start + Block::BYTES);
        for (block, (_, bytes)) in blocks.iter_mut().zip(used) {
            *block = Block::load(&bytes[range.clone()]);
        }
        quads_into(&blocks, &mut quads);
        for (check, (_, bytes)) in checks.iter().zip(extra) {
            let expected = &mut expected[..range.len()];
            check.of(&quads).store(expected);
            if !bool::from(expected.ct_eq(&bytes[range.clone()])) {
                return Err(JoinError::Disagree);
            }
        }
        sum.of(&quads).store(&mut value[range]);
    }
    Ok(SecretBytes::new(std::mem::take(&mut *value)))
}

/// Lagrange's formula for points that [`check`] has seen: the sum for the value at x = `at`.
fn lagrange(points: &[(u8, &[u8])], at: u8) -> Sum {
    Sum::new(points.iter().map(|(x, _)| weight(points, *x, at)))
}

/// What the point at x = `own` counts at `at`: the product of (at - other) / (own - other); minus is plus here.
fn weight(points: &[(u8, &[u8])], own: u8, at: u8) -> u8 {
    let others = points.iter().map(|(x, _)| *x).filter(|x| *x != own);
    let (above, below) = others.fold((1, 1), |(above, below), other| {
        (multiply(above, at ^ other), multiply(below, own ^ other))
    });
    multiply(above, inverse(below))
}

/// The product of two elements, each bit in turn, without a branch.
fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut power) = (0, a);
    for bit in 0..8 {
        product ^= power & 0u8.wrapping_sub(b >> bit & 1);
        power = (power << 1) ^ (0x1b & 0u8.wrapping_sub(power >> 7));
    }
    product
}

/// a^254, which is 1/a (and 0 for 0).
fn inverse(a: u8) -> u8 {
    // 254 = 2 + 4 + … + 128
    let mut square = a;
    (1..8).fold(1, |product, _| {
        square = multiply(square, square);
        multiply(product, square)
    })
}

/// x^0, x^1, x^2, …
fn powers(x: u8) -> impl Iterator<Item = u8> {
    std::iter::successors(Some(1), move |power| Some(multiply(*power, x)))
}

/// Four blocks and all their sums: entry 5 is the first plus the third.
type Quad = [Block; 16];

/// A sum of secret blocks, each times a public weight.
///
/// For each bit of the weights and each four blocks, one number says which of the four have the bit. So a sum is one
/// addition for four blocks and a bit, of what [`quads_into`] has added beforehand, and a doubling between bits.
/// (At 255 of 255 that takes less than half the time of Horner's rule, and of adding block by block.)
struct Sum([Vec<u8>; 8]);

impl Sum {
    fn new(weights: impl Iterator<Item = u8>) -> Self {
        let mut choices: [Vec<u8>; 8] = Default::default();
        for (position, weight) in weights.enumerate() {
            for (bit, choices) in choices.iter_mut().enumerate() {
                choices.resize(position / 4 + 1, 0);
                choices[position / 4] |= (weight >> bit & 1) << (position % 4);
            }
        }
        Self(choices)
    }

    fn of(&self, quads: &[Quad]) -> Block {
        let mut sum = Block::ZERO;
        for choices in self.0.iter().rev() {
            sum = sum.double();
            for (quad, choice) in quads.iter().zip(choices) {
                sum.add(&quad[usize::from(choice & 15)]);
            }
        }
        sum
    }
}

/// Room for the quads of so many blocks.
fn no_quads(blocks: usize) -> Zeroizing<Vec<Quad>> {
    Zeroizing::new(vec![[Block::ZERO; 16]; blocks.div_ceil(4)])
}

/// Writes the quads of all blocks; the last is filled up with zeros.
fn quads_into(blocks: &[Block], quads: &mut [Quad]) {
    for (quad, four) in quads.iter_mut().zip(blocks.chunks(4)) {
        for choice in 1..16_usize {
            // what a choice without its lowest block adds up to is there already
            let mut sum = quad[choice & (choice - 1)];
            if let Some(lowest) = four.get(choice.trailing_zeros() as usize) {
                sum.add(lowest);
            }
            quad[choice] = sum;
        }
    }
}

/// How many words a plane has: two fill a register that every x86-64 and arm64 has, and eight of those hold a block.
const LANES: usize = 2;

/// Bit i of each of 64 * [`LANES`] bytes, in an order that [`Block::load`] and [`Block::store`] agree on.
type Plane = [u64; LANES];

/// 128 bytes in bit planes, lowest bit first: adding and doubling work on all of them at once.
#[derive(Clone, Copy)]
struct Block([Plane; 8]);

impl Zeroize for Block {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Block {
    const BYTES: usize = 64 * LANES;
    const ZERO: Self = Self([[0; LANES]; 8]);

    /// Up to 128 bytes; what is missing is zero.
    fn load(bytes: &[u8]) -> Self {
        let mut block = Self::ZERO;
        for (position, word) in bytes.chunks(8).enumerate() {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            block.0[position % 8][position / 8] = u64::from_le_bytes(whole);
        }
        block.transpose();
        block
    }

    /// The reverse of [`Block::load`].
    fn store(mut self, bytes: &mut [u8]) {
        self.transpose();
        for (position, word) in bytes.chunks_mut(8).enumerate() {
            word.copy_from_slice(&self.0[position % 8][position / 8].to_le_bytes()[..word.len()]);
        }
    }

    /// Exchanges row i, bit j with row j, bit i in all bytes: three rounds of swapping halves. Its own reverse.
    fn transpose(&mut self) {
        for (distance, mask) in [
            (1, 0x5555_5555_5555_5555),
            (2, 0x3333_3333_3333_3333),
            (4, 0x0f0f_0f0f_0f0f_0f0f),
        ] {
            for low in (0..8).filter(|row| row & distance == 0) {
                let high = low + distance;
                for lane in 0..LANES {
                    let (a, b) = (self.0[low][lane], self.0[high][lane]);
                    let swap = ((a >> distance) ^ b) & mask;
                    self.0[low][lane] = a ^ (swap << distance);
                    self.0[high][lane] = b ^ swap;
                }
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, other: &Self) {
        for (plane, more) in self.0.iter_mut().zip(&other.0) {
            add_plane(plane, more);
        }
    }

    /// Times x: planes move up by one, and the highest is reduced by 0x11b into planes 0, 1, 3 and 4.
    #[inline(always)]
    fn double(&self) -> Self {
        let [p0, p1, p2, p3, p4, p5, p6, top] = self.0;
        let mut doubled = [top, p0, p1, p2, p3, p4, p5, p6];
        add_plane(&mut doubled[1], &top);
        add_plane(&mut doubled[3], &top);
        add_plane(&mut doubled[4], &top);
        Self(doubled)
    }
}

#[inline(always)]
fn add_plane(plane: &mut Plane, more: &Plane) {
    for (word, more) in plane.iter_mut().zip(more) {
        *word ^= more;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn hex(value: &Value) -> Vec<u8> {
        HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    fn byte(value: &Value) -> u8 {
        u8::try_from(value.as_u64().unwrap()).unwrap()
    }

    fn points(shares: &Value) -> Vec<(u8, Vec<u8>)> {
        let list = shares.as_array().unwrap();
        list.iter().map(|share| (byte(&share["x"]), hex(&share["y"]))).collect()
    }

    fn borrowed(points: &[(u8, Vec<u8>)]) -> Vec<(u8, &[u8])> {
        points.iter().map(|(x, bytes)| (*x, bytes.as_slice())).collect()
    }

    fn numbered(shares: &[SecretBytes]) -> Vec<(u8, &[u8])> {
        (1..=255).zip(shares.iter().map(SecretBytes::expose)).collect()
    }

    #[test]
    fn all_vectors_hold() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/shamir-gf256.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len() as u64, vectors["count"].as_u64().unwrap());
        for case in cases {
            let id = case["id"].as_str().unwrap();
            match case["op"].as_str().unwrap() {
                "multiply" => assert_eq!(
                    multiply(byte(&case["a"]), byte(&case["b"])),
                    byte(&case["output"]),
                    "{id}"
                ),
                "join" => {
                    let given = points(&case["shares"]);
                    let k = case["k"].as_u64().map(|k| u8::try_from(k).unwrap());
                    if case["wrong"] == true {
                        let have = given.len();
                        let refused = join(&borrowed(&given), k.unwrap()).err();
                        assert_eq!(refused, Some(JoinError::TooFew { have, need: have + 1 }), "{id}");
                    }
                    let value = interpolate(&borrowed(&given), 0);
                    assert_eq!(value.is_ok(), case["expect"] == "ok", "{id}");
                    let Ok(value) = value else { continue };
                    assert_eq!(value.expose(), hex(&case["output"]), "{id}");
                    let Some(coefficients) = case["coefficients"].as_array() else {
                        continue;
                    };
                    assert_eq!(
                        join(&borrowed(&given), k.unwrap()).unwrap().expose(),
                        value.expose(),
                        "{id}"
                    );
                    let coefficients: Vec<Vec<u8>> = coefficients.iter().map(hex).collect();
                    let made = split_by(value.expose(), k.unwrap(), byte(&case["n"]), &coefficients).unwrap();
                    for (x, bytes) in points(&case["all_shares"]) {
                        assert_eq!(made[usize::from(x) - 1].expose(), bytes, "{id} at {x}");
                        assert_eq!(
                            interpolate(&borrowed(&given), x).unwrap().expose(),
                            bytes,
                            "{id} at {x}"
                        );
                    }
                }
                other => panic!("{id}: unknown operation {other}"),
            }
        }
    }

    #[test]
    fn blocks_agree_with_single_bytes_for_every_product() {
        let all: Vec<u8> = (0..=255).collect();
        for constant in 0..=255 {
            let sum = Sum::new([constant].into_iter());
            for half in all.chunks(Block::BYTES) {
                let mut quads = no_quads(1);
                quads_into(&[Block::load(half)], &mut quads);
                let mut products = [0; Block::BYTES];
                sum.of(&quads).store(&mut products);
                for (a, product) in half.iter().zip(products) {
                    assert_eq!(product, multiply(*a, constant), "{a} * {constant}");
                }
            }
        }
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "1 / {a}");
        }
    }

    /// For two fixed shares of a 3-of-n split of one byte, every secret is the secret of exactly as many polynomials.
    #[test]
    fn fewer_than_m_shares_leave_every_secret_as_likely() {
        for (x1, x2) in [(1, 2), (3, 255)] {
            let mut seen = [0u32; 256];
            for secret in 0..=255u8 {
                for c1 in 0..=255u8 {
                    // one c2 at most puts the first share where it is fixed; all are tried for the second
                    for c2 in 0..=255u8 {
                        let at = |x: u8| secret ^ multiply(c1, x) ^ multiply(c2, multiply(x, x));
                        if at(x1) == 0x5a && at(x2) == 0xc3 {
                            seen[usize::from(secret)] += 1;
                        }
                    }
                }
            }
            assert_eq!(seen, [1; 256], "{x1}, {x2}");
        }
    }

    /// The same through `split` itself: with the one coefficient running over all bytes, share 1 does too.
    #[test]
    fn a_share_of_two_takes_every_value_once_for_every_secret() {
        for secret in 0..=255u8 {
            let mut seen = [false; 256];
            for coefficient in 0..=255u8 {
                let shares = split_by(&[secret], 2, 2, &[vec![coefficient]]).unwrap();
                seen[usize::from(shares[0].expose()[0])] = true;
            }
            assert_eq!(seen, [true; 256], "{secret}");
        }
    }

    #[test]
    fn two_splits_are_never_alike_and_one_of_n_is_a_copy() {
        let secret = [7; 32];
        let (a, b) = (split(&secret, 2, 3).unwrap(), split(&secret, 2, 3).unwrap());
        assert_ne!(a[0].expose(), b[0].expose());
        assert!(
            split(&secret, 1, 3)
                .unwrap()
                .iter()
                .all(|share| share.expose() == secret)
        );
    }

    #[test]
    fn bad_shapes_and_lengths_are_refused() {
        assert!(matches!(split(b"x", 0, 3), Err(SplitError::Shape { m: 0, n: 3 })));
        assert!(matches!(split(b"x", 4, 3), Err(SplitError::Shape { m: 4, n: 3 })));
        assert!(matches!(split(b"x", 0, 0), Err(SplitError::Shape { .. })));
        assert!(matches!(split(b"", 2, 3), Err(SplitError::SecretLength { bytes: 0 })));
        let long = vec![0; MAX_SECRET_BYTES + 1];
        assert!(matches!(split(&long, 2, 3), Err(SplitError::SecretLength { .. })));
    }

    #[test]
    fn bad_points_are_told_apart() {
        let refusal = |points: &[(u8, &[u8])], m| join(points, m).err();
        assert_eq!(refusal(&[], 1), Some(JoinError::TooFew { have: 0, need: 1 }));
        assert_eq!(interpolate(&[], 0).err(), Some(JoinError::TooFew { have: 0, need: 1 }));
        assert_eq!(refusal(&[(1, b"a")], 0), Some(JoinError::Threshold));
        assert_eq!(refusal(&[(1, b"a")], 2), Some(JoinError::TooFew { have: 1, need: 2 }));
        assert_eq!(refusal(&[(0, b"a"), (1, b"b")], 2), Some(JoinError::IndexZero));
        assert_eq!(refusal(&[(9, b"a"), (9, b"a")], 2), Some(JoinError::Repeated { x: 9 }));
        assert_eq!(refusal(&[(1, b"a"), (2, b"bc")], 2), Some(JoinError::Lengths));
        assert_eq!(refusal(&[(1, b""), (2, b"")], 2), Some(JoinError::Lengths));
        assert_eq!(refusal(&[(1, b"a"), (2, b"b")], 1), Some(JoinError::Disagree));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_m_shares_join_and_make_the_others_again(
            secret in proptest::collection::vec(any::<u8>(), 1..600),
            (m, n) in (1..=12u8).prop_flat_map(|m| (Just(m), m..=20)),
            order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let shares = split(&secret, m, n).unwrap();
            let all = numbered(&shares);
            let chosen: Vec<(u8, &[u8])> =
                order.iter().filter_map(|at| all.get(*at)).take(usize::from(m)).copied().collect();
            prop_assert!(join(&chosen, m).unwrap().expose() == secret);
            prop_assert!(join(&all, m).unwrap().expose() == secret);
            for (x, bytes) in &all {
                prop_assert!(interpolate(&chosen, *x).unwrap().expose() == *bytes);
            }
        }

        #[test]
        fn one_flipped_bit_in_any_of_more_than_m_shares_is_seen(
            secret in proptest::collection::vec(any::<u8>(), 1..400),
            m in 1..=5u8, share in 0..6usize, at in any::<proptest::sample::Index>(), bit in 0..8u8,
        ) {
            let shares = split(&secret, m, 6).unwrap();
            let mut bytes: Vec<Vec<u8>> = shares.iter().map(|share| share.expose().to_vec()).collect();
            let position = at.index(secret.len());
            bytes[share][position] ^= 1 << bit;
            let all: Vec<(u8, &[u8])> = (1..).zip(bytes.iter().map(Vec::as_slice)).collect();
            prop_assert_eq!(join(&all, m).err(), Some(JoinError::Disagree));
        }
    }

    #[test]
    fn the_largest_shape_joins() {
        let secret: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        let shares = split(&secret, 255, 255).unwrap();
        assert!(join(&numbered(&shares), 255).unwrap().expose() == secret);
        let shares = split(&secret, 100, 255).unwrap();
        assert!(join(&numbered(&shares), 100).unwrap().expose() == secret);
    }
}
