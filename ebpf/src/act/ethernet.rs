//! The Ethernet header, as far as anybody needs it who knows a packet's way.

use crate::abi::{Mac, Workload};

/// Length of the header in bytes (RFC 894). Tags of virtual networks stand beside the packet, not in it.
pub const ETHERNET: u32 = 14;

/// Destination and source, as they stand in the header.
#[inline(always)]
#[must_use]
pub const fn addresses(dst: Mac, src: Mac) -> [u8; 12] {
    zerocopy::transmute!([dst, src])
}

/// Those of a frame from the host's end of a pod's device to the pod's.
#[inline(always)]
#[must_use]
pub const fn addressed(workload: &Workload) -> [u8; 12] {
    addresses(workload.mac, workload.host_mac)
}
