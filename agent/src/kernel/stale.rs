//! Telling sockets that their backend is gone: those that we translated and nobody else's.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Map, MapData};
use weir_ebpf::abi::{Connection, Peer, Protocol};

use super::batch;
use super::generation::Generation;
use super::row::Row;
use super::sock_diag::SockDiag;
use crate::network::netns;

/// What [`close_sockets`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Closed {
    /// Sockets that were ended.
    pub sockets: usize,
    /// Why network namespaces could not be searched, one reason for each: those that are to be ended may be in there.
    pub unreachable: Vec<String>,
}

/// Every socket that was translated at `connect`, by its cookie. Unconnected sockets are not among them: nobody needs to
/// tell them, their next datagram goes to another backend.
///
/// # Errors
/// The `connections` table cannot be read.
pub fn connected_sockets(generation: &Generation) -> anyhow::Result<Vec<(u64, Connection)>> {
    let map = generation.open("CONNECTIONS")?;
    batch::read_all(map.fd().as_fd()).context("reading the connections table")
}

/// Ends these sockets where they are still connected to that backend, in whichever network namespace of the node they
/// are, and forgets them. A UDP socket may have been connected to somebody else since.
///
/// # Errors
/// The `connections` table or `/proc` cannot be read.
pub fn close_sockets(generation: &Generation, stale: &[(u64, Connection)]) -> anyhow::Result<Closed> {
    let mut closed = Closed::default();
    if stale.is_empty() {
        return Ok(closed);
    }
    let wanted: HashSet<(u64, Peer)> = stale.iter().map(|(cookie, row)| (*cookie, row.backend())).collect();
    let protocols: HashSet<Protocol> = stale.iter().filter_map(|(_, row)| row.protocol()).collect();
    for namespace in netns::all().context("looking for network namespaces")? {
        match netns::inside(&namespace, || close_here(&wanted, &protocols)) {
            Ok(count) => closed.sockets += count,
            Err(error) => closed.unreachable.push(format!("{error:#}")),
        }
    }
    if closed.unreachable.is_empty() {
        // Ended now or long before: either way there is nobody left to tell.
        forget(generation.open("CONNECTIONS")?, stale);
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

fn forget(map: MapData, stale: &[(u64, Connection)]) {
    let Ok(mut map) = aya::maps::HashMap::<_, u64, Row<Connection>>::try_from(Map::LruHashMap(map)) else {
        return;
    };
    for (cookie, _) in stale {
        // It went with its socket, most likely.
        let _gone = map.remove(cookie);
    }
}
