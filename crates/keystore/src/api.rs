//! The addresses of a key store (`docs/src/formats/protocol.md`): who, may they, do it, answer.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use hydra_core::keystore::store::{Message, Reply};
use hydra_core::keystore::wire::{
    self, About, Answer, Answers, Change, Changed, Confirm, Create, DescribeAnswer, DropBelow, ItemResult, List,
    OfKeyId, OfRegistration, Operation, PermissionsAnswer, Problem, ProblemKind, Put, ReadAnswer, RequestError, Undo,
    WhoAmI,
};
use hydra_service::{Guard, Limits, Peer, ProblemAnswer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use grid_identity::VomsError;

use crate::engine::Engine;
use crate::openapi;

/// What every handler works with.
#[derive(Clone)]
pub struct Api {
    engine: Arc<Engine>,
    guard: Arc<Guard>,
    limits: Limits,
}

/// All addresses, behind the guard.
pub fn router(engine: Arc<Engine>, limits: &Limits) -> Router {
    let guard = Arc::new(Guard::new(limits));
    let api = Api {
        engine,
        guard: Arc::clone(&guard),
        limits: limits.clone(),
    };
    Router::new()
        .route("/v1/entries/{operation}", post(entries))
        .route("/v1/whoami", get(whoami))
        .route("/v1/about", get(about))
        .route("/v1/live", get(|| async { "live\n" }))
        .route("/v1/ready", get(ready))
        .route("/v1/openapi.json", get(|| async { Json(openapi::document()) }))
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
        let caller = api.engine.rules().caller(&peer.identity());
        api.engine.note_refused_attributes(&caller, &reason);
    }
    next.run(request).await
}

/// The answer to one item, of whatever operation.
#[derive(Serialize)]
#[serde(untagged)]
enum Done {
    Changed(Changed),
    Read(ReadAnswer),
    Describe(DescribeAnswer),
    Permissions(PermissionsAnswer),
}

async fn entries(
    State(api): State<Api>,
    Path(operation): Path<String>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Response, ProblemAnswer> {
    let mut operations = Operation::ALL.into_iter();
    let operation = operations.find(|known| known.name() == operation);
    let operation = operation.ok_or_else(|| ProblemAnswer::of(ProblemKind::NoSuchOperation))?;
    let body = read_body(request.into_body(), api.limits.body_bytes).await?;
    if operation == Operation::List {
        return api.list(&peer, &body).await;
    }
    let messages = parse(operation, &body)?;
    api.guard.count(&peer, messages.len())?;
    let key_ids: Vec<_> = messages.iter().map(|message| message.key_id().clone()).collect();
    let caller = api.engine.rules().caller(&peer.identity());
    let replies = match operation {
        Operation::Read | Operation::Describe | Operation::Permissions => {
            let engine = Arc::clone(&api.engine);
            blocking(move || engine.read(&caller, messages)).await??
        }
        _ => api.engine.write(&caller, messages).await?,
    };
    let items = key_ids.into_iter().zip(replies).map(|(key_id, reply)| Answer {
        key_id: Some(key_id),
        result: done(reply),
    });
    Ok(Json(Answers {
        store: api.engine.rules().store.clone(),
        items: items.collect(),
    })
    .into_response())
}

fn done(reply: Reply) -> ItemResult<Done> {
    fn of<T>(result: ItemResult<T>, done: impl FnOnce(T) -> Done) -> ItemResult<Done> {
        match result {
            ItemResult::Done(answer) => ItemResult::Done(done(answer)),
            ItemResult::Problem { problem } => ItemResult::Problem { problem },
        }
    }
    match reply {
        Reply::Changed(outcome) => of(outcome.result, Done::Changed),
        Reply::Read(outcome) => of(outcome.result, Done::Read),
        Reply::Describe(outcome) => of(outcome.result, Done::Describe),
        Reply::Permissions(outcome) => of(outcome.result, Done::Permissions),
    }
}

fn parse(operation: Operation, body: &[u8]) -> Result<Vec<Message>, ProblemAnswer> {
    match operation {
        Operation::Create => items::<Create>(body, Message::Create),
        Operation::Confirm => items::<Confirm>(body, Message::Confirm),
        Operation::Stop => items::<OfRegistration>(body, Message::Stop),
        Operation::Undo => items::<Undo>(body, Message::Undo),
        Operation::Remove => items::<OfRegistration>(body, Message::Remove),
        Operation::Read => items::<OfKeyId>(body, Message::Read),
        Operation::Describe => items::<OfKeyId>(body, Message::Describe),
        Operation::Put => items::<Put>(body, Message::Put),
        Operation::Drop => items::<DropBelow>(body, Message::Drop),
        Operation::Permissions => items::<OfKeyId>(body, Message::Permissions),
        Operation::Change => items::<Change>(body, Message::Change),
        Operation::List => Err(ProblemAnswer::of(ProblemKind::NoSuchOperation)),
    }
}

fn items<T: DeserializeOwned>(body: &[u8], message: fn(T) -> Message) -> Result<Vec<Message>, ProblemAnswer> {
    let batch = wire::parse_request::<T>(body).map_err(|error| refused(&error))?;
    Ok(batch.items.into_iter().map(message).collect())
}

fn refused(error: &RequestError) -> ProblemAnswer {
    let kind = match error {
        RequestError::Items(count) if *count > 0 => ProblemKind::TooLarge,
        _ => ProblemKind::Invalid,
    };
    ProblemAnswer(Problem::new(kind).detail(error.to_string()))
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, ProblemAnswer> {
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

impl Api {
    async fn list(&self, peer: &Peer, body: &[u8]) -> Result<Response, ProblemAnswer> {
        let batch = wire::parse_request::<List>(body).map_err(|error| refused(&error))?;
        self.guard.count(peer, batch.items.len())?;
        let caller = self.engine.rules().caller(&peer.identity());
        let engine = Arc::clone(&self.engine);
        let results = blocking(move || {
            let answer = |item: &List| engine.list(&caller, item);
            batch.items.iter().map(answer).collect::<Vec<_>>()
        })
        .await?;
        let items = results.into_iter().map(|result| Answer { key_id: None, result });
        Ok(Json(Answers {
            store: self.engine.rules().store.clone(),
            items: items.collect(),
        })
        .into_response())
    }
}

async fn whoami(State(api): State<Api>, Extension(peer): Extension<Arc<Peer>>) -> Json<WhoAmI> {
    let identity = peer.identity();
    Json(WhoAmI {
        store: api.engine.rules().store.clone(),
        dn: identity.dn.clone(),
        fqans: identity.fqans.clone(),
        voms_error: identity.voms_error.as_ref().map(VomsError::in_full),
        method: identity.method.as_str().to_owned(),
    })
}

async fn about(State(api): State<Api>) -> Result<Json<About>, ProblemAnswer> {
    let engine = Arc::clone(&api.engine);
    let restored = blocking(move || engine.restored()).await?;
    let rules = api.engine.rules();
    Ok(Json(About {
        store: rules.store.clone(),
        protocols: vec![wire::VERSION],
        version: hydra_core::VERSION.to_owned(),
        restored,
        limits: wire::Limits {
            items: wire::MAX_ITEMS,
            body_bytes: api.limits.body_bytes,
            key_id_bytes: hydra_core::key_id::KeyId::MAX_BYTES,
            sharings: wire::MAX_SHARINGS,
            acl_entries: rules.entries.acl,
        },
    }))
}

async fn ready(State(api): State<Api>) -> Result<&'static str, ProblemAnswer> {
    match blocking(move || api.engine.is_ready()).await? {
        true => Ok("ready\n"),
        false => Err(Problem::new(ProblemKind::Busy).retry_after(1).into()),
    }
}
