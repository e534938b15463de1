//! Packets of pods for the node's own tunnels. What comes out of one has whatever addresses somebody wrote into it, and comes
//! by a device that other nodes are behind: no policy would know whose it is. All nodes of a cluster have the same tunnels, and
//! a pod's packet to another node arrives under its own node's address; so the destination makes no difference.

use super::EnforceTables;
use crate::abi::{BoundPod, Config, DropReason, Protocol};
use crate::wire::{Kind, Packet};

/// IANA protocol numbers: IPv4 and IPv6 in IP, and GRE.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;

/// Whether it is no such packet, or of a pod that forwards for others.
///
/// # Errors
/// [`DropReason::NodeTunnel`]
#[inline(always)]
pub(super) fn check_tunnel<T: EnforceTables>(
    tables: &T,
    device: u32,
    packet: &Packet,
) -> Result<(), DropReason> {
    let forwards = || tables.lookup_pod(device).is_some_and(|pod| pod.flags & BoundPod::ANY_SOURCE != 0);
    if is_for_tunnel(tables, packet) && !forwards() { Err(DropReason::NodeTunnel) } else { Ok(()) }
}

/// Later pieces of what is dropped here come to nothing.
#[inline(always)]
fn is_for_tunnel<T: EnforceTables>(tables: &T, packet: &Packet) -> bool {
    match packet.protocol {
        IPV4 | IPV6 => tables.config().flags & Config::IP_IN_IP != 0,
        GRE => tables.config().flags & Config::GRE != 0,
        _ if packet.kind == Kind::Transport(Protocol::Udp) && packet.has_ports() => {
            let [a, b, c, d] = tables.config().tunnel_ports;
            let port = packet.dst.port;
            port == a || port == b || port == c || port == d
        }
        _ => false,
    }
}
