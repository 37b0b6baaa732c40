//! How a key becomes shares and is proven when it comes back: `key || r`, the check value, the import id.
//!
//! The rules are in `docs/src/formats/check-value.md`. Nothing here talks to anybody or decides whom to ask.

use std::collections::BTreeSet;

use aws_lc_rs::{digest, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::frame::Frame;
use crate::ids::{CheckValue, IdError, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::keystore::wire::{Constants, Scheme, Share, ShareData, Sharing};
use crate::secret::SecretBytes;
use crate::shamir::{gf256, glite};

/// Bytes of r, fresh for every sharing.
pub const R_LENGTH: usize = 32;
/// The most choices of m shares that [`join`] tries before it gives up: ten wrong shares of twenty are found, say.
const MAX_CHOICES: usize = 20_000;
/// Up to so many offers all choices are within [`MAX_CHOICES`]: C(16, 8) is 12,870.
const MAX_TO_BLAME: usize = 16;

/// Why a key could not be split over the stores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// More stores than shares can be.
    #[error("a key is split over 255 stores at most, not {stores}")]
    TooMany {
        /// How many there are.
        stores: usize,
    },
    /// The threshold does not fit the number of stores.
    #[error("the key cannot be split")]
    Shape(#[source] gf256::SplitError),
    /// No random numbers.
    #[error("the key cannot be split")]
    Random(#[source] IdError),
}

/// A key split over stores: the sharing, and the share of each store in order of its list.
pub struct Split {
    /// What every store is told.
    pub sharing: Sharing,
    /// What each store alone is told.
    pub shares: Vec<Share>,
}

/// Splits `key || r` over `stores`, r being fresh; any `m` of the shares join.
///
/// # Errors
/// Where not 1 <= m <= n <= 255, or where there are no random numbers.
pub fn split(
    key_id: &KeyId,
    constants: &Constants,
    generation: u32,
    m: u8,
    stores: &[StoreId],
    key: &[u8],
) -> Result<Split, SplitError> {
    let mut r = Zeroizing::new([0; R_LENGTH]);
    getrandom::fill(r.as_mut_slice()).map_err(|_| SplitError::Random(IdError::Random))?;
    split_with(key_id, constants, generation, m, stores, key, &r, gf256::split)
}

#[allow(
    clippy::too_many_arguments,
    reason = "the public function fixes the last two; each of the others goes under the check value"
)]
fn split_with(
    key_id: &KeyId,
    constants: &Constants,
    generation: u32,
    m: u8,
    stores: &[StoreId],
    key: &[u8],
    r: &[u8; R_LENGTH],
    split: impl FnOnce(&[u8], u8, u8) -> Result<Vec<SecretBytes>, gf256::SplitError>,
) -> Result<Split, SplitError> {
    let n = u8::try_from(stores.len()).map_err(|_| SplitError::TooMany { stores: stores.len() })?;
    let secret = Zeroizing::new([key, r.as_slice()].concat());
    let parts = split(&secret, m, n).map_err(SplitError::Shape)?;
    let mut sharing = Sharing {
        generation,
        m,
        n,
        stores: stores.to_vec(),
        check: None,
    };
    sharing.check = Some(check_value(key_id, constants, &sharing, key, r));
    let share = |(index, data)| Share {
        scheme: Scheme::Gf256,
        index,
        m,
        n,
        data: ShareData(data),
    };
    let shares = (1..=n).zip(parts).map(share).collect();
    Ok(Split { sharing, shares })
}

/// [`split`] with a given r, so that the check value is known.
#[cfg(test)]
pub(crate) fn split_by_r(
    key_id: &KeyId,
    constants: &Constants,
    generation: u32,
    m: u8,
    stores: &[StoreId],
    key: &[u8],
    r: &[u8; R_LENGTH],
) -> Split {
    split_with(key_id, constants, generation, m, stores, key, r, gf256::split).unwrap()
}

/// One share on offer: who gave it, under which store id, and what it is.
pub struct Offer<'a> {
    /// The caller's number for who gave it.
    pub from: usize,
    /// The id that this store claims.
    pub store: &'a StoreId,
    /// The share.
    pub share: &'a Share,
}

/// A key that came back.
pub struct Joined {
    /// The key alone, without r.
    pub key: SecretBytes,
    /// Whether a check value proves it; imported keys have none.
    pub verified: bool,
    /// Whose shares made it: `from` of m offers.
    pub by: Vec<usize>,
    /// Whose shares lie on one polynomial with those: `from` of each offer.
    pub on: Vec<usize>,
    /// Whose shares are wrong: `from` of each offer that cannot be what its index must have.
    pub wrong: Vec<usize>,
    /// More shares may tell more: some share is wrong and nobody can be named for it, or there is no check value and
    /// not every share was compared.
    pub unclear: bool,
}

/// Why shares did not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Not m of them that fit their sharing, at different indices.
    #[error("{have} of the {need} shares needed")]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many join.
        need: usize,
    },
    /// No choice of m passes the check value, or, without one, they do not agree.
    #[error("the shares do not join to what their check value proves")]
    Check,
}

/// Whether `share`, given by the store that claims `store`, can be part of `sharing` at all: its index must be the
/// place of that store in the list.
pub fn fits(constants: &Constants, sharing: &Sharing, store: &StoreId, share: &Share) -> bool {
    let place = usize::from(share.index).checked_sub(1);
    let at = place.and_then(|place| sharing.stores.get(place));
    let length = usize::try_from(constants.key_bits / 8).unwrap_or(usize::MAX);
    let data = match (share.scheme, sharing.check) {
        (Scheme::Gf256, Some(_)) => length.checked_add(R_LENGTH) == Some(share.data.0.len()),
        (Scheme::Gf65521, None) => !share.data.0.is_empty(),
        _ => false,
    };
    let shape = share.m == sharing.m && share.n == sharing.n && sharing.m >= 1;
    shape && sharing.stores.len() == usize::from(sharing.n) && at == Some(store) && data
}

/// Joins a key from shares of one sharing, corrects errors where more than m are there, and tells whose were wrong.
///
/// Offers that do not fit the sharing ([`fits`]) are passed over: they are no part of it, whoever gave them. One share
/// is never counted twice: m *different* indices are needed.
///
/// # Errors
/// Too few that fit, or no choice of them that passes.
pub fn join(
    key_id: &KeyId,
    constants: &Constants,
    sharing: &Sharing,
    offers: &[Offer<'_>],
) -> Result<Joined, JoinError> {
    let fitting = offers
        .iter()
        .filter(|offer| fits(constants, sharing, offer.store, offer.share));
    let offers: Vec<&Offer<'_>> = fitting.collect();
    let mut indices: Vec<u8> = offers.iter().map(|offer| offer.share.index).collect();
    indices.sort_unstable();
    indices.dedup();
    let need = usize::from(sharing.m);
    if indices.len() < need {
        let have = indices.len();
        return Err(JoinError::TooFew { have, need });
    }
    match sharing.check {
        Some(_) => join_checked(key_id, constants, sharing, &offers),
        None => join_imported(constants, sharing, &offers),
    }
}

fn join_checked(
    key_id: &KeyId,
    constants: &Constants,
    sharing: &Sharing,
    offers: &[&Offer<'_>],
) -> Result<Joined, JoinError> {
    let passes = |choice: &Vec<usize>| {
        let chosen: Vec<(u8, &[u8])> = choice.iter().map(|at| point(offers[*at])).collect();
        // Two offers with one index are no choice of m different ones: the arithmetic refuses them.
        let secret = gf256::interpolate(&chosen, 0).ok()?;
        proves(key_id, constants, sharing, &secret).then_some((chosen, secret))
    };
    let mut choices = Choices::new(offers.len(), usize::from(sharing.m)).take(MAX_CHOICES);
    let found = choices.find_map(|choice| passes(&choice).map(|(chosen, secret)| (choice, chosen, secret)));
    let (choice, chosen, secret) = found.ok_or(JoinError::Check)?;
    let off = off_the_line(offers, &chosen);
    let on = (0..offers.len()).filter(|at| !off.contains(at));
    let on = on.map(|at| offers[at].from).collect();
    let (wrong, unclear) = blame(sharing, offers.len(), off, || {
        let others = choices.by_ref().filter_map(|choice| passes(&choice));
        let all = others.map(|(chosen, _)| off_the_line(offers, &chosen)).collect();
        (offers.len() <= MAX_TO_BLAME).then_some(all)
    });
    let (key, _) = secret.expose().split_at(secret.len() - R_LENGTH);
    Ok(Joined {
        key: SecretBytes::new(key.to_vec()),
        verified: true,
        by: choice.iter().map(|at| offers[*at].from).collect(),
        on,
        wrong: wrong.into_iter().map(|at| offers[at].from).collect(),
        unclear,
    })
}

/// Which offers do not lie on the polynomial through the chosen ones.
fn off_the_line(offers: &[&Offer<'_>], chosen: &[(u8, &[u8])]) -> BTreeSet<usize> {
    let off = |at: &usize| {
        let (index, bytes) = point(offers[*at]);
        !gf256::interpolate(chosen, index).is_ok_and(|value| bool::from(value.expose().ct_eq(bytes)))
    };
    (0..offers.len()).filter(off).collect()
}

/// Whose shares are wrong, given which ones are `off` a polynomial whose value at 0 passes; and whether somebody's are
/// but nobody can be named.
///
/// The check value proves the key, at x = 0, and not the polynomial: two liars or more whose errors cancel at 0 give
/// the right key on a wrong polynomial, and then the honest stores are off it. At most e stores lie (e < m, e <= n-m).
/// A wrong polynomial meets the true one at 0, so at m-2 honest shares at most; one that more than m-2+e shares lie on
/// is the true one. Else, where m honest shares must be among the offers, the true one is among all that pass, and
/// whoever is off each of those with no more than e off lies.
fn blame(
    sharing: &Sharing,
    offers: usize,
    off: BTreeSet<usize>,
    others: impl FnOnce() -> Option<Vec<BTreeSet<usize>>>,
) -> (BTreeSet<usize>, bool) {
    if off.is_empty() {
        return (off, false);
    }
    let (m, liars) = (usize::from(sharing.m), most_liars(sharing));
    if is_true(sharing, offers - off.len()) {
        return (off, false);
    }
    if offers >= m + liars
        && let Some(others) = others()
    {
        let all = std::iter::once(off).chain(others);
        let plausible = all.filter(|off| off.len() <= liars);
        let named = plausible.reduce(|named, off| &named & &off).unwrap_or_default();
        let unclear = named.is_empty();
        return (named, unclear);
    }
    (BTreeSet::new(), true)
}

/// e: so many stores of a sharing may lie.
fn most_liars(sharing: &Sharing) -> usize {
    usize::from(sharing.m.saturating_sub(1).min(sharing.n.saturating_sub(sharing.m)))
}

/// Whether a polynomial that `on` shares lie on, and whose value at 0 passes, is the true one for certain ([`blame`]).
fn is_true(sharing: &Sharing, on: usize) -> bool {
    on + 1 >= usize::from(sharing.m) + most_liars(sharing)
}

impl Joined {
    /// Whether the shares that it was joined from lie on the polynomial that the key was split by, so that other shares
    /// can be made again from them ([`recompute`]).
    ///
    /// The check value proves the key alone: colluding liars can join the right key on a polynomial of their own, and a
    /// share made from that one would be wrong. Without a check value, m honest shares must be among those that agree.
    pub fn proves_shares(&self, sharing: &Sharing) -> bool {
        match self.verified {
            true => is_true(sharing, self.on.len()),
            false => self.on.len() >= usize::from(sharing.m) + most_liars(sharing),
        }
    }
}

/// Keys of the original have no check value: all that is at hand must agree, and nobody can be named.
fn join_imported(constants: &Constants, sharing: &Sharing, offers: &[&Offer<'_>]) -> Result<Joined, JoinError> {
    let points: Vec<(u16, &[u8])> = offers
        .iter()
        .map(|offer| (offer.share.index.into(), offer.share.data.0.expose()))
        .collect();
    let (used, extra) = points.split_at(points.len().min(sharing.m.into()));
    let key = glite::interpolate_bytes(used, 0).map_err(|_| JoinError::Check)?;
    let agrees = |(x, bytes): &(u16, &[u8])| {
        glite::interpolate_bytes(used, *x).is_ok_and(|value| bool::from(value.expose().ct_eq(bytes)))
    };
    if !extra.iter().all(agrees) {
        return Err(JoinError::Check);
    }
    if u32::try_from(key.len()).ok().and_then(|bytes| bytes.checked_mul(8)) != Some(constants.key_bits) {
        return Err(JoinError::Check);
    }
    Ok(Joined {
        key,
        verified: false,
        by: offers.iter().map(|offer| offer.from).collect(),
        on: offers.iter().map(|offer| offer.from).collect(),
        wrong: Vec::new(),
        unclear: offers.len() < usize::from(sharing.n),
    })
}

/// Whose shares of an imported key are wrong: `from` of those off the one polynomial that so many lie on that m of them
/// are honest, where there is one. Where there is none nobody can be named.
pub fn wrong_of_imported(constants: &Constants, sharing: &Sharing, offers: &[Offer<'_>]) -> Vec<usize> {
    let fitting = offers.iter();
    let fitting = fitting.filter(|offer| fits(constants, sharing, offer.store, offer.share));
    let points: Vec<(usize, u16, &[u8])> = fitting
        .map(|offer| (offer.from, offer.share.index.into(), offer.share.data.0.expose()))
        .collect();
    let enough = usize::from(sharing.m) + most_liars(sharing);
    let off_by = |choice: Vec<usize>| {
        let chosen: Vec<(u16, &[u8])> = choice.iter().map(|at| (points[*at].1, points[*at].2)).collect();
        let off = |(_, x, bytes): &&(usize, u16, &[u8])| {
            !glite::interpolate_bytes(&chosen, *x).is_ok_and(|value| bool::from(value.expose().ct_eq(bytes)))
        };
        let off: Vec<usize> = points.iter().filter(off).map(|(from, _, _)| *from).collect();
        (points.len() - off.len() >= enough).then_some(off)
    };
    let mut choices = Choices::new(points.len(), usize::from(sharing.m)).take(MAX_CHOICES);
    choices.find_map(off_by).unwrap_or_default()
}

fn point<'a>(offer: &Offer<'a>) -> (u8, &'a [u8]) {
    (offer.share.index, offer.share.data.0.expose())
}

/// Whether `secret`, which is `key || r`, is what the sharing's check value was made of.
fn proves(key_id: &KeyId, constants: &Constants, sharing: &Sharing, secret: &SecretBytes) -> bool {
    let Some(key_length) = secret.len().checked_sub(R_LENGTH) else {
        return false;
    };
    let (key, r) = secret.expose().split_at(key_length);
    let check = check_value(key_id, constants, sharing, key, r);
    sharing
        .check
        .is_some_and(|claimed| bool::from(claimed.0.ct_eq(&check.0)))
}

/// The share that belongs at `index`, made again from shares of one sharing that joined: for a store that lost its own.
///
/// `offers` are m of those in [`Joined::on`], and [`Joined::proves_shares`]. None where they are no m shares of one
/// scheme at different indices.
pub fn recompute(sharing: &Sharing, offers: &[Offer<'_>], index: u8) -> Option<Share> {
    let scheme = offers.first()?.share.scheme;
    let same = offers.iter().all(|offer| offer.share.scheme == scheme);
    if !same || offers.len() != usize::from(sharing.m) || !(1..=sharing.n).contains(&index) {
        return None;
    }
    let data = match scheme {
        Scheme::Gf256 => {
            let points: Vec<(u8, &[u8])> = offers.iter().map(point).collect();
            gf256::interpolate(&points, index).ok()?
        }
        Scheme::Gf65521 => {
            let points: Vec<(u16, &[u8])> = offers.iter().map(point).map(|(x, bytes)| (x.into(), bytes)).collect();
            glite::interpolate_bytes(&points, index.into()).ok()?
        }
    };
    Some(Share {
        scheme,
        index,
        m: sharing.m,
        n: sharing.n,
        data: ShareData(data),
    })
}

/// All choices of `m` out of `0..count`, in lexicographic order.
struct Choices {
    count: usize,
    next: Option<Vec<usize>>,
}

impl Choices {
    fn new(count: usize, m: usize) -> Self {
        let next = (1..=count).contains(&m).then(|| (0..m).collect());
        Self { count, next }
    }
}

impl Iterator for Choices {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let current = self.next.take()?;
        let m = current.len();
        // The rightmost place that can still move on; all behind it follow on its heels.
        let movable = (0..m).rev().find(|place| current[*place] < self.count - m + place);
        self.next = movable.map(|place| {
            let mut next = current.clone();
            let start = next[place] + 1;
            next.iter_mut()
                .skip(place)
                .zip(start..)
                .for_each(|(at, value)| *at = value);
            next
        });
        Some(current)
    }
}

/// The message under the check value. `sharing.check` is not part of it.
pub fn check_message(key_id: &KeyId, constants: &Constants, sharing: &Sharing, key: &[u8]) -> Zeroizing<Vec<u8>> {
    let iv = data_encoding::HEXLOWER
        .decode(constants.iv.as_bytes())
        .unwrap_or_default();
    let frame = Frame::labelled("hydra-key-check-1")
        .text(key_id.as_str())
        .bytes(constants.registration_id.as_bytes())
        .text(&constants.cipher)
        .number(constants.key_bits)
        .bytes(&iv)
        .number(sharing.generation)
        .number(sharing.m.into())
        .number(sharing.n.into());
    let frame = sharing
        .stores
        .iter()
        .fold(frame, |frame, store| frame.text(store.as_str()));
    Zeroizing::new(frame.bytes(key).finish())
}

/// HMAC-SHA-256 (RFC 2104) over [`check_message`] under r.
pub fn check_value(key_id: &KeyId, constants: &Constants, sharing: &Sharing, key: &[u8], r: &[u8]) -> CheckValue {
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, r),
        &check_message(key_id, constants, sharing, key),
    );
    let mut value = [0; CheckValue::LENGTH];
    value.copy_from_slice(tag.as_ref());
    CheckValue(value)
}

/// The registration id of a key imported from the original: every store finds the same one alone.
///
/// `iv` is the upper-case hex text of the dump (empty for NULL), `k` the number of shares needed.
pub fn import_id(key_id: &str, iv: &str, cipher: &str, k: u32) -> RegistrationId {
    let message = Frame::labelled("hydra-import-1")
        .text(key_id)
        .text(iv)
        .text(cipher)
        .number(k)
        .finish();
    let digest = digest::digest(&digest::SHA256, &message);
    let mut id = [0; RegistrationId::LENGTH];
    id.copy_from_slice(&digest.as_ref()[..RegistrationId::LENGTH]);
    RegistrationId(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use serde_json::Value;

    fn vectors(operation: &str) -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/formats.json");
        let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let of_this = |vector: &&Value| vector["op"] == operation;
        let found: Vec<Value> = all["vectors"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of_this)
            .cloned()
            .collect();
        assert!(!found.is_empty(), "no vectors of {operation}");
        found
    }

    fn text(value: &Value) -> &str {
        value.as_str().unwrap()
    }

    fn hex(value: &Value) -> Vec<u8> {
        HEXLOWER.decode(text(value).as_bytes()).unwrap()
    }

    fn number<T: TryFrom<u64>>(value: &Value) -> T {
        T::try_from(value.as_u64().unwrap()).ok().unwrap()
    }

    fn stores(input: &Value) -> Vec<StoreId> {
        let ids = input["stores"].as_array().unwrap().iter();
        ids.map(|id| text(id).parse().unwrap()).collect()
    }

    fn parts(input: &Value) -> (KeyId, Constants, Sharing) {
        let constants = Constants {
            registration_id: text(&input["registration"]).parse().unwrap(),
            cipher: text(&input["cipher"]).to_owned(),
            key_bits: number(&input["bits"]),
            iv: text(&input["iv"]).to_owned(),
        };
        let sharing = Sharing {
            generation: number(&input["generation"]),
            m: number(&input["m"]),
            n: number(&input["n"]),
            stores: stores(input),
            check: input["check"].as_str().map(|check| check.parse().unwrap()),
        };
        (KeyId::new(text(&input["key_id"])).unwrap(), constants, sharing)
    }

    #[test]
    fn check_values_of_the_vectors() {
        for vector in vectors("check-value") {
            let (key_id, constants, sharing) = parts(&vector["in"]);
            let (key, r) = (hex(&vector["in"]["key"]), hex(&vector["in"]["r"]));
            let expected = &vector["expect"]["ok"];
            assert_eq!(
                *check_message(&key_id, &constants, &sharing, &key),
                hex(&expected["message"])
            );
            let check = check_value(&key_id, &constants, &sharing, &key, &r);
            assert_eq!(check.to_string(), text(&expected["check"]), "{}", vector["name"]);
        }
    }

    #[test]
    fn import_ids_of_the_vectors() {
        for vector in vectors("import-id") {
            let input = &vector["in"];
            let id = import_id(
                text(&input["key_id"]),
                text(&input["iv"]),
                text(&input["cipher"]),
                number(&input["k"]),
            );
            assert_eq!(id.to_string(), text(&vector["expect"]["ok"]["registration"]));
        }
    }

    #[test]
    fn splits_of_the_vectors() {
        for vector in vectors("key-split") {
            let input = &vector["in"];
            let (key_id, constants, sharing) = parts(input);
            let coefficients: Vec<Vec<u8>> = input["coefficients"].as_array().unwrap().iter().map(hex).collect();
            let split = split_with(
                &key_id,
                &constants,
                sharing.generation,
                sharing.m,
                &sharing.stores,
                &hex(&input["key"]),
                &hex(&input["r"]).try_into().unwrap(),
                |secret, m, n| gf256::split_by(secret, m, n, &coefficients),
            )
            .unwrap();
            let expected = &vector["expect"]["ok"];
            let shares: Vec<Vec<u8>> = expected["shares"].as_array().unwrap().iter().map(hex).collect();
            let made: Vec<Vec<u8>> = split
                .shares
                .iter()
                .map(|share| share.data.0.expose().to_vec())
                .collect();
            assert_eq!(made, shares);
            assert_eq!(split.sharing.check.unwrap().to_string(), text(&expected["check"]));
        }
    }

    #[test]
    fn joins_and_refusals_of_the_vectors() {
        for vector in vectors("key-join") {
            let input = &vector["in"];
            let (key_id, constants, sharing) = parts(input);
            let given = input["shares"].as_object().unwrap().iter();
            let shares: Vec<Share> = given
                .map(|(index, data)| Share {
                    scheme: Scheme::Gf256,
                    index: index.parse().unwrap(),
                    m: sharing.m,
                    n: sharing.n,
                    data: ShareData(SecretBytes::new(hex(data))),
                })
                .collect();
            let offers = offers(&sharing, &shares);
            let joined = join(&key_id, &constants, &sharing, &offers);
            match vector["expect"]["ok"]["key"].as_str() {
                Some(key) => assert_eq!(HEXLOWER.encode(joined.ok().unwrap().key.expose()), key),
                None => assert_eq!(joined.err(), Some(JoinError::Check), "{}", vector["name"]),
            }
        }
    }

    fn offers<'a>(sharing: &'a Sharing, shares: &'a [Share]) -> Vec<Offer<'a>> {
        let offer = |(from, share): (usize, &'a Share)| Offer {
            from,
            store: &sharing.stores[usize::from(share.index) - 1],
            share,
        };
        shares.iter().enumerate().map(offer).collect()
    }

    fn example(m: u8, n: u8) -> (KeyId, Constants, Split) {
        let key_id = KeyId::new("/myvo/k").unwrap();
        let constants = Constants {
            registration_id: RegistrationId([7; 16]),
            cipher: "eds-1".into(),
            key_bits: 256,
            iv: String::new(),
        };
        let stores: Vec<StoreId> = (0..n).map(|store| format!("ks-{store}").parse().unwrap()).collect();
        let split = split(&key_id, &constants, 1, m, &stores, &[9; 32]).unwrap();
        (key_id, constants, split)
    }

    fn spoil(share: &mut Share) {
        let mut bytes = share.data.0.expose().to_vec();
        bytes[3] ^= 0x10;
        share.data = ShareData(SecretBytes::new(bytes));
    }

    #[test]
    fn wrong_shares_are_found_and_no_honest_store_is_named() {
        for (m, n) in [(1, 3), (2, 3), (2, 5), (3, 5), (3, 7), (4, 6)] {
            let most = usize::from(m - 1).min(usize::from(n - m));
            for spoilt in 0u32..1 << n {
                let (key_id, constants, mut split) = example(m, n);
                let liars: Vec<usize> = (0..usize::from(n)).filter(|place| spoilt & (1 << place) != 0).collect();
                liars.iter().for_each(|place| spoil(&mut split.shares[*place]));
                let joined = join(
                    &key_id,
                    &constants,
                    &split.sharing,
                    &offers(&split.sharing, &split.shares),
                );
                let honest = usize::from(n) - liars.len();
                let Ok(joined) = joined else {
                    assert!(
                        honest < usize::from(m),
                        "{honest} good shares of {m} needed did not join"
                    );
                    continue;
                };
                assert_eq!(joined.key.expose(), [9; 32]);
                assert!(joined.verified && joined.by.len() == usize::from(m));
                if liars.len() <= most {
                    assert!(
                        joined.wrong.iter().all(|named| liars.contains(named)),
                        "{liars:?} {:?}",
                        joined.wrong
                    );
                }
                if liars.len() == 1 && most > 0 {
                    assert_eq!(joined.wrong, liars);
                }
            }
        }
    }

    /// Whoever lies in every explanation of the shares with no more than e liars: more nobody can know.
    fn certain_liars(key_id: &KeyId, constants: &Constants, split: &Split) -> Vec<usize> {
        let (n, m) = (split.shares.len(), usize::from(split.sharing.m));
        let most = most_liars(&split.sharing);
        let all = offers(&split.sharing, &split.shares);
        let explains = |liars: u32| {
            let others: Vec<&Offer<'_>> = (0..n).filter(|at| liars & (1 << at) == 0).map(|at| &all[at]).collect();
            let chosen: Vec<(u8, &[u8])> = others[..m].iter().map(|offer| point(offer)).collect();
            let secret = gf256::interpolate(&chosen, 0).unwrap();
            let on =
                |offer: &&Offer<'_>| gf256::interpolate(&chosen, offer.share.index).unwrap().expose() == point(offer).1;
            proves(key_id, constants, &split.sharing, &secret) && others.iter().all(on)
        };
        let few = (0u32..1 << n).filter(|liars| liars.count_ones() as usize <= most);
        let certain = few.filter(|liars| explains(*liars)).reduce(|one, other| one & other);
        let certain = certain.unwrap_or_default();
        (0..n).filter(|at| certain & (1 << at) != 0).collect()
    }

    /// Errors of up to e = min(m-1, n-m) stores, of any kind: the key comes back, and those named are all that anybody
    /// could name. Errors that have nothing to do with each other name all who lie.
    #[test]
    fn all_liars_that_anybody_could_name_are_named() {
        type Spoil = fn(&mut Share);
        let independent: Spoil = |share| {
            let mut bytes = share.data.0.expose().to_vec();
            let index = share.index;
            bytes.iter_mut().zip(0u8..).for_each(|(byte, at)| {
                *byte ^= (index.wrapping_mul(37) ^ at).wrapping_mul(index.wrapping_add(at)) | 1;
            });
            share.data = ShareData(SecretBytes::new(bytes));
        };
        for (m, n) in [(2, 3), (2, 4), (2, 5), (3, 5), (3, 6), (4, 6), (4, 7)] {
            let most = u32::from((m - 1).min(n - m));
            for spoilt in (0u32..1 << n).filter(|spoilt| spoilt.count_ones() <= most) {
                let liars: Vec<usize> = (0..usize::from(n)).filter(|place| spoilt & (1 << place) != 0).collect();
                for (kind, spoil) in [(0, independent), (1, spoil as Spoil)] {
                    let (key_id, constants, mut split) = example(m, n);
                    liars.iter().for_each(|place| spoil(&mut split.shares[*place]));
                    let all = offers(&split.sharing, &split.shares);
                    let joined = join(&key_id, &constants, &split.sharing, &all).ok().unwrap();
                    assert_eq!(joined.key.expose(), [9; 32]);
                    let certain = certain_liars(&key_id, &constants, &split);
                    assert_eq!(joined.wrong, certain, "{m} of {n}, {liars:?}");
                    assert!(certain.iter().all(|named| liars.contains(named)));
                    assert!(kind == 1 || certain == liars, "{m} of {n}, {liars:?}: {certain:?}");
                }
            }
        }
    }

    #[test]
    fn two_liars_whose_errors_cancel_do_not_get_an_honest_store_named() {
        // At x = 1, 2, 3 the weights of the first two shares are equal: the same error in both cancels at 0.
        let (key_id, constants, mut split) = example(3, 5);
        split.shares[..2].iter_mut().for_each(spoil);
        let four = &split.shares[..4];
        let joined = join(&key_id, &constants, &split.sharing, &offers(&split.sharing, four))
            .ok()
            .unwrap();
        assert_eq!((joined.by, joined.wrong, joined.unclear), (vec![0, 1, 2], vec![], true));
        assert_eq!(joined.key.expose(), [9; 32]);
    }

    #[test]
    fn one_share_does_not_count_twice() {
        let (key_id, constants, split) = example(2, 3);
        let twice = [&split.shares[0], &split.shares[0]];
        let offers: Vec<Offer<'_>> = twice
            .iter()
            .enumerate()
            .map(|(from, share)| Offer {
                from,
                store: &split.sharing.stores[0],
                share,
            })
            .collect();
        let refused = join(&key_id, &constants, &split.sharing, &offers).err();
        assert_eq!(refused, Some(JoinError::TooFew { have: 1, need: 2 }));
    }

    #[test]
    fn a_share_from_another_store_than_its_index_says_is_passed_over() {
        let (key_id, constants, split) = example(2, 3);
        let offers: Vec<Offer<'_>> = [0, 1]
            .iter()
            .map(|from| Offer {
                from: *from,
                store: &split.sharing.stores[0],
                share: &split.shares[*from],
            })
            .collect();
        let refused = join(&key_id, &constants, &split.sharing, &offers).err();
        assert_eq!(refused, Some(JoinError::TooFew { have: 1, need: 2 }));
    }

    #[test]
    fn a_lost_share_is_made_again() {
        let (_, _, split) = example(2, 4);
        let all = offers(&split.sharing, &split.shares);
        let again = recompute(&split.sharing, &all[1..3], 4).unwrap();
        assert!(again.data.0.expose() == split.shares[3].data.0.expose());
        assert!(recompute(&split.sharing, &all[1..2], 4).is_none());
        assert!(recompute(&split.sharing, &all[1..3], 0).is_none());
    }

    #[test]
    fn an_imported_key_joins_unverified_and_only_where_all_shares_agree() {
        let (key_id, mut constants, split) = example(2, 3);
        constants.key_bits = 128;
        constants.cipher = "bf-cbc".into();
        let sharing = Sharing {
            generation: 0,
            check: None,
            ..split.sharing
        };
        let key = [0x11; 16];
        let parts = glite::split_bytes(&key, 3, 2).unwrap();
        let share = |(index, data)| Share {
            scheme: Scheme::Gf65521,
            index,
            m: 2,
            n: 3,
            data: ShareData(data),
        };
        let mut shares: Vec<Share> = (1..).zip(parts).map(share).collect();
        for chosen in [&shares[..2], &shares[1..], &shares[..]] {
            let joined = join(&key_id, &constants, &sharing, &offers(&sharing, chosen))
                .ok()
                .unwrap();
            assert_eq!(joined.key.expose(), key);
            assert!(!joined.verified && joined.wrong.is_empty());
            // nothing but a further share speaks for it
            assert_eq!(joined.unclear, chosen.len() < 3);
        }
        let mut bytes = shares[2].data.0.expose().to_vec();
        bytes[1] ^= 1;
        shares[2].data = ShareData(SecretBytes::new(bytes));
        let refused = join(&key_id, &constants, &sharing, &offers(&sharing, &shares)).err();
        assert_eq!(refused, Some(JoinError::Check));
        // any one of three may be the wrong one
        assert!(wrong_of_imported(&constants, &sharing, &offers(&sharing, &shares)).is_empty());
    }

    #[test]
    fn a_wrong_share_of_an_imported_key_is_named_where_enough_others_agree() {
        let (_, mut constants, split) = example(2, 5);
        constants.key_bits = 128;
        let sharing = Sharing {
            generation: 0,
            check: None,
            ..split.sharing
        };
        let parts = glite::split_bytes(&[0x11; 16], 5, 2).unwrap();
        let share = |(index, data)| Share {
            scheme: Scheme::Gf65521,
            index,
            m: 2,
            n: 5,
            data: ShareData(data),
        };
        let mut shares: Vec<Share> = (1..).zip(parts).map(share).collect();
        let mut bytes = shares[1].data.0.expose().to_vec();
        bytes[0] = bytes[0].wrapping_add(1) & 0x7f;
        shares[1].data = ShareData(SecretBytes::new(bytes));
        let named = |shares: &[Share]| wrong_of_imported(&constants, &sharing, &offers(&sharing, shares));
        assert_eq!(named(&shares), [1]);
        assert_eq!(named(&shares[..4]), [1]);
        // three others must agree
        assert!(named(&shares[..3]).is_empty());
        assert!(named(&shares[2..]).is_empty(), "all agree");
    }

    #[test]
    fn choices_are_all_and_each_once() {
        let found: Vec<Vec<usize>> = Choices::new(4, 2).collect();
        assert_eq!(found, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(Choices::new(3, 3).count(), 1);
        assert_eq!(Choices::new(2, 3).count() + Choices::new(2, 0).count(), 0);
    }
}
