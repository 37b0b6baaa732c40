//! What belongs to a replica, a key or an operation.

use hydra_core::permissions::Permission;

use super::refusal::invalid;
use super::{Refusal, Work, signed};
use crate::LogicalName;
use crate::database::{DatabaseError, Datum, Row, rows};
use crate::wire::{Found, FoundEntry, Kind, Lookup, MAX_ITEMS};

/// How much of a URL stands in the index (`schema.2.sql`), in characters.
const INDEXED: usize = 400;

impl Work<'_> {
    /// As much of it as the caller may see.
    pub(super) fn lookup(&self, lookup: &Lookup) -> Result<Found, Refusal> {
        let given = [&lookup.replica, &lookup.key_id];
        if given.into_iter().flatten().any(|text| text.contains(char::is_control)) {
            return Err(invalid("no replica and no key has a control character"));
        }
        let known = &self.engine.known;
        let mut names = known.granting(self.sql, self.caller, Permission::List)?;
        let (condition, mut data) = match (&lookup.replica, &lookup.key_id, &lookup.operation) {
            (Some(url), None, None) => {
                // who may not read where replicas are must not find it out by guessing either
                let readable = known.granting(self.sql, self.caller, Permission::Read)?;
                names.retain(|record| readable.contains(record));
                let start: String = url.chars().take(INDEXED).collect();
                let condition = "id IN (SELECT entry FROM replicas WHERE substr(url, 1, 400) = ?1 AND url = ?2)";
                (condition, vec![Datum::from(start), url.as_str().into()])
            }
            (None, Some(key_id), None) => ("key_id = ?1", vec![key_id.as_str().into()]),
            (None, None, Some(id)) => ("operation = ?1", vec![self.open_operation(id)?.into()]),
            _ => return Err(invalid("a lookup is by one of `replica`, `key_id` and `operation`")),
        };
        let first = data.len() + 1;
        let after = lookup.after.as_ref().map_or("", LogicalName::as_str);
        data.push(after.into());
        data.push(Datum::Integers(names));
        data.push(Datum::Integers(self.own_open_operations()?));
        data.push(signed(MAX_ITEMS as u64 + 1).into());
        let dialect = self.sql.dialect();
        let text = format!(
            "SELECT path, kind FROM entries WHERE {condition} AND path > ?{first} AND {} AND (operation IS NULL OR {}) \
             ORDER BY path LIMIT ?{}",
            dialect.is_one_of(&dialect.unwalked("name_record"), first + 1),
            dialect.is_one_of("operation", first + 2),
            first + 3,
        );
        let found = rows(self.sql, &text, &data)?;
        let mut entries = found.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let more = entries.len() > MAX_ITEMS;
        entries.truncate(MAX_ITEMS);
        Ok(Found { entries, more })
    }
}

fn entry(mut row: Row) -> Result<FoundEntry, DatabaseError> {
    let bad = |_| DatabaseError::Content { table: "entries" };
    Ok(FoundEntry {
        path: LogicalName::new(row.text(0)?).map_err(bad)?,
        kind: match row.integer(1)? {
            0 => Kind::Directory,
            _ => Kind::File,
        },
    })
}
