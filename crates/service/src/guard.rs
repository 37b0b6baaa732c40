//! What stands before every request: an id, the credential checked again, the limits, a deadline, a line in the log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hydra_core::keystore::wire::{Problem, ProblemKind};
use tokio::sync::Semaphore;

use crate::limits::{Limits, RateLimiter};
use crate::peer::Peer;
use crate::problem::ProblemAnswer;

/// The state behind [`guard`].
#[derive(Debug)]
pub struct Guard {
    in_flight: Semaphore,
    rate: RateLimiter,
    request_ms: u64,
    process: u32,
    counter: AtomicU64,
}

/// What a request is called in answers (`x-request-id`) and in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Guard {
    /// By these limits.
    pub fn new(limits: &Limits) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            in_flight: Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS)),
            rate: RateLimiter::new(limits),
            request_ms: limits.request_ms,
            // Tells the requests of one run from those of the next; it need not be secret.
            process: since.map_or(0, |since| since.subsec_nanos() ^ std::process::id()),
            counter: AtomicU64::new(1),
        }
    }

    /// Counts `items` against the identity's rate.
    ///
    /// # Errors
    /// The problem to answer with, which says when to come again.
    pub fn count(&self, peer: &Peer, items: usize) -> Result<(), Problem> {
        let taken = self.rate.take(&peer.identity().dn, items, Instant::now());
        taken.map_err(|wait| {
            metrics::counter!("requests_over_rate").increment(1);
            Problem::new(ProblemKind::Limit).retry_after(wait.as_secs() + 1)
        })
    }

    fn request_id(&self) -> RequestId {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        RequestId(format!("{:08x}-{number:x}", self.process))
    }
}

/// Lets a request through to its handler, or answers in its place.
pub async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = guard.request_id();
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    // What is no route of ours may carry anything, key ids too: it is not written down.
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    let mut response = match &peer {
        Some(peer) => checked(&guard, peer, request, next).await,
        None => ProblemAnswer::of(ProblemKind::Credential).into_response(),
    };
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert("x-request-id", value);
    }
    let status = response.status().as_u16();
    let path = path.as_deref().unwrap_or("other");
    metrics::counter!("requests_total", "path" => path.to_owned(), "status" => status.to_string()).increment(1);
    tracing::info!(
        request_id = %id,
        dn = peer.as_ref().map(|peer| peer.identity().dn.clone()),
        address = peer.as_ref().map(|peer| peer.address.to_string()),
        %method,
        path,
        status,
        duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

async fn checked(guard: &Guard, peer: &Peer, request: Request, next: Next) -> Response {
    if let Err(error) = peer.recheck(SystemTime::now()) {
        tracing::warn!(dn = peer.identity().dn, reason = %error, "credential is no longer good");
        let mut response = ProblemAnswer::of(ProblemKind::Credential).into_response();
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let Ok(_permit) = guard.in_flight.try_acquire() else {
        return ProblemAnswer(Problem::new(ProblemKind::Busy).retry_after(1)).into_response();
    };
    let deadline = Duration::from_millis(guard.request_ms);
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ProblemAnswer(Problem::new(ProblemKind::Busy).retry_after(1)).into_response(),
    }
}
