//! What the node takes packets out of.

use netlink_packet_route::link::{InfoBareUdp, InfoData, InfoGeneve};

use super::super::facts::Carrier;
use weir_ebpf::abi::{Config, Port};

use super::super::rows::{NodeRows, Told};
use super::rows::row_options;
use super::*;

#[test]
fn what_tunnels_take_packets_out_of() {
    let mut node = ordinary();
    let kinds = [
        InfoKind::IpIp,
        InfoKind::Ip6Tnl,
        InfoKind::SitTun,
        InfoKind::GreTun,
        InfoKind::GreTap6,
        InfoKind::Wireguard,
        InfoKind::Xfrm,
    ];
    for (index, kind) in (20..).zip(kinds) {
        tell(&mut node, [device(index, &format!("tunnel{index}")).kind(kind).there()]);
    }
    let udp = [
        (InfoKind::Geneve, InfoData::Geneve(vec![InfoGeneve::Id(1), InfoGeneve::Port(6081)])),
        (InfoKind::BareUdp, InfoData::BareUdp(vec![InfoBareUdp::Port(6635)])),
    ];
    for (index, (kind, data)) in (30..).zip(udp) {
        tell(&mut node, [device(index, &format!("tunnel{index}")).kind_with(kind, data).there()]);
    }
    let facts = classify(&node, &Options::default(), HOST);
    let udp = [6081, 6635, 8472].map(Carrier::Udp);
    assert_eq!(facts.carriers, udp.into_iter().chain([Carrier::Ip, Carrier::Gre]).collect());
    let config = NodeRows::compile(&facts, &Told::default(), &row_options()).config;
    assert_eq!(config.tunnel_ports, [6081, 6635, 8472, 0].map(Port::new));
    assert_eq!(config.flags & (Config::IP_IN_IP | Config::GRE), Config::IP_IN_IP | Config::GRE);
}
