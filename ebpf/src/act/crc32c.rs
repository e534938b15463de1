//! The checksum of SCTP, CRC32c (RFC 9260 section 6.8), when the ports change: without reading the rest of the packet.
//!
//! A CRC is linear: the CRC of a packet with other ports differs from the old one by the CRC (without initial value and
//! final complement) of the difference of the ports followed by as many zeroes as the packet has bytes after them. That is
//! a multiplication by a power of x, which is the product of one for each digit of the length.

use core::ops::ControlFlow;

use super::rewrite::{Frame, Stuck};
use crate::repeat::repeat;
use crate::wire::Packet;

/// The polynomial, lowest power in the highest bit (RFC 9260 appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x to the power of 0.
const ONE: u32 = 1 << 31;
/// Where the checksum is, from the beginning of SCTP's common header.
const CHECKSUM: u32 = 8;
/// A length in bytes has so many digits of four bits: no IP packet is longer (jumbograms are left alone).
const DIGITS: usize = 4;

/// x to the power of 8 times a length, for each value of each of its digits.
static POWERS: [[u32; 16]; DIGITS] = powers();

const fn powers() -> [[u32; 16]; DIGITS] {
    let mut powers = [[ONE; 16]; DIGITS];
    // x^8
    let mut step = ONE >> 8;
    let mut digit = 0;
    while digit < DIGITS {
        let mut value = 1;
        while value < 16 {
            powers[digit][value] = product(powers[digit][value - 1], step);
            value += 1;
        }
        step = product(powers[digit][15], step);
        digit += 1;
    }
    powers
}

/// `a * b` modulo the polynomial, when the table is made.
const fn product(a: u32, b: u32) -> u32 {
    let (mut product, mut b, mut bit) = (0, b, 0);
    while bit < 32 {
        product ^= b & 0_u32.wrapping_sub((a >> (31 - bit)) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
        bit += 1;
    }
    product
}

/// [`product`], in a loop that the verifier follows once.
#[inline(always)]
fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut b) = (0, b);
    repeat(32, |bit| {
        product ^= b & 0_u32.wrapping_sub((a >> (31 - bit)) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
        ControlFlow::Continue(())
    });
    product
}

/// How a CRC changes if four bytes, as a little-endian number, change by `difference` with `after` bytes behind them.
#[inline(always)]
fn change(difference: u32, after: u32) -> u32 {
    // Opaque: what the compiler knows of it the verifier does not, and would miss the mask.
    let length = core::hint::black_box(after + 4);
    let mut result = difference;
    for (digit, powers) in POWERS.iter().enumerate() {
        result = multiply(result, powers[(length >> (4 * digit)) as usize & 15]);
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
    if (after + 4) >> (4 * DIGITS) != 0 {
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
        for length in [4_u32, 5, 12, 28, 255, 1452, 65_515, 65_535] {
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
