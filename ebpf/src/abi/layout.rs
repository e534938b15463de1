//! The layout of every row as text, to be compared with `ebpf/abi.lock`.

use core::fmt::{self, Write};
use core::mem::{offset_of, size_of};

use super::{
    ABI_VERSION, AffinityKey, AffinityRow, Backend, BoundPod, Config, Connection, Counter, DatagramKey,
    DatagramRow, Device, DropEvent, Enforcement, Flow, FragmentKey, FragmentRow, Frontend, FrontendKey,
    HopRow, Judged, JudgedKey, Netns, NetworkKey, PodPolicy, PolicyName, PolicyNameKey, PortRuleKey, Prefix,
    ServiceName, SetWord, Share, SourceRangeKey, Tuple, VerdictKey, Workload,
};

macro_rules! describe {
    ($out:ident, $($row:ident { $($field:tt),* })*) => {
        $(
            write!($out, "{} {}:", stringify!($row), size_of::<$row>())?;
            $(write!($out, " {}@{}", stringify!($field), offset_of!($row, $field))?;)*
            writeln!($out)?;
        )*
    };
}

/// Writes one line per row: its name, its size in bytes and the offset of each field.
///
/// # Errors
/// Those of `out`.
pub fn describe(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "version {ABI_VERSION}")?;
    describe!(out,
        FrontendKey { addr, port, zero, protocol }
        Frontend { service, affinity_s, kind, flags, zero }
        SetWord { 0 }
        Backend { addr, port, flags, place }
        ServiceName { lengths, protocol, family, zero, text }
        Connection { dialled_addr, backend_addr, dialled_port, backend_port, service, protocol, zero }
        DatagramKey { cookie, addr, port, direction, zero }
        DatagramRow { addr, port, zero, service }
        AffinityKey { client, service, zero }
        AffinityRow { addr, port, zero, last_seen_s }
        SourceRangeKey { prefix_len, service, addr }
        Tuple { low_addr, high_addr, low_port, high_port, protocol }
        Flow {
            client_addr, dialled_addr, source_addr, backend_addr, client_port, dialled_port, source_port, backend_port,
            service, begun_s, seen_s, signs, form, client_is_low, path, hop
        }
        HopRow { dst, src, device, window }
        FragmentKey { src, dst, id, protocol }
        FragmentRow { src, dst, seen_s }
        Workload { ifindex, mac, host_mac }
        Netns { v4, v6, flags }
        Device { v4, v6, mac, flags, mtu, netns }
        Prefix { addr, mask }
        Config { service_networks, pod_networks, v4, v6, first_port, ports, flags, tunnel_ports }
        PodPolicy { ingress, egress, flags }
        BoundPod { v4, v6, policy, flags }
        NetworkKey { prefix_len, addr }
        VerdictKey { set, class }
        PortRuleKey { prefix_len, rules, protocol, zero, port }
        PolicyNameKey { kind, id }
        PolicyName { 0 }
        JudgedKey { peer_addr, device, pod_port, peer_port, protocol, zero }
        Judged { basis, generation, seen_s, begun_s, began, outward, inward, standing }
        Share { rows, since_s }
        Enforcement { flags, generation, most_per_pod, zero }
        DropEvent {
            when_ns, src_addr, dst_addr, new_dst_addr, device, came_by, set, class, src_port, dst_port, new_dst_port,
            ether_type, hook, side, reason, protocol, detail, flags, zero
        }
    );
    write!(out, "Counter {}:", size_of::<u64>())?;
    for (index, counter) in Counter::ALL.iter().enumerate() {
        write!(out, " {}@{index}", counter.label())?;
    }
    writeln!(out)
}
