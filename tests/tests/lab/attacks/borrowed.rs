//! Rows about addresses that are not the attacker's, and about what is not its to say: whoever is isolated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_ebpf::testing::frame::{self, ETHERNET, TTL};
use weir_ebpf::wire::{TCP_ACK, TCP_SYN};

use super::frames::{
    arp, chained, content, ether, icmp, inside, ip, neighbour, piece, protocol, six, tagged, udp,
};
use super::table::{Cast, FROM, PORT, Table, To, Why};

/// `ether_type` and the word that a tag has, from the outermost on.
type Tags<'a> = &'a [(u16, u16)];

impl Table {
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
        let tags: [(&str, Tags, Why); 5] = [
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
            self.one(&format!("an error ({name}) in pieces"), Why::Unreadable, |mark| {
                let about = [6; 48];
                let whole = icmp(attacker, victim, TTL, kind, &[&mark[..], &about].concat());
                let number = if attacker.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
                piece((attacker, victim), number, (0, true, 90), &inside(&whole)[..16])
            });
        }
    }
}
