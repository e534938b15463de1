//! UDP sockets that are used in more than one way.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use weir_agent::source::{Family, Protocol};

use crate::world::{World, plan, udp_server, vip};

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// A connected socket hears its peer alone: a datagram with the address spelled out has to go to the same backend.
#[test]
fn a_connected_socket_may_name_the_service_again() {
    let mut world = World::new("udptwice");
    let servers: Vec<SocketAddr> = (0..16).map(|_| udp_server()).collect();
    world.apply(&plan(Protocol::Udp, &servers));
    for _ in 0..4 {
        let socket = socket();
        socket.connect(vip(Family::V4)).unwrap();
        socket.send_to(b"?", vip(Family::V4)).unwrap();
        let (len, from) = socket.recv_from(&mut [0; 2]).unwrap();
        assert_eq!((len, from), (2, vip(Family::V4)));
    }
}

/// Nothing can be sent to port 0; who connects to it asks for a route and a source address (getaddrinfo does).
#[test]
fn port_zero_asks_for_a_route() {
    let mut world = World::new("portzero");
    world.route_to_loopback(vip(Family::V4).ip());
    world.apply(&plan(Protocol::Udp, &[udp_server()]));
    let socket = socket();
    socket.connect(SocketAddr::new(vip(Family::V4).ip(), 0)).unwrap();
    assert!(socket.local_addr().unwrap().ip().is_loopback());
}
