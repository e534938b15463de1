//! Backends, and the ring that they stand on.

use core::cmp::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addr, Peer, Port};

/// Row of the `backends` table: one place in one set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    pub(super) addr: Addr,
    pub(super) port: Port,
    pub(super) flags: u16,
    pub(super) place: u32,
}

impl Backend {
    /// The backend's pod is on this node.
    pub const LOCAL: u16 = 1;

    /// A backend at this address.
    #[inline(always)]
    #[must_use]
    pub const fn new(peer: Peer, flags: u16) -> Self {
        Self { addr: peer.addr, port: peer.port, flags, place: place(&peer) }
    }

    /// Where it is reached.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer { addr: self.addr, port: self.port }
    }

    /// [`Backend::LOCAL`] or 0.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u16 {
        self.flags
    }

    /// Where it stands on the ring of all 32-bit numbers: follows from its address and port alone, so every node and
    /// every set has it at the same place.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self) -> u32 {
        self.place
    }

    /// The order in which backends stand in a set: by their places, so that a search for one and the choice of the
    /// next on the ring are the same. User space sorts by it and the programs search by it.
    #[inline(always)]
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        if self.place == other.place {
            self.peer().order(&other.peer())
        } else {
            self.place.cmp(&other.place)
        }
    }
}

/// The same on nodes of either byte order.
#[inline(always)]
const fn place(peer: &Peer) -> u32 {
    let [a, b, c, d] = peer.addr.words();
    let mut hash = mix(u32::from_be(a), u32::from_be(b));
    hash = mix(hash, u32::from_be(c));
    hash = mix(hash, u32::from_be(d));
    mix(hash, peer.port.host() as u32)
}

/// One number made of two, as if at random: the finalizer of MurmurHash3, twice over. Part of the ABI: sets are sorted
/// by it.
#[inline(always)]
#[must_use]
pub const fn mix(hash: u32, word: u32) -> u32 {
    let mut hash = (hash ^ word).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash = (hash ^ (hash >> 16)).wrapping_add(0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
    hash ^ (hash >> 15)
}
