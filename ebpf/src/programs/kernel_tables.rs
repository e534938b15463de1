//! The datapath's traits on BPF maps and helpers.

use core::ops::Deref;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::maps::lpm_trie::Key;
use weir_ebpf::abi::{
    Addr, AffinityKey, AffinityRow, Backend, Config, Connection, Counter, DatagramKey, DatagramRow, Device,
    Flow, FragmentKey, FragmentRow, Frontend, FrontendKey, HopRow, Netns, SetId, SetWord, Signs,
    SourceRangeKey, Tuple, Window, Workload,
};
use weir_ebpf::datapath::{CreateError, Full, Instant, Moment, PacketTables, Tables};

use crate::maps::{
    AFFINITY, BACKENDS, CONFIG, CONNECTIONS, COUNTERS, DATAGRAMS, DEVICES, FLOWS, FRAGMENTS, FRONTENDS,
    NETNS, SETS, SOURCE_RANGES, WORKLOADS,
};

/// `EEXIST`, as the kernel returns it.
const EXISTS: i32 = -17;

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
    fn lookup_netns(&self, cookie: u64) -> Option<Netns> {
        // SAFETY: copied at once; without preallocation an element is not reused before a grace period.
        unsafe { NETNS.get(cookie) }.copied()
    }

    #[inline(always)]
    fn lookup_source_range(&self, client: &SourceRangeKey) -> bool {
        let (service, addr, _) = client.parts();
        let [a, b, c, d] = addr.words();
        SOURCE_RANGES.get(Key::new(client.prefix_len, [service.0, a, b, c, d])).is_some()
    }

    #[inline(always)]
    fn config(&self) -> &Config {
        CONFIG.get(0).unwrap_or(&Config::EMPTY)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: the kernel checked the index, and the row is this CPU's own.
            unsafe { *value += 1 };
        }
    }
}

/// A row of `flows` in place. The kernel may give its element to another flow as soon as the row is removed, and rows are
/// removed of flows alone that have been idle for long, or are over.
pub(crate) struct FlowRow(*mut Flow);

impl Deref for FlowRow {
    type Target = Flow;

    #[inline(always)]
    fn deref(&self) -> &Flow {
        // SAFETY: the kernel gave the pointer, and what changes in the row are `seen_s`, `signs` and `hop`, of Copy types
        // without invalid values; the last is read by `lookup_hop` alone.
        unsafe { &*self.0 }
    }
}

impl PacketTables for KernelTables {
    type FlowRef<'a> = FlowRow;

    #[inline(always)]
    fn lookup_flow(&self, tuple: &Tuple) -> Option<FlowRow> {
        FLOWS.get_ptr_mut(tuple).map(FlowRow)
    }

    #[inline(always)]
    fn touch_flow(&self, flow: &FlowRow, seen_s: u32, signs: Signs) {
        // SAFETY: the kernel gave the pointer. Volatile: whole, and without a read that makes it a merge. Two CPUs that
        // write for one direction at once may lose a sign, which the next packet brings back or a longer lifetime
        // makes up for.
        unsafe {
            (&raw mut (*flow.0).seen_s).write_volatile(seen_s);
            (&raw mut (*flow.0).signs).write_volatile(signs);
        }
    }

    #[inline(always)]
    fn lookup_hop(&self, flow: &FlowRow) -> HopRow {
        // SAFETY: the kernel gave the pointer. Each word is read at once.
        HopRow::from_words(unsafe { word_pointers(flow).map(|word| word.read_volatile()) })
    }

    #[inline(always)]
    fn put_hop(&self, flow: &FlowRow, hop: HopRow) {
        let [dst, src, device, window] = hop.words();
        let [dst_at, src_at, device_at, window_at] = word_pointers(flow);
        // SAFETY: the kernel gave the pointer. Each word is written at once.
        unsafe {
            dst_at.write_volatile(dst);
            src_at.write_volatile(src);
            device_at.write_volatile(device);
            window_at.write_volatile(window);
        }
    }

    /// "Full" is whatever else the kernel refuses: no room (E2BIG), no memory (ENOMEM), and before Linux 6.1.63, 6.5.12 and 6.6.2 a
    /// bucket whose lock is being taken or given back on this CPU (EBUSY): by the agent's system call or a socket hook,
    /// which this packet's interrupt is on top of. Asking again is no use: whoever has it goes on when we are through.
    #[inline(always)]
    fn create_flow(&self, tuple: &Tuple, flow: &Flow) -> Result<(), CreateError> {
        FLOWS
            .insert(tuple, flow, u64::from(BPF_NOEXIST))
            .map_err(|error| if error == EXISTS { CreateError::Exists } else { CreateError::Full })
    }

    #[inline(always)]
    fn delete_flow(&self, tuple: &Tuple) -> bool {
        FLOWS.remove(tuple).is_ok()
    }

    #[inline(always)]
    fn lookup_fragment(&self, key: &FragmentKey) -> Option<FragmentRow> {
        // SAFETY: copied at once. A row that is reused meanwhile names the ports of another datagram: that one piece is
        // lost, as it would have been without the row.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, row: &FragmentRow) {
        // Without it the later pieces are as if their first had not come.
        let _lost = FRAGMENTS.insert(key, row, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn lookup_workload(&self, addr: Addr) -> Option<Workload> {
        // SAFETY: as for namespaces.
        unsafe { WORKLOADS.get(addr) }.copied()
    }

    #[inline(always)]
    fn lookup_device(&self, ifindex: u32) -> Option<Device> {
        // SAFETY: as for namespaces.
        unsafe { DEVICES.get(ifindex) }.copied()
    }
}

/// The words of the row's hop.
#[inline(always)]
fn word_pointers(flow: &FlowRow) -> [*mut u64; 4] {
    // SAFETY: the kernel gave the pointer; a hop is four words, and aligned to them.
    let first = unsafe { (&raw mut (*flow.0).hop).cast::<u64>() };
    // SAFETY: as above.
    unsafe { [first, first.add(1), first.add(2), first.add(3)] }
}

/// The kernel's clock and random numbers.
pub(crate) struct Now;

impl Moment for Now {
    #[inline(always)]
    fn now(&self) -> Instant {
        // SAFETY: no arguments.
        Instant { ns: unsafe { bpf_ktime_get_coarse_ns() } }
    }

    /// Of four jiffies, 4 to 40 ms by the kernel's configuration: that clock is read without a call.
    #[inline(always)]
    fn window(&self) -> Window {
        // SAFETY: no arguments.
        Window(unsafe { bpf_jiffies64() } >> 2)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }
}
