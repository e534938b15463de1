//! Every map: what it is for, who writes it, who reads it. The sizes are set when the object is loaded.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use weir_ebpf::abi::{
    AffinityKey, AffinityRow, Backend, Counter, Frontend, FrontendKey, ServiceId, ServiceName, SocketKey,
    SocketRow,
};

/// What clients dial -> whose it is. The agent writes, every hook reads.
#[map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Set -> where its backends are, a `SetWord`. The agent stores each word at once, through a mapping of its own.
#[map]
pub(crate) static SETS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The backends of all sets, each set's together and sorted. The agent writes runs that no set points to.
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Client and Service port -> the client's backend. The hooks read and write.
#[map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityRow> = LruHashMap::with_max_entries(1, 0);

/// Translated sockets, for the way back. The hooks read and write; the agent reads, to find sockets whose backend
/// is gone.
#[map]
pub(crate) static SOCKETS: LruHashMap<SocketKey, SocketRow> = LruHashMap::with_max_entries(1, 0);

/// What the hooks counted. They write, the agent and `weir status` read.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Service id -> its name. The agent and the commands only.
#[map]
static NAMES: HashMap<ServiceId, ServiceName> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
