//! Why an item is not done.

use hydra_core::keystore::wire::{Problem, ProblemKind};

use crate::columns::ColumnError;
use crate::database::DatabaseError;

/// Why an item is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller is told so.
    #[error("{}", .0.title)]
    Problem(Problem),
    /// The caller is told that the catalogue failed.
    #[error("the database failed")]
    Database(#[source] DatabaseError),
    /// Likewise.
    #[error("the identifying half of `{guid}` does not open")]
    Column {
        /// Of which entry.
        guid: String,
        /// Why.
        #[source]
        source: ColumnError,
    },
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// When a client may ask again that found no database.
const RETRY_SECONDS: u64 = 2;

impl Refusal {
    /// What the caller is told; the reason of a failure goes to the log.
    pub fn told(self) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Database(error) if error.is_full() => Problem::new(ProblemKind::StorageFull),
            Self::Database(error) if error.is_away() => {
                let cause = innermost(&error);
                tracing::warn!(reason = %error, cause, "a request has to wait for the database");
                Problem::new(ProblemKind::Busy)
                    .retry_after(RETRY_SECONDS)
                    .detail("its database does not answer")
            }
            failure => {
                let cause = innermost(&failure);
                tracing::error!(reason = %failure, cause, "a request failed");
                Problem::new(ProblemKind::Internal)
            }
        }
    }
}

/// The last cause, which says what it was.
pub(super) fn innermost(error: &dyn std::error::Error) -> Option<String> {
    std::iter::successors(error.source(), |error| error.source())
        .last()
        .map(ToString::to_string)
}

/// Not there, or not the caller's to know: the same words for both.
pub(super) fn not_found() -> Refusal {
    Problem::new(ProblemKind::NotFound).into()
}

/// The caller knows that it is there, and may not do this to it.
pub(super) fn not_allowed(detail: &str) -> Refusal {
    let mut problem = Problem::new(ProblemKind::NotAllowed).detail(detail);
    problem.title = "not allowed".to_owned();
    problem.into()
}

/// The request cannot be meant so.
pub(super) fn invalid(detail: impl Into<String>) -> Refusal {
    Problem::new(ProblemKind::Invalid).detail(detail).into()
}

/// There is something else.
pub(super) fn conflict(detail: impl Into<String>) -> Refusal {
    Problem::new(ProblemKind::Conflict).detail(detail).into()
}
