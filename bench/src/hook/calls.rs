//! Many `connect` calls in a row, in the client's process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

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

/// Makes the calls; returns the nanoseconds that they took together.
///
/// # Errors
/// One of them failed.
pub fn connect(batch: &Batch) -> Result<u64> {
    let procs = batch.cgroup.join("cgroup.procs");
    // "0" is the writer itself
    fs::write(&procs, "0").with_context(|| procs.display().to_string())?;
    let first = batch.first.to_bits();
    let dials: Vec<SockaddrIn> = (0..u64::from(batch.calls))
        .map(|call| {
            let offset = call * STRIDE % u64::from(batch.addresses.max(1));
            let address = Ipv4Addr::from_bits(first + u32::try_from(offset)?);
            Ok(SocketAddrV4::new(address, UDP_PORT).into())
        })
        .collect::<Result<_>>()?;
    let start = match batch.sockets {
        Sockets::New => {
            let start = Instant::now();
            for dial in &dials {
                connect_socket(open()?.as_raw_fd(), dial)?;
            }
            start
        }
        Sockets::Same => {
            let socket = open()?;
            let start = Instant::now();
            for dial in &dials {
                connect_socket(socket.as_raw_fd(), dial)?;
            }
            start
        }
    };
    Ok(u64::try_from(start.elapsed().as_nanos())?)
}

fn open() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_visits_every_address() {
        for addresses in [1_u64, 10, 1_000, 100_000] {
            let mut seen = vec![false; usize::try_from(addresses).unwrap()];
            (0..addresses).for_each(|call| seen[usize::try_from(call * STRIDE % addresses).unwrap()] = true);
            assert!(seen.iter().all(|seen| *seen), "{addresses}");
        }
    }
}
