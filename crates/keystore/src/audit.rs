//! Signed heads of the audit log, and its verification (`docs/src/operating.md`). The chain of hashes shows a changed
//! line; a tail cut off, or the whole written anew, shows only against a head that was signed before.

use std::fmt;
use std::str::FromStr;

use hydra_core::frame::Frame;
use hydra_core::ids::StoreId;
use rusqlite::{Connection, params};

use crate::database::{self, AuditHead, DatabaseError};
use crate::rest::DataKeys;

const LABEL: &str = "hydra-audit-head-1";

/// The last line of the audit log at a moment, with the store's signature (HMAC-SHA-256 by a key of the store key's).
/// Its text is one line, made to be kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// Whose log.
    pub store: StoreId,
    /// When it was signed, in seconds since 1970.
    pub at: u64,
    /// The line.
    pub head: AuditHead,
    signature: [u8; 32],
}

impl SignedHead {
    /// Signs a head.
    pub fn sign(keys: &DataKeys, store: &StoreId, head: &AuditHead, at: u64) -> Self {
        Self {
            store: store.clone(),
            at,
            head: head.clone(),
            signature: keys.sign_head(&message(store, head, at)),
        }
    }

    /// Whether this store signed it.
    pub fn is_signed_by(&self, keys: &DataKeys, store: &StoreId) -> bool {
        self.store == *store && keys.signed_head(&message(&self.store, &self.head, self.at), &self.signature)
    }

    /// Writes it beside the log.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn save(&self, connection: &Connection) -> Result<(), DatabaseError> {
        let mut statement = connection
            .prepare_cached("INSERT INTO audit_heads(sequence, at, hash, signature) VALUES (?1, ?2, ?3, ?4)")?;
        let at = i64::try_from(self.at).unwrap_or(i64::MAX);
        statement.execute(params![self.head.sequence, at, self.head.hash, self.signature])?;
        Ok(())
    }
}

fn message(store: &StoreId, head: &AuditHead, at: u64) -> Vec<u8> {
    Frame::labelled(LABEL)
        .text(store.as_str())
        .bytes(&head.sequence.to_be_bytes())
        .bytes(&at.to_be_bytes())
        .bytes(&head.hash)
        .finish()
}

impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let (sequence, hash) = (self.head.sequence, hex(&self.head.hash));
        write!(
            f,
            "{LABEL}:{}:{sequence}:{}:{hash}:{}",
            self.store,
            self.at,
            hex(&self.signature)
        )
    }
}

/// A text that is no signed head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a head of an audit log")]
pub struct NoHead;

impl FromStr for SignedHead {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let hex = |text: &str| {
            let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| NoHead)?;
            <[u8; 32]>::try_from(bytes).map_err(|_| NoHead)
        };
        // A store id may have colons in it: the fields behind it are taken from the end.
        let rest = text
            .trim()
            .strip_prefix(LABEL)
            .and_then(|rest| rest.strip_prefix(':'))
            .ok_or(NoHead)?;
        let mut fields = rest.rsplitn(5, ':');
        let mut field = || fields.next().ok_or(NoHead);
        let (signature, hash) = (hex(field()?)?, hex(field()?)?);
        let at = field()?.parse().map_err(|_| NoHead)?;
        let sequence = field()?.parse().map_err(|_| NoHead)?;
        let store = field()?.parse().map_err(|_| NoHead)?;
        Ok(Self {
            store,
            at,
            head: AuditHead { sequence, hash },
            signature,
        })
    }
}

/// The last head that was signed.
///
/// # Errors
/// [`DatabaseError`]
pub fn last_signed(connection: &Connection) -> Result<i64, DatabaseError> {
    let query = "SELECT coalesce(max(sequence), 0) FROM audit_heads";
    Ok(connection.query_row(query, [], |row| row.get(0))?)
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its last line.
    pub head: AuditHead,
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
    /// A head whose signature is not this store's.
    #[error("the head at line {sequence} was not signed by this store")]
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

/// Goes through the whole log: its chain, the signed heads in the database, and `kept` ones from elsewhere.
///
/// # Errors
/// A database that fails; inside, what is wrong with the log.
pub fn verify(
    connection: &Connection,
    keys: &DataKeys,
    store: &StoreId,
    kept: &[SignedHead],
) -> Result<Result<Verified, AuditFault>, DatabaseError> {
    let mut heads = saved_heads(connection, store)?;
    heads.extend_from_slice(kept);
    heads.sort_by_key(|signed| signed.head.sequence);
    for signed in &heads {
        if !signed.is_signed_by(keys, store) {
            let sequence = signed.head.sequence;
            return Ok(Err(AuditFault::Signature { sequence }));
        }
    }
    let mut expected = heads.iter().peekable();
    let mut rewritten = None;
    let chain = database::verify_chain(connection, |head| {
        while let Some(signed) = expected.next_if(|signed| signed.head.sequence <= head.sequence) {
            if signed.head != *head {
                rewritten.get_or_insert(signed.head.sequence);
            }
        }
    })?;
    let left = expected.next().map(|signed| signed.head.sequence);
    Ok(match (chain, rewritten, left) {
        (Err(broken), _, _) => Err(AuditFault::Line {
            sequence: broken.sequence,
        }),
        (Ok(_), Some(sequence), _) => Err(AuditFault::Rewritten { sequence }),
        (Ok(head), None, Some(sequence)) => Err(AuditFault::Cut {
            last: head.sequence,
            sequence,
        }),
        (Ok(head), None, None) => Ok(Verified {
            head,
            signed_to: heads.last().map_or(0, |signed| signed.head.sequence),
        }),
    })
}

fn saved_heads(connection: &Connection, store: &StoreId) -> Result<Vec<SignedHead>, DatabaseError> {
    let mut statement = connection.prepare("SELECT sequence, at, hash, signature FROM audit_heads")?;
    let rows = statement.query_map([], |row| {
        Ok(SignedHead {
            store: store.clone(),
            at: row.get::<_, i64>(1)?.unsigned_abs(),
            head: AuditHead {
                sequence: row.get(0)?,
                hash: row.get(2)?,
            },
            signature: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
