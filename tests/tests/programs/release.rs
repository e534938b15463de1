//! What is remembered of a socket lasts exactly as long as the socket: thousands of short ones push out no long one.

use std::io::Read as _;
use std::net::{TcpStream, UdpSocket};

use weir_agent::kernel::connected_sockets;
use weir_agent::source::{Family, Protocol};

use crate::world::{SIZES, World, plan, tcp_server, udp_server, vip};

#[test]
fn a_long_connection_is_remembered_whatever_comes_after_it() {
    for (family, host) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        let mut world = World::new(&format!("release{}", family.number()));
        world.apply(&plan(Protocol::Tcp, &[tcp_server(host)]));
        let long = TcpStream::connect(vip(family)).unwrap();
        for _ in 0..2 * SIZES.connections {
            // Closed by both ends: no port of the client's is kept back.
            TcpStream::connect(vip(family)).unwrap().read_exact(&mut [0; 2]).unwrap();
        }
        assert_eq!(long.peer_addr().unwrap(), vip(family));
        assert_eq!(connected_sockets(&world.generation).unwrap().len(), 1);
        drop(long);
        assert_eq!(connected_sockets(&world.generation).unwrap(), []);
    }
}

#[test]
fn connected_udp_sockets_too() {
    let mut world = World::new("releaseudp");
    world.apply(&plan(Protocol::Udp, &[udp_server()]));
    let sockets: Vec<UdpSocket> = (0..10)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(vip(Family::V4)).unwrap();
            socket
        })
        .collect();
    assert_eq!(connected_sockets(&world.generation).unwrap().len(), 10);
    drop(sockets);
    assert_eq!(connected_sockets(&world.generation).unwrap(), []);
}
