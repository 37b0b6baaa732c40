//! Accepts TLS connections, finds out who is there, and hands requests to a router, until told to stop; then finishes
//! what is in flight.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use grid_identity::TrustStore;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
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
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let shared = Arc::new(Shared {
        acceptor: TlsAcceptor::from(tls),
        trust,
        router,
        builder: builder(limits),
        handshake: Duration::from_millis(limits.handshake_ms),
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
                let (shared, watcher) = (Arc::clone(&shared), graceful.watcher());
                tokio::spawn(async move {
                    shared.connection(stream, address, watcher).await;
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
    drop(listener);
    let wait = Duration::from_millis(limits.stop_ms);
    let finished = tokio::time::timeout(wait, graceful.shutdown()).await;
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
}

impl Shared {
    async fn connection(&self, stream: TcpStream, address: SocketAddr, watcher: Watcher) {
        let stream = match tokio::time::timeout(self.handshake, self.acceptor.accept(stream)).await {
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
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let verified = match self.trust.verify(chain, SystemTime::now()) {
            Ok(verified) => verified,
            Err(error) => return tracing::info!(%address, reason = %error, "no identity"),
        };
        let peer = Arc::new(Peer::new(Arc::clone(&self.trust), verified, address));
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&peer));
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(%address, reason = %error, "connection ended");
        }
    }
}
