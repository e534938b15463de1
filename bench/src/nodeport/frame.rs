//! Datagrams as the client's device carries them, every checksum in them right.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use etherparse::PacketBuilder;

use super::plan::End;

/// Bytes of content.
pub(super) const LENGTH: usize = 64;
/// Hops that a packet may take: one is all it needs.
const HOPS: u8 = 64;

/// The content of every datagram; what else arrives does not count.
pub(super) const CONTENT: [u8; LENGTH] = *b"As much as a resolver asks at once, or a sensor tells: 64 bytes.";

/// Appends the datagram's frame, from the client to the node.
///
/// # Errors
/// Two families.
pub(super) fn write_datagram(frame: &mut Vec<u8>, src: SocketAddr, dst: SocketAddr) -> Result<()> {
    let ethernet = PacketBuilder::ethernet2(End::Client.mac(), End::NodeUplink.mac());
    let ip = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), HOPS),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), HOPS),
        _ => bail!("{src} and {dst} are of two families"),
    };
    ip.udp(src.port(), dst.port()).write(frame, &CONTENT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_it_says() {
        for (src, dst) in [("198.18.0.2:1", "198.18.0.1:30000"), ("[2001:2::2]:1", "[2001:2::1]:30000")] {
            let mut frame = Vec::new();
            write_datagram(&mut frame, src.parse().unwrap(), dst.parse().unwrap()).unwrap();
            let read = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Udp(udp)) = read.transport else { panic!("no UDP") };
            assert_eq!((udp.source_port(), udp.destination_port()), (1, 30_000));
            assert_eq!(udp.payload(), CONTENT);
        }
        assert!(
            write_datagram(&mut Vec::new(), "1.2.3.4:1".parse().unwrap(), "[::1]:1".parse().unwrap())
                .is_err()
        );
    }
}
