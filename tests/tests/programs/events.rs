//! What the socket hooks tell of what they refuse; how much of it, and to whom.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use weir_agent::compile::ServicePlan;
use weir_agent::kernel::{View, take_drop_events};
use weir_agent::source::{Family, Protocol};
use weir_ebpf::abi::{Counter, DropEvent, DropReason, HookPoint, Peer, Port};
use weir_ebpf::datapath::events::EventAllowance;

use crate::world::{SIZES, World, plan, vip};

/// No backends, and what becomes of clients for that.
fn closed(protocol: Protocol, family: Family, reason: DropReason) -> ServicePlan {
    let backend = SocketAddr::new(vip(family).ip(), 1);
    let mut plan = plan(protocol, &[backend]);
    plan.present.clear();
    for port in &mut plan.ports {
        if let Some(set) = &mut port.cluster {
            set.backends.clear();
            set.when_empty = reason;
        }
    }
    plan
}

fn counters(world: &World) -> HashMap<Counter, u64> {
    View::open(&world.root).unwrap().unwrap().counters().unwrap().into_iter().collect()
}

fn told(world: &World) -> [u64; 3] {
    let counters = counters(world);
    [Counter::DropTold, Counter::DropUntold, Counter::DropLost].map(|counter| counters[&counter])
}

fn take(world: &World) -> Vec<DropEvent> {
    take_drop_events(&world.generation).unwrap()
}

fn refuse(to: SocketAddr, expected: ErrorKind) {
    assert_eq!(TcpStream::connect(to).unwrap_err().kind(), expected);
}

fn only_on_cpu(cpu: usize) -> bool {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).is_ok()
}

#[test]
fn refused_sockets_are_told_by_what_they_dialled() {
    for family in [Family::V4, Family::V6] {
        let mut world = World::new("told");
        world.apply(&closed(Protocol::Tcp, family, DropReason::NoEndpoint));
        world.apply(&closed(Protocol::Udp, family, DropReason::NoLocalEndpoint));
        let (open, other) = (vip(family), SocketAddr::new(vip(family).ip(), 81));
        world.route_to_loopback(open.ip());
        refuse(open, ErrorKind::ConnectionRefused);
        refuse(other, ErrorKind::ConnectionRefused);
        let local = if open.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(local).unwrap();
        assert_eq!(socket.send_to(b"?", open).unwrap_err().kind(), ErrorKind::HostUnreachable);
        assert_eq!(socket.connect(open).unwrap_err().kind(), ErrorKind::HostUnreachable);
        let events = take(&world);
        let seen: Vec<_> =
            events.iter().map(|event| (event.hook(), event.reason(), event.dst(), event.protocol)).collect();
        let row = |hook, reason, dst: SocketAddr, protocol: Protocol| {
            (Some(hook), Some(reason), Peer::from(dst), protocol as u8)
        };
        assert_eq!(
            seen,
            [
                row(HookPoint::Connect, DropReason::NoEndpoint, open, Protocol::Tcp),
                row(HookPoint::Connect, DropReason::UnknownPort, other, Protocol::Tcp),
                row(HookPoint::SendMsg, DropReason::NoLocalEndpoint, open, Protocol::Udp),
                row(HookPoint::Connect, DropReason::NoLocalEndpoint, open, Protocol::Udp),
            ]
        );
        for event in events {
            assert_eq!(event.flags, DropEvent::READ | DropEvent::REFUSED);
            assert_eq!((event.device, event.came_by, event.side()), (0, 0, None));
            // Nobody knows the pod of this namespace.
            assert_eq!(event.src(), Peer { addr: event.dst_addr.unspecified(), port: Port::new(0) });
        }
        assert_eq!(told(&world), [4, 0, 0]);
    }
}

#[test]
fn of_a_flood_a_little_is_told_and_the_rest_is_counted() {
    const FLOOD: u64 = 2_000;
    let mut world = World::new("flood");
    world.apply(&closed(Protocol::Tcp, Family::V4, DropReason::NoEndpoint));
    world.route_to_loopback(vip(Family::V4).ip());
    assert!(only_on_cpu(0));
    let begun = Instant::now();
    for _ in 0..FLOOD {
        refuse(vip(Family::V4), ErrorKind::ConnectionRefused);
    }
    let [told, untold, lost] = told(&world);
    assert_eq!(told + untold + lost, FLOOD);
    assert_eq!(take(&world).len() as u64, told);
    let in_time = begun.elapsed().as_nanos() / u128::from(EventAllowance::INTERVAL_OF_KIND_NS);
    let most = u128::from(EventAllowance::BURST_OF_KIND) + in_time + 1;
    assert!(u128::from(told + lost) <= most, "{told} and {lost} of {most} at most");
    assert!(told >= u64::from(EventAllowance::BURST_OF_KIND));
}

#[test]
fn what_nobody_reads_is_lost_and_counted_and_the_next_agent_reads_the_rest() {
    let mut world = World::new("unread");
    let [tcp, udp] = [(Protocol::Tcp, DropReason::NoEndpoint), (Protocol::Udp, DropReason::NoLocalEndpoint)]
        .map(|(protocol, reason)| closed(protocol, Family::V4, reason));
    world.apply(&tcp);
    world.apply(&udp);
    world.route_to_loopback(vip(Family::V4).ip());
    assert!(only_on_cpu(0));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..EventAllowance::BURST_OF_KIND {
        refuse(vip(Family::V4), ErrorKind::ConnectionRefused);
        refuse(SocketAddr::new(vip(Family::V4).ip(), 81), ErrorKind::ConnectionRefused);
        assert!(socket.send_to(b"?", vip(Family::V4)).is_err());
    }
    let [told, _, lost] = told(&world);
    assert!(told > 0 && lost > 0, "{told} told, {lost} lost");
    world.restart(SIZES);
    let events = take(&world);
    assert_eq!(events.len() as u64, told);
    assert!(events.is_sorted_by_key(|event| event.when_ns));
    assert_eq!(take(&world), []);
    refuse(vip(Family::V4), ErrorKind::ConnectionRefused);
    assert!(take(&world).len() <= 1);
}
