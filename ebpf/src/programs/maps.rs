//! Every map: what it is for, who writes it, who reads it. The sizes are set when the object is loaded.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use weir_ebpf::abi::{
    Addr, AffinityKey, AffinityRow, Backend, BoundPod, ClassId, Config, Connection, Counter, DatagramKey,
    DatagramRow, Device, Enforcement, Flow, FragmentKey, FragmentRow, Frontend, FrontendKey, Judged,
    JudgedKey, Netns, PolicyName, PolicyNameKey, PortRule, PortRulesId, ServiceId, ServiceName, Share, Tuple,
    VerdictKey, Workload,
};

use crate::decision::Decision;
use crate::events::Telling;
use crate::limit::Allowance;

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

/// Clients of Services with `loadBalancerSourceRanges`: Service id, then address (`SourceRangeKey`). The agent writes,
/// every hook reads.
#[map]
pub(crate) static SOURCE_RANGES: LpmTrie<[u32; 5], u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Forms of flows -> what the packets become. The tc and XDP programs create rows and note in them what they see; the
/// agent's sweeper removes them. Never least recently used: a flow that lives keeps its translation.
#[map]
pub(crate) static FLOWS: HashMap<Tuple, Flow> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Datagrams in pieces -> the ports, which only the first piece has. The tc and XDP programs only.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentRow> = LruHashMap::with_max_entries(1, 0);

/// Addresses of this node's pods -> where they are reached. The agent writes, the tc and XDP programs read.
#[map]
pub(crate) static WORKLOADS: HashMap<Addr, Workload> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Cookies of network namespaces -> whose they are. The agent writes, the socket hooks read.
#[map]
pub(crate) static NETNS: HashMap<u64, Netns> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Cgroups below which the kubelet has its pods, and of pods that were seen, by their ids ([`weir_ebpf::abi::PodCgroups`]). The agent writes, the socket hooks read.
#[map]
pub(crate) static POD_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Devices with our programs, by index. The agent writes, the tc and XDP programs read.
#[map]
pub(crate) static DEVICES: HashMap<u32, Device> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// What holds for the whole node, in its one row. The agent writes, every hook reads.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// How policies are in force, in its one row. The agent writes, the hooks read it of every packet of a pod.
#[map]
pub(crate) static ENFORCEMENT: Array<Enforcement> = Array::with_max_entries(1, 0);

/// Devices of this node's pods -> the pod behind. The agent writes, the hooks read.
#[map]
pub(crate) static POD_POLICIES: HashMap<u32, BoundPod> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Addresses -> their class, where a selector tells them apart. The agent writes, the hooks read.
#[map]
pub(crate) static ADDRESS_CLASSES: HashMap<Addr, ClassId> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Prefixes (`NetworkKey`) -> the class of everybody else. The agent writes, the hooks read.
#[map]
pub(crate) static NETWORK_CLASSES: LpmTrie<[u32; 4], ClassId> =
    LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Policy set and class -> the ports that are allowed. The agent writes, the hooks read.
#[map]
pub(crate) static VERDICTS: HashMap<VerdictKey, PortRulesId> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Set of ports, protocol, port (`PortRuleKey`) -> allowed. The agent writes, the hooks read.
#[map]
pub(crate) static PORT_RULES: LpmTrie<[u32; 2], PortRule> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Flows of pods that something isolates -> by what they are allowed. The hooks create rows and note in them what they see;
/// the agent's sweeper removes them. Never least recently used: a flood would push out what others are allowed.
#[map]
pub(crate) static JUDGED: HashMap<JudgedKey, Judged> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Devices of pods -> how many rows of `judged` they have, and since when all their flows have one. The hooks count up, the
/// agent's sweeper writes what it counted.
#[map]
pub(crate) static JUDGED_SHARES: HashMap<u32, Share> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// What was decided about the packet at hand, between two subprograms: it does not fit on the stack of both. One row per
/// CPU, written and read by one run of one program.
#[map]
pub(crate) static DECISION: PerCpuArray<Decision> = PerCpuArray::with_max_entries(1, 0);

/// How many ICMP errors this CPU may still send in this second. The tc programs only.
#[map]
pub(crate) static ALLOWANCE: PerCpuArray<Allowance> = PerCpuArray::with_max_entries(1, 0);

/// What was dropped, one by one. The hooks write, as often as they may, and the agent reads.
#[map]
pub(crate) static DROP_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// How many events this CPU may still tell, and the one that it is about to.
#[map]
pub(crate) static TELLING: PerCpuArray<Telling> = PerCpuArray::with_max_entries(1, 0);

/// What the hooks counted. They write, the agent and `weir status` read.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Service id -> its name. The agent and the commands only.
#[map]
static NAMES: HashMap<ServiceId, ServiceName> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Policy sets, classes and sets of ports -> what they mean. The agent only.
#[map]
static POLICY_NAMES: HashMap<PolicyNameKey, PolicyName> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
