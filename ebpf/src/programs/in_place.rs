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
pub(crate) struct InPlace(pub(crate) Skb);

impl InPlace {
    /// Where these bytes are, until the next call of a helper that changes the packet.
    #[inline(always)]
    fn place<const N: usize>(&self, offset: u32) -> Option<*mut [u8; N]> {
        let (start, end) = self.0.bounds();
        let place = start + offset as usize;
        (place + N <= end).then_some(place as *mut [u8; N])
    }

    /// Where the checksum at `offset` is, if it certainly is one: if it had been put off, the sum of the pseudo-header would
    /// be there. Of one in 65,536 that cannot be told, nor of what a device is to cut into segments.
    #[inline(always)]
    fn whole_checksum(&self, offset: u32, change: &Change) -> Option<*mut [u8; 2]> {
        let put_off = change.put_off?.fold();
        let place = self.place(offset)?;
        // SAFETY: the packet has these bytes there.
        let before = u16::from_ne_bytes(unsafe { *place });
        // Both zeroes of one's complement are one.
        let may_be_put_off = before == put_off || before == 0;
        (!may_be_put_off && self.0.segment_size() == 0).then_some(place)
    }
}

impl Bytes for InPlace {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: the packet has these bytes there.
        self.place(offset).map(|place| unsafe { *place })
    }
}

impl Frame for InPlace {
    #[inline(always)]
    fn note_uncovered(&mut self, difference: Sum) {
        self.0.correct_sum(difference);
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck> {
        let place = self.place(offset).ok_or(Stuck)?;
        // SAFETY: the packet has these bytes there.
        unsafe { *place = bytes };
        Ok(())
    }

    #[inline(always)]
    fn update_checksum(&mut self, offset: u32, change: &Change, optional: bool) -> Result<(), Stuck> {
        let Some(place) = self.whole_checksum(offset, change) else {
            return self.0.update_checksum(offset, change, optional);
        };
        let difference = change.addresses.and(change.content);
        // SAFETY: the packet has these bytes there.
        unsafe { *place = updated(u16::from_ne_bytes(*place), difference, optional).to_ne_bytes() };
        // Two checksums make up for new addresses of IPv4: one too many for the sum over everything.
        if change.is_v4 {
            self.0.correct_sum(change.addresses.negated());
        }
        Ok(())
    }
}
