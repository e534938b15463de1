//! The Internet checksum (RFC 1071), and its update when a few bytes change (RFC 1624).
//!
//! Called by [`super::rewrite`] and [`super::answer`]. All sums are over 16-bit words as this machine reads them: the
//! checksum does not depend on the byte order as long as everything uses the same one (RFC 1071 section 2 (B)).

use crate::abi::Addr;

/// A one's complement sum under way, or the difference between two. Any number of words below 2^32 fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// With a 16-bit word more.
    #[inline(always)]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// With a 32-bit word more: 2^16 is 1 in this arithmetic, so its halves need not be taken apart.
    #[inline(always)]
    pub const fn word32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// With more 32-bit words.
    #[inline(always)]
    pub fn words<const N: usize>(self, words: [u32; N]) -> Self {
        let mut sum = self;
        for word in words {
            sum = sum.word32(word);
        }
        sum
    }

    /// That of a pseudo-header: RFC 9293 section 3.1, RFC 8200 section 8.1. `length` in bytes, of what follows the IP headers.
    #[inline(always)]
    pub fn pseudo_header(src: Addr, dst: Addr, protocol: u8, length: u32) -> Self {
        let sum = if dst.is_v4() {
            Self::ZERO.words([src.v4(), dst.v4()])
        } else {
            Self::ZERO.words(src.words()).words(dst.words())
        };
        sum.word32(length.to_be()).word32(u32::from(protocol).to_be())
    }

    /// With the bytes of some header: an even number of them, from an even offset of whatever is summed.
    #[inline(always)]
    pub fn bytes<const N: usize>(self, bytes: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2), "half a word has no place of its own") };
        let mut sum = self;
        for pair in bytes.as_chunks::<2>().0 {
            sum = sum.word(u16::from_ne_bytes(*pair));
        }
        sum
    }

    /// Both together.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The difference the other way round.
    #[inline(always)]
    pub const fn negated(self) -> Self {
        Self::ZERO.word32(!self.partial())
    }

    /// How the sum changes when these 32-bit words are replaced: the new ones, and the complement of the old ones.
    #[inline(always)]
    pub fn replaced<const N: usize>(self, old: [u32; N], new: [u32; N]) -> Self {
        let mut sum = self.words(new);
        for word in old {
            sum = sum.word32(!word);
        }
        sum
    }

    /// The same for a 16-bit word.
    #[inline(always)]
    pub const fn replaced_word(self, old: u16, new: u16) -> Self {
        self.word(new).word(!old)
    }

    /// In 32 bits, as the kernel's helpers take it.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the carry was added first")]
    pub const fn partial(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// In 16 bits.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the carries were added first")]
    pub const fn fold(self) -> u16 {
        let sum = self.partial();
        let once = (sum & 0xffff) + (sum >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// What stands in the checksum field of the bytes that were summed, with the field itself zero.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// A checksum after this difference in what it covers (RFC 1624 equation 3).
    #[inline(always)]
    #[must_use]
    pub const fn applied_to(self, checksum: u16) -> u16 {
        self.word(!checksum).checksum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arithmetic as RFC 1071 section 4.1 writes it down, a byte at a time.
    fn recomputed(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            sum += u32::from(u16::from_ne_bytes([pair[0], low]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    fn random(state: &mut u64) -> u32 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        u32::try_from((mixed ^ (mixed >> 27)) >> 32).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).fold().to_be(), 0xddf2);
        assert_eq!(Sum::ZERO.bytes(&bytes).checksum().to_be(), 0x220d);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // A field goes from 0x5555 to 0x3285 under the checksum 0xdd2f: 0x0000, not 0xffff.
        let difference = Sum::ZERO.replaced_word(0x5555, 0x3285);
        assert_eq!(difference.applied_to(0xdd2f), 0x0000);
    }

    #[test]
    fn an_update_is_a_recomputation() {
        let mut state = 1;
        for _ in 0..20_000 {
            let words: [u32; 8] = core::array::from_fn(|_| random(&mut state));
            let mut bytes: [u8; 32] = zerocopy::transmute!(words);
            let before = recomputed(&bytes);
            // Extremes as often as anything else: that is where one's complement has two zeroes.
            let new = match random(&mut state) % 4 {
                0 => 0,
                1 => u32::MAX,
                2 => words[2],
                _ => random(&mut state),
            };
            let difference = Sum::ZERO.replaced([words[2]], [new]);
            bytes[8..12].copy_from_slice(&new.to_ne_bytes());
            let (updated, expected) = (difference.applied_to(before), recomputed(&bytes));
            assert!(
                updated == expected || (updated ^ expected) == 0xffff,
                "{words:x?} {new:x}: {updated:x}, not {expected:x}"
            );
            assert_eq!(Sum::ZERO.bytes(&bytes).checksum(), expected);
        }
    }

    #[test]
    fn many_carries_are_not_lost() {
        let mut sum = Sum::ZERO;
        for _ in 0..100_000 {
            sum = sum.word32(u32::MAX);
        }
        assert_eq!((sum.partial(), sum.fold()), (u32::MAX, 0xffff));
    }
}
