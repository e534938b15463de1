//! A program that runs as long as its room does.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where programs of a Kubernetes release are in every room, before the distribution's.
pub(super) const BINARIES: &str = "/opt/weir-cluster/bin";
/// For everything that runs in a room.
pub(super) const PATH: &str =
    "/opt/weir-cluster/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a room keeps what its programs say.
pub(super) const LOGS: &str = "/var/log";

/// A program and what it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Service {
    /// Its file's name.
    pub(super) program: &'static str,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
}

impl Service {
    /// One that is not started yet.
    pub(super) fn new(program: &'static str, arguments: Vec<String>) -> Self {
        Self { program, arguments }
    }

    /// Starts it in the room that this process is in; what it says is added to its log.
    ///
    /// # Errors
    /// Those of opening the log, and of starting.
    pub(super) fn start(&self) -> io::Result<Child> {
        let log = Path::new(LOGS).join(format!("{}.log", self.program));
        let log = File::options().create(true).append(true).open(log)?;
        // Found by the room's search path, not by that of whoever made the room.
        let program = PATH.split(':').map(|folder| Path::new(folder).join(self.program));
        let program = program.into_iter().find(|path| path.is_file()).unwrap_or(self.program.into());
        Command::new(program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }
}
