//! What the programs say (feature `log`): forwarded to the agent's log, at the level at which it was said.

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::Log;
use tokio::io::unix::AsyncFd;

/// Starts forwarding, for as long as the process lives.
///
/// # Errors
/// The object has no log, or the kernel does not let us wait for it.
pub(super) fn forward(programs: &mut Ebpf) -> anyhow::Result<()> {
    let logger = EbpfLogger::init(programs).context("opening the programs' log")?;
    // SAFETY: the descriptor is the ring buffer's, which the logger owns and never replaces.
    let registered = unsafe { AsyncFd::<EbpfLogger<&'static dyn Log>>::register(logger) };
    let mut logger = registered.map_err(|error| error.into_parts().1)?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
