//! Permission records: each distinct one is stored once, so that a search first computes which of them let the caller do
//! what, by the same pure function as everywhere, and its statement only names their numbers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest;
use hydra_core::frame::Frame;
use hydra_core::ids::ChangeId;
use hydra_core::permissions::{Caller, Permission, PermissionRecord, granted};

use crate::database::{DatabaseError, Datum, Row, Sql, row, rows};

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
}

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

    /// The numbers of all records that grant the caller this. Only for transactions that read: what they see is committed.
    pub(super) fn granting(
        &self,
        sql: &dyn Sql,
        caller: &Caller,
        permission: Permission,
    ) -> Result<Vec<i64>, DatabaseError> {
        self.refresh(sql)?;
        let known = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let grants = |record: &PermissionRecord| granted(record, caller, false).contains(permission);
        let granting = known.records.iter().filter(|(_, record)| grants(record));
        Ok(granting.map(|(id, _)| *id).collect())
    }

    fn refresh(&self, sql: &dyn Sql) -> Result<(), DatabaseError> {
        let up_to = self.all.read().unwrap_or_else(PoisonError::into_inner).up_to;
        let mut fresh = Vec::new();
        let mut each = |mut row: Row| {
            fresh.push((row.integer(0)?, Arc::new(read(&row.text(1)?)?)));
            Ok(ControlFlow::Continue(()))
        };
        let text = "SELECT id, record FROM records WHERE id > ?1 ORDER BY id";
        sql.query(text, &[up_to.into()], &mut each)?;
        if let Some((last, _)) = fresh.last() {
            let mut known = self.all.write().unwrap_or_else(PoisonError::into_inner);
            known.up_to = known.up_to.max(*last);
            known.records.extend(fresh);
        }
        Ok(())
    }
}

/// The number of a record, which is stored where it was not yet.
pub(super) fn intern(sql: &dyn Sql, record: &PermissionRecord) -> Result<i64, DatabaseError> {
    // Texts and numbers only: this JSON cannot fail.
    let text = serde_json::to_string(record).map_err(|_| DatabaseError::Content { table: "records" })?;
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

/// Says that somewhere one record took the place of another: `part` is the column of `entries`.
pub(super) fn note_change(sql: &dyn Sql, part: &str, before: i64, after: i64) -> Result<(), DatabaseError> {
    let text = "INSERT INTO changed_records(part, before, after) VALUES (?1, ?2, ?3)";
    sql.execute(text, &[part.into(), before.into(), after.into()]).map(drop)
}

/// The number of the last change.
pub(super) fn last_change(sql: &dyn Sql) -> Result<i64, DatabaseError> {
    let found = row(sql, "SELECT coalesce(max(number), 0) FROM changed_records", &[])?;
    found.map_or(Ok(0), |row| row.integer(0))
}

/// The changes behind that one: part, record before, record after.
pub(super) fn changes_since(sql: &dyn Sql, number: i64) -> Result<Vec<(String, i64, i64)>, DatabaseError> {
    let text = "SELECT part, before, after FROM changed_records WHERE number > ?1";
    let found = rows(sql, text, &[number.into()])?;
    let read = |mut row: Row| Ok((row.text(0)?, row.integer(1)?, row.integer(2)?));
    found.into_iter().map(read).collect()
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
