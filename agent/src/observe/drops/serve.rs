//! The Unix socket of drops: whoever connects gets those that are kept, a line of JSON each, then an empty line, and then what
//! comes, until one of the two goes away.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::{DropRecord, SharedDrops};
use crate::observe::socket::{Listener, connect};

/// Who may listen at one time; more are turned away.
const LISTENERS: usize = 32;
/// Lines that are written at once.
const PAGE: usize = 100;

fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("drops.sock")
}

/// Serves drops until the process ends.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve_drops(run_dir: &Path, drops: SharedDrops) -> anyhow::Result<()> {
    let path = socket_path(run_dir);
    let listener = Listener::bind(path.clone())?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))
        .with_context(|| format!("keeping {} to root", path.display()))?;
    let places = Arc::new(Semaphore::new(LISTENERS));
    loop {
        let stream = listener.accept().await;
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let drops = drops.clone();
        tokio::spawn(async move {
            // Whoever asked may have gone away.
            let _gone = write_all(stream, &drops).await;
            drop(place);
        });
    }
}

async fn write_all(stream: UnixStream, drops: &SharedDrops) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let mut news = drops.news();
    let (mut from, mut is_up_to_date) = (0, false);
    loop {
        let until = *news.borrow_and_update();
        while from < until {
            let page = drops.page(from, PAGE);
            // Those that were forgotten before anybody asked are not missed.
            if page.missed > 0 && is_up_to_date {
                writer.write_all(format!("{{\"missed\":{}}}\n", page.missed).as_bytes()).await?;
            }
            let text: String = page.lines.iter().flat_map(|line| [line, "\n"]).collect();
            writer.write_all(text.as_bytes()).await?;
            from = page.end;
        }
        if !is_up_to_date {
            writer.write_all(b"\n").await?;
            is_up_to_date = true;
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return Ok(()) },
            // Nothing is said here; it ends when the other side goes.
            read = reader.read_u8() => if read.is_err() { return Ok(()) },
        }
    }
}

/// What `weir drops` is told.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Followed {
    /// It reads more slowly than drops come: so many it does not get.
    Missed {
        /// How many.
        missed: u64,
    },
    /// A drop.
    Record(Box<DropRecord>),
}

/// Shows what the agent with this run directory keeps, and if asked also what comes, until it ends. `false`: none runs.
///
/// # Errors
/// An agent that does not answer, or ends meanwhile; those of `show`.
pub fn read_drops(
    run_dir: &Path,
    follow: bool,
    mut show: impl FnMut(Followed) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let path = socket_path(run_dir);
    let Some(stream) = connect(&path)? else { return Ok(false) };
    let mut lines = BufReader::new(stream);
    let (mut line, mut is_up_to_date) = (String::new(), false);
    loop {
        line.clear();
        let read = lines.read_line(&mut line);
        match read.with_context(|| format!("the agent behind {} does not answer", path.display()))? {
            0 if is_up_to_date => bail!("the agent has ended"),
            0 => bail!("the agent does not take more than {LISTENERS} who follow its drops"),
            _ => {}
        }
        match line.trim_end() {
            "" if !follow => return Ok(true),
            "" => {
                is_up_to_date = true;
                lines.get_ref().set_read_timeout(None)?;
            }
            line => show(serde_json::from_str(line).context("reading what the agent says of a drop")?)?,
        }
    }
}
