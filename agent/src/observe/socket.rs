//! The agent's Unix sockets in its run directory, both ends: for `weir status` and `weir drops`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream as Answered;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{UnixListener, UnixStream};

/// How long whoever asks waits for an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after a connection that could not be accepted the next one is.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket on which the agent answers.
pub(super) struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// In the place of one that an earlier agent left.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn bind(path: PathBuf) -> anyhow::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
        Ok(Self { path, listener })
    }

    /// The next who asks. That no descriptor is free, say, is no reason for the agent to end.
    pub(super) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!("accepting on {}: {error}", self.path.display());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Asks the agent that answers there; `None` if none runs.
///
/// # Errors
/// It cannot be asked.
pub(super) fn connect(path: &Path) -> anyhow::Result<Option<Answered>> {
    let stream = match Answered::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("connecting to {}", path.display())),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(Some(stream))
}
