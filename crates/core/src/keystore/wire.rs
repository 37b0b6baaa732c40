//! The messages between a client and one key store, version 1: JSON bodies over HTTPS (`docs/src/formats/protocol.md`).
//!
//! Requests refuse unknown fields at any depth ([`parse_request`]); answers may grow, so readers ignore what they do
//! not know, also inside types that requests carry too. Golden JSON of every message is in `vectors/wire.json`. Times
//! are RFC 3339 UTC texts.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::ids::{ChangeId, CheckValue, RegistrationId, StoreId};
use crate::key_id::KeyId;
use crate::permissions::PermissionRecord;
use crate::secret::SecretBytes;

/// The protocol version of these messages.
pub const VERSION: u32 = 1;
/// The most items in one request.
pub const MAX_ITEMS: usize = 100;
/// The most sharings that an entry holds.
pub const MAX_SHARINGS: usize = 4;
/// Cipher of a key for suite 1 of the sealed file, as stores record it.
pub const CIPHER_EDS1: &str = "eds-1";

/// What travels in a request: up to [`MAX_ITEMS`] items of one operation.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Batch<T> {
    /// Each is authorised, done and answered by itself.
    pub items: Vec<T>,
}

/// What a store answers: one answer for each item, in order.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answers<T> {
    /// Who answers.
    pub store: StoreId,
    /// In the order of the request.
    pub items: Vec<Answer<T>>,
}

/// The answer to one item.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer<T> {
    /// The key id asked for; none in answers to `list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// What came of it.
    #[serde(flatten)]
    pub result: ItemResult<T>,
}

/// Done or refused by the protocol's table (a status), or not even that (a problem).
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum ItemResult<T> {
    /// Neither done nor answered by the table.
    Problem {
        /// Why.
        problem: Problem,
    },
    /// An answer with a status.
    Done(T),
}

/// Why a body is no request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the JSON of such a request; the text says where.
    #[error("not a request of this operation: {0}")]
    Json(String),
    /// A field that this version does not know.
    #[error("unknown field `{0}`")]
    UnknownField(String),
    /// No item, or more than a request takes.
    #[error("a request has 1 to {MAX_ITEMS} items, this one has {0}")]
    Items(usize),
}

/// Reads the body of a request: no unknown field at any depth, 1 to [`MAX_ITEMS`] items.
///
/// # Errors
/// The first rule that it breaks. No text of the body but names of fields gets into the error.
pub fn parse_request<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<Batch<T>, RequestError> {
    let batch: Batch<T> = parse_strictly(body)?;
    match batch.items.len() {
        1..=MAX_ITEMS => Ok(batch),
        other => Err(RequestError::Items(other)),
    }
}

/// Reads a request in which every field is known, at any depth.
///
/// # Errors
/// The first rule that it breaks. No text of the body but names of fields gets into the error.
pub fn parse_strictly<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, RequestError> {
    let mut unknown = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let request: T = serde_ignored::deserialize(&mut reader, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    })
    .map_err(|error| json_error(&error))?;
    reader.end().map_err(|error| json_error(&error))?;
    unknown.map_or(Ok(request), |field| Err(RequestError::UnknownField(field)))
}

/// serde's own words quote values, which may be shares: where a value is wrong, only the place is told.
fn json_error(error: &serde_json::Error) -> RequestError {
    let text = error.to_string();
    let quotes_a_value = text.starts_with("invalid type") || text.starts_with("invalid value");
    RequestError::Json(if quotes_a_value || text.len() > 300 {
        format!("wrong kind of value at line {} column {}", error.line(), error.column())
    } else {
        text
    })
}

/// The operations on entries: `POST /v1/entries/{name}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A pending entry with one share.
    Create,
    /// Entry and sharing become confirmed.
    Confirm,
    /// A pending entry becomes stopped.
    Stop,
    /// Takes back what is not confirmed.
    Undo,
    /// Deletes the entry, leaves a tombstone.
    Remove,
    /// Hands out every share held.
    Read,
    /// The same without shares, with permissions and times.
    Describe,
    /// Adds or replaces one sharing.
    Put,
    /// Deletes sharings below a confirmed one.
    Drop,
    /// The permission record.
    Permissions,
    /// Replaces the permission record.
    Change,
    /// Entries that the caller may list.
    List,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Create,
        Self::Confirm,
        Self::Stop,
        Self::Undo,
        Self::Remove,
        Self::Read,
        Self::Describe,
        Self::Put,
        Self::Drop,
        Self::Permissions,
        Self::Change,
        Self::List,
    ];

    /// Its last path segment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Confirm => "confirm",
            Self::Stop => "stop",
            Self::Undo => "undo",
            Self::Remove => "remove",
            Self::Read => "read",
            Self::Describe => "describe",
            Self::Put => "put",
            Self::Drop => "drop",
            Self::Permissions => "permissions",
            Self::Change => "change",
            Self::List => "list",
        }
    }
}

/// A problem document (RFC 9457) with a stable type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:hydra-eds:problem:` and a [`ProblemKind`].
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// What the type means, the same words for every occurrence.
    pub title: String,
    /// The HTTP status that this item alone would have had.
    pub status: u16,
    /// What it is about this time. Never a secret, never another's key id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// The stable types of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProblemKind {
    /// No such entry, or no right to it: the two cannot be told apart (404).
    #[serde(rename = "urn:hydra-eds:problem:not-found")]
    NotFound,
    /// No creation rule admits the caller to this prefix (403).
    #[serde(rename = "urn:hydra-eds:problem:not-allowed")]
    NotAllowed,
    /// The request or an item breaks the rules of its format (400 or 422).
    #[serde(rename = "urn:hydra-eds:problem:invalid")]
    Invalid,
    /// The certificate, or one below it, has expired or was revoked since the connection began (401).
    #[serde(rename = "urn:hydra-eds:problem:credential")]
    Credential,
    /// A restored entry that its owner's repair has not confirmed yet (503).
    #[serde(rename = "urn:hydra-eds:problem:restored")]
    Restored,
    /// There is something else already, or it was changed meanwhile (409).
    #[serde(rename = "urn:hydra-eds:problem:conflict")]
    Conflict,
    /// Too large (413).
    #[serde(rename = "urn:hydra-eds:problem:too-large")]
    TooLarge,
    /// A limit of this identity is reached (429).
    #[serde(rename = "urn:hydra-eds:problem:limit")]
    Limit,
    /// The store is stopping or overloaded (503).
    #[serde(rename = "urn:hydra-eds:problem:busy")]
    Busy,
    /// No room on the store's disk: reading goes on (507).
    #[serde(rename = "urn:hydra-eds:problem:storage-full")]
    StorageFull,
    /// No such address or method (404, 405).
    #[serde(rename = "urn:hydra-eds:problem:no-such-operation")]
    NoSuchOperation,
    /// A fault of the store; its log has the reason (500).
    #[serde(rename = "urn:hydra-eds:problem:internal")]
    Internal,
    /// A type of a later version.
    #[serde(other, rename = "about:blank")]
    Other,
}

impl ProblemKind {
    /// The HTTP status of an answer that is nothing but this problem.
    pub fn status(self) -> u16 {
        match self {
            Self::NotFound | Self::NoSuchOperation => 404,
            Self::NotAllowed => 403,
            Self::Invalid => 400,
            Self::Credential => 401,
            Self::Restored | Self::Busy => 503,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Limit => 429,
            Self::StorageFull => 507,
            Self::Internal | Self::Other => 500,
        }
    }

    /// What it means, the same words for every occurrence.
    pub fn title(self) -> &'static str {
        match self {
            Self::NotFound => "no such entry, or no right to it",
            Self::NotAllowed => "no creation rule admits you to this key id",
            Self::Invalid => "the request breaks the rules of its format",
            Self::Credential => "the credential of this connection is no longer valid",
            Self::Restored => "restored from a backup and not confirmed since",
            Self::Conflict => "there is something else already, or it was changed meanwhile",
            Self::TooLarge => "too large",
            Self::Limit => "a limit for your identity is reached",
            Self::Busy => "the store is stopping or has too much to do",
            Self::StorageFull => "the store has no room left",
            Self::NoSuchOperation => "no such operation",
            Self::Internal => "the store failed; its log has the reason",
            Self::Other => "a problem that this version does not know",
        }
    }
}

impl Problem {
    /// With the title and status of its kind.
    pub fn new(kind: ProblemKind) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: None,
            retry_after_seconds: None,
        }
    }

    /// Says what it is about this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

/// Of an entry, or of one sharing in it (which is never `stopped`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Made, not confirmed.
    Pending,
    /// A repair keeps it from being confirmed, but by force.
    Stopped,
    /// Somebody may have sealed with it.
    Confirmed,
}

/// What the protocol's table answers. To somebody without a right to the entry, every operation answers what it answers
/// where there is no entry: `unknown` to `confirm`, `undo` and `drop`, the problem `not-found` to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Done, on disk, in the audit log; or it was so already.
    Ok,
    /// Another registration holds the key id.
    Exists,
    /// That registration was removed.
    Removed,
    /// That registration was stopped.
    Stopped,
    /// It is confirmed, so it cannot be stopped or undone.
    Confirmed,
    /// No such registration or sharing here. To `undo`: so there is nothing to undo.
    Unknown,
    /// Below the highest confirmed sharing.
    Older,
    /// The key id belongs to another registration, which is left alone. To `remove`: the registration named is gone
    /// for ever all the same, its tombstone stands.
    Other,
    /// A fifth sharing.
    Full,
    /// If-Match named another permission record than the one held.
    Conflict,
}

/// How a share was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Scheme {
    /// GF(2^8), polynomial 0x11b, over `key || r`.
    #[serde(rename = "gf256-1")]
    Gf256,
    /// The prime field 65521 of the original, over the key alone; imported keys only.
    #[serde(rename = "gf65521-1")]
    Gf65521,
}

impl Scheme {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gf256 => "gf256-1",
            Self::Gf65521 => "gf65521-1",
        }
    }
}

/// The bytes of a share where they cross the wire: base64, wiped on drop, not printable.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = "byte"))]
pub struct ShareData(pub SecretBytes);

impl Serialize for ShareData {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = zeroize::Zeroizing::new(BASE64.encode(self.0.expose()));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for ShareData {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64.decode(text.as_bytes());
        bytes
            .map(|bytes| Self(SecretBytes::new(bytes)))
            .map_err(|_| serde::de::Error::custom("share data is not base64"))
    }
}

/// A share on the wire.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Share {
    /// How it was computed.
    pub scheme: Scheme,
    /// x, from 1: the place of this store in the sharing's list.
    pub index: u8,
    /// How many shares join.
    pub m: u8,
    /// How many there are.
    pub n: u8,
    /// The share itself.
    pub data: ShareData,
}

impl Share {
    /// A second copy, for where a store answers with what it keeps.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            scheme: self.scheme,
            index: self.index,
            m: self.m,
            n: self.n,
            data: ShareData(SecretBytes::new(self.data.0.expose().to_vec())),
        }
    }

    /// Whether both are the same share, compared in constant time.
    pub fn same_as(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        let places = (self.scheme, self.index, self.m, self.n) == (other.scheme, other.index, other.m, other.n);
        places && bool::from(self.data.0.expose().ct_eq(other.data.0.expose()))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Share({} of {}, m = {}, {} bytes)",
            self.index,
            self.n,
            self.m,
            self.data.0.len()
        )
    }
}

static_assertions::assert_not_impl_any!(ShareData: fmt::Debug, Clone, PartialEq);
static_assertions::assert_not_impl_any!(Share: Clone, PartialEq);

/// One splitting of a key: what makes two sharings the same. Ordered by generation, then check value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sharing {
    /// From 1; a reshare adds one. 0 for imported keys.
    pub generation: u32,
    /// How many shares join.
    pub m: u8,
    /// How many there are.
    pub n: u8,
    /// Their ids, in order of index.
    pub stores: Vec<StoreId>,
    /// Proves what it joins to; none for imported keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckValue>,
}

impl Sharing {
    /// What sharings of one registration are ordered by.
    pub fn order(&self) -> (u32, Option<CheckValue>) {
        (self.generation, self.check)
    }
}

/// What of an entry never changes, beside its key id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Constants {
    /// The registration.
    pub registration_id: RegistrationId,
    /// `eds-1`, or the original's OpenSSL name in lower case.
    pub cipher: String,
    /// Key length in bits.
    pub key_bits: u32,
    /// For the original's ciphers, lower-case hex; empty for `eds-1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub iv: String,
}

// --- requests ---------------------------------------------------------------------------------------------------------

/// `create`: a pending entry where the key id is free.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// See [`Constants`].
    pub cipher: String,
    /// See [`Constants`].
    pub key_bits: u32,
    /// See [`Constants`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub iv: String,
    /// The first sharing.
    pub sharing: Sharing,
    /// This store's share of it.
    pub share: Share,
    /// The owner in it must be the caller.
    pub permissions: PermissionRecord,
}

/// `put`: adds or replaces one sharing, or brings back an entry that is missing here.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// See [`Constants`].
    pub cipher: String,
    /// See [`Constants`].
    pub key_bits: u32,
    /// See [`Constants`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub iv: String,
    /// The sharing.
    pub sharing: Sharing,
    /// This store's share of it.
    pub share: Share,
    /// Its state from now on: pending or confirmed.
    pub state: State,
    /// Used only where the entry is missing here.
    pub permissions: PermissionRecord,
}

impl Put {
    /// A second copy, for a store that stayed silent at first.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            key_id: self.key_id.clone(),
            registration_id: self.registration_id,
            cipher: self.cipher.clone(),
            key_bits: self.key_bits,
            iv: self.iv.clone(),
            sharing: self.sharing.clone(),
            share: self.share.copy(),
            state: self.state,
            permissions: self.permissions.clone(),
        }
    }
}

/// `confirm`: entry and sharing become confirmed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// The whole of it, so that no other is confirmed by mistake.
    pub sharing: Sharing,
    /// Also a stopped entry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// `stop` and `remove`: one registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OfRegistration {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
}

/// `undo`: a whole pending or stopped entry, or one pending sharing of a confirmed one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// Only this sharing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
}

/// `drop`: sharings ordered before `below`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DropBelow {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// Stays.
    pub below: Sharing,
}

/// `read`, `describe`, `permissions`: whatever the key id holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OfKeyId {
    /// The name.
    pub key_id: KeyId,
}

/// `change`: a new permission record in place of the one named.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The name.
    pub key_id: KeyId,
    /// The registration.
    pub registration_id: RegistrationId,
    /// The record held must have this version …
    pub if_version: u64,
    /// … and this change id.
    pub if_change_id: ChangeId,
    /// The new record.
    pub permissions: PermissionRecord,
}

/// `list`: entries that the caller may list, in byte order of key id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Key ids that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Key ids whose last segment is this. Not together with `prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_component: Option<String>,
    /// Only those whose owner is the caller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owned_by_me: bool,
    /// From the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

// --- answers ----------------------------------------------------------------------------------------------------------

/// To everything that changes an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changed {
    /// What the table says.
    pub status: Status,
    /// With `exists`, for those who may list the entry: its registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_id: Option<RegistrationId>,
    /// With `exists`, likewise: its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// With `exists`, likewise: for how long it has been pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_seconds: Option<u64>,
    /// With `conflict`: the record held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<PermissionRecord>,
}

impl Changed {
    /// A bare status.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            registration_id: None,
            state: None,
            pending_seconds: None,
            permissions: None,
        }
    }
}

/// One sharing as a store holds it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldSharing {
    /// Which.
    pub sharing: Sharing,
    /// Pending or confirmed.
    pub state: State,
    /// This store's share; only in answers to `read`, and missing there too where it is damaged on the store's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// To `read`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadAnswer {
    /// Always `ok`.
    pub status: Status,
    /// None where only tombstones are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
    /// Removed registrations of this key id.
    #[serde(default)]
    pub removed: Vec<RegistrationId>,
}

/// An entry as `read` hands it out.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// What never changes.
    #[serde(flatten)]
    pub constants: Constants,
    /// Of the entry.
    pub state: State,
    /// Every one held.
    pub sharings: Vec<HeldSharing>,
}

/// To `describe`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DescribeAnswer {
    /// Always `ok`.
    pub status: Status,
    /// None where only tombstones are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<DescribedEntry>,
    /// Removed registrations of this key id.
    #[serde(default)]
    pub tombstones: Vec<Tombstone>,
    /// Registrations that were stopped before they came here.
    #[serde(default)]
    pub stop_marks: Vec<RegistrationId>,
}

/// An entry without its shares.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DescribedEntry {
    /// What never changes.
    #[serde(flatten)]
    pub constants: Constants,
    /// Of the entry.
    pub state: State,
    /// In quarantine since a restore.
    #[serde(default)]
    pub restored: bool,
    /// Every one held, without shares.
    pub sharings: Vec<HeldSharing>,
    /// The record.
    pub permissions: PermissionRecord,
    /// When it came here.
    pub created: String,
    /// When it last changed here.
    pub changed: String,
    /// For how long it has been pending or stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_seconds: Option<u64>,
}

/// A removal, remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tombstone {
    /// What was removed.
    pub registration_id: RegistrationId,
    /// DN of who did it.
    pub by: String,
    /// When.
    pub at: String,
}

/// To `permissions`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PermissionsAnswer {
    /// Always `ok`.
    pub status: Status,
    /// Of this registration.
    pub registration_id: RegistrationId,
    /// The record held.
    pub permissions: PermissionRecord,
}

/// To `list`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListAnswer {
    /// Always `ok`.
    pub status: Status,
    /// One page of them.
    pub entries: Vec<ListedEntry>,
    /// There is more: ask again with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// One entry in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedEntry {
    /// The name.
    pub key_id: KeyId,
    /// Its registration.
    pub registration_id: RegistrationId,
    /// Its state.
    pub state: State,
    /// DN of its owner.
    pub owner: String,
}

/// `GET /v1/whoami`: how the store sees the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// Who answers.
    pub store: StoreId,
    /// DN of the end-entity certificate, slash form.
    pub dn: String,
    /// Verified FQANs, in order.
    pub fqans: Vec<String>,
    /// Why an attribute certificate gave none, where one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voms_error: Option<String>,
    /// `certificate` or `proxy`.
    pub method: String,
}

/// `GET /v1/about`: what the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct About {
    /// Its id.
    pub store: StoreId,
    /// Protocol versions that it speaks.
    pub protocols: Vec<u32>,
    /// Of the software.
    pub version: String,
    /// In quarantine since a restore.
    pub restored: bool,
    /// What it accepts.
    pub limits: Limits,
}

/// What a store accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Items in a request.
    pub items: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of a key id.
    pub key_id_bytes: usize,
    /// Sharings of an entry.
    pub sharings: usize,
    /// Lines of an ACL.
    pub acl_entries: usize,
}
