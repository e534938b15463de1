//! Decides about a packet. What was decided goes to the subprogram that acts by way of a map: so each of the two has the
//! whole stack for itself.

use aya_ebpf::bindings::__sk_buff;
use weir_ebpf::abi::{Counter, DropReason, Flow, Frontend, HookPoint, Hop, Origin, PodPolicy};
use weir_ebpf::act::ethernet::addresses;
use weir_ebpf::act::reset::Segment;
use weir_ebpf::datapath::Tables as _;
use weir_ebpf::datapath::enforce::Ruling;
use weir_ebpf::datapath::packet::{
    Answer, Cut, Known, Node, Stage, Translation, Unreserved, Verdict, choose, enter, find, finish,
    follow_error, forget, give_up, reclaim, recognise, refuse_port, reserve, withdraw,
};
use weir_ebpf::wire::{Kind, Packet, Unusable, parse, parse_plain};

use crate::act::To;
use crate::in_place::InPlace;
use crate::kernel_tables::{KernelTables, Now};
use crate::network::{Here, NextHop};
use crate::skb::Skb;

/// Row of the map. Translation and answer stand side by side and not in one enumeration: to merge its variants the compiler
/// would carry registers around in which nothing is, and the kernel refuses such a program.
pub(crate) struct Decision {
    pub(crate) packet: Packet,
    pub(crate) translation: Translation,
    pub(crate) answer: Answer,
    /// What the ends of a connection are told, and what of the packet that takes.
    pub(crate) cut: Cut,
    pub(crate) segment: Segment,
    pub(crate) to: To,
    pub(crate) exit: Exit,
    pub(crate) next: NextHop,
    /// How the pod is isolated that sends it.
    pub(crate) policy: PodPolicy,
    /// What there is to do, while it is asked whether it may be.
    pub(crate) todo: Todo,
    /// Why the packet does not go on, or what else is to be told of it: known when it is decided, before it is acted upon.
    pub(crate) ruling: Ruling,
    frontend: Frontend,
    flow: Flow,
}

/// Where a packet leaves the node.
pub(crate) struct Exit {
    pub(crate) ifindex: u32,
    /// Destination and source of its Ethernet header.
    pub(crate) ethernet: [u8; 12],
}

impl From<&Hop> for Exit {
    #[inline(always)]
    fn from(hop: &Hop) -> Self {
        Self { ifindex: hop.ifindex, ethernet: addresses(hop.dst, hop.src) }
    }
}

/// A hook: which question it asks of a packet.
pub(crate) trait Hook {
    /// Of the first hook, whom packets come from; `None`: the last hook.
    const ORIGIN: Option<Origin>;
    /// Whether it is at a pod's device.
    const AT_POD: bool;
    /// As what it is told of.
    const POINT: HookPoint;
}

/// What there is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Todo {
    /// The packet stays as it is.
    Pass = 0,
    /// It becomes what stands in the map.
    Translate = 1,
    /// Its sender gets the answer in the map.
    Answer = 2,
    /// It goes no further.
    Drop = 3,
    /// It may have a flow.
    LookUp = 4,
    /// It is an ICMP error.
    Follow = 5,
    /// It may begin a flow.
    Begin = 6,
    /// It may begin a flow in the place of another.
    BeginAgain = 7,
    /// It may begin a flow, if there is a source port.
    Reclaim = 8,
    /// It is gone: sent on.
    Sent = 9,
    /// It is still to be read.
    Read = 10,
    /// Nobody can say what it is: it stays as it is.
    Unread = 11,
    /// It goes no further, and both ends of its connection are told.
    Cut = 12,
}

/// Reads the packet whose IP header is at `L3` into the map.
#[inline(never)]
pub(crate) fn read<const L3: u32>(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    let skb = Skb::new(raw);
    // As nearly every packet can be read: without a call.
    if let Some(packet) = parse_plain(&InPlace::new(skb), L3, skb.ether_type()) {
        row.packet = packet;
        return Todo::LookUp;
    }
    match parse(&skb, L3, skb.ether_type()) {
        Ok(packet) => {
            row.packet = packet;
            if packet.kind == Kind::IcmpError { Todo::Follow } else { Todo::LookUp }
        }
        Err(Unusable::NotIp | Unusable::Malformed) => Todo::Unread,
        Err(Unusable::MappedAddress) => {
            KernelTables.count(Counter::from(DropReason::MappedAddress));
            row.ruling = Ruling::from(DropReason::MappedAddress).with(Ruling::UNREAD);
            Todo::Drop
        }
    }
}

/// A verdict about the packet in the map, as far as tables say what becomes of it.
#[inline(never)]
pub(crate) fn look_up<H: Hook>(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    let here = Here::of(raw);
    if H::ORIGIN.is_none() {
        let verdict = finish(&here.node(), &row.packet);
        return conclude(row, verdict);
    }
    match recognise(&here.node(), &row.packet) {
        Known::Verdict(verdict) => conclude(row, verdict),
        Known::New => Todo::Begin,
        Known::Again => Todo::BeginAgain,
    }
}

/// Removes the flow whose place another is to have.
#[inline(never)]
pub(crate) fn forget_flow(row: &Decision) {
    forget(&KernelTables, &row.packet);
}

/// A verdict about the ICMP error in the map.
#[inline(never)]
pub(crate) fn follow<H: Hook>(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    let stage = if H::ORIGIN.is_some() { Stage::Arrive } else { Stage::Leave };
    let verdict = follow_error(&KernelTables, stage, &row.packet, &Skb::new(raw));
    conclude(row, verdict)
}

/// The frontend that the packet in the map is for, into the map; or a verdict.
#[inline(never)]
pub(crate) fn find_frontend(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    match find(&Here::of(raw).node(), &row.packet) {
        Ok(frontend) => {
            row.frontend = frontend;
            Todo::Begin
        }
        Err(verdict) => conclude(row, verdict),
    }
}

/// The flow that the packet in the map begins, into the map; or a verdict.
#[inline(never)]
pub(crate) fn choose_flow<H: Hook>(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    let Some(origin) = H::ORIGIN else { return Todo::Pass };
    match choose(&Here::of(raw).node(), origin, &row.packet, &row.frontend) {
        Ok(flow) => {
            row.flow = flow;
            Todo::Begin
        }
        Err(verdict) => conclude(row, verdict),
    }
}

/// The flow in the map gets a source port.
#[inline(never)]
pub(crate) fn reserve_flow(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    match reserve(&Here::of(raw).node(), &row.packet, &mut row.flow) {
        Ok(()) => Todo::Begin,
        Err(Unreserved::NoPort) => Todo::Reclaim,
        Err(Unreserved::Verdict(verdict)) => conclude(row, verdict),
    }
}

/// A source port for the flow in the map is taken back from another that is over; whether there was one.
#[inline(never)]
pub(crate) fn reclaim_port(raw: *mut __sk_buff, row: &mut Decision) -> bool {
    reclaim(&Here::of(raw).node(), &row.packet, &mut row.flow)
}

/// The verdict where there is no source port for a flow.
#[inline(always)]
pub(crate) fn refuse_flow(row: &mut Decision) -> Todo {
    conclude(row, refuse_port(&KernelTables))
}

/// The flow in the map begins, or not.
#[inline(never)]
pub(crate) fn enter_flow(raw: *mut __sk_buff, row: &mut Decision) -> Todo {
    match enter(&Here::of(raw).node(), &row.packet, &mut row.flow) {
        Some(verdict) => conclude(row, verdict),
        None => Todo::BeginAgain,
    }
}

/// Removes what there is of the flow that did not begin.
#[inline(never)]
pub(crate) fn withdraw_flow(row: &Decision) {
    withdraw(&KernelTables, &row.packet, &row.flow);
}

/// The verdict where there is no room for a flow.
#[inline(always)]
pub(crate) fn give_up_flow(row: &mut Decision) -> Todo {
    conclude(row, give_up(&KernelTables))
}

#[inline(always)]
fn conclude(row: &mut Decision, verdict: Verdict) -> Todo {
    match verdict {
        Verdict::Pass => Todo::Pass,
        Verdict::Translate(translation) => {
            row.translation = translation;
            Todo::Translate
        }
        Verdict::Answer(answer) => {
            if let Answer::Refusal(reason) = answer {
                row.ruling = reason.into();
            }
            row.answer = answer;
            Todo::Answer
        }
        Verdict::Drop(reason) => {
            row.ruling = reason.into();
            Todo::Drop
        }
        // No step before policies says so.
        Verdict::Cut(..) => Todo::Drop,
    }
}

impl Here {
    #[inline(always)]
    pub(crate) fn of(raw: *mut __sk_buff) -> Self {
        Self { context: raw.cast(), ifindex: Skb::new(raw).ifindex() }
    }

    #[inline(always)]
    pub(crate) fn node(&self) -> Node<'_, KernelTables, Now, Self> {
        Node { tables: &KernelTables, moment: &Now, network: self }
    }
}
