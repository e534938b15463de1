//! Rows about what policies deny to the attacker's own address, plainly and in disguise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use weir_ebpf::testing::frame::{self, ETHERNET, TTL};
use weir_ebpf::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use super::frames::{
    chained, checksum, content, ether, ethernet, icmp, inside, ip, ip4_piece, neighbour, piece, protocol,
    six, tagged, udp,
};
use super::table::{ALLOWED, Cast, FROM, PORT, Table, To, Why};

impl Table {
    /// What policies deny to the attacker's own address.
    pub(super) fn add_denied(&mut self) {
        let (src, dst) = self.ends();
        let (from, to) = (SocketAddr::new(src, FROM), SocketAddr::new(dst, PORT));
        for port in [80, 443, 53, 179, PORT, FROM] {
            let from = SocketAddr::new(src, port);
            self.one(&format!("a SYN from port {port}"), Why::Policy, |mark| {
                frame::tcp(from, to, TCP_SYN, &content(mark))
            });
            self.one(&format!("a datagram from port {port}"), Why::Policy, |mark| {
                frame::udp(from, to, &content(mark))
            });
        }
        for (name, flags) in [
            ("ACK", TCP_ACK),
            ("SYN and ACK", TCP_SYN | TCP_ACK),
            ("FIN and ACK", TCP_FIN | TCP_ACK),
            ("RST", TCP_RST),
            ("RST and ACK", TCP_RST | TCP_ACK),
            ("SYN and FIN", TCP_SYN | TCP_FIN),
            ("no flag", 0),
            ("every flag", TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST),
        ] {
            self.one(&format!("a segment with {name} of a connection that never was"), Why::Policy, |mark| {
                frame::tcp(from, to, flags, &content(mark))
            });
        }
        self.one("SCTP", Why::Policy, |mark| frame::sctp(from, to, &content(mark)));
        for number in [2, 4, 33, 41, 47, 50, 89, 103, 112, 136, 253, 255] {
            self.one(&format!("protocol {number}"), Why::Policy, |mark| {
                ip(src, dst, TTL, number, &content(mark))
            });
        }
        self.one("an echo request", Why::Policy, |mark| frame::echo_request(src, dst, &content(mark)));
        let reply = if self.is_v4() { 0 } else { 129 };
        self.one("an echo reply that nobody asked for", Why::Policy, |mark| {
            icmp(src, dst, TTL, reply, &content(mark))
        });
        self.add("a datagram by way of the node", Why::Policy, To::VictimByNode, |mark| {
            vec![frame::udp(from, to, &content(mark))]
        });
        let (one, other) = addresses_of_the_link(self.is_v4());
        self.one("a datagram between addresses of the link", Why::Policy, |mark| {
            frame::udp(SocketAddr::new(one, FROM), SocketAddr::new(other, PORT), &content(mark))
        });
        let unreachable = if self.is_v4() { 3 } else { 1 };
        self.one("an error about a connection that never was", Why::Policy, |mark| {
            let about = frame::tcp(to, from, TCP_ACK, &content(mark));
            icmp(src, dst, TTL, unreachable, &[&[0; 4], &about[ETHERNET..]].concat())
        });
        self.one("an error that quotes nothing", Why::Policy, |mark| icmp(src, dst, TTL, unreachable, &mark));
    }

    /// The same in pieces, overlapping and tiny.
    pub(super) fn add_denied_pieces(&mut self) {
        let ends = self.ends();
        let (from, to) = (SocketAddr::new(ends.0, FROM), SocketAddr::new(ends.1, PORT));
        let segment = |mark: [u8; 4]| {
            let mut bytes = inside(&frame::tcp(from, to, TCP_SYN, &content(mark))).to_vec();
            // Its number, so that the shortest piece has the mark, too.
            bytes[4..8].copy_from_slice(&mark);
            bytes
        };
        self.add("a datagram in pieces", Why::Policy, To::Victim, |mark| {
            let whole = udp(from, to, &content(mark));
            vec![piece(ends, protocol::UDP, (0, true, 1), &whole[..16])]
        });
        self.add("later pieces alone", Why::Piece, To::Victim, |mark| {
            let whole = udp(from, to, &content(mark));
            vec![
                piece(ends, protocol::UDP, (2, true, 2), &whole[16..32]),
                piece(ends, protocol::UDP, (4, false, 2), &whole[32..]),
            ]
        });
        self.add("pieces that overlap", Why::Policy, To::Victim, |mark| {
            let whole = udp(from, to, &content(mark));
            let part = &whole[..24];
            vec![
                piece(ends, protocol::UDP, (0, true, 3), part),
                piece(ends, protocol::UDP, (0, false, 3), part),
            ]
        });
        self.add("a segment whose first piece ends before its flags", Why::Unreadable, To::Victim, |mark| {
            vec![piece(ends, protocol::TCP, (0, true, 4), &segment(mark)[..8])]
        });
        self.add("a segment's flags in a second piece", Why::Piece, To::Victim, |mark| {
            vec![piece(ends, protocol::TCP, (1, false, 5), &segment(mark)[8..])]
        });
        self.add("a piece beyond the longest packet", Why::Piece, To::Victim, |mark| {
            vec![piece(ends, protocol::UDP, (0x1fff, true, 6), &content(mark))]
        });
        self.add("pieces of a protocol without ports", Why::Policy, To::Victim, |mark| {
            vec![
                piece(ends, 47, (0, true, 7), &content(mark)),
                piece(ends, 47, (8, false, 7), &content(mark)),
            ]
        });
    }

    /// Headers that hide what a packet is, of IPv6.
    pub(super) fn add_chains(&mut self) {
        use protocol::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
        let (src, dst) = self.ends();
        let (from, to) = (SocketAddr::new(src, FROM), SocketAddr::new(dst, PORT));
        let chains: [(&str, &[u8], Why); 12] = [
            ("hop-by-hop options", &[HOP_BY_HOP], Why::Policy),
            ("destination options", &[DESTINATION], Why::Policy),
            ("a routing header", &[ROUTING], Why::Policy),
            ("an authentication header", &[AUTHENTICATION], Why::Policy),
            ("a fragment header of a whole datagram", &[FRAGMENT], Why::Policy),
            ("two fragment headers", &[FRAGMENT, FRAGMENT], Why::Policy),
            (
                "all of them",
                &[HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION],
                Why::Policy,
            ),
            ("seven headers", &[DESTINATION; 7], Why::Policy),
            ("more headers than anybody sends", &[DESTINATION; 9], Why::Unreadable),
            ("many more", &[DESTINATION; 40], Why::Unreadable),
            ("hop-by-hop options at the wrong place", &[DESTINATION, HOP_BY_HOP], Why::Policy),
            ("a header that nobody knows", &[DESTINATION, 253], Why::Policy),
        ];
        for (name, headers, why) in chains {
            self.one(&format!("a datagram behind {name}"), why, |mark| {
                chained(&frame::udp(from, to, &content(mark)), headers)
            });
            self.one(&format!("a SYN behind {name}"), why, |mark| {
                chained(&frame::tcp(from, to, TCP_SYN, &content(mark)), headers)
            });
        }
        for number in [59, 135, 139, 140] {
            self.one(&format!("header {number}"), Why::Policy, |mark| {
                ip(src, dst, TTL, number, &content(mark))
            });
        }
        self.one("a fragment header in a piece", Why::Unreadable, |mark| {
            let inner = [&[protocol::UDP, 0, 0, 1, 0, 0, 0, 8], &udp(from, to, &content(mark))[..]].concat();
            piece((src, dst), FRAGMENT, (0, true, 9), &inner)
        });
        self.one("options that are longer than the packet", Why::Unreadable, |mark| {
            let options = [&[protocol::UDP, 200, 1, 4, 0, 0, 0, 0], &content(mark)[..]].concat();
            ip(src, dst, TTL, DESTINATION, &options)
        });
    }

    /// Odd headers of IPv4.
    pub(super) fn add_odd_ipv4(&mut self) {
        let (src, dst) = self.ends();
        let (from, to) = (SocketAddr::new(src, FROM), SocketAddr::new(dst, PORT));
        let with_options = |mark, options: &[u8]| {
            let plain = ip4_piece(src, dst, (TTL, protocol::UDP), (0, false, 0), &[]);
            let mut header = [&plain[ETHERNET..ETHERNET + 20], options].concat();
            let all = u16::try_from(header.len() + 72).unwrap_or_default().to_be_bytes();
            header[0] = 0x40 | u8::try_from(header.len() / 4).unwrap_or_default();
            (header[2], header[3]) = (all[0], all[1]);
            header[10..12].fill(0);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            ethernet(ether::IPV4, &[&header, &udp(from, to, &content(mark))[..]].concat())
        };
        self.one("a datagram behind padding", Why::Policy, |mark| with_options(mark, &[1; 8]));
        self.one("a datagram behind as many options as there may be", Why::Policy, |mark| {
            with_options(mark, &[1; 40])
        });
        self.one("a datagram with a route of its own", Why::Policy, |mark| {
            let [a, b, c, d] = six(self_gateway(dst))[12..] else { return Vec::new() };
            with_options(mark, &[131, 7, 4, a, b, c, d, 0])
        });
        for (name, at, value) in [
            ("a header that is shorter than a header", 0, 0x42),
            ("a length that is less than the header's", 3, 10),
            ("a version that is another", 0, 0x65),
        ] {
            self.one(name, Why::Unreadable, |mark| {
                let mut frame = frame::udp(from, to, &content(mark));
                if at == 3 {
                    frame[ETHERNET + 2] = 0;
                }
                frame[ETHERNET + at] = value;
                frame
            });
        }
    }

    /// What is no IP, or hides that it is.
    pub(super) fn add_strange(&mut self) {
        let (src, dst) = self.ends();
        let (from, to) = (SocketAddr::new(src, FROM), SocketAddr::new(dst, PORT));
        let tags: [(&str, &[(u16, u16)]); 4] = [
            ("a VLAN", &[(ether::VLAN, 5)]),
            ("a provider's VLAN", &[(ether::PROVIDER_VLAN, 5)]),
            ("two VLANs", &[(ether::VLAN, 5), (ether::VLAN, 6)]),
            ("two priorities", &[(ether::VLAN, 0), (ether::VLAN, 0)]),
        ];
        for (name, tags) in tags {
            self.one(&format!("a datagram in {name}"), Why::Unreadable, |mark| {
                tagged(&frame::udp(from, to, &content(mark)), tags)
            });
        }
        self.one("a datagram behind a priority", Why::Policy, |mark| {
            tagged(&frame::udp(from, to, &content(mark)), &[(ether::VLAN, 0)])
        });
        for (name, kind) in [
            ("an experiment", ether::EXPERIMENTAL),
            ("MPLS", ether::MPLS),
            ("PPPoE", ether::PPPOE),
            ("a frame with a length instead of a type", 64),
        ] {
            self.one(name, Why::Unreadable, |mark| ethernet(kind, &content(mark)));
        }
    }

    /// What an isolated pod may try to say to whom it must not, dressed as what is let pass.
    pub(super) fn add_disguised(&mut self) {
        let Cast { attacker, victim, friend, remote, mac, .. } = self.cast;
        let (from, allowed) = (SocketAddr::new(attacker, FROM), SocketAddr::new(friend, ALLOWED));
        let unreachable = if self.is_v4() { 3 } else { 1 };
        let hello = frame::udp(from, allowed, b"hello");
        self.one("an error about an allowed flow, to somebody else", Why::Policy, |mark| {
            let about = frame::udp(allowed, from, &content(mark));
            icmp(attacker, victim, TTL, unreachable, &[&[0; 4], &about[ETHERNET..]].concat())
        });
        if let Some(row) = self.rows.last_mut() {
            row.before.push(hello);
        }
        let ends = (attacker, friend);
        let first = piece(ends, protocol::UDP, (0, true, 10), &udp(from, allowed, &[0; 24]));
        self.add("a second first piece, to another port", Why::Policy, To::Friend, |mark| {
            let other = udp(from, SocketAddr::new(friend, PORT), &content(mark));
            vec![piece(ends, protocol::UDP, (0, true, 10), &other[..32])]
        });
        if let Some(row) = self.rows.last_mut() {
            row.before.push(first);
        }
        self.add("a datagram to another port", Why::Policy, To::Friend, |mark| {
            vec![frame::udp(from, SocketAddr::new(friend, PORT), &content(mark))]
        });
        self.add("a datagram to another node's pod", Why::Policy, To::Remote, |mark| {
            vec![frame::udp(from, SocketAddr::new(remote, PORT), &content(mark))]
        });
        if self.is_v4() {
            return;
        }
        for (name, kind) in [("a solicitation", 135), ("an advertisement", 136)] {
            self.add(&format!("{name} that leaves the link"), Why::Policy, To::Remote, |mark| {
                vec![neighbour((attacker, remote), kind, attacker, mac, mark)]
            });
        }
        for kind in [130, 131, 132, 143] {
            self.one(
                &format!("a report of a group (type {kind}) that is for no group"),
                Why::Policy,
                |mark| icmp(attacker, victim, 1, kind, &content(mark)),
            );
        }
    }
}

/// The first address of a pod's network.
fn self_gateway(pod: IpAddr) -> IpAddr {
    match pod {
        IpAddr::V4(pod) => {
            let [a, b, c, _] = pod.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(pod) => pod.into(),
    }
}

/// Two that nobody has told of.
fn addresses_of_the_link(is_v4: bool) -> (IpAddr, IpAddr) {
    let of = |host: u8| match is_v4 {
        true => IpAddr::from([169, 254, 7, host]),
        false => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0x7e1, u16::from(host)]),
    };
    (of(1), of(2))
}
