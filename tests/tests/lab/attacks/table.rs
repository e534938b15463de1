//! What a pod may try with a raw socket, as rows: a name, frames, where they would be seen, and the reason for which they must
//! be dropped. No row says what becomes of it: nothing of any row may arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_ebpf::testing::frame::{self, ETHERNET, TTL};
use weir_ebpf::wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use super::frames::{
    arp, chained, checksum, content, ether, ethernet, icmp, inside, ip, ip4_piece, mark, neighbour, piece,
    protocol, six, tagged, udp,
};

/// Why a frame is dropped: the counters that may rise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Policies deny it.
    Policy,
    /// It does not bear its pod's address, or speaks of an address that is not its pod's.
    Spoofed,
    /// Only routers send such.
    Router,
    /// An IPv4 address in an IPv6 header.
    Mapped,
    /// Nobody can say what it is.
    Unreadable,
    /// A piece whose first nobody has seen.
    Piece,
}

/// Whom a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum To {
    /// The victim, on the same bridge.
    Victim,
    /// The friend, on the same bridge.
    Friend,
    /// The victim, by the node's own Ethernet address, so that the node forwards it.
    VictimByNode,
    /// A pod of the other node.
    Remote,
}

/// One thing to try.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) name: String,
    pub(super) why: Why,
    pub(super) to: To,
    /// What is sent first, and may arrive.
    pub(super) before: Vec<Vec<u8>>,
    pub(super) frames: Vec<Vec<u8>>,
    /// By which its frames are known.
    pub(super) mark: [u8; 4],
}

/// Who is where, in one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    pub(super) attacker: IpAddr,
    pub(super) victim: IpAddr,
    pub(super) friend: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) gateway: IpAddr,
    pub(super) mac: [u8; 6],
}

/// The port that the victim serves its friends at.
pub(super) const PORT: u16 = 8080;
/// The only port that the attacker may send to, where it is isolated: at its friend, UDP.
pub(super) const ALLOWED: u16 = 8081;
const FROM: u16 = 40_000;

/// Rows under way.
pub(super) struct Table {
    cast: Cast,
    next: u16,
    rows: Vec<Attack>,
}

impl Table {
    /// Rows whose marks begin here.
    pub(super) fn new(cast: Cast, first: u16) -> Self {
        Self { cast, next: first, rows: Vec::new() }
    }

    pub(super) fn rows(self) -> Vec<Attack> {
        self.rows
    }

    pub(super) fn is_v4(&self) -> bool {
        self.cast.attacker.is_ipv4()
    }

    fn add(&mut self, name: &str, why: Why, to: To, frames: impl FnOnce([u8; 4]) -> Vec<Vec<u8>>) {
        let mark = mark(self.next);
        self.next += 1;
        let family = if self.is_v4() { "IPv4" } else { "IPv6" };
        let frames = frames(mark);
        self.rows.push(Attack {
            name: format!("{family}: {name}"),
            why,
            to,
            before: Vec::new(),
            frames,
            mark,
        });
    }

    fn one(&mut self, name: &str, why: Why, frame: impl FnOnce([u8; 4]) -> Vec<u8>) {
        self.add(name, why, To::Victim, |mark| vec![frame(mark)]);
    }

    fn ends(&self) -> (IpAddr, IpAddr) {
        (self.cast.attacker, self.cast.victim)
    }

    /// Addresses that are not the attacker's, and messages about them: dropped whoever is isolated.
    pub(super) fn add_borrowed_addresses(&mut self) {
        let Cast { victim, friend, gateway, .. } = self.cast;
        let v4 = self.is_v4();
        let pick = |four: [u8; 4], six: &str| -> IpAddr {
            if v4 { Ipv4Addr::from(four).into() } else { six.parse().unwrap_or(Ipv6Addr::UNSPECIFIED.into()) }
        };
        let sources = [
            ("the friend's address", friend),
            ("the victim's own address", victim),
            ("the node's address", gateway),
            ("an address of its network that is free", pick([10, 244, 1, 200], "fd00:10:244:1::200")),
            ("an address of the world", pick([192, 0, 2, 7], "2001:db8::7")),
            ("a Service's address", pick([10, 96, 0, 30], "fd00:10:96::30")),
            ("the loopback address", pick([127, 0, 0, 1], "::1")),
            ("a group's address", pick([224, 0, 0, 9], "ff02::9")),
            ("everybody's address", pick([255, 255, 255, 255], "ff02::1")),
            ("no address", pick([0; 4], "::")),
            ("an address of the link", pick([169, 254, 7, 7], "fe80::7")),
        ];
        for (name, source) in sources {
            let (src, dst) = (SocketAddr::new(source, FROM), SocketAddr::new(victim, PORT));
            self.one(&format!("a datagram from {name}"), Why::Spoofed, |mark| {
                frame::udp(src, dst, &content(mark))
            });
            self.one(&format!("a SYN from {name}"), Why::Spoofed, |mark| {
                frame::tcp(src, dst, TCP_SYN, &content(mark))
            });
        }
        let (src, dst) = (SocketAddr::new(friend, FROM), SocketAddr::new(victim, PORT));
        self.add("the friend's address, by way of the node", Why::Spoofed, To::VictimByNode, |mark| {
            vec![frame::udp(src, dst, &content(mark))]
        });
        self.add("the friend's address in pieces", Why::Spoofed, To::Victim, |mark| {
            let whole = udp(src, dst, &content(mark));
            let ends = (friend, victim);
            vec![
                piece(ends, protocol::UDP, (0, true, 77), &whole[..32]),
                piece(ends, protocol::UDP, (4, false, 77), &whole[32..]),
            ]
        });
        self.add_borrowed_in_tags(src, dst);
    }

    /// The same with tags, which a stack takes off again where they name no VLAN.
    fn add_borrowed_in_tags(&mut self, src: SocketAddr, dst: SocketAddr) {
        let priority = (ether::VLAN, 3 << 13);
        let tags: [(&str, &[(u16, u16)], Why); 5] = [
            ("a priority", &[priority], Why::Spoofed),
            ("two priorities", &[priority, priority], Why::Unreadable),
            ("a provider's priority and another", &[(ether::PROVIDER_VLAN, 0), priority], Why::Unreadable),
            ("a VLAN", &[(ether::VLAN, 5)], Why::Spoofed),
            ("a VLAN and a priority", &[(ether::VLAN, 5), priority], Why::Unreadable),
        ];
        for (name, tags, why) in tags {
            self.one(&format!("the friend's address behind {name}"), why, |mark| {
                tagged(&frame::udp(src, dst, &content(mark)), tags)
            });
        }
        self.add(
            "the friend's address behind two priorities, by way of the node",
            Why::Unreadable,
            To::VictimByNode,
            |mark| vec![tagged(&frame::udp(src, dst, &content(mark)), &[priority, priority])],
        );
    }

    /// Lies about who is where, and what only routers say; of IPv4.
    pub(super) fn add_lies_of_ipv4(&mut self) {
        let Cast { attacker, victim, friend, gateway, mac, .. } = self.cast;
        for (name, operation, sender) in [
            ("an ARP answer as the friend", 2, friend),
            ("an ARP answer as the node", 2, gateway),
            ("an ARP request as the friend", 1, friend),
            ("an ARP answer as the victim", 2, victim),
        ] {
            self.one(name, Why::Spoofed, |mark| arp(operation, mac, sender, victim, mark));
        }
        self.one("an ARP answer as the friend behind a priority", Why::Spoofed, |mark| {
            tagged(&arp(2, mac, friend, victim, mark), &[(ether::VLAN, 0)])
        });
        self.one("an ARP answer as the friend in a VLAN", Why::Spoofed, |mark| {
            tagged(&arp(2, mac, friend, victim, mark), &[(ether::VLAN, 5)])
        });
        self.one("ARP of another kind of hardware", Why::Unreadable, |mark| {
            let mut frame = arp(2, mac, attacker, victim, mark);
            frame[ETHERNET + 1] = 6;
            frame
        });
        for (name, kind) in [("a redirect", 5), ("a router's advertisement", 9)] {
            self.one(name, Why::Router, |mark| {
                let about =
                    frame::udp(SocketAddr::new(victim, PORT), SocketAddr::new(friend, FROM), &content(mark));
                let body = [&six(attacker)[12..], &about[ETHERNET..ETHERNET + 28], &content(mark)].concat();
                icmp(attacker, victim, TTL, kind, &body)
            });
        }
    }

    /// The same of IPv6.
    pub(super) fn add_lies_of_ipv6(&mut self) {
        let Cast { attacker, victim, friend, gateway, mac, .. } = self.cast;
        let ends = (attacker, victim);
        for (name, target) in [("the friend", friend), ("the node", gateway), ("the victim", victim)] {
            self.one(&format!("an advertisement of {name}'s address"), Why::Spoofed, |mark| {
                neighbour(ends, 136, target, mac, mark)
            });
        }
        self.one("a solicitation as the friend", Why::Spoofed, |mark| {
            neighbour((friend, victim), 135, victim, mac, mark)
        });
        self.one("an advertisement of the friend's address behind options", Why::Spoofed, |mark| {
            chained(&neighbour(ends, 136, friend, mac, mark), &[protocol::HOP_BY_HOP, protocol::DESTINATION])
        });
        self.one("an advertisement of the friend's address in a VLAN", Why::Spoofed, |mark| {
            tagged(&neighbour(ends, 136, friend, mac, mark), &[(ether::VLAN, 5)])
        });
        self.one(
            "an advertisement of the friend's address behind too many headers",
            Why::Unreadable,
            |mark| chained(&neighbour(ends, 136, friend, mac, mark), &[protocol::DESTINATION; 9]),
        );
        let router = |mark: [u8; 4]| {
            // RFC 4861 section 4.2: a router for half an hour, and that is its address.
            let body =
                [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], &mac[..], &[14, 1], &mark, &[0, 0]].concat();
            icmp(attacker, victim, 255, 134, &body)
        };
        self.one("a router's advertisement", Why::Router, router);
        self.one("a router's advertisement behind options", Why::Router, |mark| {
            chained(&router(mark), &[protocol::DESTINATION])
        });
        self.one("a router's advertisement behind too many headers", Why::Unreadable, |mark| {
            chained(&router(mark), &[protocol::DESTINATION; 9])
        });
        self.one("a router's advertisement that is the first piece", Why::Router, |mark| {
            piece(ends, protocol::ICMPV6, (0, true, 78), &inside(&router(mark))[..32])
        });
        self.one("a redirect", Why::Router, |mark| {
            let body = [&[0; 4], &six(attacker)[..], &six(friend), &[14, 1], &mark, &[0, 0]].concat();
            icmp(attacker, victim, 255, 137, &body)
        });
        self.add_mapped();
        let (src, dst) = (SocketAddr::new(friend, FROM), SocketAddr::new(victim, PORT));
        for (name, headers, why) in [
            ("options", &[protocol::HOP_BY_HOP][..], Why::Spoofed),
            ("too many headers", &[protocol::DESTINATION; 9], Why::Unreadable),
            ("two fragment headers", &[protocol::FRAGMENT; 2], Why::Spoofed),
        ] {
            self.one(&format!("the friend's address behind {name}"), why, |mark| {
                chained(&frame::udp(src, dst, &content(mark)), headers)
            });
        }
    }

    /// IPv4 addresses in IPv6 headers (RFC 4291 section 2.5.5.2).
    fn add_mapped(&mut self) {
        let Cast { attacker, victim, .. } = self.cast;
        let mapped = |host| IpAddr::from(Ipv4Addr::new(10, 244, 1, host).to_ipv6_mapped());
        for (name, src, dst) in [
            ("a source that is an IPv4 address", mapped(12), victim),
            ("a destination that is an IPv4 address", attacker, mapped(11)),
            ("IPv4 addresses at both ends", mapped(12), mapped(11)),
        ] {
            self.one(name, Why::Mapped, |mark| ip(src, dst, TTL, protocol::UDP, &content(mark)));
        }
    }

    /// Errors about packets that the attacker never got.
    pub(super) fn add_forged_errors(&mut self) {
        let Cast { attacker, victim, friend, .. } = self.cast;
        let kinds: [(&str, u8); 3] = if self.is_v4() {
            [("unreachable", 3), ("time exceeded", 11), ("parameter problem", 12)]
        } else {
            [("unreachable", 1), ("too big", 2), ("parameter problem", 4)]
        };
        for (name, kind) in kinds {
            self.one(
                &format!("an error ({name}) about what the victim sent to its friend"),
                Why::Spoofed,
                |mark| {
                    let (src, dst) = (SocketAddr::new(victim, PORT), SocketAddr::new(friend, FROM));
                    let about = frame::tcp(src, dst, TCP_ACK, &content(mark));
                    icmp(attacker, victim, TTL, kind, &[&[0, 0, 5, 0], &about[ETHERNET..]].concat())
                },
            );
        }
    }

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
