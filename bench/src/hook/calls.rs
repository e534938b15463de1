//! Many `connect` calls in a row, in the client's process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect as connect_socket, socket};
use serde::{Deserialize, Serialize};

use crate::manifests::UDP_PORT;

/// Which sockets are connected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sockets {
    /// A new one for each call, which is closed afterwards; all of it is measured. As clients do.
    New,
    /// The same one again and again: nothing but the call.
    Same,
}

/// Calls to be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The cgroup that the sockets belong to: it decides which programs see them.
    pub cgroup: PathBuf,
    /// On which sockets.
    pub sockets: Sockets,
    /// The first address that is dialled, always at the same port.
    pub first: Ipv4Addr,
    /// How many addresses from there are dialled, one after the other in no order.
    pub addresses: u32,
    /// How many calls.
    pub calls: u32,
}

/// A prime larger than any number of addresses here: its multiples visit each address once before any twice.
const STRIDE: u64 = 2_147_483_647;

/// What a batch of calls took.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Took {
    /// Nanoseconds of one call, in the median chunk of [`CHUNK`] calls: what interrupts a few chunks does not count.
    pub median_ns: f64,
    /// Nanoseconds of one call, over all of them.
    pub mean_ns: f64,
}

/// Calls between two looks at the clock: a fraction of what a scheduler lets a process run, many times what the
/// look costs.
const CHUNK: usize = 100;

/// Makes the calls.
///
/// # Errors
/// One of them failed.
pub fn connect(batch: &Batch) -> Result<Took> {
    let procs = batch.cgroup.join("cgroup.procs");
    // "0" is the writer itself
    fs::write(&procs, "0").with_context(|| procs.display().to_string())?;
    let dials = dials(batch)?;
    let same = open()?;
    let mut chunks = Vec::with_capacity(dials.len() / CHUNK + 1);
    for chunk in dials.chunks_exact(CHUNK) {
        let start = Instant::now();
        for dial in chunk {
            match batch.sockets {
                Sockets::New => connect_socket(open()?.as_raw_fd(), dial)?,
                Sockets::Same => connect_socket(same.as_raw_fd(), dial)?,
            }
        }
        chunks.push(start.elapsed());
    }
    took(&mut chunks).context("no chunk of calls")
}

#[expect(clippy::cast_precision_loss, reason = "a hundred calls")]
fn took(chunks: &mut [Duration]) -> Option<Took> {
    chunks.sort();
    let median = chunks.get(chunks.len() / 2)?.as_secs_f64();
    let mean = chunks.iter().sum::<Duration>().as_secs_f64() / chunks.len() as f64;
    let of_one_call = |seconds: f64| seconds * 1e9 / CHUNK as f64;
    Some(Took { median_ns: of_one_call(median), mean_ns: of_one_call(mean) })
}

fn dials(batch: &Batch) -> Result<Vec<SockaddrIn>> {
    let first = batch.first.to_bits();
    let dial = |call: u64| {
        let offset = call * STRIDE % u64::from(batch.addresses.max(1));
        let address = Ipv4Addr::from_bits(first + u32::try_from(offset)?);
        Ok(SocketAddrV4::new(address, UDP_PORT).into())
    };
    (0..u64::from(batch.calls)).map(dial).collect()
}

fn open() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_is_in_the_mean_only() {
        let [short, long] = [Duration::from_micros(100), Duration::from_micros(2100)];
        let took = took(&mut [short, short, long, short]).unwrap();
        assert_eq!((took.median_ns.round(), took.mean_ns.round()), (1000.0, 6000.0));
        assert_eq!(super::took(&mut []), None);
    }

    #[test]
    fn the_stride_visits_every_address() {
        for addresses in [1_u64, 10, 1_000, 100_000] {
            let mut seen = vec![false; usize::try_from(addresses).unwrap()];
            (0..addresses).for_each(|call| seen[usize::try_from(call * STRIDE % addresses).unwrap()] = true);
            assert!(seen.iter().all(|seen| *seen), "{addresses}");
        }
    }
}
