//! A packet at a tc hook, read and written where it is: for what is quick.
//!
//! The helpers find all bytes of a packet and know all about its checksums, and each of their calls costs about what a
//! look-up of a flow does. A packet nearly always has its headers in one piece, and its checksum in the field.

use weir_ebpf::act::checksum::Sum;
use weir_ebpf::act::rewrite::{Change, Frame, Stuck, updated};
use weir_ebpf::wire::Bytes;

use crate::skb::Skb;

/// What of a packet is in one piece with its beginning; there are no bytes behind. Writing to it makes the kernel unshare
/// the packets that the program gets.
pub(crate) struct InPlace {
    skb: Skb,
    start: usize,
    end: usize,
}

/// Bytes of a packet, which begins at an even address, as all its headers do: read and written two at a time.
#[repr(C, align(2))]
struct Even<const N: usize>([u8; N]);

impl InPlace {
    #[inline(always)]
    pub(crate) fn new(skb: Skb) -> Self {
        let (start, end) = skb.bounds();
        Self { skb, start, end }
    }

    /// Where these bytes are.
    #[inline(always)]
    fn place<const N: usize>(&self, offset: u32) -> Option<*mut Even<N>> {
        const { assert!(N.is_multiple_of(2), "no byte more than there is") };
        let place = self.start + offset as usize;
        (place + N <= self.end).then_some(place as *mut Even<N>)
    }

    /// The checksum at `offset`, if it certainly is one: if it had been put off, the sum of the pseudo-header would
    /// be there. Of one in 65,536 that cannot be told, nor of what a device is to cut into segments.
    #[inline(always)]
    fn whole_checksum(&self, offset: u32, change: &Change) -> Option<u16> {
        let put_off = change.put_off?.fold();
        let before = u16::from_ne_bytes(self.load(offset)?);
        // Both zeroes of one's complement are one.
        let may_be_put_off = before == put_off || before == 0;
        (!may_be_put_off && self.skb.segment_size() == 0).then_some(before)
    }
}

impl Bytes for InPlace {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: the packet has these bytes there.
        self.place(offset).map(|place| unsafe { place.read() }.0)
    }
}

impl Frame for InPlace {
    #[inline(always)]
    fn note_uncovered(&mut self, difference: Sum) {
        self.skb.correct_sum(difference);
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck> {
        let place = self.place(offset).ok_or(Stuck)?;
        // SAFETY: the packet has these bytes there.
        unsafe { place.write(Even(bytes)) };
        Ok(())
    }

    #[inline(always)]
    fn update_checksum(&mut self, offset: u32, change: &Change, optional: bool) -> Result<(), Stuck> {
        let Some(before) = self.whole_checksum(offset, change) else {
            let updated = self.skb.update_checksum(offset, change, optional);
            // The helpers may have moved the packet.
            *self = Self::new(self.skb);
            return updated;
        };
        let after = updated(before, change.addresses.and(change.content), optional);
        self.store(offset, after.to_ne_bytes())?;
        // Two checksums make up for new addresses of IPv4: one too many for the sum over everything.
        if change.is_v4 {
            self.skb.correct_sum(change.addresses.negated());
        }
        Ok(())
    }
}
