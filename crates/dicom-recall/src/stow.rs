//! STOW-RS for `dicom-recall receive` (PS3.18, 10.5): carries the body of a request to the thread that takes its
//! instances as they come, and its answer back.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use dicom_net::stow::{StowError, answer, receive};
use dicom_net::{Arrival, Uid};
use grid_identity::{Identity, TrustStore};
use http_body_util::BodyExt;
use hydra_service::{Guard, Limits, Peer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::door::Principals;
use crate::intake::Intake;
use crate::receive::ReceiveWeb;

/// Pieces of a body that may wait for the thread that reads it.
const PIECES: usize = 4;
/// A body of which nothing came for so long has broken off.
const STALLED: Duration = Duration::from_secs(120);

struct Api {
    intake: Arc<Intake>,
    senders: Principals,
    is_local: bool,
    instances: usize,
}

/// The addresses, behind the guard.
pub fn router(intake: Arc<Intake>, web: &ReceiveWeb, limits: &Limits) -> Router {
    let guard = Arc::new(Guard::new(limits));
    let is_local = web.host.is_none();
    let api = Api {
        intake,
        senders: web.senders.clone(),
        is_local,
        instances: web.instances,
    };
    let router = Router::new()
        .route("/studies", post(store))
        .route("/studies/{study}", post(store_of_study))
        .fallback(|| async { words(404, "there is nothing at this address") })
        .method_not_allowed_fallback(|| async { words(405, "this address only stores") })
        .layer(middleware::from_fn_with_state(guard, hydra_service::guard::guard))
        .with_state(Arc::new(api));
    if is_local {
        router.layer(middleware::from_fn(of_this_machine))
    } else {
        router
    }
}

/// Serves until told to stop; requests in flight are finished.
pub async fn serve(
    listener: TcpListener,
    tls: Option<(Arc<rustls::ServerConfig>, Arc<TrustStore>)>,
    router: Router,
    limits: Limits,
    mut told: watch::Receiver<bool>,
) {
    let mut end = told.clone();
    let stop = async move {
        let _ = told.wait_for(|stop| *stop).await;
    };
    match tls {
        Some((tls, trust)) => {
            if let Err(error) = hydra_service::serve(listener, tls, trust, router, &limits, stop).await {
                tracing::warn!(reason = %error, "requests were cut short");
            }
        }
        None => {
            let cut = async move {
                let _ = end.wait_for(|stop| *stop).await;
                sleep(Duration::from_millis(limits.stop_ms)).await;
            };
            tokio::select! {
                served = axum::serve(listener, router).with_graceful_shutdown(stop) => {
                    if let Err(error) = served {
                        tracing::error!(reason = %error, "the listener ended");
                    }
                }
                () = cut => tracing::warn!("requests were cut short"),
            }
        }
    }
}

/// Without TLS nobody from elsewhere comes in: whoever is on this machine may send.
async fn of_this_machine(mut request: Request, next: Next) -> Response {
    let identity = Identity {
        dn: "/CN=localhost".to_owned(),
        fqans: Vec::new(),
        voms_error: None,
        method: grid_identity::Method::Certificate,
        limited: false,
        not_after: std::time::SystemTime::UNIX_EPOCH,
    };
    let peer = Peer::vouched_for(identity, (std::net::Ipv4Addr::LOCALHOST, 0).into());
    request.extensions_mut().insert(Arc::new(peer));
    next.run(request).await
}

fn words(status: u16, text: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, format!("{text}\n")).into_response()
}

type Shared = State<Arc<Api>>;
type Caller = Extension<Arc<Peer>>;

async fn store(State(api): Shared, Extension(peer): Caller, headers: HeaderMap, body: Body) -> Response {
    api.store(&peer, None, &headers, body).await
}

async fn store_of_study(
    State(api): Shared,
    Extension(peer): Caller,
    Path(study): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match Uid::new(&study) {
        Ok(study) => api.store(&peer, Some(study), &headers, body).await,
        Err(_) => words(400, "the study in the address is none"),
    }
}

impl Api {
    async fn store(&self, peer: &Peer, study: Option<Uid>, headers: &HeaderMap, body: Body) -> Response {
        if !self.is_local && !self.senders.have(&peer.identity()) {
            return words(403, "you may not send images here");
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let (sender, pieces) = mpsc::channel(PIECES);
        let (intake, most) = (Arc::clone(&self.intake), self.instances);
        let taking = tokio::task::spawn_blocking(move || {
            let mut visit = intake.visit();
            let body = Pieces::new(pieces);
            let mut sink = |arrival: &Arrival, file: &mut dyn Read| visit.take(arrival, file);
            receive(&kind, body, study.as_ref(), most, &mut sink)
        });
        let (received, ()) = tokio::join!(taking, feed(body, sender));
        match received {
            Ok(Ok(stored)) => {
                let (status, body) = answer(&stored);
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = (status, axum::Json(body)).into_response();
                let kind = HeaderValue::from_static("application/dicom+json");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Ok(Err(StowError::Media)) => words(415, "files as multipart/related; type=\"application/dicom\" are taken"),
            Ok(Err(StowError::TooMany(_))) => words(413, "there are too many instances in one request"),
            Ok(Err(StowError::Stopped)) => words(503, "no more is taken at the moment"),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a request broke off");
                words(400, "the instances do not come as they should: send all of them again")
            }
            Err(_) => words(500, "something is wrong here"),
        }
    }
}

/// What goes from the connection to the thread: without the end, a body that broke off would be taken for whole.
enum Piece {
    Bytes(Bytes),
    End,
}

async fn feed(mut body: Body, sender: mpsc::Sender<Piece>) {
    // whoever stops in the midst does not keep a place for as long as a whole request may take
    while let Ok(next) = timeout(STALLED, body.frame()).await {
        let Some(frame) = next else {
            let _ = sender.send(Piece::End).await;
            return;
        };
        let Ok(frame) = frame else { return };
        let Ok(bytes) = frame.into_data() else { continue };
        if sender.send(Piece::Bytes(bytes)).await.is_err() {
            return;
        }
    }
}

struct Pieces {
    from: mpsc::Receiver<Piece>,
    piece: Bytes,
    is_whole: bool,
}

impl Pieces {
    fn new(from: mpsc::Receiver<Piece>) -> Self {
        Self {
            from,
            piece: Bytes::new(),
            is_whole: false,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.is_whole || out.is_empty() {
                return Ok(0);
            }
            match self.from.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.is_whole = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = out.len().min(self.piece.len());
        out[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_breaks_off_is_not_taken_for_whole() {
        let read = |pieces: Vec<Piece>| {
            let (sender, receiver) = mpsc::channel(8);
            for piece in pieces {
                sender.try_send(piece).ok().unwrap();
            }
            drop(sender);
            let mut out = Vec::new();
            Pieces::new(receiver).read_to_end(&mut out).map(|_| out)
        };
        let bytes = |text: &'static str| Piece::Bytes(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            read(vec![bytes("ab"), bytes(""), bytes("c"), Piece::End]).unwrap(),
            b"abc"
        );
        assert!(read(vec![bytes("ab")]).is_err());
        assert!(read(Vec::new()).is_err());
    }
}
