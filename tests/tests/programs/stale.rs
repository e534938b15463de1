//! Closing sockets whose backend is gone: those that were translated, in both families, and no others.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use weir_agent::kernel::{close_sockets, connected_sockets};
use weir_agent::source::{Family, Protocol};

use crate::world::{World, plan, tcp_server, udp_server, vip};

fn open(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    stream
}

fn is_alive(stream: &mut TcpStream) -> bool {
    stream.write_all(b"?").is_ok() && stream.read_exact(&mut [0; 1]).is_ok()
}

/// What the agent does when it suspects sockets.
fn close_stale(world: &World) -> usize {
    let mut sockets = connected_sockets(&world.generation).unwrap();
    sockets.retain(|(_, row)| world.tables.is_stale(row.service, row.backend(), row.protocol().unwrap()));
    let closed = close_sockets(&world.generation, &sockets).unwrap();
    assert_eq!(closed.unreachable, Vec::<String>::new());
    closed.sockets
}

fn only_translated_tcp_sockets_are_closed(name: &str, family: Family, hosts: [&str; 2]) {
    let mut world = World::new(name);
    let [gone, stays] = hosts.map(tcp_server);
    world.apply(&plan(Protocol::Tcp, &[gone]));
    let (mut translated, mut direct) = (open(vip(family)), open(gone));
    world.apply(&plan(Protocol::Tcp, &[gone, stays]));
    assert_eq!(close_stale(&world), 0, "its backend is still there");

    // Its pod serves new connections on another port.
    let renumbered = tcp_server(&gone.ip().to_string());
    world.apply(&plan(Protocol::Tcp, &[renumbered, stays]));
    assert_eq!(close_stale(&world), 0, "its pod is still there");

    let mut draining = plan(Protocol::Tcp, &[stays]);
    draining.present.insert(gone.ip());
    world.apply(&draining);
    assert_eq!(close_stale(&world), 0, "it drains");
    assert!(is_alive(&mut translated));

    world.apply(&plan(Protocol::Tcp, &[stays]));
    assert_eq!(close_stale(&world), 1);
    let error = translated.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert!(is_alive(&mut direct), "nobody translated it");
    assert!(is_alive(&mut open(vip(family))), "a new one goes to the other backend");
    assert_eq!(close_stale(&world), 0, "once");
}

#[test]
fn tcp_over_ipv4() {
    only_translated_tcp_sockets_are_closed("stale4", Family::V4, ["127.0.0.1", "127.0.0.2"]);
}

#[test]
fn tcp_over_ipv6() {
    only_translated_tcp_sockets_are_closed("stale6", Family::V6, ["::1", "fd00::2"]);
}

#[test]
fn connected_udp_is_told_as_soon_as_its_backend_is_not_usable() {
    let mut world = World::new("staleudp");
    let (gone, stays) = (udp_server(), udp_server());
    world.apply(&plan(Protocol::Udp, &[gone]));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(vip(Family::V4)).unwrap();
    let mut draining = plan(Protocol::Udp, &[stays]);
    draining.present.insert(gone.ip());
    world.apply(&draining);
    assert_eq!(close_stale(&world), 1);
    assert_eq!(socket.recv(&mut [0; 2]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[test]
fn sockets_of_a_service_that_is_gone_are_closed() {
    let mut world = World::new("stalesvc");
    let server = tcp_server("127.0.0.1");
    let plan = plan(Protocol::Tcp, &[server]);
    world.apply(&plan);
    let mut translated = open(vip(Family::V4));
    world.tables.apply(&plan.service, None, &mut world.store);
    assert_eq!(close_stale(&world), 1);
    assert!(!is_alive(&mut translated));
}

/// Sorting the addresses of a name, the C library connects one socket to each of them in turn.
#[test]
fn a_socket_that_went_elsewhere_is_left_alone() {
    let mut world = World::new("staleelse");
    let (gone, stays) = (udp_server(), udp_server());
    world.apply(&plan(Protocol::Udp, &[gone]));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.connect(vip(Family::V4)).unwrap();
    socket.connect(stays).unwrap();
    world.apply(&plan(Protocol::Udp, &[stays]));
    assert_eq!(close_stale(&world), 0);
    socket.send(b"?").unwrap();
    assert_eq!(socket.recv(&mut [0; 2]).unwrap(), 2);
}
