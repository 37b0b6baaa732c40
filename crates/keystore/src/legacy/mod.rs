//! Takes the keys of an original Hydra over into a store of ours, from dumps of its databases
//! (`docs/src/operating.md`).
//!
//! What becomes of a key is decided without I/O ([`candidates`], and the store's own rules); [`import`] writes it down,
//! all of it or nothing. Each store imports alone and finds the same registration ids and change ids as its fellows.
//! What cannot be imported as it was is left out and reported: nothing is guessed.

pub mod dump;

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use hydra_core::frame::Frame;
use hydra_core::ids::{ChangeId, StoreId};
use hydra_core::key_id::{KeyId, KeyIdError};
use hydra_core::keystore::sharing::import_id;
use hydra_core::keystore::store::{self, Context, Held, Message, Reply};
use hydra_core::keystore::wire::{Constants, ItemResult, Put, Scheme, Share, ShareData, Sharing, State, Status};
use hydra_core::permissions::{AclEntry, Caller, DEFAULT_GROUP, PermissionRecord, Permissions};
use hydra_core::secret::SecretBytes;
use hydra_service::principal;
use rusqlite::Connection;

use crate::audit::SignedHead;
use crate::backup::{Store, line};
use crate::database::{self, DatabaseError, Lock};
use dump::{Dump, EntryRow, KeyRow};

/// What stands in the place of a DN where an entry was brought by an import.
const PLACED_BY: &str = "hydra-keystore import-legacy";

/// What the dumps do not say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All stores of the keys, in the order of their share indices.
    pub stores: Vec<StoreId>,
    /// Which of them imports.
    pub own: StoreId,
    /// The most lines that an ACL may have here.
    pub acl_limit: usize,
}

/// Why a list of stores is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// One twice, or too many.
    #[error("1 to 255 stores, each once, hold the shares of a key")]
    Stores,
    /// The store that imports is not among them.
    #[error("this store, `{0}`, is not among those that hold the shares")]
    NotThere(StoreId),
}

impl Plan {
    /// Checks the stores.
    ///
    /// # Errors
    /// [`PlanError`]
    pub fn new(stores: Vec<StoreId>, own: StoreId, acl_limit: usize) -> Result<Self, PlanError> {
        let different: BTreeSet<_> = stores.iter().collect();
        if different.len() != stores.len() || !(1..=255).contains(&stores.len()) {
            return Err(PlanError::Stores);
        }
        if !stores.contains(&own) {
            return Err(PlanError::NotThere(own));
        }
        Ok(Self { stores, own, acl_limit })
    }

    /// The index of the store that imports, from 1.
    fn index(&self) -> usize {
        self.stores
            .iter()
            .position(|store| *store == self.own)
            .map_or(0, |place| place + 1)
    }
}

/// Why a key is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Skip {
    /// Its name is not UTF-8.
    #[error("the key id is not UTF-8: dump with the character set utf8mb4")]
    NotUtf8,
    /// Its name cannot be a key id.
    #[error("the key id is not one")]
    KeyId(#[source] KeyIdError),
    /// The original took these for one.
    #[error("the dumps have it in several spellings, which the original took for one: {}", .0.join(", "))]
    Spellings(Vec<String>),
    /// An entry of something else.
    #[error("its schema is `{0}`, not `eds`")]
    Schema(String),
    /// No row in `eds`.
    #[error("it has no key")]
    NoKey,
    /// The dumps do not agree.
    #[error("the dumps do not agree on its {0}")]
    Disagree(&'static str),
    /// Two dumps have a share of one index.
    #[error("two dumps have a share {0}")]
    TwoShares(i64),
    /// Not enough dumps have it.
    #[error("{have} of the {need} shares needed are in the dumps")]
    TooFew {
        /// How many.
        have: usize,
        /// How many join.
        need: i64,
    },
    /// The share of another store.
    #[error("no share {own}, which would be this store's; the dumps have {found}: another order of stores?")]
    NotOurs {
        /// The index looked for.
        own: usize,
        /// Those that are there.
        found: String,
    },
    /// K or the index does not fit the stores.
    #[error("share {index} of those of which {needed} join does not fit {stores} stores")]
    Place {
        /// From 1.
        index: i64,
        /// K.
        needed: i64,
        /// How many were given.
        stores: usize,
    },
    /// The share is no hex digits in groups of four.
    #[error("its share is no hex digits in groups of four")]
    Share,
    /// The number of bits is not that of the share.
    #[error("its key should have `{said}` bits and has {has}")]
    Bits {
        /// As the dump has it.
        said: String,
        /// As the share has it.
        has: u32,
    },
    /// Cipher or iv do not read.
    #[error("its {0} does not read")]
    Text(&'static str),
    /// Nobody owns it.
    #[error("its owner is not among the principals")]
    NoOwner,
    /// A name that cannot be a principal.
    #[error("a principal of its permissions is not UTF-8, is empty, too long or has control characters")]
    Principal,
    /// Bits that the original does not have.
    #[error("{0} is no set of permissions")]
    Permissions(i64),
    /// More lines than the store allows.
    #[error("its ACL has {have} lines, this store allows {limit} (`entries.acl`)")]
    Acl {
        /// How many.
        have: usize,
        /// The limit.
        limit: usize,
    },
    /// It was removed here since: never brought back.
    #[error("it was removed here")]
    Removed,
    /// It was stopped here.
    #[error("it was stopped here")]
    Stopped,
    /// Another key has its name.
    #[error("the key id is taken by another registration here")]
    Taken,
    /// The same registration, with another share or sharing.
    #[error("it is here already, with another share or other stores")]
    Differs,
    /// The store's own rules.
    #[error("this store does not take it: {0}")]
    Refused(String),
}

/// A key that can be imported.
pub struct Candidate {
    /// Its message to the store, as if somebody entitled had put it there.
    pub put: Put,
    /// Seconds since 1970.
    pub created: Option<u64>,
}

/// What is in the dumps.
#[derive(Default)]
pub struct Candidates {
    /// In order of key id.
    pub keys: Vec<Candidate>,
    /// In order of key id.
    pub skipped: Vec<(String, Skip)>,
    /// Rows of `eds` without an entry: what the original left behind at a removal. Never brought back.
    pub orphan_keys: usize,
    /// Rows of `t_acl` without an entry or a principal.
    pub orphan_acl: usize,
}

/// What one database held under one name.
struct Found {
    key: Option<KeyRow>,
    record: Result<PermissionRecord, Skip>,
    schema: Option<String>,
    created: Option<u64>,
}

/// Decides what of the dumps can be imported.
pub fn candidates(dumps: Vec<Dump>, plan: &Plan) -> Candidates {
    let mut all = Candidates::default();
    let several = dumps.len() > 1;
    let mut by_name: BTreeMap<Vec<u8>, Vec<Found>> = BTreeMap::new();
    for mut dump in dumps {
        let mut acl: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        for row in &dump.acl {
            if dump.entries.contains_key(&row.entry) && dump.principals.contains_key(&row.principal) {
                acl.entry(row.entry).or_default().push((row.principal, row.permissions));
            } else {
                all.orphan_acl += 1;
            }
        }
        for (id, entry) in std::mem::take(&mut dump.entries) {
            let found = Found {
                record: record(&dump, &entry, &acl.remove(&id).unwrap_or_default(), plan),
                schema: entry.schema.and_then(|id| other_schema(&dump, id)),
                created: entry.created.as_deref().and_then(seconds),
                key: dump.keys.remove(&id),
            };
            by_name.entry(entry.name).or_default().push(found);
        }
        all.orphan_keys += dump.keys.len();
    }
    let mut spellings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in by_name.keys() {
        let name = String::from_utf8_lossy(name).into_owned();
        spellings.entry(name.to_lowercase()).or_default().push(name);
    }
    for (name, found) in by_name {
        let text = String::from_utf8_lossy(&name).into_owned();
        let decided = match spellings.get(&text.to_lowercase()) {
            _ if text.as_bytes() != name => Err(Skip::NotUtf8),
            Some(all) if all.len() > 1 => Err(Skip::Spellings(all.clone())),
            _ => candidate(&text, found, plan, several),
        };
        match decided {
            Ok(candidate) => all.keys.push(candidate),
            Err(skip) => all.skipped.push((text, skip)),
        }
    }
    all
}

fn other_schema(dump: &Dump, id: i64) -> Option<String> {
    let name = dump.schemas.get(&id).filter(|name| name.as_slice() != b"eds")?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// K and the index from 0; where the schema has no such columns, the whole key is in the one database.
fn place(key: &KeyRow) -> (i64, i64) {
    key.place.unwrap_or((1, 0))
}

fn candidate(name: &str, found: Vec<Found>, plan: &Plan, several: bool) -> Result<Candidate, Skip> {
    if let Some(schema) = found.iter().find_map(|found| found.schema.clone()) {
        return Err(Skip::Schema(schema));
    }
    let mut found: Vec<(KeyRow, Found)> = found
        .into_iter()
        .filter_map(|mut found| found.key.take().map(|key| (key, found)))
        .collect();
    let first = found.first().map(|(key, _)| key).ok_or(Skip::NoKey)?;
    let whole = first.place.is_none();
    let (needed, _) = place(first);
    let agree = |what, same: fn(&KeyRow, &KeyRow) -> bool| {
        let all = found.iter().all(|(key, _)| same(first, key));
        if all { Ok(()) } else { Err(Skip::Disagree(what)) }
    };
    agree("cipher", |a, b| a.cipher == b.cipher)?;
    agree("iv", |a, b| a.iv == b.iv)?;
    agree("key length", |a, b| a.bits == b.bits)?;
    agree("number of shares needed", |a, b| place(a).0 == place(b).0)?;
    let mut indices: Vec<i64> = found.iter().map(|(key, _)| place(key).1.saturating_add(1)).collect();
    indices.sort_unstable();
    if let Some(pair) = indices.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Skip::TwoShares(pair[0]));
    }
    if several && i64::try_from(indices.len()).is_ok_and(|have| have < needed) {
        let have = indices.len();
        return Err(Skip::TooFew { have, need: needed });
    }
    // A whole key has no other stores: it is shared with itself, until its owner reshares it.
    let stores = if whole {
        vec![plan.own.clone()]
    } else {
        plan.stores.clone()
    };
    let own = if whole { 1 } else { plan.index() };
    let is_own = |(key, _): &(KeyRow, Found)| usize::try_from(place(key).1).is_ok_and(|index| index + 1 == own);
    let Some(at) = found.iter().position(is_own) else {
        let found = indices.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        return Err(Skip::NotOurs { own, found });
    };
    let (key, found) = found.swap_remove(at);
    let index = place(&key).1.saturating_add(1);
    let misfit = Skip::Place {
        index,
        needed,
        stores: stores.len(),
    };
    let (m, n) = (u8::try_from(needed), u8::try_from(stores.len()));
    let (Ok(m), Ok(n), Ok(index)) = (m, n, u8::try_from(index)) else {
        return Err(misfit);
    };
    if m < 1 || m > n || index > n {
        return Err(misfit);
    }
    let sharing = Sharing {
        generation: 0,
        m,
        n,
        stores,
        check: None,
    };
    message(name, &key, found, sharing, index)
}

fn message(name: &str, key: &KeyRow, found: Found, sharing: Sharing, index: u8) -> Result<Candidate, Skip> {
    let key_id = KeyId::imported(name).map_err(Skip::KeyId)?;
    let needed = u32::from(sharing.m);
    let registration_id = import_id(name, &key.iv, &key.cipher, needed);
    let share = share_bytes(key.share.as_ref().ok_or(Skip::Share)?)?;
    let has = u32::try_from(share.len() * 8).map_err(|_| Skip::Share)?;
    if !key.bits.is_empty() && key.bits.trim().parse() != Ok(has) {
        let said = key.bits.clone();
        return Err(Skip::Bits { said, has });
    }
    let iv = key.iv.to_ascii_lowercase();
    if data_encoding::HEXLOWER.decode(iv.as_bytes()).is_err() {
        return Err(Skip::Text("iv"));
    }
    let cipher = key.cipher.to_ascii_lowercase();
    if cipher.is_empty() {
        return Err(Skip::Text("cipher"));
    }
    let (share, has) = as_used(&cipher, share, has);
    let mut permissions = found.record?;
    permissions.change_id = change_id(&key_id, registration_id.as_bytes(), &permissions);
    let share = Share {
        scheme: Scheme::Gf65521,
        index,
        m: sharing.m,
        n: sharing.n,
        data: ShareData(share),
    };
    let put = Put {
        key_id,
        registration_id,
        cipher,
        key_bits: has,
        iv,
        sharing,
        share,
        state: State::Confirmed,
        permissions,
    };
    let created = found.created;
    Ok(Candidate { put, created })
}

/// The bytes that the hex digits spell.
fn share_bytes(digits: &[u8]) -> Result<SecretBytes, Skip> {
    if digits.is_empty() || !digits.len().is_multiple_of(4) {
        return Err(Skip::Share);
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits)
        .map_err(|_| Skip::Share)?;
    Ok(SecretBytes::new(bytes))
}

/// Ciphers with keys of several lengths, of which the original only ever used the usual one.
const SEVERAL_LENGTHS: [&str; 6] = ["bf-cbc", "bf", "blowfish", "cast5-cbc", "cast-cbc", "cast"];
const USUAL_BYTES: usize = 16;

/// What of a share, and how many bits, the original's files were encrypted with: `-k` never reached its cipher, so of a
/// longer key the first bytes counted. Each group of two bytes is shared by itself, so a share is cut as its key is.
fn as_used(cipher: &str, share: SecretBytes, bits: u32) -> (SecretBytes, u32) {
    match share.expose().get(..USUAL_BYTES) {
        Some(used) if SEVERAL_LENGTHS.contains(&cipher) => (SecretBytes::new(used.to_vec()), 8 * USUAL_BYTES as u32),
        _ => (share, bits),
    }
}

/// The record of an entry; its change id is found later.
fn record(dump: &Dump, entry: &EntryRow, acl: &[(i64, i64)], plan: &Plan) -> Result<PermissionRecord, Skip> {
    let name = |id: i64| dump.principals.get(&id).map(|name| principal_name(name)).transpose();
    let owner = entry.owner.map(name).transpose()?.flatten().ok_or(Skip::NoOwner)?;
    let group = entry.group.map(name).transpose()?.flatten();
    let mut lines: Vec<AclEntry> = Vec::new();
    for (id, bits) in acl {
        let (Some(principal), permissions) = (name(*id)?, bits_of(*bits)?) else {
            continue;
        };
        // Two spellings of one principal may have a line each: it had what either granted.
        match lines.iter_mut().find(|line| line.principal == principal) {
            Some(line) => line.permissions = line.permissions.union(permissions),
            None => lines.push(AclEntry { principal, permissions }),
        }
    }
    if lines.len() > plan.acl_limit {
        let (have, limit) = (lines.len(), plan.acl_limit);
        return Err(Skip::Acl { have, limit });
    }
    // Rows come in no order that stores would share.
    lines.sort_by(|a, b| a.principal.cmp(&b.principal));
    let [user, group_permissions, other] = entry.permissions;
    Ok(PermissionRecord {
        owner,
        group: group.unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
        user: bits_of(user)?,
        group_permissions: bits_of(group_permissions)?,
        other: bits_of(other)?,
        acl: lines,
        version: 1,
        change_id: ChangeId([0; ChangeId::LENGTH]),
    })
}

fn principal_name(name: &[u8]) -> Result<String, Skip> {
    const MOST_BYTES: usize = 1024;
    let text = std::str::from_utf8(name).map_err(|_| Skip::Principal)?;
    let text = principal::canonical(text);
    if text.is_empty() || text.len() > MOST_BYTES || text.chars().any(char::is_control) {
        return Err(Skip::Principal);
    }
    Ok(text)
}

/// The original's database has x = 16 and l = 32, and eight bits in a signed byte.
fn bits_of(number: i64) -> Result<Permissions, Skip> {
    const LETTERS: [char; 8] = ['p', 'd', 'r', 'w', 'x', 'l', 'g', 's'];
    let bits = u8::try_from(number).or_else(|_| i8::try_from(number).map(i8::cast_unsigned));
    let bits = bits.map_err(|_| Skip::Permissions(number))?;
    let held = LETTERS.iter().enumerate().filter(|(place, _)| bits & (1 << place) != 0);
    let text: String = held.map(|(_, letter)| letter).collect();
    text.parse().map_err(|_| Skip::Permissions(number))
}

/// Stores that import the same permissions have the same change: two that differ are seen to.
fn change_id(key_id: &KeyId, registration: &[u8], record: &PermissionRecord) -> ChangeId {
    let frame = Frame::labelled("hydra-import-permissions-1")
        .text(key_id.as_str())
        .bytes(registration)
        .text(&record.owner)
        .text(&record.group)
        .text(&record.user.to_string())
        .text(&record.group_permissions.to_string())
        .text(&record.other.to_string());
    let frame = record.acl.iter().fold(frame, |frame, line| {
        frame.text(&line.principal).text(&line.permissions.to_string())
    });
    let hash = digest::digest(&digest::SHA256, &frame.finish());
    let mut id = [0; ChangeId::LENGTH];
    id.copy_from_slice(&hash.as_ref()[..ChangeId::LENGTH]);
    ChangeId(id)
}

/// `YYYY-MM-DD HH:MM:SS`, taken for UTC as mysqldump writes it.
fn seconds(text: &str) -> Option<u64> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    u64::try_from(time.timestamp().as_second()).ok()
}

// --- into the database ------------------------------------------------------------------------------------------------

/// What came of an import.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Entries made.
    pub imported: usize,
    /// Keys that were here already, as the dump has them or reshared since.
    pub present: usize,
    /// Keys left out, in order.
    pub skipped: Vec<(String, Skip)>,
    /// See [`Candidates`].
    pub orphan_keys: usize,
    /// See [`Candidates`].
    pub orphan_acl: usize,
}

/// Imports into the database of a store that is stopped, all in one transaction; a dry run changes nothing.
///
/// # Errors
/// [`DatabaseError`]; then nothing was changed.
pub fn import(
    to: &Store<'_>,
    candidates: Candidates,
    plan: &Plan,
    dry: bool,
    now: u64,
) -> Result<Report, DatabaseError> {
    let _lock = Lock::take(to.database)?;
    let mut connection = database::open_writer(to.database, to.id, 0)?;
    let keys = database::data_keys(&connection, to.key)?;
    let transaction = connection.transaction()?;
    let mut report = Report {
        skipped: candidates.skipped,
        orphan_keys: candidates.orphan_keys,
        orphan_acl: candidates.orphan_acl,
        ..Report::default()
    };
    for candidate in candidates.keys {
        let name = candidate.put.key_id.to_string();
        match one(&transaction, &keys, candidate, plan, now)? {
            Done::Imported => report.imported += 1,
            Done::Present => report.present += 1,
            Done::Skipped(skip) => report.skipped.push((name, skip)),
        }
    }
    report.skipped.sort_by(|(a, _), (b, _)| a.cmp(b));
    if !dry && report.imported > 0 {
        let head = database::audit_head(&transaction)?;
        SignedHead::sign(&keys, to.id, &head, now).save(&transaction)?;
        transaction.commit()?;
    }
    Ok(report)
}

enum Done {
    Imported,
    Present,
    Skipped(Skip),
}

fn one(
    connection: &Connection,
    keys: &crate::rest::DataKeys,
    candidate: Candidate,
    plan: &Plan,
    now: u64,
) -> Result<Done, DatabaseError> {
    let put = candidate.put;
    let key_id = put.key_id.clone();
    let mut held = database::load(connection, keys, &key_id, |_| true)?;
    if let Some(done) = met_before(&held, &put) {
        return Ok(done);
    }
    let words = format!(
        "entry made, share {} of {}, {} needed",
        put.share.index, put.share.n, put.share.m
    );
    let context = Context {
        caller: Caller {
            dn: PLACED_BY.to_owned(),
            fqans: Vec::new(),
            administrator: false,
        },
        may_create: true,
        recovery: false,
        at_limit: false,
        acl_limit: plan.acl_limit,
        store: plan.own.clone(),
        now,
    };
    let Reply::Changed(outcome) = store::apply(&mut held, &context, Message::Put(put)) else {
        return Ok(Done::Skipped(Skip::Refused("not a change".to_owned())));
    };
    match &outcome.result {
        ItemResult::Done(answer) if answer.status == Status::Ok => {}
        ItemResult::Done(answer) => {
            let said = format!("{:?}", answer.status).to_lowercase();
            return Ok(Done::Skipped(Skip::Refused(said)));
        }
        ItemResult::Problem { problem } => {
            let said = problem.detail.clone().unwrap_or_else(|| problem.title.clone());
            return Ok(Done::Skipped(Skip::Refused(said)));
        }
    }
    if let (Some(entry), Some(created)) = (&mut held.entry, candidate.created) {
        entry.created = created.min(now);
    }
    database::save(connection, keys, &key_id, &held, &outcome.effects, (PLACED_BY, now))?;
    line(connection, "import-legacy", key_id.as_str(), &words, now)?;
    Ok(Done::Imported)
}

/// Whether the store knows the key, or once did.
fn met_before(held: &Held, put: &Put) -> Option<Done> {
    let registration = put.registration_id;
    let removed = held
        .tombstones
        .iter()
        .any(|tombstone| tombstone.registration_id == registration);
    if removed {
        return Some(Done::Skipped(Skip::Removed));
    }
    if held.stop_marks.contains(&registration) {
        return Some(Done::Skipped(Skip::Stopped));
    }
    let entry = held.entry.as_ref()?;
    if entry.constants.registration_id != registration {
        return Some(Done::Skipped(Skip::Taken));
    }
    let wanted = Constants {
        registration_id: registration,
        cipher: put.cipher.clone(),
        key_bits: put.key_bits,
        iv: put.iv.clone(),
    };
    let reshared = entry.sharings.iter().any(|stored| stored.sharing.generation > 0);
    let same = entry.sharings.iter().any(|stored| {
        stored.sharing == put.sharing && stored.share.as_ref().is_some_and(|share| share.same_as(&put.share))
    });
    Some(if entry.constants == wanted && (reshared || same) {
        Done::Present
    } else {
        Done::Skipped(Skip::Differs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_longer_than_the_original_used_is_cut_to_what_it_used() {
        let share = |bytes: usize| SecretBytes::new((0..bytes).map(|byte| byte as u8).collect());
        for (cipher, bytes, bits) in [
            ("bf-cbc", 32, 128),
            ("blowfish", 24, 128),
            ("bf-cbc", 16, 128),
            // too short: the original read past it, and nothing helps
            ("bf-cbc", 8, 64),
            ("aes-256-cbc", 32, 256),
        ] {
            let (used, has) = as_used(cipher, share(bytes), 8 * bytes as u32);
            assert_eq!((used.len() * 8, has), (bits as usize, bits), "{cipher} {bytes}");
            assert_eq!(used.expose(), share(bits as usize / 8).expose());
        }
    }
}
