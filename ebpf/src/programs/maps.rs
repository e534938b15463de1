//! Every map: what it is for, who writes it, who reads it. The sizes are set when the object is loaded.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use weir_ebpf::abi::{
    AffinityKey, AffinityRow, Backend, Connection, Counter, DatagramKey, DatagramRow, Frontend, FrontendKey,
    ServiceId, ServiceName,
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

/// Socket cookie -> what it dialled and got at connect. The hooks write, and remove the row with the socket; the agent
/// reads, to find sockets whose backend is gone. Least recently used only because kernel sockets pass no release hook.
#[map]
pub(crate) static CONNECTIONS: LruHashMap<u64, Connection> = LruHashMap::with_max_entries(1, 0);

/// Unconnected UDP sockets -> what each address that they speak to stands for, both ways. The hooks only.
#[map]
pub(crate) static DATAGRAMS: LruHashMap<DatagramKey, DatagramRow> = LruHashMap::with_max_entries(1, 0);

/// What the hooks counted. They write, the agent and `weir status` read.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Service id -> its name. The agent and the commands only.
#[map]
static NAMES: HashMap<ServiceId, ServiceName> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
