//! The ring buffer of drops, read as the hooks write to it. Pinned: what was told while no agent ran, the next one reads.

use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use weir_ebpf::abi::DropEvent;
use zerocopy::FromBytes as _;

use super::generation::Generation;

/// The reader of one generation's ring buffer. There must be no other.
#[derive(Debug)]
pub struct DropEvents {
    ring: AsyncFd<Ring>,
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Ring {
    fn open(generation: &Generation) -> anyhow::Result<Self> {
        let map = Map::RingBuf(generation.open("DROP_EVENTS")?);
        Ok(Self(map.try_into().context("opening the ring buffer of drops")?))
    }

    /// Takes out what there is, at most so many; whether that was all.
    fn take(&mut self, most: usize, events: &mut Vec<DropEvent>) -> bool {
        while events.len() < most {
            let Some(item) = self.0.next() else { return true };
            // The map is of this agent's layout, and what is in it of this length; the rest of a longer one is not read.
            events.extend(DropEvent::read_from_prefix(&item).ok().map(|(event, _)| event));
        }
        false
    }
}

impl DropEvents {
    /// Within a tokio runtime.
    ///
    /// # Errors
    /// With the map's path.
    pub fn open(generation: &Generation) -> anyhow::Result<Self> {
        // SAFETY: the descriptor is the map's, which the ring owns and never replaces.
        let registered = unsafe { AsyncFd::register(Ring::open(generation)?) };
        let ring = registered.map_err(|error| error.into_parts().1);
        Ok(Self { ring: ring.context("waiting for the ring buffer of drops")? })
    }

    /// What was told since, as soon as there is something; at most so many at once. Nothing is lost if it is not waited for.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn read(&mut self, most: usize) -> anyhow::Result<Vec<DropEvent>> {
        let mut events = Vec::new();
        loop {
            let mut guard = self.ring.readable_mut().await.context("waiting for drops")?;
            if guard.get_inner_mut().take(most, &mut events) {
                guard.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// What was told and not read yet, taken out.
///
/// # Errors
/// With the map's path.
#[cfg(feature = "testing")]
pub fn take_drop_events(generation: &Generation) -> anyhow::Result<Vec<DropEvent>> {
    let mut events = Vec::new();
    Ring::open(generation)?.take(usize::MAX, &mut events);
    Ok(events)
}
