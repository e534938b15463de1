//! The first packet of a flow: whose is it, which backend does it get, and on which way.

use core::ops::ControlFlow;

use super::known::{forward_verdict, is_opening, signs};
use super::ports::Ports;
use super::{Node, Translation, Unreserved, Verdict, drop, refuse, remember_piece};
use crate::abi::{
    Addr, AddressUses, Backend, Client, Config, Counter, Device, DropReason, End, Flow, Form, Frontend,
    FrontendKey, FrontendKind, Hop, Origin, Path, Peer, Protocol, SourceRangeKey, Tuple, mix,
};
use crate::datapath::select::{Choice, select_backend};
use crate::datapath::socket::is_unallocated;
use crate::datapath::{CreateError, Moment, Network, PacketTables};
use crate::repeat::repeat;
use crate::wire::Packet;

/// Source ports that are tried for one flow. With half of them taken towards one backend, one flow of four billion finds
/// none.
pub(super) const ATTEMPTS: u32 = 32;

/// The frontend that a packet without a flow is for, or what becomes of the packet.
#[inline(always)]
pub(super) fn find<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
) -> Result<Frontend, Verdict> {
    // Of TCP only what opens a connection: anything else is another's in mid-stream, or lost, and the stack's.
    if !packet.has_ports() || (protocol == Protocol::Tcp && !is_opening(packet)) {
        return Err(Verdict::Pass);
    }
    match lookup_frontend(node, packet, protocol) {
        Ok(Some(frontend)) => Ok(frontend),
        Ok(None) => Err(Verdict::Pass),
        Err(reason) => Err(deny(node.tables, reason)),
    }
}

/// The flow that its client gets, or what becomes of the packet.
#[inline(always)]
pub(super) fn choose<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    origin: Origin,
    packet: &Packet,
    protocol: Protocol,
    frontend: &Frontend,
) -> Result<Flow, Verdict> {
    let tables = node.tables;
    admit(node, packet, protocol, frontend)?;
    let choice = match origin {
        Origin::Outside if frontend.has(Frontend::CONSISTENT) => Choice::Consistent(seed(packet, frontend)),
        _ => Choice::Any,
    };
    let client = || Client::from_addr(packet.src.addr);
    let backend = match select_backend(tables, node.moment, frontend, origin, choice, client) {
        Ok(backend) => backend,
        Err(reason) => return Err(deny(tables, reason)),
    };
    let mut flow = Flow::new(packet.src, packet.dst, backend.peer(), frontend.service, node.moment.seconds());
    let hides = hides_client(tables, origin, frontend, &backend, &flow);
    select_way(node, packet, protocol, hides, &mut flow);
    Ok(flow)
}

/// Enters the backend's side of a flow that was chosen, with a source port that makes its forms unique.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub(super) fn reserve<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    protocol: Protocol,
    flow: &mut Flow,
) -> Result<(), Unreserved> {
    create_backend_side(node, protocol, flow).map_err(|reason| match reason {
        DropReason::NoSourcePort => Unreserved::NoPort,
        reason => Unreserved::Verdict(deny(node.tables, reason)),
    })
}

/// The verdict where no source port is to be had.
#[inline(always)]
pub(super) fn refuse_port<T: PacketTables>(tables: &T) -> Verdict {
    deny(tables, DropReason::NoSourcePort)
}

/// Enters the client's side, which makes packets follow, and says what the first one becomes. `None`: there is no room,
/// or another CPU was faster with a packet of the same flow; [`withdraw`] is due.
#[inline(always)]
pub(super) fn enter<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
    flow: &mut Flow,
) -> Option<Verdict> {
    flow.seen_s = flow.begun_s;
    flow.signs = signs(packet);
    let key = flow.set_form(Form::Dialled, protocol);
    node.tables.create_flow(&key, flow).ok()?;
    node.tables.count(Counter::FlowBegun);
    remember_piece(node, packet, protocol);
    Some(match forward_verdict(node.tables, flow, Hop::UNKNOWN) {
        Verdict::Translate(translation) => Verdict::Translate(Translation { begins: true, ..translation }),
        verdict => verdict,
    })
}

/// Removes the backend's side. Its own row goes last, since `flow` may be that row.
#[inline(always)]
pub(super) fn withdraw<T: PacketTables>(tables: &T, protocol: Protocol, flow: &Flow) {
    if flow.path() == Path::Stack && flow.hides_client() {
        let (client, server) = flow.ends(Form::Forwarded);
        tables.delete_flow(&Tuple::new(client, server, protocol).0);
    }
    let (client, server) = flow.ends(Form::Received);
    tables.delete_flow(&Tuple::new(client, server, protocol).0);
}

/// Whose the destination is. The address is asked for first: most packets are for nobody whom we know, and one look-up
/// says so.
#[inline(always)]
fn lookup_frontend<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
) -> Result<Option<Frontend>, DropReason> {
    let (tables, dst) = (node.tables, packet.dst);
    let Some(row) = tables.lookup_frontend(&FrontendKey::whole_address(dst.addr)) else {
        return if is_unallocated(tables, dst.addr) { Err(DropReason::UnknownAddress) } else { Ok(None) };
    };
    let uses = row.uses();
    let frontend = match tables.lookup_frontend(&FrontendKey::new(dst, protocol)) {
        Some(frontend) => frontend,
        None => match lookup_node_port(tables, uses, dst, protocol) {
            Some(frontend) => frontend,
            None if uses.contains(AddressUses::CLUSTER_IP) && !uses.contains(AddressUses::NODE) => {
                return Err(DropReason::UnknownPort);
            }
            None => return Ok(None),
        },
    };
    Ok(Some(frontend))
}

/// What stands against it that this client gets a backend of the frontend.
///
/// # Errors
/// What becomes of the packet then.
#[inline(always)]
fn admit<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
    frontend: &Frontend,
) -> Result<(), Verdict> {
    if frontend.has(Frontend::NODE_ADDRESS) && node.network.has_socket(protocol, packet.dst, packet.src) {
        return Err(Verdict::Pass);
    }
    if frontend.has(Frontend::SOURCE_RANGES)
        && !node.tables.lookup_source_range(&SourceRangeKey::client(frontend.service, packet.src.addr))
    {
        return Err(deny(node.tables, DropReason::SourceRange));
    }
    Ok(())
}

/// The node port, if the address has node ports.
#[inline(always)]
fn lookup_node_port(
    tables: &impl PacketTables,
    uses: AddressUses,
    dst: Peer,
    protocol: Protocol,
) -> Option<Frontend> {
    if !uses.contains(AddressUses::NODE_PORTS) || uses.contains(AddressUses::LOOPBACK) {
        return None;
    }
    tables.lookup_frontend(&FrontendKey::new(Peer { addr: dst.addr.unspecified(), port: dst.port }, protocol))
}

/// What the choice of a backend hangs on. Under session affinity all connections of a client are one to every node.
#[inline(always)]
fn seed(packet: &Packet, frontend: &Frontend) -> u32 {
    let port = if frontend.affinity_s == 0 { packet.src.port.host() } else { 0 };
    let hash = hash_addr(u32::from(packet.dst.port.host()), packet.src.addr);
    mix(hash, u32::from(port))
}

#[inline(always)]
pub(super) fn hash_addr(hash: u32, addr: Addr) -> u32 {
    let [a, b, c, d] = addr.words();
    // Host order, so that nodes of either byte order agree.
    let hash = mix(mix(hash, u32::from_be(a)), u32::from_be(b));
    mix(mix(hash, u32::from_be(c)), u32::from_be(d))
}

/// Whether the backend must not see the client: it has to answer by way of this node. It does if it is on this node, or
/// if the client is a pod of this node; but a pod does not answer itself.
#[inline(always)]
fn hides_client(
    tables: &impl PacketTables,
    origin: Origin,
    frontend: &Frontend,
    backend: &Backend,
    flow: &Flow,
) -> bool {
    if flow.client().addr == backend.peer().addr {
        return true;
    }
    let shows = frontend.kind() == Some(FrontendKind::ClusterIp)
        && tables.config().flags & Config::SHOW_CLUSTER_IP_CLIENTS != 0;
    origin == Origin::Outside && backend.flags() & Backend::LOCAL == 0 && !shows
}

/// Through the stack or past it, and whom the backend takes for its client.
#[inline(always)]
fn select_way<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    packet: &Packet,
    protocol: Protocol,
    hides: bool,
    flow: &mut Flow,
) {
    let (client, server) = (flow.client().addr, flow.backend().addr);
    let there = lookup_way(node, client, server);
    let back = lookup_way(node, server, client);
    // A pod's packets that leave the node do so as all of its packets do: by way of the CNI plugin's netfilter rules, which
    // may masquerade it where the other side would not know it.
    let is_pods_own = !hides && !matches!(there, Way::Workload(_));
    // What has no Ethernet header cannot go on where there is one.
    let is_bare = packet.l3 == 0 && !matches!(there, Way::Workload(_));
    let may_redirect = node.tables.config().flags & Config::NO_REDIRECT == 0 && !is_pods_own && !is_bare;
    if may_redirect && can_redirect(there.mtu(), back.mtu(), protocol) {
        flow.set_path(Path::Redirect);
    }
    if matches!(there, Way::Workload(_)) {
        flow.set_local(End::Backend);
    }
    if matches!(back, Way::Workload(_)) {
        flow.set_local(End::Client);
    }
    if hides {
        let own = if let Way::Device(device) = there { device.address_like(server) } else { None };
        let config = node.tables.config();
        let addr = own.unwrap_or(if server.is_v4() { config.v4 } else { config.v6 });
        flow.set_source(Peer { addr, port: flow.client().port });
    }
}

/// Past the stack nobody cuts a packet to pieces. TCP never wants that; of the others one that is too long for the way
/// on needs the stack.
#[inline(always)]
fn can_redirect(there: u64, back: u64, protocol: Protocol) -> bool {
    there != 0 && back != 0 && (protocol == Protocol::Tcp || there == back)
}

/// How an address is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// It is a pod of this node, behind this device with our programs.
    Workload(Device),
    /// By this device with our programs, which takes Ethernet frames.
    Device(Device),
    /// By another device, or it is the node's own.
    Other,
}

impl Way {
    /// The longest packet that goes this way, past the stack; 0: none does.
    #[inline(always)]
    const fn mtu(&self) -> u64 {
        match self {
            Self::Workload(device) | Self::Device(device) => device.mtu,
            Self::Other => 0,
        }
    }
}

#[inline(always)]
fn lookup_way<T: PacketTables, M: Moment, N: Network>(node: &Node<'_, T, M, N>, src: Addr, dst: Addr) -> Way {
    if let Some(workload) = node.tables.lookup_workload(dst) {
        return node.tables.lookup_device(workload.ifindex).map_or(Way::Other, Way::Workload);
    }
    let Some(ifindex) = node.network.route(src, dst) else { return Way::Other };
    match node.tables.lookup_device(ifindex) {
        Some(device) if device.flags & Device::NO_ETHERNET == 0 => Way::Device(device),
        _ => Way::Other,
    }
}

#[inline(always)]
fn create_backend_side<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    protocol: Protocol,
    flow: &mut Flow,
) -> Result<(), DropReason> {
    let config = node.tables.config();
    if flow.source().addr == Addr::default() || config.ports == 0 {
        return Err(DropReason::NoSourcePort);
    }
    let ports = Ports::of(config, flow);
    let mut done = Err(DropReason::NoSourcePort);
    repeat(ATTEMPTS, |attempt| {
        flow.set_source(ports.source(flow, attempt));
        done = match try_create(node, protocol, flow) {
            Ok(()) => Ok(()),
            Err(CreateError::Exists) => return ControlFlow::Continue(()),
            Err(CreateError::Full) => Err(DropReason::FlowsFull),
        };
        ControlFlow::Break(())
    });
    done
}

/// The backend's row, and the stack's where that is another.
#[inline(always)]
fn try_create<T: PacketTables, M: Moment, N: Network>(
    node: &Node<'_, T, M, N>,
    protocol: Protocol,
    flow: &mut Flow,
) -> Result<(), CreateError> {
    // What a process of this node has is not given away.
    if flow.hides_client() && node.network.has_socket(protocol, flow.source(), flow.backend()) {
        return Err(CreateError::Exists);
    }
    let received = flow.set_form(Form::Received, protocol);
    node.tables.create_flow(&received, flow)?;
    if flow.path() == Path::Stack && flow.hides_client() {
        let forwarded = flow.set_form(Form::Forwarded, protocol);
        let created = node.tables.create_flow(&forwarded, flow);
        if created.is_err() {
            node.tables.delete_flow(&received);
        }
        return created;
    }
    Ok(())
}

/// Refused or dropped.
#[inline(always)]
fn deny<T: PacketTables>(tables: &T, reason: DropReason) -> Verdict {
    if reason.is_refusal() { refuse(tables, reason) } else { drop(tables, reason) }
}
