//! New entries of a request, written together: a thousand images are some statements for each table, not some for each
//! image. They are decided on one by one before ([`super::names`]); what one of them asks for that is not written yet
//! is written first, outside of what is taken back if that one is refused.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use hydra_core::keystore::wire::{Problem, ProblemKind};

use super::rows::{self, Stored};
use super::schemas::KnownSchema;
use super::{Refusal, Work, names, signed, values};
use crate::LogicalName;
use crate::database::schema::{value_column, values_table};
use crate::database::{DatabaseError, Datum, insert, row, rows as rows_of};
use crate::wire::{Kind, NewEntry, Value};

/// Rows that wait to be written, at most and about: what has more is written before the next entry.
const MOST_WAITING: usize = 20_000;

/// An entry with all that belongs to it.
pub(super) struct Fresh {
    pub(super) entry: Stored,
    /// But those of the identifying half.
    pub(super) replicas: Vec<String>,
    pub(super) schema: Option<Rc<KnownSchema>>,
    /// By the places of their attributes.
    pub(super) values: Vec<(usize, Value)>,
    pub(super) tokens: Vec<(i64, Vec<u8>)>,
}

impl Fresh {
    fn rows(&self) -> usize {
        let items = self.values.iter().map(|(_, value)| match value {
            Value::List(items) => items.len(),
            _ => 0,
        });
        2 + self.replicas.len() + self.tokens.len() + items.sum::<usize>()
    }
}

/// Entries that are not written yet.
#[derive(Default)]
pub(super) struct Waiting {
    entries: Vec<Fresh>,
    /// Their paths and guids.
    addresses: HashSet<String>,
    rows: usize,
}

impl Waiting {
    /// Whether one of them is there, above there, or has the guid.
    fn concerns(&self, new: &NewEntry) -> bool {
        let path = new.path.as_str();
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        let guid = new.guid.as_deref().map(names::bare_guid);
        above.chain([path]).any(|path| self.addresses.contains(path))
            || guid.is_some_and(|guid| self.addresses.contains(&guid))
    }
}

impl Work<'_> {
    /// Before the first of `rest` is made, all of which come in this request.
    pub(super) fn make_way(&self, rest: &[NewEntry]) -> Result<(), DatabaseError> {
        let Some(next) = rest.first() else { return Ok(()) };
        if rest.len() > 1 && !self.looked_ahead.replace(true) {
            self.look_ahead(rest)?;
        }
        let waiting = self.waiting.borrow();
        let is_time = waiting.rows >= MOST_WAITING || !waiting.entries.is_empty() && waiting.concerns(next);
        drop(waiting);
        if is_time { self.write_waiting() } else { Ok(()) }
    }

    /// Finds out by one statement which names are free.
    fn look_ahead(&self, items: &[NewEntry]) -> Result<(), DatabaseError> {
        let mut vacant: HashSet<String> = items.iter().map(|item| item.path.to_string()).collect();
        let text = format!(
            "SELECT path FROM entries WHERE {}",
            self.sql.dialect().is_one_of("path", 1)
        );
        let paths = vacant.iter().cloned().collect();
        for mut row in rows_of(self.sql, &text, &[Datum::Texts(paths)])? {
            vacant.remove(&row.text(0)?);
        }
        *self.vacant.borrow_mut() = vacant;
        Ok(())
    }

    /// What stands at the path of a new entry; where a name was found free before, that counts once.
    pub(super) fn occupant(&self, path: &LogicalName) -> Result<Option<Stored>, DatabaseError> {
        if self.vacant.borrow_mut().remove(path.as_str()) {
            return Ok(None);
        }
        rows::find(self.sql, path.as_str())
    }

    /// Counts one more entry of the caller, unless they own as many as one may.
    pub(super) fn count_in(&self) -> Result<(), Refusal> {
        let most = self.engine.rules.per_owner;
        if most == 0 {
            return Ok(());
        }
        let owned = match self.owned.get() {
            Some(owned) => owned,
            None => self.count_owned(most)?,
        };
        if owned >= most {
            let detail = format!("you own {owned} entries: here nobody has more than {most}");
            return Err(Problem::new(ProblemKind::Limit).detail(detail).into());
        }
        self.owned.set(Some(owned + 1));
        Ok(())
    }

    /// How many entries the caller owns, counted up to `most`.
    fn count_owned(&self, most: u64) -> Result<u64, DatabaseError> {
        let records = self.engine.known.owned(self.sql, &self.caller.dn)?;
        let text = format!(
            "SELECT count(*) FROM (SELECT 1 FROM entries WHERE {} LIMIT ?2) AS owned",
            self.sql.dialect().is_one_of("name_record", 1)
        );
        let found = row(self.sql, &text, &[Datum::Integers(records), signed(most).into()])?;
        let written = found.map_or(Ok(0), |row| row.integer(0))?.unsigned_abs();
        Ok(written + self.waiting.borrow().entries.len() as u64)
    }

    /// Keeps a new entry: a directory at once, as others lie in it.
    pub(super) fn keep(&self, fresh: Fresh) -> Result<(), DatabaseError> {
        if fresh.entry.kind == Kind::Directory {
            return self.write_fresh(&[fresh]);
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.rows += fresh.rows();
        waiting.addresses.insert(fresh.entry.path.to_string());
        waiting.addresses.insert(fresh.entry.guid.clone());
        waiting.entries.push(fresh);
        Ok(())
    }

    /// Writes all that is not written yet.
    pub(super) fn write_waiting(&self) -> Result<(), DatabaseError> {
        let Waiting { entries, .. } = self.waiting.take();
        self.write_fresh(&entries)
    }

    fn write_fresh(&self, entries: &[Fresh]) -> Result<(), DatabaseError> {
        let numbers = rows::insert(self.sql, entries.iter().map(|fresh| &fresh.entry))?;
        let number = |fresh: &Fresh| numbers.get(fresh.entry.path.as_str()).copied();
        let mut numbered = Vec::with_capacity(entries.len());
        for fresh in entries {
            numbered.push((number(fresh).ok_or(DatabaseError::Content { table: "entries" })?, fresh));
        }
        self.write_replicas(&numbered)?;
        let mut by_schema: BTreeMap<i64, Vec<(i64, &Fresh)>> = BTreeMap::new();
        for (entry, fresh) in &numbered {
            if let Some(schema) = &fresh.schema {
                by_schema.entry(schema.id).or_default().push((*entry, fresh));
            }
        }
        for of_schema in by_schema.values() {
            if let Some(schema) = of_schema.first().and_then(|(_, fresh)| fresh.schema.as_deref()) {
                self.write_values(schema, of_schema)?;
            }
        }
        let tokens = numbered.iter().flat_map(|(entry, fresh)| {
            let tokens = fresh.tokens.iter();
            tokens.map(move |(attribute, token)| vec![(*attribute).into(), token.clone().into(), (*entry).into()])
        });
        let head = "INSERT INTO tokens(attribute, token, entry)";
        insert(self.sql, head, tokens.collect(), "")
    }

    /// One that is given twice is there once.
    fn write_replicas(&self, entries: &[(i64, &Fresh)]) -> Result<(), DatabaseError> {
        let rows = entries.iter().flat_map(|(entry, fresh)| {
            let urls = (1_i64..).zip(&fresh.replicas);
            urls.map(move |(place, url)| vec![(*entry).into(), place.into(), url.as_str().into()])
        });
        let head = "INSERT INTO replicas(entry, place, url)";
        insert(self.sql, head, rows.collect(), " ON CONFLICT DO NOTHING")
    }

    /// Every entry under a schema has a row of values, empty or not.
    fn write_values(&self, schema: &KnownSchema, entries: &[(i64, &Fresh)]) -> Result<(), DatabaseError> {
        let given = entries
            .iter()
            .flat_map(|(_, fresh)| fresh.values.iter().map(|(place, _)| *place));
        let places: Vec<usize> = given.collect::<BTreeSet<_>>().into_iter().collect();
        let known = |place: &usize| schema.attributes.get(*place);
        let columns = places
            .iter()
            .filter_map(known)
            .map(|known| format!(", {}", value_column(known.id)));
        let head = format!(
            "INSERT INTO {}(entry{})",
            values_table(schema.id),
            columns.collect::<String>()
        );
        let (mut rows, mut items) = (Vec::with_capacity(entries.len()), Vec::new());
        for (entry, fresh) in entries {
            let mut row = vec![Datum::Null; 1 + places.len()];
            row[0] = (*entry).into();
            for (place, value) in &fresh.values {
                if let (Ok(column), Some(known)) = (places.binary_search(place), known(place)) {
                    row[1 + column] = values::datum(value);
                    items.extend(values::items(known, *entry, value));
                }
            }
            rows.push(row);
        }
        insert(self.sql, &head, rows, "")?;
        insert(self.sql, values::INSERT_ITEMS, items, " ON CONFLICT DO NOTHING")
    }
}
