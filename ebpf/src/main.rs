//! The eBPF programs: maps, contexts, entry points. Every decision is in the library's `datapath`.
#![no_std]
#![no_main]

#[path = "programs/act.rs"]
mod act;
#[path = "programs/ahead.rs"]
mod ahead;
#[path = "programs/bind.rs"]
mod bind;
#[path = "programs/cut.rs"]
mod cut;
#[path = "programs/decision.rs"]
mod decision;
#[path = "programs/enforce.rs"]
mod enforce;
#[path = "programs/events.rs"]
mod events;
#[path = "programs/in_place.rs"]
mod in_place;
#[path = "programs/kernel_tables.rs"]
mod kernel_tables;
#[path = "programs/limit.rs"]
mod limit;
#[path = "programs/maps.rs"]
mod maps;
#[path = "programs/network.rs"]
mod network;
#[path = "programs/policy_tables.rs"]
mod policy_tables;
#[path = "programs/skb.rs"]
mod skb;
#[path = "programs/sock.rs"]
mod sock;
#[path = "programs/sock_addr.rs"]
mod sock_addr;
#[path = "programs/tc.rs"]
mod tc;
#[path = "programs/xdp.rs"]
mod xdp;

/// The kernel wants to know that GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
