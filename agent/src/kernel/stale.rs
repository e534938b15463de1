//! Telling sockets that their backend is gone: those that we translated and nobody else's.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use weir_ebpf::abi::{Peer, Protocol, SocketKey, SocketRow};

use super::batch;
use super::generation::Generation;
use super::netns;
use super::row::Row;
use super::sock_diag::SockDiag;

/// What [`close_sockets`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Closed {
    /// Sockets that were ended.
    pub sockets: usize,
    /// Network namespaces that could not be searched.
    pub unreachable: usize,
}

/// Every socket that was translated at `connect`, with its backend. Unconnected sockets are not among them: nobody
/// needs to tell them, their next datagram goes to another backend.
///
/// # Errors
/// The `sockets` table cannot be read.
pub fn connected_sockets(generation: &Generation) -> anyhow::Result<Vec<(SocketKey, SocketRow)>> {
    let map = generation.open("SOCKETS")?;
    let mut rows: Vec<(SocketKey, SocketRow)> =
        batch::read_all(map.fd().as_fd()).context("reading the sockets table")?;
    rows.retain(|(key, row)| key.is_reverse() && row.connected());
    Ok(rows)
}

/// Ends these sockets where they are still connected to that backend, in whichever network namespace of the node they
/// are, and forgets them. A UDP socket may have been connected to somebody else since.
///
/// # Errors
/// The `sockets` table or `/proc` cannot be read.
pub fn close_sockets(generation: &Generation, stale: &[(SocketKey, SocketRow)]) -> anyhow::Result<Closed> {
    let mut closed = Closed::default();
    if stale.is_empty() {
        return Ok(closed);
    }
    let wanted: HashSet<(u64, Peer)> = stale.iter().map(|(key, _)| (key.cookie(), key.peer())).collect();
    let protocols: HashSet<Protocol> = stale.iter().filter_map(|(_, row)| row.protocol()).collect();
    for namespace in netns::all().context("looking for network namespaces")? {
        match netns::inside(&namespace, || close_here(&wanted, &protocols)) {
            Ok(count) => closed.sockets += count,
            Err(error) => {
                tracing::warn!("sockets whose backend is gone stay open in a network namespace: {error:#}");
                closed.unreachable += 1;
            }
        }
    }
    if closed.unreachable == 0 {
        // Ended now or long before: either way there is nobody left to tell.
        forget(generation.open("SOCKETS")?, stale);
    }
    Ok(closed)
}

fn close_here(wanted: &HashSet<(u64, Peer)>, protocols: &HashSet<Protocol>) -> anyhow::Result<usize> {
    let diag = SockDiag::open()?;
    let mut closed = 0;
    for protocol in protocols {
        for socket in diag.connected(*protocol)? {
            if wanted.contains(&(socket.cookie(), socket.peer())) && diag.destroy(&socket)? {
                closed += 1;
            }
        }
    }
    Ok(closed)
}

fn forget(map: MapData, stale: &[(SocketKey, SocketRow)]) {
    let Ok(mut map) = aya::maps::HashMap::<_, Row<SocketKey>, Row<SocketRow>>::try_from(Map::LruHashMap(map))
    else {
        return;
    };
    for (key, _) in stale {
        // The programs may have removed it, too.
        let _gone = map.remove(&Row(*key));
    }
}
