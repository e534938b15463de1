//! The eBPF programs: maps, contexts, entry points. Every decision is in the library's `datapath`.
#![no_std]
#![no_main]

#[path = "programs/kernel_tables.rs"]
mod kernel_tables;
#[path = "programs/maps.rs"]
mod maps;
#[path = "programs/sock.rs"]
mod sock;
#[path = "programs/sock_addr.rs"]
mod sock_addr;

/// The kernel wants to know that GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
