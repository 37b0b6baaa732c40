//! Liveness, readiness and metrics, on a listener of their own without TLS: for the site's monitoring, on loopback or a
//! network of its own.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

/// Starts counting.
///
/// # Errors
/// Another recorder was started before.
pub fn start_metrics() -> Result<PrometheusHandle, MetricsError> {
    PrometheusBuilder::new().install_recorder().map_err(MetricsError)
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("cannot count: another recorder was started")]
pub struct MetricsError(#[source] metrics_exporter_prometheus::BuildError);

/// Whether a service can do its work at this moment; it may block.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// Starts counting, and serves `GET /live`, `/ready` and `/metrics` at a listener for as long as the runtime lives.
///
/// # Errors
/// [`MetricsError`]
pub fn serve(listener: TcpListener, ready: Ready) -> Result<(), MetricsError> {
    let router = router(start_metrics()?, ready);
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "monitor listening");
    }
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(reason = %error, "the monitor's listener ended");
        }
    });
    Ok(())
}

/// `GET /live`, `/ready` and `/metrics`.
pub fn router(metrics: PrometheusHandle, ready: Ready) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route(
            "/ready",
            get(move || async move {
                if tokio::task::spawn_blocking(move || ready()).await.unwrap_or(false) {
                    (StatusCode::OK, "ready\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
                }
            }),
        )
        .route("/metrics", get(move || async move { metrics.render() }))
}
