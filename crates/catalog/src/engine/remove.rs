//! Removing entries with all that belongs to them.

use std::collections::BTreeSet;

use hydra_core::permissions::{Permission, Permissions};

use super::refusal::{conflict, not_allowed};
use super::rows::{self, Stored};
use super::{Refusal, Work, names, needs, records};
use crate::database::{DatabaseError, Datum, rows as rows_of, schema};
use crate::wire::{Kind, Removal};

/// How many sealed halves are looked into at a time.
const SEALED_AT_ONCE: usize = 100;

impl Work<'_> {
    /// How many entries went.
    pub(super) fn remove(&self, removal: &Removal) -> Result<u64, Refusal> {
        names::check_address(&removal.path)?;
        let (entry, rights) = self.visible(&removal.path)?;
        needs(
            rights.name,
            Permission::Remove,
            "removing this entry needs `d` on its name",
        )?;
        if removal.unreplicated {
            let sealed = rights.reads_identifying() && !self.identifying(&entry)?.replicas.is_empty();
            if sealed || !rows::replicas(self.sql, entry.id)?.is_empty() {
                return Err(conflict("it has replicas"));
            }
        }
        if entry.kind == Kind::File {
            self.delete(&[entry.id])?;
            return Ok(1);
        }
        let below = self.below(&entry)?;
        if !below.is_empty() && !removal.recursive {
            return Err(conflict("the directory is not empty"));
        }
        if !self.may_remove_all(&below)? {
            return Err(not_allowed("something below it is not yours to remove"));
        }
        let mut ids: Vec<i64> = below.iter().map(|(id, ..)| *id).collect();
        if removal.unreplicated {
            let of_entry = self.sql.dialect().is_one_of("entry", 1);
            let text = format!("SELECT entry FROM replicas WHERE {of_entry} LIMIT 1");
            if crate::database::row(self.sql, &text, &[Datum::Integers(ids.clone())])?.is_some() {
                return Err(conflict("something below it has replicas"));
            }
            if self.any_sealed_replica(&ids)? {
                return Err(conflict("something below it has replicas"));
            }
        }
        ids.push(entry.id);
        self.delete(&ids)?;
        Ok(ids.len() as u64)
    }

    /// Number, permission record and open operation of everything below a directory.
    fn below(&self, directory: &Stored) -> Result<Vec<(i64, i64, Option<i64>)>, DatabaseError> {
        let (from, to) = rows::below(&directory.path);
        let text = "SELECT id, name_record, operation FROM entries WHERE path >= ?1 AND path < ?2";
        let found = rows_of(self.sql, text, &[from.into(), to.into()])?;
        let read = |row: crate::database::Row| Ok((row.integer(0)?, row.integer(1)?, row.optional_integer(2)?));
        found.into_iter().map(read).collect()
    }

    /// Whether one of these has a replica in its identifying half, as far as the caller reads that.
    fn any_sealed_replica(&self, ids: &[i64]) -> Result<bool, Refusal> {
        let of = self.sql.dialect().is_one_of("id", 1);
        let text = format!("SELECT DISTINCT identifying_record FROM entries WHERE {of} AND identifying IS NOT NULL");
        let mut readable = Vec::new();
        for row in rows_of(self.sql, &text, &[Datum::Integers(ids.to_vec())])? {
            let record = row.integer(0)?;
            if self.granted(record)?.contains(Permission::Use) {
                readable.push(record);
            }
        }
        if readable.is_empty() {
            return Ok(false);
        }
        let readable = Datum::Integers(readable);
        let dialect = self.sql.dialect();
        let of_record = dialect.is_one_of(&dialect.unwalked("identifying_record"), 2);
        let condition = format!("WHERE {of} AND {of_record} AND identifying IS NOT NULL");
        for some in ids.chunks(SEALED_AT_ONCE) {
            let data = [Datum::Integers(some.to_vec()), readable.clone()];
            for entry in rows::select(self.sql, &condition, &data)? {
                if !self.identifying(&entry)?.replicas.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn may_remove_all(&self, below: &[(i64, i64, Option<i64>)]) -> Result<bool, DatabaseError> {
        let mut decided = std::collections::HashMap::<i64, Permissions>::new();
        for (_, record, operation) in below {
            let granted = match decided.get(record) {
                Some(granted) => *granted,
                None => {
                    let granted = self.granted(*record)?;
                    decided.insert(*record, granted);
                    granted
                }
            };
            let of_another = operation.map(|number| self.owns_operation(number)).transpose()? == Some(false);
            if !granted.contains(Permission::Remove) || of_another {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes entries with all that belongs to them.
    pub(super) fn delete(&self, ids: &[i64]) -> Result<(), DatabaseError> {
        let dialect = self.sql.dialect();
        let data = [Datum::Integers(ids.to_vec())];
        let owned = format!("SELECT id FROM schemas WHERE {}", dialect.is_one_of("directory", 1));
        let mut owned_schemas = Vec::new();
        for row in rows_of(self.sql, &owned, &data)? {
            owned_schemas.push(row.integer(0)?);
        }
        let used = format!(
            "SELECT DISTINCT schema, name_record, anonymous_record, identifying_record FROM entries WHERE {}",
            dialect.is_one_of("id", 1)
        );
        let of_entry = dialect.is_one_of("entry", 1);
        let (mut schemas, mut records) = (BTreeSet::new(), BTreeSet::new());
        for row in rows_of(self.sql, &used, &data)? {
            schemas.extend(row.optional_integer(0)?);
            for column in 1..=3 {
                records.insert(row.integer(column)?);
            }
        }
        for schema in schemas {
            let table = schema::values_table(schema);
            self.sql
                .execute(&format!("DELETE FROM {table} WHERE {of_entry}"), &data)?;
        }
        for table in ["replicas", "lists", "tokens", "thumbnails"] {
            self.sql
                .execute(&format!("DELETE FROM {table} WHERE {of_entry}"), &data)?;
        }
        let text = format!("DELETE FROM entries WHERE {}", dialect.is_one_of("id", 1));
        self.sql.execute(&text, &data)?;
        for schema in owned_schemas {
            self.drop_schema(schema)?;
        }
        records::drop_unused(self.sql, records.into_iter().collect())
    }
}
