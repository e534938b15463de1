//! Single packets that go ahead of everything else, at XDP and at tc: the same bytes as the library makes of them.

use std::net::SocketAddr;

use weir_agent::kernel::{PacketIn, PacketOut};
use weir_ebpf::abi::{Device, Flow, Form, Hop, HopRow, Path, Peer, Port, Protocol, ServiceId, Signs, Window};
use weir_ebpf::act::checksum::Sum;
use weir_ebpf::datapath::packet::{Ahead, Verdict, look_ahead};
use weir_ebpf::testing::{MemoryTables, apply, frame};
use weir_ebpf::wire::{Kind, parse};
use weir_tests::packets::kernel::{Kernel, NEXT, Program, REDIRECTED};

/// `enum xdp_action`
const PASS: i32 = 2;
const TX: i32 = 3;

/// The node's device, its Ethernet address and the next hop's.
const UPLINK: u32 = 50;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0x50];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0x51];

/// Its one device leads to everybody but 10.99.0.0/16, whose next hop nobody knows.
fn commands() -> Vec<String> {
    [
        "link add up0 index 50 address 02:00:00:00:00:50 type veth peer name up1",
        "link set up0 up",
        "link set up1 up",
        "addr add 10.1.0.1/16 dev up0",
        "addr add fd01::1/64 dev up0 nodad",
        "neigh add 10.1.0.2 lladdr 02:00:00:00:00:51 dev up0 nud permanent",
        "neigh add fd01::2 lladdr 02:00:00:00:00:51 dev up0 nud permanent",
        "route add default via 10.1.0.2",
        "route add default via fd01::2",
        "route add 10.99.0.0/16 via 10.1.0.99",
    ]
    .map(Into::into)
    .into()
}

fn peer(text: &str) -> Peer {
    let addr: SocketAddr = text.parse().unwrap();
    Peer { addr: addr.ip().into(), port: Port::new(addr.port()) }
}

/// Long ago: the kernel's own is another.
const THEN: Window = Window(0);

/// Client, what it dials, what the backend sees, the backend. Both directions were seen, and went by the router then.
fn add_flow(tables: &MemoryTables, protocol: Protocol, ends: [&str; 4]) {
    let [client, dialled, source, backend] = ends.map(peer);
    let mut flow = Flow::new(client, dialled, backend, ServiceId(1), 1);
    flow.set_source(source);
    flow.set_path(Path::Redirect);
    flow.signs = Signs::SEEN.and(Signs::ACK);
    flow.hop = HopRow::new(&Hop { ifindex: UPLINK, mtu: 1500, dst: ROUTER, src: OWN }, THEN);
    for form in [Form::Dialled, Form::Received] {
        let key = flow.set_form(form, protocol);
        tables.flows.borrow_mut().insert(key, flow);
    }
}

const V4: [&str; 4] = ["11.0.0.1:4000", "10.1.0.1:30080", "10.1.0.1:20000", "10.2.0.5:8080"];
const V6: [&str; 4] = ["[fd11::1]:4000", "[fd01::1]:30080", "[fd01::1]:20000", "[fd02::5]:8080"];
/// Of a client whose next hop is not known.
const LOST: [&str; 4] = ["10.99.0.1:4000", "10.1.0.1:30080", "10.1.0.1:20001", "10.2.0.5:8080"];

fn packet(protocol: Protocol, src: &str, dst: &str, length: usize) -> Vec<u8> {
    let (src, dst, content) = (src.parse().unwrap(), dst.parse().unwrap(), vec![0xa5; length]);
    let mut bytes = match protocol {
        Protocol::Tcp => frame::tcp(src, dst, 16, &content),
        _ => frame::udp(src, dst, &content),
    };
    bytes[..6].copy_from_slice(&OWN);
    bytes
}

/// What XDP makes of a packet of which tc has just seen one like it. What tc found out is good for a short window, and that
/// may have ended in between.
fn run_at_xdp_in_one_window(kernel: &mut Kernel, frame: &[u8]) -> PacketOut {
    for _ in 0..1000 {
        let packet = PacketIn { frame, ifindex: UPLINK, came_by: UPLINK, note: 0, segment_size: 0 };
        assert_eq!(kernel.run(&[Program::FromNet], &packet).unwrap().code, REDIRECTED);
        let out = kernel.run_at_xdp(frame, UPLINK).unwrap();
        if out.code != PASS {
            return out;
        }
        assert_eq!(out.frame, frame, "untouched");
    }
    panic!("no two packets within one window");
}

/// What tc makes of a packet of which it has just seen one like it: the first of a window has no Ethernet addresses yet.
fn run_at_tc_in_one_window(kernel: &mut Kernel, packet: &PacketIn<'_>) -> PacketOut {
    for _ in 0..1000 {
        let out = kernel.run(&[Program::FromNet], packet).unwrap();
        assert_eq!(out.code, REDIRECTED);
        if out.frame[..12] != packet.frame[..12] {
            return out;
        }
    }
    panic!("no two packets within one window");
}

/// A node on whose device the flows are known, in memory and in a kernel.
fn known(name: &str) -> (Kernel, MemoryTables) {
    let mut kernel = Kernel::new(name, &commands(), 64).unwrap();
    let mut tables = MemoryTables::default();
    let (v4, v6) = (peer(V4[1]).addr, peer(V6[1]).addr);
    let device = Device { v4, v6, mac: OWN, flags: Device::NODE_FACING, mtu: 1500, netns: 0 };
    tables.devices.insert(UPLINK, device);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        [V4, V6, LOST].into_iter().for_each(|ends| add_flow(&tables, protocol, ends));
    }
    kernel.fill(&tables).unwrap();
    (kernel, tables)
}

/// Packets of the known flows, both ways, with contents of these lengths; of a datagram also one without a checksum.
fn frames(lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for ends in [V4, V6] {
            for (src, dst) in [(ends[0], ends[1]), (ends[3], ends[2])] {
                for length in lengths {
                    frames.push(packet(protocol, src, dst, *length));
                    if protocol == Protocol::Udp && ends == V4 {
                        let mut without = packet(protocol, src, dst, *length);
                        without[40..42].fill(0);
                        frames.push(without);
                    }
                }
            }
        }
    }
    frames
}

/// What the library makes of it, with the Ethernet addresses of its hop.
fn expected(tables: &MemoryTables, before: &[u8]) -> Vec<u8> {
    let parsed = parse(before, 14, frame::ether_type(before)).unwrap();
    let Ahead::Translate(translation, _) = look_ahead(tables, THEN, &parsed) else {
        panic!("{} to {} does not go ahead", parsed.src, parsed.dst);
    };
    let mut after = before.to_vec();
    apply(&mut after, &parsed, &Verdict::Translate(translation));
    after[..12].copy_from_slice([ROUTER, OWN].as_flattened());
    after
}

#[test]
fn xdp_makes_the_same_bytes_or_leaves_it() {
    let (mut kernel, tables) = known("xdp");
    let mut for_another = packet(Protocol::Tcp, V4[0], V4[1], 5);
    for_another[5] = 0;
    let seen = PacketIn { frame: &for_another, ifindex: UPLINK, came_by: UPLINK, note: 0, segment_size: 0 };
    let out = kernel.run(&[Program::FromNet], &seen).unwrap();
    assert_eq!((out.code, out.frame), (NEXT, for_another), "a promiscuous device shows it");
    let untouched = |kernel: &Kernel, frame: &[u8], why: &str| {
        let out = kernel.run_at_xdp(frame, UPLINK).unwrap();
        assert_eq!((out.code, out.frame.as_slice()), (PASS, frame), "{why}");
    };

    // Nothing of these leaves a trace.
    let there = packet(Protocol::Tcp, V4[0], V4[1], 5);
    untouched(&kernel, &packet(Protocol::Udp, LOST[3], LOST[2], 5), "the next hop is not known");
    untouched(&kernel, &there, "nobody asked for the next hop in this window");
    untouched(&kernel, &packet(Protocol::Udp, V4[0], V4[1], 1500), "too long");
    untouched(&kernel, &packet(Protocol::Tcp, V4[0], "10.1.0.1:30081", 5), "no flow");
    let altered = |at: usize, byte: u8| {
        let mut frame = there.clone();
        frame[at] = byte;
        frame
    };
    untouched(&kernel, &altered(5, 0), "for another machine");
    untouched(&kernel, &altered(22, 1), "at the end of its life");
    untouched(&kernel, &altered(20, 0x20), "a piece");
    untouched(&kernel, &altered(47, 2), "it opens a connection");
    let after = MemoryTables::default();
    kernel.read_flows(&after).unwrap();
    assert_eq!(*after.flows.borrow(), *tables.flows.borrow());

    for before in frames(&[0, 5, 1400]) {
        let out = run_at_xdp_in_one_window(&mut kernel, &before);
        assert_eq!((out.code, out.frame), (TX, expected(&tables, &before)), "{before:x?}");
    }
    kernel.read_flows(&after).unwrap();
    assert!(
        after.flows.borrow().iter().filter(|(_, row)| row.seen_s != 0).count() == 8,
        "each direction noted"
    );
}

#[test]
fn tc_makes_the_same_bytes() {
    let (mut kernel, tables) = known("ahead");
    for before in frames(&[0, 5, 1400]) {
        for altered in [before.clone(), as_if_put_off(&before)] {
            let packet =
                PacketIn { frame: &altered, ifindex: UPLINK, came_by: UPLINK, note: 0, segment_size: 0 };
            let out = run_at_tc_in_one_window(&mut kernel, &packet);
            assert_eq!(out.frame, expected(&tables, &altered), "{altered:x?}");
        }
    }
    for before in frames(&[1400]) {
        let packet =
            PacketIn { frame: &before, ifindex: UPLINK, came_by: UPLINK, note: 0, segment_size: 700 };
        let out = run_at_tc_in_one_window(&mut kernel, &packet);
        assert_eq!(out.frame, expected(&tables, &before), "in segments: {before:x?}");
    }
}

/// With the sum of the pseudo-header for a checksum: what of a whole one is a coincidence, and otherwise one that was put
/// off.
fn as_if_put_off(frame: &[u8]) -> Vec<u8> {
    let parsed = parse(frame, 14, frame::ether_type(frame)).unwrap();
    let Kind::Transport(protocol) = parsed.kind else { panic!("neither TCP nor UDP") };
    let length = parsed.length - (parsed.l4 - parsed.l3);
    let sum = Sum::pseudo_header(parsed.src.addr, parsed.dst.addr, protocol as u8, length).fold();
    let at = parsed.l4 as usize + if protocol == Protocol::Tcp { 16 } else { 6 };
    let mut altered = frame.to_vec();
    altered[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    altered
}
