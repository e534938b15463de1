//! Where the agent answers: metrics and readiness over HTTP, the report on a Unix socket for `weir status`.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UnixListener};

use super::metrics::Metrics;
use super::report::{Report, SharedReport};

/// How long `weir status` waits for an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after a connection that could not be accepted the next one is.
const PAUSE: Duration = Duration::from_secs(1);

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
    let path = socket_path(run_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // No descriptor is free, say: no reason for the agent to end.
            Err(error) => {
                tracing::warn!("accepting on {}: {error}", path.display());
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
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
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("connecting to {}", path.display())),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream
        .read_to_end(&mut text)
        .with_context(|| format!("the agent behind {} does not answer", path.display()))?;
    serde_json::from_slice(&text).context("reading the agent's report").map(Some)
}
