//! Permission records: each distinct one is stored once, so that a search first computes which of them let the caller
//! do what, by the same pure function as everywhere, and its statement only names their numbers. One that the last
//! entry left is deleted in the same transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest;
use hydra_core::frame::Frame;
use hydra_core::ids::ChangeId;
use hydra_core::permissions::{Caller, Permission, PermissionRecord, granted};

use super::signed;
use crate::database::{DatabaseError, Datum, Row, Sql, row, rows};

/// For how long a change of permissions is noted, in seconds: no answer takes as long.
const NOTED_S: i64 = 86_400;

/// Committed records by their numbers; they never change, and numbers are never used again.
#[derive(Default)]
pub(super) struct Known {
    all: RwLock<Committed>,
}

#[derive(Default)]
struct Committed {
    records: BTreeMap<i64, Arc<PermissionRecord>>,
    /// All up to this number are there.
    up_to: i64,
    /// How often records had been deleted when those that are gone were left out.
    deletions: i64,
}

/// The row of `meta` that counts how often records were deleted.
const DELETIONS: &str = "records_deleted";

impl Known {
    /// The record of that number.
    pub(super) fn record(&self, sql: &dyn Sql, id: i64) -> Result<Arc<PermissionRecord>, DatabaseError> {
        let known = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = known.records.get(&id) {
            return Ok(Arc::clone(record));
        }
        drop(known);
        // It may be of a transaction that is not committed yet: it is not kept.
        let found = row(sql, "SELECT record FROM records WHERE id = ?1", &[id.into()])?;
        let mut found = found.ok_or(DatabaseError::Content { table: "records" })?;
        read(&found.text(0)?).map(Arc::new)
    }

    /// The numbers of all records that grant the caller this. Only for transactions that read: what they see is
    /// committed.
    pub(super) fn granting(
        &self,
        sql: &dyn Sql,
        caller: &Caller,
        permission: Permission,
    ) -> Result<Vec<i64>, DatabaseError> {
        let deletions = self.refresh(sql)?;
        let grants = |record: &PermissionRecord| granted(record, caller, false).contains(permission);
        let granting = |records: &BTreeMap<i64, Arc<PermissionRecord>>| {
            let granting = records.iter().filter(|(_, record)| grants(record));
            granting.map(|(id, _)| *id).collect()
        };
        let known = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if known.deletions <= deletions {
            return Ok(granting(&known.records));
        }
        drop(known);
        // What this transaction sees is older, and may have entries whose record is gone since.
        Ok(granting(&behind(sql, 0)?.records))
    }

    /// The numbers of the records of an owner. For transactions that write, too: nothing is kept of what they see.
    pub(super) fn owned(&self, sql: &dyn Sql, owner: &str) -> Result<Vec<i64>, DatabaseError> {
        let of_owner = |records: &BTreeMap<i64, Arc<PermissionRecord>>| -> Vec<i64> {
            let owned = records.iter().filter(|(_, record)| record.owner == owner);
            owned.map(|(id, _)| *id).collect()
        };
        let known = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let (mut owned, up_to) = (of_owner(&known.records), known.up_to);
        drop(known);
        owned.extend(of_owner(&behind(sql, up_to)?.records));
        Ok(owned)
    }

    /// Brings it to what a transaction sees; how often records had been deleted by then.
    fn refresh(&self, sql: &dyn Sql) -> Result<i64, DatabaseError> {
        let known = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let (up_to, deletions) = (known.up_to, known.deletions);
        drop(known);
        let fresh = behind(sql, up_to)?;
        if fresh.records.is_empty() && fresh.deletions <= deletions {
            return Ok(fresh.deletions);
        }
        let left = if fresh.deletions > deletions {
            Some(numbers(sql)?)
        } else {
            None
        };
        let mut known = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if fresh.deletions < known.deletions {
            // Somebody who sees a later state was here meanwhile.
            return Ok(fresh.deletions);
        }
        known.up_to = known.up_to.max(fresh.up_to);
        known.records.extend(fresh.records);
        if let Some(left) = left.filter(|_| fresh.deletions > known.deletions) {
            // All that is known is of earlier states: what this one does not have is gone.
            known.records.retain(|id, _| left.contains(id));
            known.deletions = fresh.deletions;
        }
        Ok(fresh.deletions)
    }
}

/// The records behind a number, as a transaction sees them.
fn behind(sql: &dyn Sql, up_to: i64) -> Result<Committed, DatabaseError> {
    let mut found = Committed::default();
    let mut each = |mut row: Row| {
        let (id, text) = (row.integer(0)?, row.text(1)?);
        if id == 0 {
            found.deletions = text.parse().map_err(|_| DatabaseError::Content { table: "meta" })?;
        } else {
            found.records.insert(id, Arc::new(read(&text)?));
            found.up_to = found.up_to.max(id);
        }
        Ok(ControlFlow::Continue(()))
    };
    // One statement for both, as every search begins with it.
    let text = "SELECT id, record FROM records WHERE id > ?1 \
                UNION ALL SELECT CAST(0 AS BIGINT), value FROM meta WHERE name = ?2";
    sql.query(text, &[up_to.into(), DELETIONS.into()], &mut each)?;
    Ok(found)
}

fn numbers(sql: &dyn Sql) -> Result<BTreeSet<i64>, DatabaseError> {
    let found = rows(sql, "SELECT id FROM records", &[])?;
    found.into_iter().map(|row| row.integer(0)).collect()
}

/// Deletes those of these records that no entry has any more. Their numbers are never used again.
pub(super) fn drop_unused(sql: &dyn Sql, ids: Vec<i64>) -> Result<(), DatabaseError> {
    if ids.is_empty() {
        return Ok(());
    }
    let text = format!(
        "DELETE FROM records WHERE {} AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.name_record = records.id) \
         AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.anonymous_record = records.id) \
         AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.identifying_record = records.id)",
        sql.dialect().is_one_of("id", 1)
    );
    if sql.execute(&text, &[Datum::Integers(ids)])? == 0 {
        return Ok(());
    }
    let count = "INSERT INTO meta(name, value) VALUES (?1, '1') ON CONFLICT (name) DO UPDATE \
                 SET value = CAST(CAST(meta.value AS BIGINT) + 1 AS TEXT)";
    sql.execute(count, &[DELETIONS.into()]).map(drop)
}

/// The number of a record, which is stored where it was not yet.
pub(super) fn intern(sql: &dyn Sql, record: &PermissionRecord) -> Result<i64, DatabaseError> {
    let text = written(record)?;
    let digest = digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec();
    if let Some(found) = row(
        sql,
        "SELECT id FROM records WHERE digest = ?1",
        &[digest.clone().into()],
    )? {
        return found.integer(0);
    }
    let data = [Datum::Text(text), digest.into()];
    let made = row(
        sql,
        "INSERT INTO records(record, digest) VALUES (?1, ?2) RETURNING id",
        &data,
    )?;
    made.ok_or(DatabaseError::Content { table: "records" })?.integer(0)
}

/// Says that somewhere one record took the place of another: `part` is the column of `entries`. What no search can be
/// under way for any more goes.
pub(super) fn note_change(
    sql: &dyn Sql,
    now: u64,
    part: &str,
    (before_id, before): (i64, &PermissionRecord),
    after: i64,
) -> Result<(), DatabaseError> {
    let now = signed(now);
    sql.execute("DELETE FROM changed_records WHERE at < ?1", &[(now - NOTED_S).into()])?;
    let text = "INSERT INTO changed_records(at, part, before, before_id, after) VALUES (?1, ?2, ?3, ?4, ?5)";
    let before = written(before)?;
    let data = [now.into(), part.into(), before.into(), before_id.into(), after.into()];
    sql.execute(text, &data).map(drop)
}

/// The number of the last change.
pub(super) fn last_change(sql: &dyn Sql) -> Result<i64, DatabaseError> {
    let found = row(sql, "SELECT coalesce(max(number), 0) FROM changed_records", &[])?;
    found.map_or(Ok(0), |row| row.integer(0))
}

/// A record that took the place of another.
pub(super) struct Changed {
    /// The column of `entries`.
    pub(super) part: String,
    /// The one before, and its number: it may be gone.
    pub(super) before: PermissionRecord,
    pub(super) before_id: i64,
    /// The number of the one since.
    pub(super) after: i64,
}

/// The changes behind that one, in turn.
pub(super) fn changes_since(sql: &dyn Sql, number: i64) -> Result<Vec<Changed>, DatabaseError> {
    let text = "SELECT part, before, before_id, after FROM changed_records WHERE number > ?1 ORDER BY number";
    let found = rows(sql, text, &[number.into()])?;
    let read = |mut row: Row| {
        Ok(Changed {
            part: row.text(0)?,
            before: read(&row.text(1)?)?,
            before_id: row.integer(2)?,
            after: row.integer(3)?,
        })
    };
    found.into_iter().map(read).collect()
}

fn written(record: &PermissionRecord) -> Result<String, DatabaseError> {
    // Texts and numbers only: this JSON cannot fail.
    serde_json::to_string(record).map_err(|_| DatabaseError::Content { table: "records" })
}

fn read(text: &str) -> Result<PermissionRecord, DatabaseError> {
    serde_json::from_str(text).map_err(|_| DatabaseError::Content { table: "records" })
}

/// The record that a new entry has from its directory's.
pub(super) fn inherited(directory: &PermissionRecord, caller: &Caller) -> PermissionRecord {
    first(PermissionRecord {
        owner: caller.dn.clone(),
        ..directory.clone()
    })
}

/// The record of a new directory at the top.
pub(super) fn of_own(caller: &Caller) -> PermissionRecord {
    let group = caller.fqans.first().map(String::as_str);
    first(PermissionRecord::new(caller.dn.clone(), group, ChangeId([0; 16])))
}

/// Version 1, with a change id that is the same for the same content: entries that are born alike share a record.
fn first(record: PermissionRecord) -> PermissionRecord {
    let record = PermissionRecord {
        version: 1,
        change_id: ChangeId([0; 16]),
        ..record
    };
    let text = serde_json::to_string(&record).unwrap_or_default();
    let message = Frame::labelled("mdm-catalog-record-1").text(&text).finish();
    let mut change_id = [0; 16];
    change_id.copy_from_slice(&digest::digest(&digest::SHA256, &message).as_ref()[..16]);
    PermissionRecord {
        change_id: ChangeId(change_id),
        ..record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::database::sqlite::Sqlite;

    #[test]
    fn what_is_known_fits_the_state_that_is_read_also_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(Sqlite::create(&folder.path().join("catalog.db")).unwrap());
        let caller = Caller {
            dn: "/CN=alice".into(),
            fqans: vec!["/myvo".into()],
            administrator: false,
        };
        let make = |groups: &[&str]| -> Vec<i64> {
            let make = |group: &&str| (*group).to_owned();
            let records = groups.iter().map(make).map(|group| {
                let caller = Caller {
                    fqans: vec![group],
                    ..caller.clone()
                };
                of_own(&caller)
            });
            let records: Vec<PermissionRecord> = records.collect();
            let made: Result<Vec<i64>, DatabaseError> =
                database.write(|sql| records.iter().map(|record| intern(sql, record)).collect());
            made.unwrap()
        };
        let drop = |ids: &[i64]| {
            let dropped: Result<(), DatabaseError> = database.write(|sql| drop_unused(sql, ids.to_vec()));
            dropped.unwrap();
        };
        let known = Known::default();
        let granting = |sql: &dyn Sql| known.granting(sql, &caller, Permission::List);
        let now = || -> Vec<i64> { database.read(granting).unwrap() };
        let first = make(&["/a", "/b", "/c"]);
        assert_eq!(now(), first);
        let older: Result<_, DatabaseError> = database.read(|sql| {
            let before = granting(sql)?;
            drop(&first[..1]);
            let later = make(&["/d"]);
            assert_eq!(now(), [first[1], first[2], later[0]]);
            // The first is there for whoever still sees its entries.
            assert_eq!(granting(sql)?, before);
            assert_eq!(known.record(sql, first[0])?.group, "/a");
            Ok::<_, DatabaseError>(later[0])
        });
        let later = older.unwrap();
        // The last number is not given to another.
        drop(&[later]);
        assert_eq!(now(), first[1..]);
        let again = make(&["/d", "/a"]);
        assert!(again[0] > later && again[1] > again[0]);
        assert_eq!(now(), [&first[1..], &again].concat());
        let owned: Result<_, DatabaseError> = database.write(|sql| known.owned(sql, &caller.dn));
        assert_eq!(owned.unwrap(), now());
    }
}
