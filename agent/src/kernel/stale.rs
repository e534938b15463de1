//! Telling sockets that their backend is gone: those that we translated and nobody else's.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use weir_ebpf::abi::{Protocol, SocketKey, SocketRow};

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

/// Ends these sockets, in whichever network namespace of the node they are, and forgets them.
///
/// # Errors
/// The `sockets` table or `/proc` cannot be read.
pub fn close_sockets(generation: &Generation, stale: &[(SocketKey, SocketRow)]) -> anyhow::Result<Closed> {
    let mut closed = Closed::default();
    if stale.is_empty() {
        return Ok(closed);
    }
    let cookies: HashSet<u64> = stale.iter().map(|(key, _)| key.cookie()).collect();
    let protocols: HashSet<Protocol> = stale.iter().filter_map(|(_, row)| row.protocol()).collect();
    for namespace in netns::all().context("looking for network namespaces")? {
        match netns::inside(&namespace, || close_here(&cookies, &protocols)) {
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

fn close_here(cookies: &HashSet<u64>, protocols: &HashSet<Protocol>) -> anyhow::Result<usize> {
    let diag = SockDiag::open()?;
    let mut closed = 0;
    for protocol in protocols {
        for socket in diag.connected(*protocol)? {
            if cookies.contains(&socket.cookie()) && diag.destroy(&socket)? {
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
