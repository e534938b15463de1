//! Where the agent answers: metrics and readiness over HTTP, the report on a Unix socket for `weir status`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::metrics::Metrics;
use super::report::{Report, SharedReport};
use super::socket::{Listener, connect};

/// The agent's socket in its run directory.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("weir.sock")
}

/// Serves `/metrics` and `/readyz` until the process ends.
///
/// # Errors
/// The listener's.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    report: SharedReport,
) -> anyhow::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(encode))
        .route("/readyz", get(readyz))
        .with_state(Arc::new((metrics, report)));
    axum::serve(listener, routes).await.context("serving metrics")
}

type Shared = State<Arc<(Metrics, SharedReport)>>;

/// Off the path of events: the kernel's tables are read for it.
async fn encode(State(shared): Shared) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match tokio::task::spawn_blocking(move || shared.0.encode()).await {
        Ok(Ok(text)) => (StatusCode::OK, kind, text),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}

async fn readyz(State(shared): Shared) -> impl IntoResponse {
    if shared.1.read().ready {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Writes the report to whoever connects to the Unix socket, until the process ends.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve_report(run_dir: &Path, report: SharedReport) -> anyhow::Result<()> {
    let listener = Listener::bind(socket_path(run_dir))?;
    loop {
        let mut stream = listener.accept().await;
        let text = serde_json::to_vec(&report.read())?;
        tokio::spawn(async move {
            // Whoever asked may have gone away.
            let _gone = stream.write_all(&text).await;
        });
    }
}

/// The report of the agent with this run directory; `None` if none runs.
///
/// # Errors
/// An agent that does not answer, or no report.
pub fn ask(run_dir: &Path) -> anyhow::Result<Option<Report>> {
    let path = socket_path(run_dir);
    let Some(mut stream) = connect(&path)? else { return Ok(None) };
    let mut text = Vec::new();
    stream
        .read_to_end(&mut text)
        .with_context(|| format!("the agent behind {} does not answer", path.display()))?;
    serde_json::from_slice(&text).context("reading the agent's report").map(Some)
}
