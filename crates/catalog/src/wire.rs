//! What clients and the catalogue say to each other, version 1: JSON over HTTPS
//! (`docs/src/formats/catalogue-protocol.md`).
//!
//! Requests refuse unknown fields at any depth; answers may grow. Times are RFC 3339 texts in UTC. Paths are logical
//! file names in their canonical form, `/myvo/home/x` ([`crate::name::LogicalName`]).

use std::collections::BTreeMap;

use hydra_core::keystore::wire::Problem;
use hydra_core::permissions::{PermissionRecord, Permissions};
use serde::{Deserialize, Serialize};

use crate::name::LogicalName;

/// The most items in one request.
pub const MAX_ITEMS: usize = 1000;
/// The most bytes of one attribute's text.
pub const MAX_TEXT_BYTES: usize = 65_536;
/// The most bytes of a thumbnail, sealed.
pub const MAX_THUMBNAIL_BYTES: usize = 262_144;

/// Up to [`MAX_ITEMS`] items of one operation.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch<T> {
    /// Each is authorised, done and answered by itself.
    pub items: Vec<T>,
}

/// One answer for each item, in order.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Answers<T> {
    /// In the order of the request.
    pub items: Vec<Answer<T>>,
}

/// What became of one item.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// Done.
    Done(T),
    /// Refused; nothing was changed by this item.
    Problem(Problem),
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A directory, which is also a collection with a schema of attributes (its own, or that of one above).
    Directory,
    /// A file.
    File,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Known, and made when somebody asks the storage element.
    Nearline,
    /// On some storage element.
    Online,
}

/// The three parts of an entry, each with permissions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Name, replicas, size, checksums, key id. `l` sees the entry, `r` its replicas, `w` changes it or creates in the
    /// directory, `d` removes it, `p` changes this record.
    Name,
    /// The anonymous half of the attributes. `g` reads, `s` writes, `p` changes this record.
    Anonymous,
    /// The identifying half, and replicas of the scheme `dicom:`. `g` reads, `s` writes, `p` changes this record.
    Identifying,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Name, Self::Anonymous, Self::Identifying];
}

/// A value of an attribute, or of a list's item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Value {
    /// Nothing; written, it removes.
    Null,
    /// An integer.
    Integer(i64),
    /// A float; never NaN or infinite.
    Float(f64),
    /// A text, date (`2026-11-22`), time (`09:30:00.5`) or code (`T-A0100^SRT` as `value^scheme`).
    Text(String),
    /// Of a list.
    #[schema(no_recursion)]
    List(Vec<Value>),
}

/// Attributes by name.
pub type Attributes = BTreeMap<String, Value>;

/// The type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// UTF-8, no control characters but tab and line ends.
    String,
    /// 64 bits, signed.
    Integer,
    /// IEEE 754 binary64.
    Float,
    /// `YYYY-MM-DD`.
    Date,
    /// `HH:MM:SS` with up to six decimals.
    Time,
    /// A DICOM code: `value^scheme`.
    Code,
    /// Several strings.
    List,
}

/// One attribute of a schema, in answers too: a member that is not known is refused where a request is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttributeDefinition {
    /// `[A-Za-z][A-Za-z0-9_]{0,63}`, compared without regard to case.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Type,
    /// [`Part::Anonymous`] or [`Part::Identifying`].
    pub half: Part,
    /// Whether searches by it are fast. Of the identifying half only such attributes can be searched.
    #[serde(default)]
    pub indexed: bool,
    /// The DICOM keyword (PS3.6) that it is also known by in queries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dicom: Option<String>,
}

/// The schema of a collection.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Schema {
    /// The collection that has it.
    pub path: LogicalName,
    /// In the order they were added. The identifying ones only for those who may read that half of the collection.
    pub attributes: Vec<AttributeDefinition>,
}

/// Asks for the schema that holds at a path.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaQuestion {
    /// A directory or file.
    pub path: LogicalName,
}

/// Changes the schema of a collection; the first change gives it one of its own, beginning with a copy of the one
/// above.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaChange {
    /// The directory.
    pub path: LogicalName,
    /// New attributes, or known ones with another `indexed` or `dicom`.
    #[serde(default)]
    pub add: Vec<AttributeDefinition>,
    /// Attributes that go, with their values.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// The records of the three parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Records {
    /// Of [`Part::Name`].
    pub name: PermissionRecord,
    /// Of [`Part::Anonymous`].
    pub anonymous: PermissionRecord,
    /// Of [`Part::Identifying`]; only for those who have any right to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifying: Option<PermissionRecord>,
}

/// A new file or directory. Its three records are those of its directory with the caller as owner.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// Where.
    pub path: LogicalName,
    /// What.
    pub kind: Kind,
    /// Whether missing directories above are made.
    #[serde(default)]
    pub parents: bool,
    /// The `guid:` of the file, lower-case UUID; drawn by the catalogue where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// The operation that it belongs to: until that is committed, the entry is seen by nobody but its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Of the sealed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of the sealed file, eight hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adler32: Option<String>,
    /// Of the sealed file, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The key that it is sealed under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Where its bytes are; nearline where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// URLs. Those of the scheme `dicom:` belong to the identifying half.
    #[serde(default)]
    pub replicas: Vec<String>,
    /// Values of both halves; each attribute knows its half.
    #[serde(default)]
    pub attributes: Attributes,
}

/// What became of something that was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Created {
    /// It was made now.
    New,
    /// It is there already, the same in kind, key, replicas and attributes (nothing was changed). An entry of the same
    /// path that differs is a problem (`conflict`).
    Known,
}

/// Asks for an entry.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// By path, or `guid:…`.
    pub path: String,
}

/// An entry, as far as the caller may see it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entry {
    /// Where.
    pub path: LogicalName,
    /// What.
    pub kind: Kind,
    /// `guid:` and a UUID.
    pub guid: String,
    /// The operation that is not committed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Of the sealed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of the sealed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adler32: Option<String>,
    /// Of the sealed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The key that it is sealed under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// For those with `r` on the name; `dicom:` for those with `g` on the identifying half.
    #[serde(default)]
    pub replicas: Vec<String>,
    /// The halves that the caller may read.
    #[serde(default)]
    pub attributes: Attributes,
    /// The names among `attributes` that are of the identifying half.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identifying: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// When it was changed last.
    pub modified_at: String,
    /// Counts changes of everything but the permissions.
    pub version: u64,
    /// Of the parts.
    pub records: Records,
}

/// A change of an entry: what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Which, by path or `guid:…`.
    pub path: String,
    /// Only if its version is this one (else the problem `conflict`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// Of the sealed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of the sealed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adler32: Option<String>,
    /// Of the sealed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The key that it is sealed under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Where its bytes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Replicas that come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_replicas: Vec<String>,
    /// Replicas that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_replicas: Vec<String>,
    /// Attributes that are set, or with `null` removed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Attributes,
    /// A new path, in a directory that the caller may write to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rename: Option<LogicalName>,
}

/// Removes an entry.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Which, by path or `guid:…`.
    pub path: String,
    /// With everything below a directory; the caller must be allowed to remove each.
    #[serde(default)]
    pub recursive: bool,
    /// Only if it has no replica any more.
    #[serde(default)]
    pub unreplicated: bool,
}

/// Asks for what lies in a directory.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuestion {
    /// The directory.
    pub path: LogicalName,
    /// The last path of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LogicalName>,
    /// At most [`MAX_ITEMS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether what lies below comes too.
    #[serde(default)]
    pub recursive: bool,
}

/// A page of a listing, by path.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Listing {
    /// By path.
    pub entries: Vec<Entry>,
    /// Whether there is more behind them.
    pub more: bool,
}

/// Asks what belongs to something: to exactly one of these.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// A replica, as it was registered: for those with `r` on the name. One of the scheme `dicom:` is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// A key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// An open operation of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The last path of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LogicalName>,
}

/// A page of what belongs to it, by path: as much as the caller may see, at most [`MAX_ITEMS`].
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Found {
    /// By path.
    pub entries: Vec<FoundEntry>,
    /// Whether there is more behind them.
    pub more: bool,
}

/// An entry that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FoundEntry {
    /// Where.
    pub path: LogicalName,
    /// What.
    pub kind: Kind,
}

/// Finds files.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// In this directory and below, as far as its schema holds.
    pub from: String,
    /// In the query language (`docs/src/formats/query.md`): `modality = 'MR' AND age BETWEEN 40 AND 60 ORDER BY age
    /// DESC LIMIT 20`. Empty: everything.
    pub query: String,
    /// Attributes and fields that are answered; empty: `name` alone.
    pub columns: Vec<String>,
    /// Where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// At most so many in this answer; the query's own LIMIT counts over all pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<usize>,
    /// Count them instead.
    pub count: bool,
}

/// One line of a search's answer (`application/x-ndjson`): columns, then rows, then the end. An answer without an end
/// is cut off.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The names of the columns, as the schema spells them.
    Columns(Vec<String>),
    /// The values, in that order.
    Row(Vec<Value>),
    /// All there was, or all of this page.
    End {
        /// Where the next page begins, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// How many rows there were, or were counted.
        rows: u64,
    },
    /// It broke off.
    Problem(Problem),
}

/// Asks for the records of an entry.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PermissionsAnswer {
    /// Which entry.
    pub path: LogicalName,
    /// Its records.
    pub records: Records,
    /// What the caller may do with each part.
    pub granted: BTreeMap<Part, Permissions>,
}

/// Changes the record of one part.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PermissionsChange {
    /// Which entry, by path or `guid:…`.
    pub path: String,
    /// Which part.
    pub part: Part,
    /// The record that it shall have; its version is one more than the one that it replaces (else the problem
    /// `conflict`).
    pub record: PermissionRecord,
    /// Also everything below a directory whose record of that part the caller may change.
    #[serde(default)]
    pub recursive: bool,
}

/// What became of a change of permissions.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PermissionsChanged {
    /// How many entries have it now.
    pub changed: u64,
    /// How many below were left, because the caller may not change them.
    pub left: u64,
}

/// An operation: what is registered together, so that it can be found, resumed or undone after a crash.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operation {
    /// Its identifier: 32 hexadecimal digits, drawn by the client.
    pub id: String,
    /// What it is for, in the client's words; never identifying.
    pub what: String,
    /// DN.
    pub owner: String,
    /// When it began.
    pub began_at: String,
    /// How far it is.
    pub state: OperationState,
    /// How many entries belong to it.
    pub entries: u64,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Its entries are seen by its owner alone.
    Open,
    /// Its entries are like all others.
    Committed,
    /// Its entries are gone.
    Undone,
}

/// Begins an operation; doing it again changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationBegin {
    /// 32 hexadecimal digits.
    pub id: String,
    /// In the client's words; never identifying. At most 400 bytes.
    pub what: String,
}

/// Ends an operation; doing it again changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationEnd {
    /// Which.
    pub id: String,
    /// [`OperationState::Committed`] or [`OperationState::Undone`].
    pub state: OperationState,
}

/// Who the catalogue takes the caller for.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Whoami {
    /// What the catalogue calls itself.
    pub catalog: String,
    /// DN.
    pub dn: String,
    /// Verified FQANs.
    pub fqans: Vec<String>,
    /// Whether the configuration names the caller an administrator.
    pub administrator: bool,
    /// Why an attribute certificate gave no FQANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_attributes: Option<String>,
}

/// What the catalogue says of itself.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct About {
    /// What it calls itself.
    pub catalog: String,
    /// Its version.
    pub version: String,
    /// How many days backups are kept, as its administrator configured: until then a backup could bring something back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups_kept_days: Option<u32>,
}

#[cfg(test)]
mod tests {
    use hydra_core::keystore::wire::parse_strictly;
    use serde::de::DeserializeOwned;
    use serde_json::Value as Json;

    use super::*;

    fn request<T: DeserializeOwned + Serialize>(json: &Json) -> Result<Json, String> {
        let read = parse_strictly::<T>(json.to_string().as_bytes());
        read.map(|message| serde_json::to_value(message).unwrap())
            .map_err(|error| error.to_string())
    }

    fn answer<T: DeserializeOwned + Serialize>(json: &Json) -> Result<Json, String> {
        let read = serde_json::from_str::<T>(&json.to_string());
        read.map(|message| serde_json::to_value(message).unwrap())
            .map_err(|error| error.to_string())
    }

    fn read_and_write(kind: &str, message: &str, json: &Json) -> Result<Json, String> {
        match (kind, message) {
            ("request", "create") => request::<Batch<NewEntry>>(json),
            ("request", "show") => request::<Batch<Question>>(json),
            ("request", "change") => request::<Batch<Change>>(json),
            ("request", "remove") => request::<Batch<Removal>>(json),
            ("request", "find") => request::<Lookup>(json),
            ("request", "list") => request::<ListQuestion>(json),
            ("request", "search") => request::<Search>(json),
            ("request", "schema") => request::<SchemaQuestion>(json),
            ("request", "schema change") => request::<SchemaChange>(json),
            ("request", "permissions change") => request::<Batch<PermissionsChange>>(json),
            ("request", "begin") => request::<OperationBegin>(json),
            ("request", "end") => request::<OperationEnd>(json),
            ("answer", "create") => answer::<Answers<Created>>(json),
            ("answer", "show") => answer::<Answers<Entry>>(json),
            ("answer", "remove") => answer::<Answers<u64>>(json),
            ("answer", "find") => answer::<Found>(json),
            ("answer", "list") => answer::<Listing>(json),
            ("answer", "line") => answer::<Line>(json),
            ("answer", "schema") => answer::<Schema>(json),
            ("answer", "permissions") => answer::<Answers<PermissionsAnswer>>(json),
            ("answer", "permissions change") => answer::<Answers<PermissionsChanged>>(json),
            ("answer", "operation") => answer::<Operation>(json),
            ("answer", "whoami") => answer::<Whoami>(json),
            ("answer", "about") => answer::<About>(json),
            other => panic!("no such message: {other:?}"),
        }
    }

    /// The places of all objects but maps from names of the user's and enums, in which a member more is another thing.
    fn places(json: &Json, at: &str, found: &mut Vec<String>) {
        match json {
            Json::Object(members) => {
                let is_open = at.ends_with("/attributes") || at.ends_with("/granted");
                let is_enum = ["done", "problem", "columns", "row", "end"]
                    .iter()
                    .any(|tag| members.contains_key(*tag));
                if !is_open && !is_enum {
                    found.push(at.to_owned());
                }
                members
                    .iter()
                    .for_each(|(name, member)| places(member, &format!("{at}/{name}"), found));
            }
            Json::Array(items) => {
                let each = items.iter().enumerate();
                each.for_each(|(place, item)| places(item, &format!("{at}/{place}"), found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_message_is_read_and_written_as_its_golden_json_and_requests_refuse_a_member_more() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/catalogue.json");
        let file: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert!(vectors.len() > 20);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let (name, kind, message, json) = (text("name"), text("kind"), text("message"), &vector["json"]);
            assert_eq!(read_and_write(kind, message, json).as_ref(), Ok(json), "{name}");
            let mut all = Vec::new();
            places(json, "", &mut all);
            for place in all {
                let mut grown = json.clone();
                grown.pointer_mut(&place).unwrap()["later"] = "x".into();
                let read = read_and_write(kind, message, &grown);
                assert_eq!(read.is_ok(), kind == "answer", "{name} at {place}: {read:?}");
            }
        }
    }
}
