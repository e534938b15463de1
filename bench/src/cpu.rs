//! Where a measured process runs, and how much of the CPUs was whose.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeSpec;
use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, setsid};

/// The highest priority of ordinary processes (nice).
const HIGHEST: libc::c_int = -20;

/// The number of CPUs.
#[must_use]
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Keeps this process on one CPU. Before it has threads: they inherit it.
///
/// # Errors
/// There is no such CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpu} only"))
}

/// Has this process run before others: what else the machine does is no part of what is measured.
///
/// # Errors
/// Not root, or not in the process' first thread.
pub fn take_precedence() -> Result<()> {
    // a session of its own is a group of its own where the kernel shares CPUs between sessions first
    setsid().context("a session of its own")?;
    match fs::write("/proc/self/autogroup", HIGHEST.to_string()) {
        // a kernel that shares them between processes only
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.context("cannot run before other sessions")?,
    }
    // SAFETY: a system call without pointers.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("cannot run before other processes"),
    }
}

/// What this process (0) or another one has used of all CPUs.
///
/// # Errors
/// It is gone.
pub fn used(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    let time: TimeSpec = clock.now()?;
    Ok(time.into())
}

/// What all processes have used of all CPUs since boot, in ticks of 10 ms.
///
/// # Errors
/// `/proc/stat` is not as it should be.
pub fn busy() -> Result<Duration> {
    parse_busy(&fs::read_to_string("/proc/stat")?).context("/proc/stat")
}

/// All but idle and waiting for disks; the guests' time is in the users'.
fn parse_busy(stat: &str) -> Option<Duration> {
    let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    let &[user, nice, system, _idle, _io, irq, softirq, steal, ..] = ticks.as_slice() else { return None };
    Some(Duration::from_millis((user + nice + system + irq + softirq + steal) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_not_busy() {
        let stat = "cpu  10 2 30 4000 500 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_busy(stat), Some(Duration::from_millis(630)));
        assert_eq!(parse_busy("cpu 1 2"), None);
    }

    #[test]
    fn work_is_seen() {
        let before = used(0).unwrap();
        let mut sum = 0_u64;
        while used(0).unwrap() < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(busy().unwrap() > Duration::ZERO);
    }
}
