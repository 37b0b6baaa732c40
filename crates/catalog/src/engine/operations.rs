//! Operations: what is registered together, seen by its owner alone until it is committed, and found again after a
//! crash.

use hydra_core::keystore::store::rfc3339;

use super::refusal::{conflict, invalid};
use super::{Refusal, Work, signed};
use crate::database::{DatabaseError, Row, row, rows};
use crate::wire::{Operation, OperationBegin, OperationEnd, OperationState};

/// The longest text that says what an operation is for, in bytes.
const MAX_WHAT_BYTES: usize = 400;
/// Operations that are listed, the open ones first.
const MAX_LISTED: i64 = 1000;

/// The caller's operations that have not ended.
const OWN_OPEN: &str = "SELECT number FROM operations WHERE owner = ?1 AND state = 'open'";

struct Kept {
    number: i64,
    operation: Operation,
}

const COLUMNS: &str = "number, id, what, owner, began, state, entries";

impl Work<'_> {
    pub(super) fn begin(&self, begin: &OperationBegin) -> Result<Operation, Refusal> {
        if !is_id(&begin.id) {
            return Err(invalid("an operation's id has 32 lower-case hexadecimal digits"));
        }
        if begin.what.len() > MAX_WHAT_BYTES || begin.what.chars().any(char::is_control) {
            return Err(invalid(format!(
                "what an operation is for has at most {MAX_WHAT_BYTES} bytes and no control characters"
            )));
        }
        if let Some(known) = self.operation(&begin.id)? {
            let same = known.operation.owner == self.caller.dn && known.operation.what == begin.what;
            return if same {
                Ok(known.operation)
            } else {
                Err(conflict("another operation has this id"))
            };
        }
        let data = [
            begin.id.as_str().into(),
            begin.what.as_str().into(),
            self.caller.dn.as_str().into(),
            signed(self.now).into(),
        ];
        let text = "INSERT INTO operations(id, what, owner, began, state, entries) VALUES (?1, ?2, ?3, ?4, 'open', 0)";
        self.sql.execute(text, &data)?;
        let begun = self.operation(&begin.id)?;
        Ok(begun.ok_or_else(no_such_operation)?.operation)
    }

    pub(super) fn end(&self, end: &OperationEnd) -> Result<Operation, Refusal> {
        if end.state == OperationState::Open {
            return Err(invalid("an operation ends as `committed` or `undone`"));
        }
        if !is_id(&end.id) {
            return Err(no_such_operation());
        }
        let known = self.operation(&end.id)?;
        // What its owner left behind, an administrator can take back, and do nothing else with it.
        let may_take_back = self.caller.administrator && end.state == OperationState::Undone;
        let known = known.filter(|known| known.operation.owner == self.caller.dn || may_take_back);
        let Kept { number, operation } = known.ok_or_else(no_such_operation)?;
        if operation.state == end.state {
            return Ok(operation);
        }
        if operation.state != OperationState::Open {
            return Err(conflict("it has ended the other way"));
        }
        if end.state == OperationState::Undone {
            self.undo(number)?;
        }
        let release = "UPDATE entries SET operation = NULL WHERE operation = ?1";
        self.sql.execute(release, &[number.into()])?;
        let data = [
            number.into(),
            state_text(end.state).into(),
            signed(operation.entries).into(),
        ];
        self.sql.execute(
            "UPDATE operations SET state = ?2, entries = ?3 WHERE number = ?1",
            &data,
        )?;
        let ended = self.operation(&end.id)?;
        Ok(ended.ok_or_else(no_such_operation)?.operation)
    }

    /// Removes its entries, from the deepest up; a directory in which others have put something stays.
    fn undo(&self, number: i64) -> Result<(), DatabaseError> {
        let files = "SELECT id FROM entries WHERE operation = ?1 AND kind = 1";
        let ids = |text: &str| -> Result<Vec<i64>, DatabaseError> {
            let found = rows(self.sql, text, &[number.into()])?;
            found.into_iter().map(|row| row.integer(0)).collect()
        };
        self.delete(&ids(files)?)?;
        let empty = "SELECT id FROM entries e WHERE operation = ?1 \
                     AND NOT EXISTS (SELECT 1 FROM entries c WHERE c.parent = e.id)";
        loop {
            let leaves = ids(empty)?;
            if leaves.is_empty() {
                return Ok(());
            }
            self.delete(&leaves)?;
        }
    }

    /// The caller's operations; an administrator's are all that are open, too.
    pub(super) fn operations(&self) -> Result<Vec<Operation>, Refusal> {
        let text = format!(
            "SELECT {COLUMNS} FROM operations WHERE owner = ?1 OR (?3 = 1 AND state = 'open') \
             ORDER BY state = 'open' DESC, number DESC LIMIT ?2"
        );
        let office = i64::from(self.caller.administrator);
        let data = [self.caller.dn.as_str().into(), MAX_LISTED.into(), office.into()];
        let found = rows(self.sql, &text, &data)?;
        let read = |row| Ok(self.read_operation(row)?.operation);
        found.into_iter().map(read).collect()
    }

    /// The number of an open operation of the caller.
    pub(super) fn open_operation(&self, id: &str) -> Result<i64, Refusal> {
        if let Some(number) = self.seen.borrow().operations.get(id) {
            return Ok(*number);
        }
        if !is_id(id) {
            return Err(no_such_operation());
        }
        // Without its entries, which are counted where somebody wants to know.
        let text = "SELECT number, state FROM operations WHERE id = ?1 AND owner = ?2";
        let found = row(self.sql, text, &[id.into(), self.caller.dn.as_str().into()])?;
        let mut found = found.ok_or_else(no_such_operation)?;
        if found.text(1)? != state_text(OperationState::Open) {
            return Err(conflict("the operation has ended"));
        }
        let number = found.integer(0)?;
        self.seen.borrow_mut().operations.insert(id.to_owned(), number);
        Ok(number)
    }

    /// An operation, whosever it is.
    fn operation(&self, id: &str) -> Result<Option<Kept>, DatabaseError> {
        let text = format!("SELECT {COLUMNS} FROM operations WHERE id = ?1");
        let found = row(self.sql, &text, &[id.into()])?;
        found.map(|row| self.read_operation(row)).transpose()
    }

    fn read_operation(&self, mut row: Row) -> Result<Kept, DatabaseError> {
        let number = row.integer(0)?;
        let state = match row.text(5)?.as_str() {
            "open" => OperationState::Open,
            "committed" => OperationState::Committed,
            "undone" => OperationState::Undone,
            _ => return Err(DatabaseError::Content { table: "operations" }),
        };
        let entries = if state == OperationState::Open {
            let count = "SELECT count(*) FROM entries WHERE operation = ?1";
            let counted = crate::database::row(self.sql, count, &[number.into()])?;
            counted.map_or(Ok(0), |row| row.integer(0))?
        } else {
            row.integer(6)?
        };
        Ok(Kept {
            number,
            operation: Operation {
                id: row.text(1)?,
                what: row.text(2)?,
                owner: row.text(3)?,
                began_at: rfc3339(row.integer(4)?.unsigned_abs()),
                state,
                entries: entries.unsigned_abs(),
            },
        })
    }

    /// Whether an open operation is the caller's, or an administrator's to see.
    pub(super) fn owns_operation(&self, number: i64) -> Result<bool, DatabaseError> {
        if self.caller.administrator {
            return Ok(true);
        }
        if let Some(owned) = self.seen.borrow().owned.get(&number) {
            return Ok(*owned);
        }
        let text = "SELECT owner FROM operations WHERE number = ?1";
        let found = row(self.sql, text, &[number.into()])?;
        let owned = found.map(|mut row| row.text(0)).transpose()?.as_deref() == Some(&self.caller.dn);
        self.seen.borrow_mut().owned.insert(number, owned);
        Ok(owned)
    }

    /// What the client calls an operation.
    pub(super) fn operation_id(&self, number: i64) -> Result<String, DatabaseError> {
        let found = row(
            self.sql,
            "SELECT id FROM operations WHERE number = ?1",
            &[number.into()],
        )?;
        found.ok_or(DatabaseError::Content { table: "operations" })?.text(0)
    }

    /// The numbers of the open operations of which the caller sees entries.
    pub(super) fn own_open_operations(&self) -> Result<Vec<i64>, DatabaseError> {
        // Two statements: one for both would not go along the index of owners.
        let found = if self.caller.administrator {
            rows(self.sql, "SELECT number FROM operations WHERE state = 'open'", &[])?
        } else {
            rows(self.sql, OWN_OPEN, &[self.caller.dn.as_str().into()])?
        };
        found.into_iter().map(|row| row.integer(0)).collect()
    }
}

/// Whether a text can be the id of an operation.
fn is_id(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 32 && text.bytes().all(is_digit)
}

fn no_such_operation() -> Refusal {
    invalid("you have no such operation")
}

fn state_text(state: OperationState) -> &'static str {
    match state {
        OperationState::Open => "open",
        OperationState::Committed => "committed",
        OperationState::Undone => "undone",
    }
}
