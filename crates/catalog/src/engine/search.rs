//! Searches: resolved against what exists for the caller, run some files at a time, each time by the permissions of
//! that moment, so that nothing is held open for a slow client and nobody is shown what was taken from them meanwhile.
//! An answer from whose reader something was taken breaks off, as what it would go on with is not all of it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;

use hydra_core::keystore::store::rfc3339;
use hydra_core::keystore::wire::{Problem, ProblemKind};
use hydra_core::permissions::{Caller, Permission, granted};

use super::records::Changed;
use super::refusal::{invalid, not_allowed};
use super::schemas::KnownSchema;
use super::{Engine, Refusal, Work, audit, now, records, rows, values};
use crate::LogicalName;
use crate::columns::{ColumnKeys, Identifying};
use crate::database::{DatabaseError, Datum, Row, row};
use crate::query::resolve::{Column, Known, Resolved, SchemaAttributes};
use crate::query::sql::{self, Scope, Tokens};
use crate::query::{self, Attributes, Field, Position, ResolveError};
use crate::wire::{Part, Search, Value};

/// Files that are read in one transaction.
const CHUNK: u64 = 500;
/// The most columns of an answer.
const MAX_COLUMNS: usize = 200;
/// Bytes of values after which a chunk ends.
const CHUNK_BYTES: usize = 1 << 20;

/// How far a search is.
#[derive(Debug, Clone)]
pub struct Progress {
    after: Option<Position>,
    /// How many files this answer may still have.
    left: u64,
    /// The last change of permissions that was seen; none before the first files.
    seen_change: Option<i64>,
    /// How many it has.
    pub rows: u64,
}

/// Some files of a search.
#[derive(Debug)]
pub struct Chunk {
    /// The names of the columns, as the schema spells them.
    pub columns: Vec<String>,
    /// The values.
    pub rows: Vec<Vec<Value>>,
    /// How it goes on; not at all, where this was the last.
    pub next: Option<Progress>,
    /// Where the next page begins, where this one ended and there is more.
    pub cursor: Option<String>,
    /// How many files there were up to here, or were counted.
    pub counted: u64,
    /// Whether attributes of the identifying half were shown or searched by.
    shows_identifying: bool,
}

impl Engine {
    /// Begins a search.
    ///
    /// # Errors
    /// A cursor of another search.
    pub fn begin_search(&self, caller: &Caller, search: &Search) -> Result<Progress, Problem> {
        let after = search.cursor.as_deref().map(|text| {
            let opened = self.cursors.open(text, &bound(caller, search));
            opened.map_err(|error| invalid(error.to_string()).told())
        });
        Ok(Progress {
            after: after.transpose()?,
            left: search.page.map_or(u64::MAX, |page| page.max(1) as u64),
            seen_change: None,
            rows: 0,
        })
    }

    /// Finds some files, or counts them all.
    ///
    /// # Errors
    /// Why the search cannot be answered, or not any more.
    pub fn search(&self, caller: &Caller, search: &Search, progress: &Progress) -> Result<Chunk, Problem> {
        let found = self.read(caller, |work| work.search(search, progress));
        let chunk = found.map_err(|problem| match problem.kind {
            // It was there, and the search a search, when the answer began.
            ProblemKind::NotFound | ProblemKind::Invalid if progress.seen_change.is_some() => taken_away().told(),
            _ => problem,
        })?;
        if chunk.shows_identifying && progress.rows == 0 {
            self.note_search(caller, search)?;
        }
        Ok(chunk)
    }

    /// Who asked for identifying attributes, and where; not by which values.
    fn note_search(&self, caller: &Caller, search: &Search) -> Result<(), Problem> {
        let written = self.database.write(|sql| {
            let mut log = audit::Writer::new(sql, now())?;
            log.line(
                caller,
                "search",
                &search.from,
                "identifying attributes shown or searched by",
            );
            log.finish()
        });
        written.map(drop).map_err(|error| Refusal::Database(error).told())
    }
}

/// Why an answer breaks off that was allowed when it began.
fn taken_away() -> Refusal {
    not_allowed("something that was searched was taken from you meanwhile, so that the answer is not whole")
}

/// What a cursor belongs to.
fn bound<'a>(caller: &'a Caller, search: &'a Search) -> [&'a str; 3] {
    [&caller.dn, &search.from, &search.query]
}

/// Tokens for the attributes of a schema.
struct TokensOf<'a> {
    keys: &'a ColumnKeys,
    schema: Option<&'a KnownSchema>,
}

impl TokensOf<'_> {
    fn of(&self, attribute: i64, token: impl Fn(&crate::wire::AttributeDefinition) -> Vec<u8>) -> Vec<u8> {
        let mut attributes = self.schema.iter().flat_map(|schema| &schema.attributes);
        let known = attributes.find(|known| known.id == attribute);
        known.map(|known| token(&known.definition)).unwrap_or_default()
    }
}

impl Tokens for TokensOf<'_> {
    fn whole(&self, attribute: i64, value: &str) -> Vec<u8> {
        self.of(attribute, |definition| self.keys.exact(definition, value))
    }

    fn name_part(&self, attribute: i64, part: &str) -> Vec<u8> {
        self.of(attribute, |definition| self.keys.name_part(definition, part))
    }
}

impl Work<'_> {
    fn search(&self, search: &Search, progress: &Progress) -> Result<Chunk, Refusal> {
        let from = LogicalName::new(search.from.as_str()).map_err(|error| invalid(error.to_string()))?;
        let (schema, knows_identifying) = self.searched(&from)?;
        let attributes = attributes(schema.as_deref(), knows_identifying);
        let query = query::parse(&search.query).map_err(|error| invalid(error.to_string()))?;
        let resolved = query::resolve(&query, &attributes).map_err(refused)?;
        let columns = columns(&search.columns, &attributes)?;
        let asks_identifying = |column: &Known| matches!(column.column, Column::Identifying { .. });
        let shows_identifying = columns.iter().any(asks_identifying)
            || query::resolve(&query, &self::attributes(schema.as_deref(), false)).is_err();
        if let Some(seen) = progress.seen_change
            && self.has_lost(seen, &from, shows_identifying)?
        {
            return Err(taken_away());
        }
        let known = &self.engine.known;
        let names = known.granting(self.sql, self.caller, Permission::List)?;
        let readable = known.granting(self.sql, self.caller, Permission::Use)?;
        let operations = self.own_open_operations()?;
        let tokens = TokensOf {
            keys: &self.engine.keys,
            schema: schema.as_deref(),
        };
        let scope = Scope {
            from: &from,
            schema: schema.as_ref().map(|schema| schema.id),
            names: &names,
            anonymous: &readable,
            identifying: if knows_identifying { &readable } else { &[] },
            operations: &operations,
            tokens: &tokens,
        };
        let mut chunk = Chunk {
            columns: columns.iter().map(|column| column.name.clone()).collect(),
            rows: Vec::new(),
            next: None,
            cursor: None,
            counted: progress.rows,
            shows_identifying,
        };
        if search.count {
            chunk.counted = sql::count(self.sql, &resolved, &scope)?;
            return Ok(chunk);
        }
        let position = self.page(
            &resolved,
            &scope,
            &columns,
            progress,
            &readable,
            schema.as_ref(),
            &mut chunk,
        )?;
        let rows = chunk.rows.len() as u64;
        chunk.counted += rows;
        let left = progress.left.saturating_sub(rows);
        match position {
            Some(after) if left > 0 => {
                chunk.next = Some(Progress {
                    after: Some(after),
                    left,
                    seen_change: Some(records::last_change(self.sql)?),
                    rows: chunk.counted,
                });
            }
            Some(after) => chunk.cursor = self.engine.cursors.seal(&after, &bound(self.caller, search)),
            None => {}
        }
        Ok(chunk)
    }

    /// Whether changes of permissions have taken from the caller what a search reads of some file below `from`.
    fn has_lost(&self, seen: i64, from: &LogicalName, identifying: bool) -> Result<bool, DatabaseError> {
        // Those that came of one that let the caller read, however often it was changed since.
        let mut had = BTreeSet::new();
        for changed in records::changes_since(self.sql, seen)? {
            let Changed { before_id, after, .. } = changed;
            let (column, needed) = match changed.part.as_str() {
                "name_record" => ("name_record", Permission::List),
                "anonymous_record" => ("anonymous_record", Permission::Use),
                "identifying_record" if identifying => ("identifying_record", Permission::Use),
                _ => continue,
            };
            if !granted(&changed.before, self.caller, false).contains(needed) && !had.contains(&(column, before_id)) {
                continue;
            }
            had.insert((column, after));
            let (first, last) = rows::below(from);
            let text =
                format!("SELECT 1 FROM entries WHERE path >= ?1 AND path < ?2 AND kind = 1 AND {column} = ?3 LIMIT 1");
            // A record that nobody has any more may be gone.
            let is_there = row(self.sql, &text, &[first.into(), last.into(), after.into()])?.is_some();
            if is_there && !self.granted(after)?.contains(needed) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one resolved search")]
    fn page(
        &self,
        resolved: &Resolved,
        scope: &Scope<'_>,
        columns: &[Known],
        progress: &Progress,
        readable: &[i64],
        schema: Option<&Rc<KnownSchema>>,
        chunk: &mut Chunk,
    ) -> Result<Option<Position>, Refusal> {
        let sealed = ["e.guid", "e.identifying_record", "e.identifying"].map(str::to_owned);
        let shows_sealed = columns.iter().any(|known| sql::expression(known.column).is_none());
        let open: Vec<String> = columns
            .iter()
            .filter_map(|known| sql::expression(known.column))
            .collect();
        let all = open.iter().chain(sealed.iter().filter(|_| shows_sealed));
        let select: Vec<&str> = all.map(String::as_str).collect();
        let request = sql::Page {
            select: &select,
            after: progress.after.as_ref(),
            files: progress.left.min(CHUNK),
        };
        let mut failed = None;
        let mut bytes = 0;
        let position = sql::page(self.sql, resolved, scope, &request, &mut |mut row| {
            let half = if shows_sealed {
                self.half_of(&mut row, open.len(), readable)
            } else {
                Ok(Identifying::default())
            };
            let half = match half {
                Ok(half) => half,
                Err(failure) => {
                    failed = Some(failure);
                    return Ok(ControlFlow::Break(()));
                }
            };
            let mut place = 0;
            let mut values = Vec::with_capacity(columns.len());
            for known in columns {
                values.push(match known.column {
                    Column::Identifying { number, .. } => sealed_value(schema, number, &half),
                    column => {
                        place += 1;
                        open_value(column, row.take(place - 1))?
                    }
                });
            }
            bytes += values.iter().map(weight).sum::<usize>();
            chunk.rows.push(values);
            Ok(if bytes < CHUNK_BYTES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        failed.map_or(Ok(position), Err)
    }

    /// The identifying half of a file that was found, where the caller may read it.
    fn half_of(&self, row: &mut Row, first: usize, readable: &[i64]) -> Result<Identifying, Refusal> {
        let (guid, record, column) = (row.text(first)?, row.integer(first + 1)?, row.optional_blob(first + 2)?);
        // In the order of their numbers.
        let Some(column) = column.filter(|_| readable.binary_search(&record).is_ok()) else {
            return Ok(Identifying::default());
        };
        let opened = self.engine.keys.open(&guid, &column);
        opened.map_err(|source| Refusal::Column { guid, source })
    }
}

/// How many bytes a value takes, about.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(weight).sum(),
        _ => 8,
    }
}

fn sealed_value(schema: Option<&Rc<KnownSchema>>, number: i64, half: &Identifying) -> Value {
    let mut attributes = schema.iter().flat_map(|schema| &schema.attributes);
    let known = attributes.find(|known| known.id == number);
    let value = known.and_then(|known| half.attributes.get(&known.definition.name.to_lowercase()));
    value.cloned().unwrap_or(Value::Null)
}

fn open_value(column: Column, datum: Datum) -> Result<Value, DatabaseError> {
    Ok(match (column, datum) {
        (Column::Anonymous { kind, .. }, datum) => values::value(kind, datum)?,
        (Column::Field(Field::Created | Field::Modified), Datum::Integer(seconds)) => {
            Value::Text(rfc3339(seconds.unsigned_abs()))
        }
        (Column::Field(Field::Guid), Datum::Text(uuid)) => Value::Text(format!("guid:{uuid}")),
        (Column::Field(_), Datum::Text(text)) => Value::Text(text),
        (Column::Field(_), Datum::Integer(number)) => Value::Integer(number),
        (Column::Field(_), Datum::Null) => Value::Null,
        _ => return Err(DatabaseError::Content { table: "entries" }),
    })
}

fn attributes(schema: Option<&KnownSchema>, identifying: bool) -> SchemaAttributes {
    let known = schema.map(|schema| schema.attributes.as_slice()).unwrap_or_default();
    let seen = known
        .iter()
        .filter(|known| identifying || known.definition.half != Part::Identifying);
    SchemaAttributes {
        attributes: seen.map(|known| (known.id, known.definition.clone())).collect(),
        identifying,
    }
}

fn columns(asked: &[String], attributes: &SchemaAttributes) -> Result<Vec<Known>, Refusal> {
    let default = ["name".to_owned()];
    let asked = if asked.is_empty() { &default[..] } else { asked };
    if asked.len() > MAX_COLUMNS {
        return Err(invalid(format!("an answer has at most {MAX_COLUMNS} columns")));
    }
    let is_twice = |(number, name): (usize, &String)| asked[..number].contains(name);
    if asked.iter().enumerate().any(is_twice) {
        return Err(invalid("a column is asked for twice"));
    }
    let known = |name: &String| {
        let unknown = || refused(ResolveError::Unknown { name: name.clone() });
        attributes.lookup(name).ok_or_else(unknown)
    };
    asked.iter().map(known).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "used as the end of a chain of errors")]
fn refused(error: ResolveError) -> Refusal {
    invalid(error.to_string())
}
