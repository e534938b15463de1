//! Waiting until nobody reads what was replaced.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use super::sys;

/// Waits for RCU grace periods. The kernel waits for one whenever a map within a map is replaced
/// (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c); so an otherwise unused one is. `membarrier` would do on
/// most machines, but not with one CPU, nor with `nohz_full`.
#[derive(Clone, Debug)]
pub struct Grace {
    outer: Arc<OwnedFd>,
    inner: Arc<OwnedFd>,
}

impl Grace {
    /// Makes the two maps.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let inner = sys::create_array()?;
        let outer = sys::create_array_of_maps(inner.as_fd())?;
        Ok(Self { outer: Arc::new(outer), inner: Arc::new(inner) })
    }

    /// Returns when every BPF program that ran when it was called has ended: after some milliseconds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self) -> io::Result<()> {
        sys::update_array_of_maps(self.outer.as_fd(), self.inner.as_fd())
    }
}
