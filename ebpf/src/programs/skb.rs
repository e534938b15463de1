//! A packet at a tc hook: [`Frame`] and [`Reshape`] by the kernel's helpers, and what its context says.
//!
//! The kernel may know the sum over all bytes of a packet from the device that received it (CHECKSUM_COMPLETE), and may
//! have put off computing the transport checksum (CHECKSUM_PARTIAL). The helpers keep both right, if told what a change
//! is about; a change that a checksum makes up for leaves the sum over everything as it was.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_change_type,
    bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use core::ffi::c_void;
use core::hint::black_box;
use core::mem::MaybeUninit;
use weir_ebpf::act::answer::Reshape;
use weir_ebpf::act::checksum::Sum;
use weir_ebpf::act::rewrite::{Change, Frame, Stuck};
use weir_ebpf::wire::Bytes;

/// `BPF_F_IPV6` of `bpf_l4_csum_replace`: IPv6 addresses have no checksum of their own that makes up for them. In Linux
/// 6.16 and the stable versions of that time; before, the helper got the sum over everything wrong.
const BPF_F_IPV6: u64 = 1 << 7;
/// `PACKET_HOST` of linux/if_packet.h: a packet for this host.
const FOR_US: u32 = 0;
/// `PACKET_OTHERHOST`: one for somebody else's Ethernet address.
const FOR_OTHERS: u32 = 3;
/// The identifier of a VLAN in its tag (IEEE 802.1Q).
const VLAN_ID: u32 = 0x0fff;

/// What a hook of this program left in a packet for the hooks that follow, in `tc_index`. It goes with the packet through
/// forwarding, redirection and encapsulation (`skb_scrub_packet` leaves it alone), and into its pieces; what the node sends
/// itself has zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// It came to this node by a device, and the last hook looks at it.
    LookAgain = 0x5764,
    /// Nobody need look at it again.
    Done = 0x5765,
}

/// A packet at a tc hook.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub(crate) const fn new(raw: *mut __sk_buff) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub(crate) const fn raw(self) -> *mut __sk_buff {
        self.0
    }

    #[inline(always)]
    fn context(self) -> *mut c_void {
        self.0.cast()
    }

    /// In host order, as in an Ethernet header.
    #[inline(always)]
    pub(crate) fn ether_type(self) -> u16 {
        // SAFETY: the kernel's context. 16 bits in network order in a field of 32.
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    /// Whether it belongs to a VLAN, and so to a device on top of this one.
    #[inline(always)]
    pub(crate) fn is_tagged(self) -> bool {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).vlan_present != 0 && (*self.0).vlan_tci & VLAN_ID != 0 }
    }

    /// Whether its frame is for another host: a device in promiscuous mode shows such frames, and the stack drops them.
    #[inline(always)]
    pub(crate) fn is_for_others(self) -> bool {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).pkt_type == FOR_OTHERS }
    }

    /// Makes it a packet for this host, or for the pod that it goes to next. Before Linux 6.15 the redirection to a peer
    /// did not, and the pod dropped what had been sent to a bridge's address.
    #[inline(always)]
    pub(crate) fn set_for_us(self) {
        // SAFETY: the kernel's context, and plain numbers. It fails for loopback packets alone, which do not come here.
        unsafe {
            if (*self.0).pkt_type != FOR_US {
                bpf_skb_change_type(self.0, FOR_US);
            }
        }
    }

    /// The device of the hook.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).ifindex }
    }

    /// Where the part of the packet that is in one piece with its beginning begins and ends in memory.
    #[inline(always)]
    pub(crate) fn bounds(self) -> (usize, usize) {
        // SAFETY: the kernel's context.
        let (start, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        // Opaque: of a pointer that is copied in 32 bits the verifier does not know that it is one.
        (black_box(start), black_box(end))
    }

    /// The device by which it came to this node; 0: this node made it. Of a piece of an IPv6 packet that it cut the kernel does
    /// not know the device (`ip6_copy_metadata` leaves out `skb_iif`), but there is the note.
    #[inline(always)]
    pub(crate) fn came_by(self) -> u32 {
        // SAFETY: the kernel's context.
        let (device, note) = unsafe { ((*self.0).ingress_ifindex, (*self.0).tc_index) };
        let has_note = note == Note::LookAgain as u32 || note == Note::Done as u32;
        if device == 0 && has_note { u32::MAX } else { device }
    }

    /// Payload of each segment that a device is to make of it; 0: it is one.
    #[inline(always)]
    pub(crate) fn segment_size(self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).gso_size }
    }

    /// What a hook before this one left.
    #[inline(always)]
    pub(crate) fn is_done(self) -> bool {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).tc_index == Note::Done as u32 }
    }

    /// Leaves word for the hooks that follow.
    #[inline(always)]
    pub(crate) fn leave_note(self, note: Note) {
        // SAFETY: the kernel's context; tc programs may write the field.
        unsafe { (&raw mut (*self.0).tc_index).write_volatile(note as u32) };
    }

    /// Sets bits of the firewall mark.
    #[inline(always)]
    pub(crate) fn add_mark(self, bits: u32) {
        // SAFETY: the kernel's context; tc programs may write the field.
        unsafe {
            let mark = &raw mut (*self.0).mark;
            mark.write_volatile(mark.read_volatile() | bits);
        }
    }

    #[inline(always)]
    fn write<const N: usize>(self, offset: u32, bytes: &[u8; N], flags: u64) -> Result<(), Stuck> {
        // SAFETY: N bytes are there to be read.
        done(unsafe { bpf_skb_store_bytes(self.0, offset, bytes.as_ptr().cast(), N as u32, flags) })
    }

    #[inline(always)]
    fn replace(self, offset: u32, difference: Sum, flags: u64) -> i64 {
        // SAFETY: plain numbers.
        unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference.partial()), flags) }
    }

    #[inline(always)]
    fn replace_addresses(self, offset: u32, change: &Change, flags: u64) -> Result<(), Stuck> {
        let flags = flags | u64::from(BPF_F_PSEUDO_HDR);
        if change.is_v4 {
            return done(self.replace(offset, change.addresses, flags));
        }
        if self.replace(offset, change.addresses, flags | BPF_F_IPV6) == 0 {
            return Ok(());
        }
        done(self.replace(offset, change.addresses, flags))?;
        self.correct_sum(change.addresses);
        Ok(())
    }

    /// Corrects the sum over everything, where there is one.
    #[inline(always)]
    pub(crate) fn correct_sum(self, difference: Sum) {
        // SAFETY: a plain number. It fails where there is no such sum.
        unsafe { bpf_csum_update(self.0, difference.partial()) };
    }
}

#[inline(always)]
fn done(result: i64) -> Result<(), Stuck> {
    if result == 0 { Ok(()) } else { Err(Stuck) }
}

impl Bytes for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: room for N bytes; the helper fills all of them or fails.
        let result =
            unsafe { bpf_skb_load_bytes(self.context(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        if result != 0 {
            return None;
        }
        // SAFETY: filled above.
        Some(unsafe { bytes.assume_init() })
    }
}

impl Frame for Skb {
    #[inline(always)]
    fn note_uncovered(&mut self, difference: Sum) {
        self.correct_sum(difference);
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck> {
        self.write(offset, &bytes, 0)
    }

    #[inline(always)]
    fn update_checksum(&mut self, offset: u32, change: &Change, optional: bool) -> Result<(), Stuck> {
        let flags = if optional { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        if change.content != Sum::ZERO {
            done(self.replace(offset, change.content, flags))?;
        }
        if change.addresses != Sum::ZERO {
            self.replace_addresses(offset, change, flags)?;
        }
        Ok(())
    }
}

impl Reshape for Skb {
    #[inline(always)]
    fn resize(&mut self, length: u32) -> Result<(), Stuck> {
        // SAFETY: plain numbers. It also makes one packet of several segments.
        done(unsafe { bpf_skb_change_tail(self.0, length, 0) })
    }

    #[inline(always)]
    fn push(&mut self, length: u32) -> Result<(), Stuck> {
        // SAFETY: plain numbers.
        done(unsafe { bpf_skb_change_head(self.0, length, 0) })
    }

    #[inline(always)]
    fn put<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Result<(), Stuck> {
        self.write(offset, &bytes, u64::from(BPF_F_RECOMPUTE_CSUM))
    }

    /// Whether the kernel has put the checksum off cannot be asked. So the field first gets what it has to be then, the
    /// sum of the pseudo-header; a change of the content then makes it the whole checksum, but only where it was not.
    #[inline(always)]
    fn put_checksum(&mut self, offset: u32, pseudo: Sum, content: Sum) -> Result<(), Stuck> {
        let put_off = pseudo.fold();
        self.put(offset, put_off.to_ne_bytes())?;
        // In one's complement, from !put_off as a sum to pseudo + content.
        let difference = pseudo.and(content).word(put_off);
        done(self.replace(offset, difference, 0))?;
        let written = u16::from_ne_bytes(self.load(offset).ok_or(Stuck)?);
        self.correct_sum(Sum::ZERO.replaced_word(put_off, written));
        Ok(())
    }
}
