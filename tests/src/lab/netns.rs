//! Named network namespaces, configured through iproute2's batch mode: one process per namespace, and what is
//! configured reads as an administrator would type it.
//!
//! `ip netns exec` is never used: it mounts another /sys, without bpffs and cgroups.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};

/// Where iproute2 keeps named namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A named network namespace. Whoever made it removes it: see [`remove`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Its name in `ip netns list`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Opens it, for setns.
    ///
    /// # Errors
    /// It is gone.
    pub fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("network namespace {}", self.name))
    }

    /// Runs `ip` commands (without the word `ip`) in it, all or up to the first that fails.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, commands: &[String]) -> Result<()> {
        batch("ip", &["-n", &self.name], commands)
    }

    /// Runs `bridge` commands in it, likewise.
    ///
    /// # Errors
    /// What `bridge` said.
    pub fn bridge(&self, commands: &[String]) -> Result<()> {
        batch("bridge", &["-n", &self.name], commands)
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay in it.
    ///
    /// # Errors
    /// The namespace cannot be entered, or those of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).context("setns")?;
                work()
            });
            thread.join().map_err(|_| anyhow!("the thread inside {} panicked", self.name))?
        })
    }

    /// Sets sysctls under `/proc/sys/net`: `("ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    /// Those of writing.
    pub fn ensure_sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in values {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .with_context(|| format!("sysctl {key}"))?;
            }
            Ok(())
        })
    }
}

/// Makes namespaces.
///
/// # Errors
/// What `ip` said; those made before the failure exist.
pub fn create(names: &[String]) -> Result<Vec<Netns>> {
    let commands: Vec<String> = names.iter().map(|name| format!("netns add {name}")).collect();
    batch("ip", &[], &commands)?;
    Ok(names.iter().map(|name| Netns { name: name.clone() }).collect())
}

/// Removes a namespace; its devices go with it as soon as no process is in it any more.
///
/// # Errors
/// Those of unlink.
pub fn remove(name: &str) -> Result<()> {
    let path = Path::new(DIRECTORY).join(name);
    // not mounted: left behind by a creation that was cut short
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn batch(program: &str, arguments: &[&str], commands: &[String]) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program} (package iproute2)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.join("\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed: {}\n{}", arguments.join(" "), said.trim(), commands.join("\n"));
    }
    Ok(())
}
