//! The datapath's traits on BPF maps and helpers.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns};
use weir_ebpf::abi::{
    AffinityKey, AffinityRow, Backend, Connection, Counter, DatagramKey, DatagramRow, Frontend, FrontendKey,
    SetId, SetWord,
};
use weir_ebpf::datapath::{Full, Moment, Tables};

use crate::maps::{AFFINITY, BACKENDS, CONNECTIONS, COUNTERS, DATAGRAMS, FRONTENDS, SETS};

/// The maps of this object.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn lookup_frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: copied at once; without preallocation an element is not reused before a grace period.
        unsafe { FRONTENDS.get(key) }.copied()
    }

    #[inline(always)]
    fn lookup_set(&self, id: SetId) -> SetWord {
        match SETS.get_ptr(id.0) {
            // SAFETY: the kernel checked the index; volatile, so that the word is read once and whole.
            Some(word) => SetWord(unsafe { core::ptr::read_volatile(word) }),
            None => SetWord::default(),
        }
    }

    #[inline(always)]
    fn lookup_backend(&self, index: u32) -> Option<Backend> {
        BACKENDS.get(index).copied()
    }

    #[inline(always)]
    fn lookup_affinity(&self, key: &AffinityKey) -> Option<AffinityRow> {
        // SAFETY: copied at once, and the backend is checked against the set before it is used.
        unsafe { AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn put_affinity(&self, key: &AffinityKey, row: &AffinityRow) -> Result<(), Full> {
        AFFINITY.insert(key, row, 0).map_err(|_| Full)
    }

    #[inline(always)]
    fn lookup_connection(&self, cookie: u64) -> Option<Connection> {
        // SAFETY: copied at once; a row is replaced only on behalf of the socket that asks, or when it is the least
        // recently used of the whole table.
        unsafe { CONNECTIONS.get(cookie) }.copied()
    }

    #[inline(always)]
    fn put_connection(&self, cookie: u64, row: &Connection) -> Result<(), Full> {
        CONNECTIONS.insert(cookie, row, 0).map_err(|_| Full)
    }

    #[inline(always)]
    fn delete_connection(&self, cookie: u64) {
        // Most sockets have no row.
        let _none = CONNECTIONS.remove(cookie);
    }

    #[inline(always)]
    fn lookup_datagram(&self, key: &DatagramKey) -> Option<DatagramRow> {
        // SAFETY: as for connections.
        unsafe { DATAGRAMS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_datagram(&self, key: &DatagramKey, row: &DatagramRow) -> Result<(), Full> {
        DATAGRAMS.insert(key, row, 0).map_err(|_| Full)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: the kernel checked the index, and the row is this CPU's own.
            unsafe { *value += 1 };
        }
    }
}

/// The kernel's clock and random numbers.
pub(crate) struct Now;

impl Moment for Now {
    #[inline(always)]
    fn seconds(&self) -> u32 {
        // SAFETY: no arguments. u32: 136 years since boot.
        (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }
}
