//! The hook before the first: at the driver, where a packet is not yet the stack's (`--xdp`).
//!
//! `weir_xdp` is at node-facing Ethernet devices and takes packets of flows that are known and go on to another node, or
//! come back from one. Whatever it does not take goes on to `weir_from_net` as it came, and as if nobody had looked.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use core::mem::MaybeUninit;
use weir_ebpf::abi::{Counter, Device, Window};
use weir_ebpf::act::ethernet::{ETHERNET, addresses};
use weir_ebpf::act::rewrite::{Frame, Stuck, rewrite};
use weir_ebpf::datapath::packet::{Ahead, look_ahead};
use weir_ebpf::datapath::{Moment as _, PacketTables as _, Tables as _};
use weir_ebpf::wire::{Bytes, parse};

use crate::decision::Decision;
use crate::kernel_tables::{KernelTables, Now};
use crate::maps::DECISION;

/// A packet at an XDP hook.
#[derive(Clone, Copy)]
struct Xdp(*mut xdp_md);

#[xdp]
fn weir_xdp(ctx: XdpContext) -> u32 {
    run(ctx.ctx).unwrap_or(xdp_action::XDP_PASS)
}

/// What becomes of the packet; `None`: tc decides. Step by step, as at tc: each has the stack for itself.
#[inline(always)]
fn run(raw: *mut xdp_md) -> Option<u32> {
    let row = DECISION.get_ptr_mut(0)?;
    // SAFETY: the kernel checked the index, the row is this CPU's own, and each step reads what one before it wrote.
    let row = unsafe { &mut *row };
    if !read(raw, row) || !look(raw, row, Now.window()) {
        return None;
    }
    Some(if rewrite_here(raw, row) { send(raw, row) } else { xdp_action::XDP_DROP })
}

/// Reads a packet for this device into the map.
#[inline(never)]
fn read(raw: *mut xdp_md, row: &mut Decision) -> bool {
    let frame = Xdp(raw);
    let Some(device) = KernelTables.lookup_device(frame.ifindex()) else { return false };
    let Some(dst) = frame.load::<6>(0) else { return false };
    let Some(ether_type) = frame.load(12) else { return false };
    // What is for others comes by in promiscuous mode; a tagged packet is for a device on top of this one.
    if dst != device.mac {
        return false;
    }
    let Ok(packet) = parse(&frame, ETHERNET, u16::from_be_bytes(ether_type)) else { return false };
    row.packet = packet;
    true
}

/// What the packet becomes and where it goes on, into the map; `false`: neither is known. Then tc finds out, for those that
/// follow in the same window, and so the kernel learns that the neighbour is in use.
#[inline(never)]
fn look(raw: *mut xdp_md, row: &mut Decision, window: Window) -> bool {
    let Ahead::Translate(translation, counter) = look_ahead(&KernelTables, window, &row.packet) else {
        return false;
    };
    row.translation = translation;
    let Ok(length) = u16::try_from(row.packet.length) else { return false };
    if !translation.hop.takes(length) {
        return false;
    }
    let ifindex = translation.hop.ifindex;
    if ifindex != Xdp(raw).ifindex() && !takes_redirects(ifindex) {
        return false;
    }
    KernelTables.count(counter);
    KernelTables.count(Counter::PacketXdp);
    true
}

/// Whether the device sends what is redirected to it here. Of one that does not the kernel would tell nobody.
#[inline(always)]
fn takes_redirects(ifindex: u32) -> bool {
    KernelTables.lookup_device(ifindex).is_some_and(|device| device.flags & Device::XDP_TARGET != 0)
}

/// The packet as it is to leave.
#[inline(never)]
fn rewrite_here(raw: *mut xdp_md, row: &Decision) -> bool {
    let mut frame = Xdp(raw);
    rewrite(&mut frame, &row.packet, &row.translation, true).is_ok()
        && frame.store(0, addresses(row.translation.hop.dst, row.translation.hop.src)).is_ok()
}

#[inline(always)]
fn send(raw: *mut xdp_md, row: &Decision) -> u32 {
    if row.translation.hop.ifindex == Xdp(raw).ifindex() {
        return xdp_action::XDP_TX;
    }
    // SAFETY: plain numbers.
    unsafe { bpf_redirect(row.translation.hop.ifindex, 0) as u32 }
}

impl Xdp {
    /// The device by which the packet came.
    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the kernel's context.
        unsafe { (*self.0).ingress_ifindex }
    }
}

impl Bytes for Xdp {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: room for N bytes; the helper fills all of them or fails.
        let result = unsafe { bpf_xdp_load_bytes(self.0, offset, bytes.as_mut_ptr().cast(), N as u32) };
        if result != 0 {
            return None;
        }
        // SAFETY: filled above.
        Some(unsafe { bytes.assume_init() })
    }
}

/// Of a packet from a wire the checksum is whole, whatever changes under it.
impl Frame for Xdp {
    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, mut bytes: [u8; N]) -> Result<(), Stuck> {
        // SAFETY: N bytes are there to be read.
        let result = unsafe { bpf_xdp_store_bytes(self.0, offset, bytes.as_mut_ptr().cast(), N as u32) };
        if result == 0 { Ok(()) } else { Err(Stuck) }
    }
}
