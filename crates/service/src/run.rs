//! The life of a server's process: listens, says where, serves until SIGTERM or SIGINT, finishes what is in flight.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use grid_identity::TrustStore;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::limits::Limits;
use crate::listener::{self, ServeError};
use crate::monitor::{self, MetricsError, Ready};

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The monitor.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The end.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Where a server listens, and as whom.
pub struct Host {
    /// For clients.
    pub listen: SocketAddr,
    /// For the site's monitoring.
    pub monitor: Option<SocketAddr>,
    /// Its certificate.
    pub tls: Arc<ServerConfig>,
    /// Whom it trusts.
    pub trust: Arc<TrustStore>,
    /// Of the listener.
    pub limits: Limits,
}

impl Host {
    /// Serves; `listening` is told the address once there is one.
    ///
    /// # Errors
    /// [`RunError`]
    pub fn run(&self, router: Router, ready: Ready, listening: impl FnOnce(SocketAddr)) -> Result<(), RunError> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.enable_all().build().map_err(RunError::Start)?;
        let served = runtime.block_on(self.serve(router, ready, listening));
        // What still works then is not waited for: its client is gone.
        runtime.shutdown_timeout(Duration::from_millis(self.limits.stop_ms));
        served
    }

    async fn serve(&self, router: Router, ready: Ready, listening: impl FnOnce(SocketAddr)) -> Result<(), RunError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Start)?;
        // A limit to the size of files then is a write that fails, not the end of the process.
        let _file_size =
            signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map_err(RunError::Start)?;
        if let Some(address) = self.monitor {
            monitor::serve(listen(address).await?, ready)?;
        }
        let listener = listen(self.listen).await?;
        let address = listener.local_addr().map_err(RunError::Start)?;
        for problem in self.trust.problems() {
            tracing::warn!(file = %problem.path.display(), reason = %problem.what, "a trust anchor's file is not used");
        }
        listening(address);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
        };
        let (tls, trust) = (Arc::clone(&self.tls), Arc::clone(&self.trust));
        Ok(listener::serve(listener, tls, trust, router, &self.limits, stop).await?)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| RunError::Listen { address, source })
}
