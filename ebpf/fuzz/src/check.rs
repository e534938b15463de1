//! What holds of bytes: read by another's parser, before and after.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpSlice, NetSlice, SlicedPacket};

use crate::frame::{Frame, is_transport_right};

/// Which checksums of a packet are right; `None` where it has none, or where they cannot be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Checksums {
    pub(crate) header: Option<bool>,
    pub(crate) transport: Option<bool>,
}

impl Checksums {
    /// Nothing that was right, and is still there, is wrong now.
    pub(crate) fn survived(self, after: Self) -> bool {
        let survived = |before, after| before != Some(true) || after != Some(false);
        survived(self.header, after.header) && survived(self.transport, after.transport)
    }

    /// Nothing that can be judged is wrong.
    pub(crate) fn are_right(self) -> bool {
        self.header != Some(false) && self.transport != Some(false)
    }
}

/// Judges a frame, as far as etherparse can read it.
pub(crate) fn checksums(frame: &Frame) -> Checksums {
    let Some(net) = frame.bytes.get(frame.l3..).and_then(|ip| SlicedPacket::from_ip(ip).ok()?.net) else {
        return Checksums::default();
    };
    let (src, dst, payload, header) = match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let right = Sum16BitWords::new().add_slice(header.slice()).ones_complement() == 0;
            (header.source().to_vec(), header.destination().to_vec(), ip.payload(), Some(right))
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source().to_vec(), ip.header().destination().to_vec(), ip.payload(), None)
        }
        NetSlice::Arp(_) => return Checksums::default(),
    };
    let transport = if payload.fragmented {
        None
    } else {
        is_transport_right(&src, &dst, payload.ip_number.0, payload.payload)
    };
    Checksums { header, transport }
}

/// Source, destination and protocol as etherparse sees them, if it takes the packet.
pub(crate) fn ends(frame: &Frame) -> Option<(IpAddr, IpAddr, u8)> {
    let slice = IpSlice::from_slice(frame.bytes.get(frame.l3..)?).ok()?;
    Some((slice.source_addr(), slice.destination_addr(), slice.payload_ip_number().0))
}
