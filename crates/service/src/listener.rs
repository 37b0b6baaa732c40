//! Accepts TLS connections, finds out who is there, and hands requests to a router, until told to stop; then finishes
//! what is in flight. A client that says nothing, or half of something, is let go after a deadline.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::Request;
use grid_identity::TrustStore;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::limits::Limits;
use crate::peer::Peer;

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Requests were still in flight when the time to stop was over.
    #[error("stopped after {stop_ms} ms with requests in flight")]
    CutShort {
        /// The limit.
        stop_ms: u64,
    },
}

/// Serves until `stop` completes, then finishes what is in flight within the limit.
///
/// # Errors
/// [`ServeError`]
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    trust: Arc<TrustStore>,
    router: Router,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (stopping, told) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let shared = Arc::new(Shared {
        acceptor: TlsAcceptor::from(tls),
        trust,
        router,
        builder: builder(limits),
        handshake: Duration::from_millis(limits.handshake_ms),
        idle: Duration::from_millis(limits.header_ms),
        // Half of the time to stop is for clients that were told and do not go.
        last_word: Duration::from_millis((limits.stop_ms / 2).min(limits.header_ms)),
    });
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        match accepted {
            Ok((stream, address, permit)) => {
                let (shared, told) = (Arc::clone(&shared), told.clone());
                tokio::spawn(async move {
                    shared.connection(stream, address, told).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, as a rule: the listener stays, the next moment may be better.
                tracing::warn!(reason = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop((listener, told));
    stopping.send_replace(true);
    // Each connection has a receiver until it ends.
    let wait = Duration::from_millis(limits.stop_ms);
    let finished = tokio::time::timeout(wait, stopping.closed()).await;
    finished.map_err(|_| ServeError::CutShort {
        stop_ms: limits.stop_ms,
    })
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// Takes the permit first: over the limit, connections wait in the kernel's queue.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(connections)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, address, permit))
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_ms));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

struct Shared {
    acceptor: TlsAcceptor,
    trust: Arc<TrustStore>,
    router: Router,
    builder: Builder<TokioExecutor>,
    handshake: Duration,
    idle: Duration,
    last_word: Duration,
}

impl Shared {
    async fn connection(&self, stream: TcpStream, address: SocketAddr, mut told: watch::Receiver<bool>) {
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.handshake, self.acceptor.accept(stream)) => accepted,
            _ = told.wait_for(|stop| *stop) => return,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                metrics::counter!("handshakes_failed").increment(1);
                return tracing::info!(%address, reason = %error, "handshake failed");
            }
            Err(_) => {
                metrics::counter!("handshakes_failed").increment(1);
                return tracing::info!(%address, reason = "deadline", "handshake failed");
            }
        };
        let session = stream.get_ref().1;
        // What the client chose is known: waiting to see which protocol it speaks would be a wait without a deadline.
        let http2 = session.alpn_protocol() == Some(b"h2");
        let chain = session.peer_certificates().unwrap_or_default();
        let verified = match self.trust.verify(chain, SystemTime::now()) {
            Ok(verified) => verified,
            Err(error) => return tracing::info!(%address, reason = %error, "no identity"),
        };
        let peer = Arc::new(Peer::new(Arc::clone(&self.trust), verified, address));
        let (router, activity) = (self.router.clone(), Arc::new(Activity::new()));
        let service = {
            let activity = Arc::clone(&activity);
            hyper::service::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Arc::clone(&peer));
                let (busy, taken) = (Activity::begin(&activity), Arc::clone(&activity));
                let answer = router.clone().oneshot(request.map(Body::new));
                async move {
                    let answer = answer.await;
                    drop(busy);
                    answer.map(|answer| answer.map(|body| noticed(body, taken)))
                }
            })
        };
        let builder = self.builder.clone();
        let builder = if http2 {
            builder.http2_only()
        } else {
            builder.http1_only()
        };
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let patience = tokio::select! {
            ended = connection.as_mut() => return log_end(address, &ended),
            _ = told.wait_for(|stop| *stop) => self.last_word,
            () = activity.idle_for(self.idle) => self.idle,
        };
        // No further request; what is in flight is finished. Who does not take its answer is left.
        connection.as_mut().graceful_shutdown();
        activity.touch();
        tokio::select! {
            ended = connection => log_end(address, &ended),
            () = activity.idle_for(patience) => tracing::debug!(%address, "connection cut"),
        }
    }
}

/// A body that comes in parts: each one that the client takes shows that it is there.
fn noticed(body: Body, activity: Arc<Activity>) -> Body {
    if body.size_hint().exact().is_some() {
        return body;
    }
    Body::new(body.map_frame(move |frame| {
        activity.touch();
        frame
    }))
}

fn log_end<E: std::fmt::Display>(address: SocketAddr, ended: &Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%address, reason = %error, "connection ended");
    }
}

/// The requests in flight on a connection, or since when there are none.
struct Activity(Mutex<(usize, Instant)>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn state(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(activity: &Arc<Self>) -> Busy {
        activity.state().0 += 1;
        Busy(Arc::clone(activity))
    }

    fn touch(&self) {
        self.state().1 = Instant::now();
    }

    /// Ends when there was nothing in flight for so long.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let (in_flight, since) = *self.state();
            let from = if in_flight > 0 { Instant::now() } else { since };
            if from.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(from + limit).await;
        }
    }
}

/// A request in flight, also one that its client gives up.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.0 -= 1;
        state.1 = Instant::now();
    }
}
