//! A key store that can misbehave on command: in this process, by the very rules of the real one, without a disk.
//!
//! Real stores keep the protocol, so they cannot show what a client does with one that does not. What this one decides
//! comes from `hydra_core::keystore::store`; only what it then says, or fails to say, is bent.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grid_identity::TrustStore;
use http_body_util::{BodyExt, Full};
use hydra_core::ids::{CheckValue, RegistrationId, StoreId};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::store::{self, Context, Held, Message, Reply};
use hydra_core::keystore::wire::{self, Answer, Answers, Batch, ItemResult, State};
use hydra_core::permissions::Caller;
use hydra_core::secret::SecretBytes;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::listening::{Listening, trust};

/// How a store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As it should.
    Honest,
    /// Accepts connections and says nothing.
    HangAfterAccept,
    /// Begins an answer and never ends it.
    HangMidAnswer,
    /// Takes this operation's request and never answers it; all else is honest.
    HangOn(&'static str),
    /// Does what it is asked, and loses the answer to this operation.
    LoseAnswerTo(&'static str),
    /// Does what it is asked by this operation and dies before it can say so; until it is told otherwise it is down.
    DieAfter(&'static str),
    /// Answers 500.
    ServerError,
    /// Answers something that is no JSON.
    Garbage,
    /// Answers a page for people.
    Page,
    /// Answers JSON, and far too much of it.
    Flood,
    /// Ends the connection where an answer is due.
    Close,
    /// Hands out its share with one bit turned.
    FlippedBit,
    /// Hands out a share of another key.
    OtherShare,
    /// Says that one share is enough.
    LoweredThreshold,
    /// Hands out a sharing that nobody else has, of an older generation.
    OldGeneration,
    /// Says that its share has this index.
    ShareIndex(u8),
    /// Claims to be the first store.
    OtherId,
    /// Lists, of whatever name is asked for, a key that nobody else knows, as the caller's own; and none that is there.
    PlantedInList,
}

/// The store; it ends when dropped.
pub struct FakeStore {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    id: StoreId,
    trust: TrustStore,
    inner: Mutex<Inner>,
}

struct Inner {
    way: Way,
    held: BTreeMap<KeyId, Held>,
    requests: BTreeMap<String, usize>,
    /// Requests that were left alone by whoever sent them, before they were answered.
    abandoned: usize,
}

impl FakeStore {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// Where that is impossible: it is for tests.
    pub fn start(id: &str, certificate: &Path, key: &Path, anchors: &Path) -> Self {
        let shared = Arc::new(Shared {
            id: id.parse().expect("a store id"),
            trust: trust(anchors),
            inner: Mutex::new(Inner {
                way: Way::Honest,
                held: BTreeMap::new(),
                requests: BTreeMap::new(),
                abandoned: 0,
            }),
        });
        let served = Arc::clone(&shared);
        let listening = Listening::start(certificate, key, anchors, move |socket, tls| {
            connection(socket, tls, Arc::clone(&served))
        });
        Self { listening, shared }
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.listening.address.port())
    }

    /// Changes how it behaves from the next connection or request on.
    pub fn behave(&self, way: Way) {
        self.shared.inner().way = way;
    }

    /// Ends it, as a killed process ends: the port refuses connections from now on, what was held is lost.
    pub fn kill(&mut self) {
        assert!(self.listening.end(), "the fake store panicked");
    }

    /// How many requests of an operation came in so far.
    pub fn requests(&self, operation: &str) -> usize {
        self.shared.inner().requests.get(operation).copied().unwrap_or(0)
    }

    /// Waits until a request of this operation has come in.
    ///
    /// # Panics
    /// If none comes within a minute.
    pub fn wait_for(&self, operation: &str) {
        let start = Instant::now();
        while self.requests(operation) == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "nobody sent `{operation}`");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until whoever sent an unanswered request no longer waits for it.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn wait_for_abandoned(&self) {
        let start = Instant::now();
        while self.shared.inner().abandoned == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the request is still waited for"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The state of the entry under a key id, if there is one.
    pub fn state(&self, key_id: &str) -> Option<State> {
        let inner = self.shared.inner();
        let held = inner.held.iter().find(|(id, _)| id.as_str() == key_id)?.1;
        held.entry.as_ref().map(|entry| entry.state)
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(socket: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let way = shared.inner().way;
    if way == Way::HangAfterAccept {
        // The socket stays open as long as the store lives.
        std::future::pending::<()>().await;
    }
    let Ok(mut stream) = tls.accept(socket).await else {
        return;
    };
    if way == Way::HangMidAnswer {
        let mut some = [0; 256];
        let _ = stream.read(&mut some).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"st")
            .await;
        let _ = stream.flush().await;
        std::future::pending::<()>().await;
    }
    let chain = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(<[_]>::to_vec)
        .unwrap_or_default();
    let Ok(identity) = shared.trust.verify_client(&chain, SystemTime::now()) else {
        return;
    };
    let caller = Caller {
        dn: identity.dn,
        fqans: identity.fqans,
        administrator: false,
    };
    let caller = Arc::new(caller);
    let service = service_fn(move |request| answer(Arc::clone(&shared), Arc::clone(&caller), request));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let operation = path.rsplit('/').next().unwrap_or_default().to_owned();
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let way = {
        let mut inner = shared.inner();
        *inner.requests.entry(operation.clone()).or_default() += 1;
        inner.way
    };
    if way == Way::Close {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if matches!(way, Way::HangOn(name) if name == operation) {
        hang(&shared).await;
    }
    let (status, kind, text) = match way {
        Way::ServerError => (500, "text/plain", "it is not your fault\n".to_owned()),
        Way::Page => (
            200,
            "text/html; charset=utf-8",
            "<html>Please log in</html>\n".to_owned(),
        ),
        Way::Flood => (200, "application/json", format!("[{}0]", "0,".repeat(3 << 20))),
        Way::Garbage => (200, "application/json", "<html>Please log in</html>\n".to_owned()),
        _ => match decide(&shared, &caller, &operation, &body) {
            Some(text) => (200, "application/json", text),
            None => (404, "text/plain", "no such operation\n".to_owned()),
        },
    };
    if matches!(way, Way::LoseAnswerTo(name) if name == operation) {
        hang(&shared).await;
    }
    if matches!(way, Way::DieAfter(name) if name == operation) {
        shared.inner().way = Way::Close;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let response = Response::builder().status(status).header("content-type", kind);
    Ok(response
        .body(Full::new(Bytes::from(text)))
        .expect("constant headers are good"))
}

/// Never ends by itself; when the connection does, that is noted.
async fn hang(shared: &Arc<Shared>) {
    struct Note(Arc<Shared>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.inner().abandoned += 1;
        }
    }
    let _note = Note(Arc::clone(shared));
    std::future::pending::<()>().await;
}

fn decide(shared: &Shared, caller: &Caller, operation: &str, body: &[u8]) -> Option<String> {
    let each = |wrap: fn(wire::OfKeyId) -> Message| batch(shared, caller, body, wrap);
    let registration = |wrap: fn(wire::OfRegistration) -> Message| batch(shared, caller, body, wrap);
    Some(match operation {
        "about" => to_json(&about(shared)),
        "whoami" => to_json(&wire::WhoAmI {
            store: shared.id.clone(),
            dn: caller.dn.clone(),
            fqans: caller.fqans.clone(),
            voms_error: None,
            method: "proxy".to_owned(),
        }),
        "create" => batch(shared, caller, body, Message::Create),
        "confirm" => batch(shared, caller, body, Message::Confirm),
        "stop" => registration(Message::Stop),
        "undo" => batch(shared, caller, body, Message::Undo),
        "remove" => registration(Message::Remove),
        "list" => list(shared, caller, body),
        "read" => each(Message::Read),
        "describe" => each(Message::Describe),
        "put" => batch(shared, caller, body, Message::Put),
        "drop" => batch(shared, caller, body, Message::Drop),
        "change" => batch(shared, caller, body, Message::Change),
        _ => return None,
    })
}

fn about(shared: &Shared) -> wire::About {
    wire::About {
        store: shared.id.clone(),
        protocols: vec![wire::VERSION],
        version: env!("CARGO_PKG_VERSION").to_owned(),
        restored: false,
        limits: wire::Limits {
            items: wire::MAX_ITEMS,
            body_bytes: 1 << 20,
            key_id_bytes: KeyId::MAX_BYTES,
            sharings: wire::MAX_SHARINGS,
            acl_entries: 100,
        },
    }
}

fn batch<T: serde::de::DeserializeOwned>(
    shared: &Shared,
    caller: &Caller,
    body: &[u8],
    wrap: impl Fn(T) -> Message,
) -> String {
    let request: Batch<T> = match wire::parse_request(body) {
        Ok(request) => request,
        Err(error) => return to_json(&error.to_string()),
    };
    let mut inner = shared.inner();
    let way = inner.way;
    let mut items = Vec::new();
    for item in request.items {
        let message = wrap(item);
        let key_id = message.key_id().clone();
        let context = context(shared, caller);
        let reply = store::apply(inner.held.entry(key_id.clone()).or_default(), &context, message);
        items.push(Answer {
            key_id: Some(key_id),
            result: bent(reply, way),
        });
    }
    let store = match way {
        Way::OtherId => "store-1".parse().expect("a store id"),
        _ => shared.id.clone(),
    };
    to_json(&Answers { store, items })
}

/// The caller's own entries whose ids end in what is asked for; it knows no other question.
fn list(shared: &Shared, caller: &Caller, body: &[u8]) -> String {
    let request: Batch<wire::List> = match wire::parse_request(body) {
        Ok(request) => request,
        Err(error) => return to_json(&error.to_string()),
    };
    let inner = shared.inner();
    let answer = |item: wire::List| {
        let last = item.last_component.unwrap_or_default();
        let entries = match inner.way {
            Way::PlantedInList => vec![wire::ListedEntry {
                key_id: KeyId::new(format!("/planted/{last}")).expect("a key id"),
                registration_id: RegistrationId([7; 16]),
                state: State::Confirmed,
                owner: caller.dn.clone(),
            }],
            _ => own(&inner.held, caller, &last),
        };
        Answer {
            key_id: None,
            result: ItemResult::Done(wire::ListAnswer {
                status: wire::Status::Ok,
                entries,
                next_page_token: None,
            }),
        }
    };
    let items = request.items.into_iter().map(answer).collect();
    to_json(&Answers {
        store: shared.id.clone(),
        items,
    })
}

fn own(held: &BTreeMap<KeyId, Held>, caller: &Caller, last: &str) -> Vec<wire::ListedEntry> {
    let entries = held
        .iter()
        .filter_map(|(key_id, held)| Some((key_id, held.entry.as_ref()?)));
    let own = entries
        .filter(|(key_id, entry)| entry.record.owner == caller.dn && key_id.as_str().rsplit('/').next() == Some(last));
    let listed = own.map(|(key_id, entry)| wire::ListedEntry {
        key_id: key_id.clone(),
        registration_id: entry.constants.registration_id,
        state: entry.state,
        owner: entry.record.owner.clone(),
    });
    listed.collect()
}

fn context(shared: &Shared, caller: &Caller) -> Context {
    Context {
        caller: caller.clone(),
        may_create: true,
        recovery: false,
        at_limit: false,
        acl_limit: 100,
        store: shared.id.clone(),
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    }
}

/// The answer as JSON, with the lie that the way demands.
fn bent(reply: Reply, way: Way) -> ItemResult<serde_json::Value> {
    match reply {
        Reply::Changed(outcome) => value(outcome.result),
        Reply::Describe(outcome) => value(outcome.result),
        Reply::Permissions(outcome) => value(outcome.result),
        Reply::Read(outcome) => {
            let mut result = outcome.result;
            if let ItemResult::Done(answer) = &mut result
                && let Some(entry) = &mut answer.entry
            {
                entry.sharings.iter_mut().for_each(|held| lie(held, way));
            }
            value(result)
        }
    }
}

fn lie(held: &mut wire::HeldSharing, way: Way) {
    let Some(share) = &mut held.share else {
        return;
    };
    let mut bytes = share.data.0.expose().to_vec();
    match way {
        Way::FlippedBit => bytes[0] ^= 1,
        Way::OtherShare => bytes
            .iter_mut()
            .enumerate()
            .for_each(|(place, byte)| *byte = (place as u8).wrapping_mul(73)),
        Way::LoweredThreshold => {
            held.sharing.m = 1;
            share.m = 1;
        }
        Way::ShareIndex(index) => share.index = index,
        Way::OldGeneration => {
            held.sharing.generation = 0;
            held.sharing.check = Some(CheckValue([7; 32]));
        }
        _ => {}
    }
    share.data.0 = SecretBytes::new(bytes);
}

fn value<T: serde::Serialize>(result: ItemResult<T>) -> ItemResult<serde_json::Value> {
    match result {
        ItemResult::Problem { problem } => ItemResult::Problem { problem },
        ItemResult::Done(answer) => ItemResult::Done(serde_json::to_value(answer).expect("answers are JSON")),
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("answers are JSON")
}
