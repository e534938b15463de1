//! Every checksum of a packet, computed by etherparse: none of the code on trial.

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, IpPayloadSlice, IpSlice};
use weir_ebpf::testing::frame::crc32c;

/// Looks at the checksum of the IP header, and at that of what it carries; of a piece of a datagram only at the former.
///
/// # Errors
/// Which is wrong; or it is no packet.
pub fn verify(ip: &[u8]) -> Result<()> {
    let (addresses, carried) = parse(ip)?;
    if carried.fragmented {
        return Ok(());
    }
    verify_carried(&addresses, carried.ip_number, carried.payload)
}

/// The payloads of a datagram's pieces, put together: the checksum is in the first one and about all.
///
/// # Errors
/// As [`verify`].
pub fn verify_pieces(pieces: &[Vec<u8>]) -> Result<()> {
    let (mut addresses, mut whole) = (Vec::new(), Vec::new());
    for piece in pieces {
        let (ends, carried) = parse(piece)?;
        whole.extend_from_slice(carried.payload);
        addresses = ends;
    }
    verify_carried(&addresses, IpNumber::UDP, &whole)
}

/// Both addresses, and what comes after the IP headers, once these are as they should be.
fn parse(bytes: &[u8]) -> Result<(Vec<u8>, IpPayloadSlice<'_>)> {
    match IpSlice::from_slice(bytes).context("no IP packet")? {
        IpSlice::Ipv4(packet) => {
            let header = packet.header();
            let expected = header.to_header().calc_header_checksum();
            ensure!(header.header_checksum() == expected, "the IP header's checksum is wrong");
            ensure!(usize::from(header.total_len()) == bytes.len(), "the IP header's length is wrong");
            Ok(([header.source(), header.destination()].concat(), packet.payload().clone()))
        }
        IpSlice::Ipv6(packet) => {
            let header = packet.header();
            ensure!(
                usize::from(header.payload_length()) + 40 == bytes.len(),
                "the IP header's length is wrong"
            );
            Ok(([header.source(), header.destination()].concat(), packet.payload().clone()))
        }
    }
}

fn verify_carried(addresses: &[u8], protocol: IpNumber, carried: &[u8]) -> Result<()> {
    let mut sum = Sum16BitWords::new();
    match protocol {
        IpNumber::TCP | IpNumber::UDP | IpNumber::IPV6_ICMP => {
            let length = u32::try_from(carried.len())?.to_be_bytes();
            sum = sum.add_slice(addresses).add_4bytes(length).add_2bytes([0, protocol.0]);
        }
        IpNumber::ICMP => {}
        IpNumber::SCTP => {
            let (head, rest) = carried.split_at_checked(12).context("no SCTP header")?;
            let zeroed = [&head[..8], &[0; 4], rest].concat();
            ensure!(head[8..] == crc32c(&zeroed).to_le_bytes(), "the SCTP checksum is wrong");
            return Ok(());
        }
        other => bail!("nobody sends protocol {other:?}"),
    }
    let left = sum.add_slice(carried).ones_complement();
    ensure!(left == 0, "the checksum of protocol {} is wrong by {left:#06x}", protocol.0);
    Ok(())
}
