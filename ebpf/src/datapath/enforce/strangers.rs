//! Pods that no program is at the device of: those that were made while no agent runs. Where this node gives its pods addresses
//! of networks of their own, they are held where packets come to the node,
//! where they leave it, and where another pod sends them; between two of them on one bridge nobody is.

use super::{EnforceTables, counted, is_node};
use crate::abi::{Addr, Config, Device, DropReason, Peer, Port, Prefix};
use crate::datapath::packet::Node;
use crate::datapath::{Moment, Network};

/// Whether what comes to the node, or from a pod of it, may go on from one address to another, as they are after translation.
///
/// # Errors
/// [`DropReason::UnknownPod`]; it is counted.
#[inline(always)]
pub fn admit_to<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    src: Addr,
    dst: Addr,
) -> Result<(), DropReason> {
    counted(node.tables, check(node, dst, src))
}

/// Whether what an address sends to another may leave the node. `came_by` is the device by which it came to this node; 0: this
/// node made it.
///
/// # Errors
/// [`DropReason::UnknownPod`]; it is counted.
#[inline(always)]
pub fn release_from<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    came_by: u32,
    src: Addr,
    dst: Addr,
) -> Result<(), DropReason> {
    if came_by == 0 {
        return Ok(());
    }
    counted(node.tables, check(node, src, dst))
}

#[inline(always)]
fn check<T: EnforceTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    addr: Addr,
    peer: Addr,
) -> Result<(), DropReason> {
    let tables = node.tables;
    let config = tables.config();
    if config.flags & Config::HOLD_STRANGERS == 0 {
        return Ok(());
    }
    let [one, other]: &[Prefix; 2] = &config.pod_networks;
    if !one.contains(addr) && !other.contains(addr) {
        return Ok(());
    }
    // The node has addresses of them itself: a bridge's, a tunnel's.
    if tables.lookup_workload(addr).is_some() || is_node(tables, Peer { addr, port: Port::default() }) {
        return Ok(());
    }
    // Whoever gives pods their addresses may not go by the Node's networks (Calico): then it is a pod of another node.
    match node.network.route(peer, addr) {
        Some(device) if !leads_away(tables, device) => Err(DropReason::UnknownPod),
        _ => Ok(()),
    }
}

#[inline(always)]
fn leads_away<T: EnforceTables>(tables: &T, device: u32) -> bool {
    tables.lookup_device(device).is_some_and(|row| row.flags & Device::NODE_FACING != 0)
}
