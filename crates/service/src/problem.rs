//! Answers that are nothing but a problem document (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydra_core::keystore::wire::{Problem, ProblemKind};

/// A problem as a whole answer: `application/problem+json`, its status, `Retry-After` where it says so.
#[derive(Debug)]
pub struct ProblemAnswer(pub Problem);

impl ProblemAnswer {
    /// Of a kind, without detail.
    pub fn of(kind: ProblemKind) -> Self {
        Self(Problem::new(kind))
    }
}

impl From<Problem> for ProblemAnswer {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for ProblemAnswer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
