//! Headers, up to the ports.

use super::{Bytes, Packet, Quoted};

/// Why there is no [`Packet`] in these bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// The headers are cut short, or say lengths that cannot be, or are more than anybody sends. The stack's to judge.
    Malformed,
    /// An IPv6 header with a v4-mapped address (RFC 4291 section 2.5.5.2: never on the wire). Its place in the tables
    /// is an IPv4 address's, so it must not get further.
    MappedAddress,
}

/// The packet whose IP header is at `l3`; `ether_type` in host order, as in an Ethernet header.
///
/// # Errors
/// [`Unusable`]
#[inline(always)]
pub fn parse(_bytes: &(impl Bytes + ?Sized), _l3: u32, _ether_type: u16) -> Result<Packet, Unusable> {
    Err(Unusable::NotIp)
}

/// The packet that an ICMP error quotes; `None` where it quotes too little, or a protocol that Services have not.
#[inline(always)]
pub fn parse_quoted(_bytes: &(impl Bytes + ?Sized), _error: &Packet) -> Option<Quoted> {
    None
}
