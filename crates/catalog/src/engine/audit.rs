//! The audit log: who did what to which entry, and who was shown identifying attributes; never a value. Lines are
//! chained by hashes ([`hydra_service::audit`]), heads are signed by a key of the column key's.

use std::ops::ControlFlow;

use aws_lc_rs::hmac;
use hydra_core::keystore::wire::Problem;
use hydra_core::permissions::Caller;
use hydra_service::audit::{Head, Line, SignedHead};

use super::signed;
use crate::database::{DatabaseError, Datum, Row, Sql, insert, row, rows};

/// Writes lines in one transaction.
pub(crate) struct Writer<'a> {
    sql: &'a dyn Sql,
    at: u64,
    head: Head,
    /// Not written yet.
    lines: Vec<Vec<Datum>>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(sql: &'a dyn Sql, at: u64) -> Result<Self, DatabaseError> {
        let head = last(sql)?;
        Ok(Self {
            sql,
            at,
            head,
            lines: Vec::new(),
        })
    }

    pub(crate) fn line(&mut self, caller: &Caller, operation: &str, subject: &str, outcome: &str) {
        self.by(&caller.dn, operation, subject, outcome);
    }

    pub(crate) fn by(&mut self, dn: &str, operation: &str, subject: &str, outcome: &str) {
        let line = Line {
            at: self.at,
            dn,
            operation,
            subject,
            outcome,
        };
        self.head = self.head.next(&line);
        self.lines.push(vec![
            self.head.sequence.into(),
            signed(self.at).into(),
            dn.into(),
            operation.into(),
            subject.into(),
            outcome.into(),
            self.head.hash.to_vec().into(),
        ]);
    }

    /// Writes the lines; the head behind them.
    pub(crate) fn finish(self) -> Result<Head, DatabaseError> {
        let head = "INSERT INTO audit(sequence, at, dn, operation, subject, outcome, hash)";
        insert(self.sql, head, self.lines, "")?;
        Ok(self.head)
    }
}

/// The kind of a problem, as the log names it.
pub(super) fn outcome(problem: &Problem) -> &'static str {
    problem.kind.title()
}

/// The last line of the log.
///
/// # Errors
/// [`DatabaseError`]
pub(crate) fn last(sql: &dyn Sql) -> Result<Head, DatabaseError> {
    let text = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
    row(sql, text, &[])?.map_or(Ok(Head::START), |mut row| read_head(&mut row, 0, 1))
}

fn read_head(row: &mut Row, sequence: usize, hash: usize) -> Result<Head, DatabaseError> {
    Ok(Head {
        sequence: row.integer(sequence)?,
        hash: bytes(row, hash)?,
    })
}

fn bytes(row: &mut Row, column: usize) -> Result<[u8; 32], DatabaseError> {
    let bytes = row.optional_blob(column)?.unwrap_or_default();
    bytes.try_into().map_err(|_| DatabaseError::Content { table: "audit" })
}

/// Signs the last line where it is not signed yet, and keeps the signature beside the log.
pub(crate) fn sign_last(
    sql: &dyn Sql,
    key: &hmac::Key,
    of: &str,
    at: u64,
) -> Result<Option<SignedHead>, DatabaseError> {
    let head = last(sql)?;
    let known = row(sql, "SELECT coalesce(max(sequence), 0) FROM audit_heads", &[])?;
    let known = known.map_or(Ok(0), |row| row.integer(0))?;
    if head.sequence <= known {
        return Ok(None);
    }
    let signed_head = SignedHead::sign(key, of, &head, at);
    let data = [
        head.sequence.into(),
        signed(at).into(),
        head.hash.to_vec().into(),
        signed_head.signature.to_vec().into(),
    ];
    let text = "INSERT INTO audit_heads(sequence, at, hash, signature) VALUES (?1, ?2, ?3, ?4)";
    sql.execute(text, &data)?;
    Ok(Some(signed_head))
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its last line.
    pub head: Head,
    /// The line up to which a signature vouches for it.
    pub signed_to: i64,
}

/// What is wrong with a log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// A line does not follow from the one before.
    #[error("the audit log was changed at line {sequence}")]
    Line {
        /// The first that does not fit.
        sequence: i64,
    },
    /// A head whose signature is not this catalogue's.
    #[error("the head at line {sequence} was not signed by this catalogue")]
    Signature {
        /// The line that it names.
        sequence: i64,
    },
    /// A line is not the one that was signed.
    #[error("line {sequence} of the audit log is not the one that was signed")]
    Rewritten {
        /// Which.
        sequence: i64,
    },
    /// Lines are missing at the end.
    #[error("the audit log ends at line {last}, but was signed up to line {sequence}")]
    Cut {
        /// Where it ends.
        last: i64,
        /// Where it did.
        sequence: i64,
    },
}

/// Lines that are verified by one statement, which no server breaks off as too long.
const VERIFIED_AT_ONCE: i64 = 10_000;

/// Goes through the whole log: its chain, the signed heads in the database, and `kept` ones from elsewhere.
///
/// # Errors
/// A database that fails; inside, what is wrong with the log.
pub(crate) fn verify(
    sql: &dyn Sql,
    key: &hmac::Key,
    of: &str,
    kept: &[SignedHead],
) -> Result<Result<Verified, AuditFault>, DatabaseError> {
    let mut heads = saved_heads(sql, of)?;
    heads.extend_from_slice(kept);
    heads.sort_by_key(|signed| signed.head.sequence);
    if let Some(alien) = heads.iter().find(|signed| !signed.is_signed_by(key, of)) {
        let sequence = alien.head.sequence;
        return Ok(Err(AuditFault::Signature { sequence }));
    }
    let mut expected = heads.iter().peekable();
    let mut head = Head::START;
    let mut fault = None;
    let text = "SELECT sequence, at, dn, operation, subject, outcome, hash FROM audit WHERE sequence > ?1 \
                ORDER BY sequence LIMIT ?2";
    loop {
        let behind = head.sequence;
        sql.query(text, &[behind.into(), VERIFIED_AT_ONCE.into()], &mut |mut row| {
            let (at, dn, operation) = (row.integer(1)?.unsigned_abs(), row.text(2)?, row.text(3)?);
            let (subject, outcome) = (row.text(4)?, row.text(5)?);
            head = head.next(&Line {
                at,
                dn: &dn,
                operation: &operation,
                subject: &subject,
                outcome: &outcome,
            });
            if read_head(&mut row, 0, 6)? != head {
                let sequence = head.sequence;
                fault = Some(AuditFault::Line { sequence });
                return Ok(ControlFlow::Break(()));
            }
            while let Some(signed) = expected.next_if(|signed| signed.head.sequence <= head.sequence) {
                if signed.head != head && fault.is_none() {
                    let sequence = signed.head.sequence;
                    fault = Some(AuditFault::Rewritten { sequence });
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if fault.is_some() || head.sequence == behind {
            break;
        }
    }
    if let Some(fault) = fault {
        return Ok(Err(fault));
    }
    if let Some(missing) = expected.next() {
        return Ok(Err(AuditFault::Cut {
            last: head.sequence,
            sequence: missing.head.sequence,
        }));
    }
    let signed_to = heads.last().map_or(0, |signed| signed.head.sequence);
    Ok(Ok(Verified { head, signed_to }))
}

fn saved_heads(sql: &dyn Sql, of: &str) -> Result<Vec<SignedHead>, DatabaseError> {
    let found = rows(sql, "SELECT sequence, at, hash, signature FROM audit_heads", &[])?;
    let read = |mut row: Row| {
        Ok(SignedHead {
            of: of.to_owned(),
            at: row.integer(1)?.unsigned_abs(),
            head: read_head(&mut row, 0, 2)?,
            signature: bytes(&mut row, 3)?,
        })
    };
    found.into_iter().map(read).collect()
}

/// One line of the audit log, as it stands there.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AuditRow {
    /// From 1.
    pub sequence: i64,
    /// Seconds since 1970.
    pub at: i64,
    /// Whose request.
    pub dn: String,
    /// What was asked.
    pub operation: String,
    /// About what; behind `#`, the keyed hash of a path that is not there.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
}

/// Up to `limit` lines from behind `after`.
pub(crate) fn lines(sql: &dyn Sql, after: i64, limit: i64) -> Result<Vec<AuditRow>, DatabaseError> {
    let text = "SELECT sequence, at, dn, operation, subject, outcome FROM audit WHERE sequence > ?1 \
                ORDER BY sequence LIMIT ?2";
    let read = |mut row: Row| {
        Ok(AuditRow {
            sequence: row.integer(0)?,
            at: row.integer(1)?,
            dn: row.text(2)?,
            operation: row.text(3)?,
            subject: row.text(4)?,
            outcome: row.text(5)?,
        })
    };
    let found = rows(sql, text, &[after.into(), limit.into()])?;
    found.into_iter().map(read).collect()
}
