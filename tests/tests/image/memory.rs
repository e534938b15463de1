//! What the kernel charges to the agent's container: its pages, and those of the tables that it made. On machines with
//! memory as a controller of cgroup version 1, beside version 2; elsewhere nothing is measured, and that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

const CONTROLLER: &str = "/sys/fs/cgroup/memory";
/// How long the kernel may take to empty a cgroup whose processes were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup of that controller. Removed when dropped, with nobody in it by then.
pub(crate) struct Charged(PathBuf);

impl Charged {
    /// A new one, with this limit in bytes; `None` where there is no such controller.
    pub(crate) fn create(name: &str, limit: u64) -> Result<Option<Self>> {
        if !Path::new(CONTROLLER).join("memory.usage_in_bytes").exists() {
            return Ok(None);
        }
        let path = Path::new(CONTROLLER).join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let charged = Self(path);
        fs::write(charged.0.join("memory.limit_in_bytes"), limit.to_string())?;
        Ok(Some(charged))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Prints what is charged now and what was at most; it must never have been all that is allowed.
    pub(crate) fn print(&self, when: &str) -> Result<()> {
        println!("figure image.memory-mib{when} {}", self.read("memory.usage_in_bytes")?.div_ceil(1 << 20));
        println!(
            "figure image.peak-memory-mib{when} {}",
            self.read("memory.max_usage_in_bytes")?.div_ceil(1 << 20)
        );
        let times = self.read("memory.failcnt")?;
        ensure!(times == 0, "the container wanted more than its limit of memory {times} times");
        Ok(())
    }

    fn read(&self, file: &str) -> Result<u64> {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.trim().parse().with_context(|| path.display().to_string())
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        let begun = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(10));
        }
    }
}
