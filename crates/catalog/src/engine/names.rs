//! Names: making, showing, listing and changing files and directories.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hydra_core::ids::ChangeId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::store::rfc3339;
use hydra_core::permissions::{AclEntry, Permission, PermissionRecord};

use super::fresh::Fresh;
use super::refusal::{conflict, invalid, not_allowed, not_found};
use super::rows::{self, Stored};
use super::schemas::KnownSchema;
use super::{Refusal, Rights, Work, needs, records, signed, values};
use crate::LogicalName;
use crate::columns::Identifying;
use crate::database::{DatabaseError, Datum, row};
use crate::wire::{
    Attributes, Change, Created, Entry, Kind, ListQuestion, Listing, MAX_ITEMS, NewEntry, Part, Records, Status, Value,
};

/// The longest replica, in bytes: it stands in an index.
const MAX_REPLICA_BYTES: usize = 2048;
/// Bytes after which a page of a listing ends.
const MOST_LISTED_BYTES: usize = 8 << 20;
/// The most replicas of one entry.
const MAX_REPLICAS: usize = 100;

/// Why a name cannot be made.
const NEEDS_W: &str = "making names in this directory needs `w` on it";
/// How many names a statement changes.
const RENAMED_AT_ONCE: usize = 10_000;

/// Values parted by the half that they belong to; of the identifying half, by names in lower case.
#[derive(Default)]
struct Halves {
    anonymous: Vec<(usize, Value)>,
    identifying: BTreeMap<String, Value>,
}

impl Work<'_> {
    pub(super) fn create(&self, new: &NewEntry) -> Result<Created, Refusal> {
        check_form(new)?;
        let operation = new.operation.as_deref().map(|id| self.open_operation(id)).transpose()?;
        if let Some(known) = self.occupant(&new.path)? {
            return self.known(new, &known);
        }
        let parent = self.parent_for(new, operation)?;
        let (name, anonymous, identifying) = match &parent {
            None => {
                let record = records::intern(self.sql, &records::of_own(self.caller))?;
                (record, record, record)
            }
            Some(parent) => (
                self.inherited(parent.name_record)?,
                self.inherited(parent.anonymous_record)?,
                self.inherited(parent.identifying_record)?,
            ),
        };
        let guid = match &new.guid {
            Some(guid) => {
                let guid = checked_guid(guid)?;
                if rows::find(self.sql, &format!("guid:{guid}"))?.is_some() {
                    return Err(conflict("another entry has this guid"));
                }
                guid
            }
            // 122 random bits: nobody has this one.
            None => draw_guid()?,
        };
        let status = new.status.unwrap_or(Status::Nearline);
        let mut entry = Stored {
            id: 0,
            parent: parent.as_ref().map(|parent| parent.id),
            path: new.path.clone(),
            kind: new.kind,
            guid,
            schema: parent.as_ref().and_then(|parent| parent.schema),
            operation,
            size: new.size.map(signed),
            adler32: new.adler32.clone(),
            sha256: new.sha256.clone(),
            key_id: new.key_id.clone(),
            status: (new.kind == Kind::File).then_some(status),
            created: signed(self.now),
            modified: signed(self.now),
            version: 1,
            name_record: name,
            anonymous_record: anonymous,
            identifying_record: identifying,
            identifying: None,
        };
        let rights = self.rights(&entry)?;
        let schema = self.schema_of(&entry)?;
        let halves = self.parted(schema.as_deref(), &rights, &new.attributes)?;
        self.count_in()?;
        let (sealed, open): (Vec<_>, Vec<_>) = new.replicas.iter().cloned().partition(|url| is_identifying(url));
        self.may_write(&rights, &halves, !sealed.is_empty())?;
        let half = Identifying {
            attributes: halves.identifying,
            replicas: sealed,
        };
        entry.identifying = self.seal(&entry.guid, &half)?;
        let tokens = schema.as_deref().map(|schema| self.tokens(schema, &half));
        self.keep(Fresh {
            entry,
            replicas: open,
            schema,
            values: halves.anonymous,
            tokens: tokens.unwrap_or_default(),
        })?;
        Ok(Created::New)
    }

    /// What is there already: the same in all that is said of it, or something else.
    fn known(&self, new: &NewEntry, known: &Stored) -> Result<Created, Refusal> {
        let rights = self.rights(known)?;
        if !rights.sees() || !self.is_of_no_other(known)? {
            // Whoever may make names there learns that this one is taken; to others it is as any name that is free.
            self.parent_for(new, None)?;
            return Err(taken());
        }
        let has = self.entry(known, &rights)?;
        let same = |given: Option<String>, has: Option<String>| given.is_none() || given == has;
        let schema = self.schema_of(known)?;
        let halves = self.parted(schema.as_deref(), &rights, &new.attributes)?;
        let given = self.named(schema.as_deref(), &halves);
        let is_there = |(name, value): (&String, &Value)| {
            let unseen = !has.attributes.contains_key(name) && self.is_unseen(schema.as_deref(), &rights, name);
            unseen || has.attributes.get(name).unwrap_or(&Value::Null) == value
        };
        let sees_replica = |url: &&String| {
            if is_identifying(url) {
                rights.reads_identifying()
            } else {
                rights.name.contains(Permission::Read)
            }
        };
        let all_same = has.kind == new.kind
            && same(new.guid.as_deref().map(bare_guid), Some(known.guid.clone()))
            && same(new.key_id.clone(), has.key_id.clone())
            && same(new.sha256.clone(), has.sha256.clone())
            && same(new.adler32.clone(), has.adler32.clone())
            && new.size.is_none_or(|size| has.size == Some(size))
            && new
                .replicas
                .iter()
                .filter(sees_replica)
                .all(|url| has.replicas.contains(url))
            && given.iter().all(is_there);
        if all_same { Ok(Created::Known) } else { Err(taken()) }
    }

    /// Whether an attribute is of a half that the caller writes but does not read.
    #[expect(clippy::unused_self, reason = "reads as a question to the work")]
    fn is_unseen(&self, schema: Option<&KnownSchema>, rights: &Rights, name: &str) -> bool {
        let known = schema.and_then(|schema| schema.attribute(name));
        known.is_some_and(|known| match known.definition.half {
            Part::Identifying => !rights.reads_identifying(),
            _ => !rights.reads_anonymous(),
        })
    }

    /// Values by the names as the schema spells them.
    #[expect(clippy::unused_self, reason = "reads as a step of the work")]
    fn named(&self, schema: Option<&KnownSchema>, halves: &Halves) -> Attributes {
        let Some(schema) = schema else {
            return Attributes::new();
        };
        let anonymous = halves.anonymous.iter().filter_map(|(place, value)| {
            let known = schema.attributes.get(*place)?;
            Some((known.definition.name.clone(), value.clone()))
        });
        let identifying = halves.identifying.iter().filter_map(|(name, value)| {
            let known = schema.attribute(name)?;
            Some((known.definition.name.clone(), value.clone()))
        });
        anonymous.chain(identifying).collect()
    }

    /// The directory of a new entry, made where it is wanted and missing; none at the top.
    fn parent_for(&self, new: &NewEntry, operation: Option<i64>) -> Result<Option<Rc<Stored>>, Refusal> {
        let Some(path) = new.path.parent() else {
            return Err(invalid("the root is there already"));
        };
        if path.is_root() {
            // Without a rule that admits the caller, the top looks as if nothing were there.
            return if self.engine.rules.may_create(self.caller, &new.path) {
                Ok(None)
            } else {
                Err(not_found())
            };
        }
        if self.directory(&path)?.is_none() {
            if !new.parents {
                return Err(not_found());
            }
            // From the top down and not by recursion: 512 levels would not fit on a thread's stack.
            let mut missing = vec![path.clone()];
            while let Some(above) = missing.last().and_then(LogicalName::parent) {
                if above.is_root() || self.directory(&above)?.is_some() {
                    break;
                }
                missing.push(above);
            }
            for path in missing.into_iter().rev() {
                self.create(&NewEntry {
                    path,
                    // Refused in the same words where what is above is hidden.
                    parents: true,
                    operation: operation.and(new.operation.clone()),
                    ..directory_above(new)
                })?;
            }
        }
        let parent = self.directory(&path)?.ok_or_else(not_found)?;
        let name = self.granted(parent.name_record)?;
        let visible = name.contains(Permission::List) && self.is_of_no_other(&parent)?;
        if !visible && !name.contains(Permission::Write) {
            return Err(if new.parents {
                self.as_if_missing(&path)?
            } else {
                not_found()
            });
        }
        needs(name, Permission::Write, NEEDS_W)?;
        if parent.kind == Kind::File {
            return Err(conflict("a file has nothing below it"));
        }
        Ok(Some(parent))
    }

    /// What keeps the caller from making a directory with those above it: the same whether it is hidden or missing.
    fn as_if_missing(&self, path: &LogicalName) -> Result<Refusal, DatabaseError> {
        let mut above = path.parent();
        while let Some(path) = above.filter(|path| !path.is_root()) {
            if let Some(directory) = self.directory(&path)? {
                let name = self.granted(directory.name_record)?;
                if name.contains(Permission::Write) {
                    break;
                }
                if name.contains(Permission::List) && self.is_of_no_other(&directory)? {
                    return Ok(not_allowed(NEEDS_W));
                }
            }
            above = path.parent();
        }
        Ok(not_found())
    }

    fn may_write(&self, rights: &Rights, halves: &Halves, sealed_replicas: bool) -> Result<(), Refusal> {
        if !halves.anonymous.is_empty() {
            needs(
                rights.anonymous,
                Permission::WriteShares,
                "writing anonymous attributes needs `s` on that half",
            )?;
        }
        if !halves.identifying.is_empty() || sealed_replicas {
            // Whoever may not read the half either was told that there is no such attribute.
            needs(
                rights.identifying,
                Permission::WriteShares,
                "writing the identifying half needs `s` on it",
            )?;
        }
        Ok(())
    }

    /// Parts attributes by their half, checks their types. To those who do not know the identifying half, its
    /// attributes are as unknown as any word.
    fn parted(&self, schema: Option<&KnownSchema>, rights: &Rights, given: &Attributes) -> Result<Halves, Refusal> {
        let mut halves = Halves::default();
        let mut seen = BTreeSet::new();
        for (name, value) in given {
            let known = schema.and_then(|schema| schema.place(name));
            let known =
                known.filter(|(_, known)| known.definition.half == Part::Anonymous || rights.knows_identifying());
            let Some((place, known)) = known else {
                return Err(invalid(format!("`{}` is no attribute here", shown(name))));
            };
            if !seen.insert(place) {
                return Err(invalid(format!("`{}` is given twice", known.definition.name)));
            }
            let value = values::checked(&known.definition, value.clone()).map_err(invalid)?;
            if known.definition.half == Part::Anonymous {
                halves.anonymous.push((place, value));
            } else {
                halves.identifying.insert(known.definition.name.to_lowercase(), value);
            }
        }
        Ok(halves)
    }

    pub(super) fn show(&self, path: &str) -> Result<Entry, Refusal> {
        check_address(path)?;
        let (entry, rights) = self.visible(path)?;
        self.entry(&entry, &rights)
    }

    /// An entry as far as the caller may see it.
    pub(super) fn entry(&self, stored: &Stored, rights: &Rights) -> Result<Entry, Refusal> {
        let schema = self.schema_of(stored)?;
        let mut attributes = Attributes::new();
        let mut identifying = Vec::new();
        if let Some(schema) = schema.as_deref().filter(|_| rights.reads_anonymous()) {
            attributes = self.anonymous_values(schema, stored.id)?;
        }
        let mut replicas = if rights.name.contains(Permission::Read) {
            rows::replicas(self.sql, stored.id)?
        } else {
            Vec::new()
        };
        if rights.reads_identifying() {
            let half = self.identifying(stored)?;
            for (name, value) in half.attributes {
                let Some(known) = schema.as_deref().and_then(|schema| schema.attribute(&name)) else {
                    continue;
                };
                let name = known.definition.name.clone();
                identifying.push(name.clone());
                attributes.insert(name, value);
            }
            replicas.extend(half.replicas);
        }
        let identifying_record = if values::any(rights.identifying) {
            Some(self.record(stored.identifying_record)?.as_ref().clone())
        } else {
            None
        };
        let time = |seconds: i64| rfc3339(seconds.unsigned_abs());
        Ok(Entry {
            path: stored.path.clone(),
            kind: stored.kind,
            guid: format!("guid:{}", stored.guid),
            operation: stored.operation.map(|number| self.operation_id(number)).transpose()?,
            size: stored.size.map(i64::unsigned_abs),
            adler32: stored.adler32.clone(),
            sha256: stored.sha256.clone(),
            key_id: stored.key_id.clone(),
            status: stored.status,
            replicas,
            attributes,
            identifying,
            created_at: time(stored.created),
            modified_at: time(stored.modified),
            version: stored.version.unsigned_abs(),
            records: Records {
                name: self.record(stored.name_record)?.as_ref().clone(),
                anonymous: self.record(stored.anonymous_record)?.as_ref().clone(),
                identifying: identifying_record,
            },
        })
    }

    pub(super) fn list(&self, question: &ListQuestion) -> Result<Listing, Refusal> {
        let limit = question.limit.unwrap_or(MAX_ITEMS).clamp(1, MAX_ITEMS);
        let directory = if question.path.is_root() {
            None
        } else {
            let (entry, rights) = self.visible(question.path.as_str())?;
            if entry.kind == Kind::File {
                let entries = match &question.after {
                    Some(after) if *after >= entry.path => Vec::new(),
                    _ => vec![self.entry(&entry, &rights)?],
                };
                return Ok(Listing { entries, more: false });
            }
            Some(entry)
        };
        let listable = self.engine.known.granting(self.sql, self.caller, Permission::List)?;
        let own = self.own_open_operations()?;
        let dialect = self.sql.dialect();
        let (from, to) = rows::below(&question.path);
        // Never what lies before the directory.
        let after = question.after.as_ref().map_or("", LogicalName::as_str).max(&from);
        let mut data: Vec<Datum> = vec![after.into(), to.as_str().into(), Datum::Integers(listable)];
        data.push(Datum::Integers(own));
        data.push(signed(limit as u64 + 1).into());
        let place = match (&directory, question.recursive) {
            (_, true) => "",
            (None, false) => "parent IS NULL AND",
            (Some(directory), false) => {
                data.push(directory.id.into());
                "parent = ?6 AND"
            }
        };
        let condition = format!(
            "WHERE {place} path > ?1 AND path < ?2 AND {} AND (operation IS NULL OR {}) ORDER BY path LIMIT ?5",
            dialect.is_one_of(&dialect.unwalked("name_record"), 3),
            dialect.is_one_of("operation", 4),
        );
        let (found, mut more) = rows::select_some(self.sql, &condition, &data, limit, MOST_LISTED_BYTES)?;
        let mut entries = Vec::with_capacity(found.len());
        let mut bytes = 0;
        for entry in &found {
            // At least one, so that whoever asks for what is behind the last one comes to the end.
            if bytes >= MOST_LISTED_BYTES {
                more = true;
                break;
            }
            let entry = self.entry(entry, &self.rights(entry)?)?;
            bytes += weight(&entry);
            entries.push(entry);
        }
        Ok(Listing { entries, more })
    }

    pub(super) fn change(&self, change: &Change) -> Result<Entry, Refusal> {
        check_address(&change.path)?;
        check_file_fields(
            change.adler32.as_deref(),
            change.sha256.as_deref(),
            change.key_id.as_deref(),
        )?;
        check_replicas(&change.add_replicas)?;
        let (mut entry, rights) = self.visible(&change.path)?;
        if change
            .if_version
            .is_some_and(|version| signed(version) != entry.version)
        {
            return Err(conflict("it was changed meanwhile"));
        }
        let (sealed_in, open_in) = parted_replicas(&change.add_replicas);
        let (sealed_out, open_out) = parted_replicas(&change.remove_replicas);
        let of_file = change.size.is_some()
            || change.adler32.is_some()
            || change.sha256.is_some()
            || change.key_id.is_some()
            || change.status.is_some();
        if of_file || !open_in.is_empty() || !open_out.is_empty() {
            needs(
                rights.name,
                Permission::Write,
                "changing this entry needs `w` on its name",
            )?;
        }
        let schema = self.schema_of(&entry)?;
        let halves = self.parted(schema.as_deref(), &rights, &change.attributes)?;
        self.may_write(&rights, &halves, !sealed_in.is_empty() || !sealed_out.is_empty())?;
        let moves = change
            .rename
            .as_ref()
            .is_some_and(|to| to.as_str() != entry.path.as_str());
        let replicas = change.add_replicas.len() + change.remove_replicas.len();
        if !of_file && !moves && replicas == 0 && change.attributes.is_empty() {
            // Nothing that would need a right: nothing is touched either.
            return self.entry(&entry, &rights);
        }
        if entry.kind == Kind::Directory && (of_file || !change.add_replicas.is_empty()) {
            return Err(invalid("a directory has no size, checksum, key, status or replicas"));
        }
        entry.size = change.size.map(signed).or(entry.size);
        entry.adler32 = change.adler32.clone().or(entry.adler32);
        entry.sha256 = change.sha256.clone().or(entry.sha256);
        entry.key_id = change.key_id.clone().or(entry.key_id);
        entry.status = change.status.or(entry.status);
        for url in open_in {
            rows::add_replica(self.sql, entry.id, url)?;
        }
        for url in open_out {
            if !rows::remove_replica(self.sql, entry.id, url)? && rights.name.contains(Permission::Read) {
                return Err(invalid("no such replica"));
            }
        }
        check_number(rows::replicas(self.sql, entry.id)?.len())?;
        if let Some(schema) = &schema {
            self.update_values(schema, entry.id, &halves.anonymous)?;
        }
        if !(halves.identifying.is_empty() && sealed_in.is_empty() && sealed_out.is_empty()) {
            let mut half = self.identifying(&entry)?;
            for (name, value) in halves.identifying {
                match value {
                    Value::Null => half.attributes.remove(&name),
                    value => half.attributes.insert(name, value),
                };
            }
            half.replicas.retain(|url| !sealed_out.contains(&url));
            for url in sealed_in {
                if !half.replicas.contains(url) {
                    half.replicas.push(url.clone());
                }
            }
            check_number(half.replicas.len())?;
            entry.identifying = self.seal(&entry.guid, &half)?;
            if let Some(schema) = &schema {
                self.write_tokens(schema, entry.id, &half)?;
            }
        }
        entry.version += 1;
        entry.modified = signed(self.now);
        rows::update(self.sql, &entry)?;
        if let Some(to) = &change.rename {
            self.rename(&mut entry, &rights, to)?;
        }
        let rights = self.rights(&entry)?;
        self.entry(&entry, &rights)
    }

    fn rename(&self, entry: &mut Stored, rights: &Rights, to: &LogicalName) -> Result<(), Refusal> {
        if *to == entry.path {
            return Ok(());
        }
        needs(rights.name, Permission::Remove, "renaming needs `d` on the name")?;
        let (from, _) = rows::below(&entry.path);
        if to.is_root() || to.as_str().starts_with(&from) {
            return Err(invalid("nothing moves below itself"));
        }
        let as_new = NewEntry {
            path: to.clone(),
            parents: false,
            ..directory_above(&NewEntry::of(to.clone(), entry.kind))
        };
        let parent = self.parent_for(&as_new, None)?;
        if rows::find(self.sql, to.as_str())?.is_some() {
            return Err(taken());
        }
        let schema = parent.as_ref().and_then(|parent| parent.schema);
        if entry.schema != schema && !self.owns_schema(entry)? {
            return Err(invalid("another schema holds there"));
        }
        let data = [
            entry.id.into(),
            to.as_str().into(),
            parent.as_ref().map(|parent| parent.id).into(),
        ];
        self.sql
            .execute("UPDATE entries SET path = ?2, parent = ?3 WHERE id = ?1", &data)?;
        if entry.kind == Kind::Directory {
            self.rename_below(&entry.path, to)?;
        }
        entry.path = to.clone();
        self.forget();
        Ok(())
    }

    /// Renames what lies below a directory, some at a time, so that no statement takes long.
    fn rename_below(&self, from: &LogicalName, to: &LogicalName) -> Result<(), Refusal> {
        let (first, last) = rows::below(from);
        let range = [Datum::from(first), last.into()];
        let longest = "SELECT coalesce(max(octet_length(path)), 0) FROM entries WHERE path >= ?1 AND path < ?2";
        let longest = row(self.sql, longest, &range)?.map_or(Ok(0), |row| row.integer(0))?;
        let rest = usize::try_from(longest)
            .unwrap_or(usize::MAX)
            .saturating_sub(from.as_str().len());
        if rest.saturating_add(to.as_str().len()) > LogicalName::MAX_BYTES {
            return Err(invalid("a name below it would be too long"));
        }
        // What has its new name is out of the range.
        let text = format!(
            "UPDATE entries SET path = CAST(?3 AS TEXT) || substr(path, CAST(CAST(?4 AS BIGINT) AS INTEGER)) \
             WHERE id IN (SELECT id FROM entries WHERE path >= ?1 AND path < ?2 ORDER BY path LIMIT {RENAMED_AT_ONCE})"
        );
        // In characters, as both databases count.
        let behind = from.as_str().chars().count() + 1;
        let [first, last] = range;
        let data = [first, last, to.as_str().into(), signed(behind as u64).into()];
        while self.sql.execute(&text, &data)? > 0 {}
        Ok(())
    }
}

impl NewEntry {
    /// Nothing but a name.
    pub fn of(path: LogicalName, kind: Kind) -> Self {
        Self {
            path,
            kind,
            parents: false,
            guid: None,
            operation: None,
            size: None,
            adler32: None,
            sha256: None,
            key_id: None,
            status: None,
            replicas: Vec::new(),
            attributes: Attributes::new(),
        }
    }
}

fn directory_above(new: &NewEntry) -> NewEntry {
    NewEntry {
        parents: new.parents,
        ..NewEntry::of(new.path.clone(), Kind::Directory)
    }
}

/// How many bytes an entry takes in an answer, about.
pub(super) fn weight(entry: &Entry) -> usize {
    /// What every entry has.
    const USUAL: usize = 256;
    let values: usize = entry.attributes.values().map(super::search::weight).sum();
    let names: usize = entry.attributes.keys().chain(&entry.replicas).map(String::len).sum();
    USUAL + values + names + records_weight(&entry.records)
}

/// Likewise permission records.
pub(super) fn records_weight(records: &Records) -> usize {
    let lines = |record: &PermissionRecord| -> usize {
        let line = |line: &AclEntry| line.principal.len() + 64;
        256 + record.acl.iter().map(line).sum::<usize>()
    };
    lines(&records.name) + lines(&records.anonymous) + records.identifying.as_ref().map_or(0, lines)
}

/// Whether an entry was shown with something of its identifying half.
pub(super) fn shows_identifying(entry: &Entry) -> bool {
    !entry.identifying.is_empty() || entry.replicas.iter().any(|url| is_identifying(url))
}

fn taken() -> Refusal {
    conflict("this name is taken by something else")
}

/// An unknown name as an error shows it: short, on one line.
fn shown(name: &str) -> String {
    name.chars()
        .take(64)
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

/// Whether a replica belongs to the identifying half: it names the patient's study in the PACS.
fn is_identifying(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dicom:"))
}

fn parted_replicas(urls: &[String]) -> (Vec<&String>, Vec<&String>) {
    urls.iter().partition(|url| is_identifying(url))
}

fn check_form(new: &NewEntry) -> Result<(), Refusal> {
    if new.path.is_root() {
        return Err(invalid("the root is there already"));
    }
    check_file_fields(new.adler32.as_deref(), new.sha256.as_deref(), new.key_id.as_deref())?;
    check_replicas(&new.replicas)?;
    let of_file = new.size.is_some()
        || new.adler32.is_some()
        || new.sha256.is_some()
        || new.key_id.is_some()
        || new.status.is_some()
        || !new.replicas.is_empty();
    if new.kind == Kind::Directory && of_file {
        return Err(invalid("a directory has no size, checksum, key, status or replicas"));
    }
    Ok(())
}

fn check_file_fields(adler32: Option<&str>, sha256: Option<&str>, key_id: Option<&str>) -> Result<(), Refusal> {
    let is_hex = |text: &str, digits| {
        text.len() == digits
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    if adler32.is_some_and(|text| !is_hex(text, 8)) {
        return Err(invalid("`adler32` has eight lower-case hexadecimal digits"));
    }
    if sha256.is_some_and(|text| !is_hex(text, 64)) {
        return Err(invalid("`sha256` has 64 lower-case hexadecimal digits"));
    }
    if let Some(Err(error)) = key_id.map(KeyId::imported) {
        return Err(invalid(format!("`key_id`: {error}")));
    }
    Ok(())
}

fn check_number(replicas: usize) -> Result<(), Refusal> {
    if replicas > MAX_REPLICAS {
        return Err(invalid(format!("an entry has at most {MAX_REPLICAS} replicas")));
    }
    Ok(())
}

fn check_replicas(urls: &[String]) -> Result<(), Refusal> {
    let is_url = |url: &String| {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let is_scheme = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'+' | b'-' | b'.');
        !scheme.is_empty() && scheme.bytes().all(is_scheme) && url.len() <= MAX_REPLICA_BYTES
    };
    check_number(urls.len())?;
    if !urls.iter().all(|url| is_url(url) && !url.chars().any(char::is_control)) {
        return Err(invalid(format!(
            "a replica is a URL of at most {MAX_REPLICA_BYTES} bytes without control characters"
        )));
    }
    Ok(())
}

/// Whether a text can address an entry at all.
pub(super) fn check_address(text: &str) -> Result<(), Refusal> {
    if text.starts_with("guid:") {
        return checked_guid(text).map(drop);
    }
    let checked = LogicalName::new(text);
    checked.map(drop).map_err(|error| invalid(error.to_string()))
}

pub(super) fn bare_guid(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    lower.strip_prefix("guid:").unwrap_or(&lower).to_owned()
}

/// A UUID in lower case, with or without `guid:` before it.
fn checked_guid(text: &str) -> Result<String, Refusal> {
    let guid = bare_guid(text);
    let lengths: Vec<usize> = guid.split('-').map(str::len).collect();
    let is_uuid = lengths == [8, 4, 4, 4, 12] && guid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_uuid
        .then_some(guid)
        .ok_or_else(|| invalid("a guid is `guid:` and a UUID"))
}

/// A random UUID (RFC 9562, version 4).
fn draw_guid() -> Result<String, Refusal> {
    let drawn = ChangeId::random().map_err(|_| DatabaseError::Closed)?;
    let mut bytes = *drawn.as_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-"))
}
