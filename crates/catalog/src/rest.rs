//! The addresses of a catalogue (`docs/src/formats/catalogue-protocol.md`): who, may they, do it, answer.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use grid_identity::VomsError;
use hydra_core::keystore::wire::{self, Problem, ProblemKind};
use hydra_core::permissions::Caller;
use hydra_service::{Guard, Limits, Peer, ProblemAnswer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::engine::Engine;
use crate::openapi;
use crate::stream;
use crate::wire::{
    About, Answer, Answers, Batch, Change, Entry, Found, ListQuestion, Listing, Lookup, MAX_ITEMS, MAX_THUMBNAIL_BYTES,
    NewEntry, Operation, OperationBegin, OperationEnd, PermissionsChange, Question, Removal, Schema, SchemaChange,
    SchemaQuestion, Whoami,
};

/// What every handler works with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) engine: Arc<Engine>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) limits: Limits,
    pub(crate) searches: Arc<Semaphore>,
    /// Held by the work itself, which may outlive the request that it is for.
    working: Arc<Semaphore>,
}

/// All addresses, behind the guard.
pub fn router(engine: Arc<Engine>, limits: &Limits) -> Router {
    let guard = Arc::new(Guard::new(limits));
    let api = Api {
        engine,
        guard: Arc::clone(&guard),
        limits: limits.clone(),
        searches: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
        working: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
    };
    Router::new()
        .route("/v1/entries/create", post(create))
        .route("/v1/entries/show", post(show))
        .route("/v1/entries/change", post(change))
        .route("/v1/entries/remove", post(remove))
        .route("/v1/entries/find", post(find))
        .route("/v1/list", post(list))
        .route("/v1/search", post(stream::search))
        .route("/v1/schemas/show", post(schema))
        .route("/v1/schemas/change", post(change_schema))
        .route("/v1/permissions/show", post(permissions))
        .route("/v1/permissions/change", post(change_permissions))
        .route("/v1/operations/begin", post(begin))
        .route("/v1/operations/end", post(end))
        .route("/v1/operations/list", post(operations))
        .route("/v1/thumbnail", get(thumbnail).put(put_thumbnail))
        .route("/v1/whoami", get(whoami))
        .route("/v1/about", get(about))
        .route("/v1/live", get(|| async { "live\n" }))
        .route("/v1/ready", get(ready))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .fallback(|| async { ProblemAnswer::of(ProblemKind::NoSuchOperation) })
        .method_not_allowed_fallback(|| async {
            let mut problem = Problem::new(ProblemKind::NoSuchOperation);
            problem.status = 405;
            ProblemAnswer(problem)
        })
        .layer(middleware::from_fn_with_state(api.clone(), note_refused_attributes))
        .layer(middleware::from_fn_with_state(guard, hydra_service::guard::guard))
        .with_state(api)
}

/// A group or role that was claimed and not believed stands in the audit log, once for a connection.
async fn note_refused_attributes(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Some(peer) = request.extensions().get::<Arc<Peer>>()
        && let Some(reason) = peer.refused_attributes()
    {
        let caller = api.caller(peer);
        let engine = Arc::clone(&api.engine);
        let noted = blocking(move || engine.note_refused_attributes(&caller, &reason)).await;
        if let Err(problem) = noted {
            return problem.into_response();
        }
    }
    next.run(request).await
}

type Done<T> = Result<Json<T>, ProblemAnswer>;

impl Api {
    pub(crate) fn caller(&self, peer: &Peer) -> Caller {
        self.engine.rules().caller(&peer.identity())
    }

    /// Reads a request that counts as one item, and works on it.
    pub(crate) async fn one<Q, A>(
        &self,
        peer: &Peer,
        body: Body,
        work: impl FnOnce(&Engine, &Caller, Q) -> Result<A, Problem> + Send + 'static,
    ) -> Result<A, ProblemAnswer>
    where
        Q: DeserializeOwned + Send + 'static,
        A: Send + 'static,
    {
        let body = read_body(body, self.limits.body_bytes).await?;
        let question: Q = parsed(&body)?;
        self.guard.count(peer, 1)?;
        self.run(peer, move |engine, caller| work(engine, caller, question))
            .await
    }

    /// Likewise for up to [`MAX_ITEMS`] items.
    async fn many<Q, A>(
        &self,
        peer: &Peer,
        body: Body,
        work: impl FnOnce(&Engine, &Caller, Vec<Q>) -> Result<Vec<Answer<A>>, Problem> + Send + 'static,
    ) -> Done<Answers<A>>
    where
        Q: DeserializeOwned + Send + 'static,
        A: Send + Serialize + 'static,
    {
        let body = read_body(body, self.limits.body_bytes).await?;
        let batch: Batch<Q> = parsed(&body)?;
        let count = batch.items.len();
        if count == 0 || count > MAX_ITEMS {
            let kind = if count == 0 {
                ProblemKind::Invalid
            } else {
                ProblemKind::TooLarge
            };
            let detail = format!("a request has 1 to {MAX_ITEMS} items, this one has {count}");
            return Err(Problem::new(kind).detail(detail).into());
        }
        self.guard.count(peer, count)?;
        let items = self
            .run(peer, move |engine, caller| work(engine, caller, batch.items))
            .await?;
        Ok(Json(Answers { items }))
    }

    pub(crate) async fn run<A: Send + 'static>(
        &self,
        peer: &Peer,
        work: impl FnOnce(&Engine, &Caller) -> Result<A, Problem> + Send + 'static,
    ) -> Result<A, ProblemAnswer> {
        let caller = self.caller(peer);
        let engine = Arc::clone(&self.engine);
        let permit = Arc::clone(&self.working).try_acquire_owned();
        let permit = permit.map_err(|_| Problem::new(ProblemKind::Busy).retry_after(1))?;
        let worked = blocking(move || {
            let _permit = permit;
            work(&engine, &caller)
        });
        Ok(worked.await??)
    }
}

/// Reads a request in which every field is known.
pub(crate) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ProblemAnswer> {
    wire::parse_strictly(body).map_err(|error| Problem::new(ProblemKind::Invalid).detail(error.to_string()).into())
}

pub(crate) async fn read_body(body: Body, limit: usize) -> Result<Bytes, ProblemAnswer> {
    axum::body::to_bytes(body, limit).await.map_err(|_| {
        let detail = format!("a request has at most {limit} bytes here");
        ProblemAnswer(Problem::new(ProblemKind::TooLarge).detail(detail))
    })
}

/// The database blocks; the threads of the network do not.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ProblemAnswer> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(reason = %error, "a request panicked");
        ProblemAnswer::of(ProblemKind::Internal)
    })
}

type Who = Extension<Arc<Peer>>;

async fn create(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Answers<crate::wire::Created>> {
    let work = |engine: &Engine, caller: &Caller, items: Vec<NewEntry>| engine.create(caller, &items);
    api.many(&peer, body, work).await
}

async fn show(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Answers<Entry>> {
    let work = |engine: &Engine, caller: &Caller, items: Vec<Question>| engine.show(caller, &items);
    api.many(&peer, body, work).await
}

async fn change(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Answers<Entry>> {
    let work = |engine: &Engine, caller: &Caller, items: Vec<Change>| engine.change(caller, &items);
    api.many(&peer, body, work).await
}

async fn remove(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Answers<u64>> {
    let work = |engine: &Engine, caller: &Caller, items: Vec<Removal>| engine.remove(caller, &items);
    api.many(&peer, body, work).await
}

async fn permissions(
    State(api): State<Api>,
    Extension(peer): Who,
    body: Body,
) -> Done<Answers<crate::wire::PermissionsAnswer>> {
    let work = |engine: &Engine, caller: &Caller, items: Vec<Question>| engine.permissions(caller, &items);
    api.many(&peer, body, work).await
}

async fn change_permissions(
    State(api): State<Api>,
    Extension(peer): Who,
    body: Body,
) -> Done<Answers<crate::wire::PermissionsChanged>> {
    let work =
        |engine: &Engine, caller: &Caller, items: Vec<PermissionsChange>| engine.change_permissions(caller, &items);
    api.many(&peer, body, work).await
}

async fn find(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Found> {
    let work = |engine: &Engine, caller: &Caller, lookup: Lookup| engine.lookup(caller, &lookup);
    api.one(&peer, body, work).await.map(Json)
}

async fn list(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Listing> {
    let work = |engine: &Engine, caller: &Caller, question: ListQuestion| engine.list(caller, &question);
    api.one(&peer, body, work).await.map(Json)
}

async fn schema(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Schema> {
    let work = |engine: &Engine, caller: &Caller, question: SchemaQuestion| engine.schema(caller, &question);
    api.one(&peer, body, work).await.map(Json)
}

async fn change_schema(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Schema> {
    let work = |engine: &Engine, caller: &Caller, change: SchemaChange| engine.change_schema(caller, &change);
    api.one(&peer, body, work).await.map(Json)
}

async fn begin(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Operation> {
    let work = |engine: &Engine, caller: &Caller, begin: OperationBegin| engine.begin(caller, &begin);
    api.one(&peer, body, work).await.map(Json)
}

async fn end(State(api): State<Api>, Extension(peer): Who, body: Body) -> Done<Operation> {
    let work = |engine: &Engine, caller: &Caller, end: OperationEnd| engine.end(caller, &end);
    api.one(&peer, body, work).await.map(Json)
}

async fn operations(State(api): State<Api>, Extension(peer): Who) -> Done<Vec<Operation>> {
    api.guard.count(&peer, 1)?;
    api.run(&peer, Engine::operations).await.map(Json)
}

/// Whose thumbnail: the one parameter `path`.
fn asked(query: Option<&str>) -> Result<String, ProblemAnswer> {
    let path = query
        .and_then(|query| query.strip_prefix("path="))
        .and_then(percent_decoded);
    let wrong = || ProblemAnswer(Problem::new(ProblemKind::Invalid).detail("a thumbnail is asked for by `path`"));
    path.ok_or_else(wrong)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
            }
            b'+' => bytes.push(b' '),
            b'&' => return None,
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

async fn thumbnail(
    State(api): State<Api>,
    Extension(peer): Who,
    RawQuery(query): RawQuery,
) -> Result<Response, ProblemAnswer> {
    let path = asked(query.as_deref())?;
    api.guard.count(&peer, 1)?;
    let bytes = api
        .run(&peer, move |engine, caller| engine.thumbnail(caller, &path))
        .await?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

async fn put_thumbnail(
    State(api): State<Api>,
    Extension(peer): Who,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<StatusCode, ProblemAnswer> {
    let path = asked(query.as_deref())?;
    let bytes = read_body(body, MAX_THUMBNAIL_BYTES).await?;
    api.guard.count(&peer, 1)?;
    api.run(&peer, move |engine, caller| engine.put_thumbnail(caller, &path, &bytes))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn whoami(State(api): State<Api>, Extension(peer): Who) -> Json<Whoami> {
    let identity = peer.identity();
    let caller = api.caller(&peer);
    Json(Whoami {
        catalog: api.engine.rules().catalog.clone(),
        dn: caller.dn,
        fqans: caller.fqans,
        administrator: caller.administrator,
        refused_attributes: identity.voms_error.as_ref().map(VomsError::in_full),
    })
}

async fn about(State(api): State<Api>) -> Json<About> {
    let rules = api.engine.rules();
    Json(About {
        catalog: rules.catalog.clone(),
        version: hydra_core::VERSION.to_owned(),
        backups_kept_days: rules.backups_kept_days,
    })
}

async fn ready(State(api): State<Api>) -> Result<&'static str, ProblemAnswer> {
    match blocking(move || api.engine.is_ready()).await? {
        true => Ok("ready\n"),
        false => Err(Problem::new(ProblemKind::Busy).retry_after(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_is_asked_for_by_its_path_alone() {
        let path = |query: &str| asked(Some(query)).ok();
        assert_eq!(path("path=/a/b%20c+d%C3%BC"), Some("/a/b c dü".into()));
        for wrong in ["", "x=/a", "path=/a&path=/b", "path=%2", "path=%zz", "path=%ff"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}
