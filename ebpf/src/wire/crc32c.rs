//! The checksum of SCTP, CRC32c (RFC 9260 section 6.8), when the ports change: without reading the rest of the packet.
//!
//! A CRC is linear: the CRC of a packet with other ports differs from the old one by the CRC (without initial value and
//! final complement) of the difference of the ports followed by as many zeroes as the packet has bytes after them. That is
//! a multiplication by a power of x, found in as many steps as the length has bits.

use super::Packet;
use super::rewrite::{Frame, Stuck};

/// The polynomial, lowest power in the highest bit (RFC 9260 appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Where the checksum is, from the beginning of SCTP's common header.
const CHECKSUM: u32 = 8;
/// No IP packet has more bytes (jumbograms are left alone).
const LENGTH_BITS: u32 = 16;

/// `a * b` modulo the polynomial.
#[inline(never)]
fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut b) = (0, b);
    for bit in 0..32 {
        // Without a branch: the verifier would follow both ways at each of 32 steps.
        product ^= b & 0_u32.wrapping_sub((a >> (31 - bit)) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
    }
    product
}

/// How a CRC changes if four bytes, as a little-endian number, change by `difference` with `after` bytes behind them.
#[inline(always)]
fn change(difference: u32, after: u32) -> u32 {
    // x^8 to the power of the bytes behind, and x^32 for the four themselves.
    let mut power = 0x0080_0000_u32; // x^8
    let mut result = difference;
    let count = after + 4;
    for bit in 0..=LENGTH_BITS {
        if count & (1 << bit) != 0 {
            result = multiply(result, power);
        }
        power = multiply(power, power);
    }
    result
}

/// Brings the checksum of an SCTP packet up to date; `ports` are the old XOR the new ones, as they stand in memory.
///
/// # Errors
/// [`Stuck`]
#[inline(always)]
pub(super) fn update_sctp<F: Frame>(frame: &mut F, packet: &Packet, ports: u32) -> Result<(), Stuck> {
    let header = packet.l4 - packet.l3;
    let after = packet.length.checked_sub(header + 4).ok_or(Stuck)?;
    if after >> LENGTH_BITS != 0 {
        return Err(Stuck);
    }
    let at = packet.l4 + CHECKSUM;
    let old: [u8; 4] = frame.load(at).ok_or(Stuck)?;
    let new = u32::from_le_bytes(old) ^ change(u32::from_le_bytes(ports.to_ne_bytes()), after);
    frame.store(at, new.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bit at a time, as the definition has it.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(crc & 1))
            })
        })
    }

    #[test]
    fn the_vector_of_rfc_3720_appendix_b_4() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&core::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap())), 0x46dd_794e);
    }

    #[test]
    fn an_update_is_a_recomputation() {
        for length in [4_u32, 5, 12, 28, 255, 1452, 65_515] {
            let mut bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(31).to_le_bytes()[0]).collect();
            let before = crc32c(&bytes);
            let ports = [0x12, 0x34, 0xab, 0xcd];
            let difference: [u8; 4] = core::array::from_fn(|at| bytes[at] ^ ports[at]);
            bytes[..4].copy_from_slice(&ports);
            let updated = before ^ change(u32::from_le_bytes(difference), length - 4);
            assert_eq!(updated, crc32c(&bytes), "{length} bytes");
        }
    }
}
