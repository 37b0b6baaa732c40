//! Showing and changing the permission records of an entry's three parts.

use std::collections::BTreeMap;

use hydra_core::keystore::store::{check_record, check_replacement};
use hydra_core::permissions::{Permission, PermissionRecord};

use super::refusal::{conflict, invalid};
use super::rows::{self, Stored};
use super::{Refusal, Rights, Work, names, needs, not_found, records, values};
use crate::database::{DatabaseError, rows as rows_of};
use crate::wire::{Kind, Part, PermissionsAnswer, PermissionsChange, PermissionsChanged, Records};

/// The most bytes of all principals of an ACL.
const MAX_ACL_BYTES: usize = 16_384;

fn column(part: Part) -> &'static str {
    match part {
        Part::Name => "name_record",
        Part::Anonymous => "anonymous_record",
        Part::Identifying => "identifying_record",
    }
}

fn record_of(entry: &Stored, part: Part) -> i64 {
    match part {
        Part::Name => entry.name_record,
        Part::Anonymous => entry.anonymous_record,
        Part::Identifying => entry.identifying_record,
    }
}

impl Work<'_> {
    pub(super) fn permissions(&self, path: &str) -> Result<PermissionsAnswer, Refusal> {
        names::check_address(path)?;
        let (entry, rights) = self.visible(path)?;
        let own = |id| -> Result<PermissionRecord, DatabaseError> { Ok(self.record(id)?.as_ref().clone()) };
        let Rights {
            name,
            anonymous,
            identifying,
        } = rights;
        let mut granted = BTreeMap::from([(Part::Name, name), (Part::Anonymous, anonymous)]);
        let mut record = None;
        if values::any(identifying) {
            granted.insert(Part::Identifying, identifying);
            record = Some(own(entry.identifying_record)?);
        }
        Ok(PermissionsAnswer {
            path: entry.path.clone(),
            records: Records {
                name: own(entry.name_record)?,
                anonymous: own(entry.anonymous_record)?,
                identifying: record,
            },
            granted,
        })
    }

    pub(super) fn change_permissions(&self, change: &PermissionsChange) -> Result<PermissionsChanged, Refusal> {
        names::check_address(&change.path)?;
        check_record(self.engine.rules.acl, &change.record)?;
        let named: usize = change.record.acl.iter().map(|line| line.principal.len()).sum();
        if named > MAX_ACL_BYTES {
            return Err(invalid(format!(
                "the principals of an ACL have at most {MAX_ACL_BYTES} bytes"
            )));
        }
        let (entry, rights) = self.visible(&change.path)?;
        let granted = match change.part {
            Part::Name => rights.name,
            Part::Anonymous => rights.anonymous,
            // A part that the caller has nothing to do with is not there for them.
            Part::Identifying if !values::any(rights.identifying) => return Err(not_found()),
            Part::Identifying => rights.identifying,
        };
        needs(
            granted,
            Permission::ChangePermissions,
            "changing these permissions needs `p` on that part",
        )?;
        let old = self.record(record_of(&entry, change.part))?;
        let mut done = PermissionsChanged { changed: 1, left: 0 };
        if !old.same_as(&change.record) || !old.says_the_same_as(&change.record) {
            if change.record.version != old.version + 1 {
                return Err(conflict("the permissions were changed meanwhile"));
            }
            check_replacement(self.caller, false, &old, &change.record)?;
            self.set_record(&entry, change.part, &old, &change.record)?;
            records::drop_unused(self.sql, vec![record_of(&entry, change.part)])?;
        }
        if change.recursive && entry.kind == Kind::Directory {
            self.change_below(&entry, change, &mut done)?;
        }
        Ok(done)
    }

    fn set_record(
        &self,
        entry: &Stored,
        part: Part,
        old: &PermissionRecord,
        record: &PermissionRecord,
    ) -> Result<(), DatabaseError> {
        let id = records::intern(self.sql, record)?;
        let before = (record_of(entry, part), old);
        records::note_change(self.sql, self.now, column(part), before, id)?;
        let text = format!("UPDATE entries SET {} = ?2 WHERE id = ?1", column(part));
        self.sql.execute(&text, &[entry.id.into(), id.into()])?;
        Ok(())
    }

    /// Entries that share a record are changed together: each gets the new one, with its own version counted on. Owners
    /// keep what they own.
    fn change_below(
        &self,
        directory: &Stored,
        change: &PermissionsChange,
        done: &mut PermissionsChanged,
    ) -> Result<(), Refusal> {
        let column = column(change.part);
        let dialect = self.sql.dialect();
        let (from, to) = rows::below(&directory.path);
        let mut left = Vec::new();
        let text = format!(
            "SELECT {column}, name_record, operation, count(*) FROM entries WHERE path >= ?1 AND path < ?2 \
             GROUP BY {column}, name_record, operation"
        );
        for row in rows_of(self.sql, &text, &[from.as_str().into(), to.as_str().into()])? {
            let (record, name, operation) = (row.integer(0)?, row.integer(1)?, row.optional_integer(2)?);
            let count = row.integer(3)?.unsigned_abs();
            let of_another = operation.map(|number| self.owns_operation(number)).transpose()? == Some(false);
            if of_another || !self.granted(name)?.contains(Permission::List) {
                // Not the caller's to know: neither changed nor counted.
                continue;
            }
            let old = self.record(record)?;
            let new = PermissionRecord {
                version: old.version + 1,
                owner: old.owner.clone(),
                ..change.record.clone()
            };
            let may = self.granted(record)?.contains(Permission::ChangePermissions)
                && check_replacement(self.caller, false, &old, &new).is_ok();
            if !may {
                done.left += count;
                continue;
            }
            done.changed += count;
            if old.says_the_same_as(&new) {
                continue;
            }
            let id = records::intern(self.sql, &new)?;
            records::note_change(self.sql, self.now, column, (record, &old), id)?;
            let text = format!(
                "UPDATE entries SET {column} = ?5 WHERE path >= ?1 AND path < ?2 AND {} = ?3 AND {} = ?4 \
                 AND coalesce(operation, 0) = ?6",
                dialect.unwalked(column),
                dialect.unwalked("name_record"),
            );
            let data = [
                from.as_str().into(),
                to.as_str().into(),
                record.into(),
                name.into(),
                id.into(),
                operation.unwrap_or(0).into(),
            ];
            self.sql.execute(&text, &data)?;
            left.push(record);
        }
        Ok(records::drop_unused(self.sql, left)?)
    }
}
