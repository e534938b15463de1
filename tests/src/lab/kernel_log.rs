//! What the kernel itself complains of while something is tried. The machine's log is one for all: a complaint of anybody's
//! counts.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use nix::libc::O_NONBLOCK;

/// With what a line begins or what it has in it where the kernel found itself in the wrong.
const COMPLAINTS: [&str; 6] = ["WARNING:", "BUG:", "Oops", "Call Trace", "general protection", "rcu: INFO"];

/// The kernel's log from where it stood when this was made.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// From now on.
    ///
    /// # Errors
    /// Nobody but root may read it.
    pub fn from_now() -> Result<Self> {
        let mut file =
            OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// The complaints since the last call.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn take_complaints(&mut self) -> Result<Vec<String>> {
        let (mut complaints, mut room) = (Vec::new(), vec![0; 8192]);
        loop {
            let length = match self.0.read(&mut room) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(complaints),
                // Overwritten before it was read (Documentation/ABI/testing/dev-kmsg): there is more behind it.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
                Err(error) => return Err(error).context("/dev/kmsg"),
            };
            let line = String::from_utf8_lossy(&room[..length]).into_owned();
            if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
                complaints.push(line);
            }
        }
    }
}
