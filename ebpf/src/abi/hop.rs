//! Next hops, remembered in the rows of flows for a moment.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Mac;

/// How a packet leaves the node: what routes and neighbours say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Index of the device.
    pub ifindex: u32,
    /// The longest IP packet that the way on takes, in bytes.
    pub mtu: u16,
    /// The next hop's Ethernet address.
    pub dst: Mac,
    /// The device's own.
    pub src: Mac,
}

impl Hop {
    /// None is known. No device has the index 0.
    pub const UNKNOWN: Self = Self { ifindex: 0, mtu: 0, dst: [0; 6], src: [0; 6] };

    /// Whether it is known, and takes an IP packet of this length in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn takes(&self, length: u16) -> bool {
        self.ifindex != 0 && length <= self.mtu
    }
}

/// A short span of time, by its number since boot: 4 to 40 ms in the kernel, by its tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window(pub u64);

impl Window {
    /// As much of its number as there is room for beside an Ethernet address. It comes round every few minutes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low bits")]
    const fn tag(self) -> u16 {
        self.0 as u16
    }
}

/// A [`Hop`] in a row of `flows`, with the window in which it was found.
///
/// Each of its words names its window: whoever reads them all with one window has one hop, and needs no lock and no order
/// of memory, which BPF programs cannot ask for. In one window all CPUs find the same, but for a route that changes in its
/// midst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HopRow {
    pub(super) dst: u64,
    pub(super) src: u64,
    pub(super) device: u64,
    pub(super) window: u64,
}

impl HopRow {
    /// The hop, found in this window.
    #[inline(always)]
    #[must_use]
    pub const fn new(hop: &Hop, window: Window) -> Self {
        let [a, b] = hop.mtu.to_ne_bytes();
        let [c, d, e, f] = hop.ifindex.to_ne_bytes();
        Self {
            dst: word(hop.dst, window),
            src: word(hop.src, window),
            device: word([a, b, c, d, e, f], window),
            window: window.0,
        }
    }

    /// From its words, as they stand in the row.
    #[inline(always)]
    #[must_use]
    pub const fn from_words([dst, src, device, window]: [u64; 4]) -> Self {
        Self { dst, src, device, window }
    }

    /// Its words: each is written and read at once.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 4] {
        [self.dst, self.src, self.device, self.window]
    }

    /// The hop if it was found in this window; otherwise [`Hop::UNKNOWN`].
    #[inline(always)]
    #[must_use]
    pub const fn hop(&self, window: Window) -> Hop {
        let ((dst, a), (src, b), (device, c)) = (parts(self.dst), parts(self.src), parts(self.device));
        let [d, e, f, g, h, i] = device;
        let ifindex = u32::from_ne_bytes([f, g, h, i]);
        let tag = window.tag();
        let is_of_now = self.window == window.0 && a == tag && b == tag && c == tag;
        Hop { ifindex: if is_of_now { ifindex } else { 0 }, mtu: u16::from_ne_bytes([d, e]), dst, src }
    }
}

#[inline(always)]
const fn word(bytes: [u8; 6], window: Window) -> u64 {
    let [a, b, c]: [u16; 3] = zerocopy::transmute!(bytes);
    zerocopy::transmute!([a, b, c, window.tag()])
}

#[inline(always)]
const fn parts(word: u64) -> ([u8; 6], u16) {
    let [a, b, c, tag]: [u16; 4] = zerocopy::transmute!(word);
    (zerocopy::transmute!([a, b, c]), tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: Hop =
        Hop { ifindex: 0x0102_0304, mtu: 1500, dst: [1, 2, 3, 4, 5, 6], src: [7, 8, 9, 10, 11, 12] };

    #[test]
    fn a_hop_is_good_for_its_window() {
        let row = HopRow::from_words(HopRow::new(&HOP, Window(7)).words());
        assert_eq!(row.hop(Window(7)), HOP);
        assert_eq!(row.hop(Window(8)).ifindex, 0);
        assert_eq!(row.hop(Window(7 + (1 << 16))).ifindex, 0);
        for window in [0, 7] {
            assert_eq!(HopRow::default().hop(Window(window)).ifindex, 0);
        }
    }

    #[test]
    fn words_of_two_windows_are_no_hop() {
        let (old, new) = (HopRow::new(&HOP, Window(7)).words(), HopRow::new(&HOP, Window(8)).words());
        for mixed in 1..15 {
            let words = [0, 1, 2, 3].map(|at| if mixed >> at & 1 == 0 { old[at] } else { new[at] });
            for window in [7, 8] {
                assert_eq!(HopRow::from_words(words).hop(Window(window)).ifindex, 0, "{mixed:b}");
            }
        }
    }

    #[test]
    fn a_hop_takes_what_is_no_longer_than_it_says() {
        assert!(HOP.takes(1500) && !HOP.takes(1501));
        assert!(!Hop::UNKNOWN.takes(0));
    }
}
