//! Attacks that take more than frames: connections that somebody opened, rules of netfilter, addresses that change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use weir_ebpf::testing::frame;
use weir_ebpf::wire::{TCP_FIN, TCP_SYN};
use weir_tests::lab::firewall::restore;
use weir_tests::lab::netns::Netns;
use weir_tests::lab::{Cluster, DualStack, Form, address};
use weir_tests::prober::{Command, How, Outcome};

use super::frames::{content, mark};
use super::table::{PORT, To};
use super::{ATTACKER, FRIEND, LABELS, LAST_MARK, REMOTE, REST, VICTIM, Wires, addressed, scenes, stage};
use crate::policies::pods;

const FORMS: [Form; 2] = [Form::V4, Form::V6];
/// The friend's, where it matters.
const CLIENT: u16 = 45_000;
/// The node's port that leads to the victim.
const HOST_PORT: u16 = 31_080;

/// A cluster in which the victim serves its friends and sends nothing, and nobody else is isolated.
fn guarded() -> Result<(Cluster, Wires)> {
    let (mut cluster, wires) = stage()?;
    cluster.start_agents()?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    let [victim, ..] = scenes();
    cluster.apply("policy.yaml", std::slice::from_ref(&victim.policy))?;
    Ok((cluster, wires))
}

fn asks(cluster: &Cluster, from: &str, to: SocketAddr) -> Result<bool> {
    Ok(matches!(cluster.prober(from)?.call(Command::Ask { how: How::Tcp, to })?, Outcome::Answered(_)))
}

fn netns<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Netns> {
    let mut pods = cluster.lab().nodes().iter().flat_map(|node| node.pods());
    Ok(pods.find(|pod| pod.place.name() == name).with_context(|| name.to_owned())?.place.netns())
}

/// Who was connected to cannot connect back: from the port that it serves at, nor by the tuple of the connection itself, which
/// goes on.
pub(crate) fn a_connection_is_not_opened_backwards() -> Result<()> {
    const SOCKET: u64 = 1;
    let (cluster, wires) = guarded()?;
    for (number, form) in (1..).zip(FORMS) {
        let server = cluster.addresses(VICTIM)?.dial(form, PORT);
        let client = |port| Ok::<_, anyhow::Error>(cluster.addresses(FRIEND)?.dial(form, port));
        let friend = cluster.prober(FRIEND)?;
        friend.must(Command::OpenFrom { socket: SOCKET, how: How::Tcp, to: server, port: CLIENT })?;
        let exchange = || friend.call(Command::Exchange { socket: SOCKET, to: server });
        ensure!(matches!(exchange()?, Outcome::Answered(_)), "{form}: it is allowed");
        let mark = mark(number);
        for frame in [
            frame::tcp(server, client(CLIENT)?, TCP_SYN, &content(mark)),
            frame::tcp(server, client(CLIENT)?, TCP_SYN | TCP_FIN, &content(mark)),
            frame::tcp(server, client(CLIENT + 1)?, TCP_SYN, &content(mark)),
            frame::tcp(server, client(PORT)?, TCP_SYN, &content(mark)),
            frame::udp(server, client(CLIENT)?, &content(mark)),
        ] {
            wires.victim.send(&addressed(&frame, wires.victim.mac(), wires.friend.mac()))?;
        }
        let seen = wires.seen(&cluster, LAST_MARK - 1, REST)?;
        ensure!(!seen.contains_key(&mark), "{form}: it connects back");
        ensure!(
            matches!(exchange()?, Outcome::Answered(_)),
            "{form}: nothing has happened to the connection"
        );
        friend.must(Command::Close { socket: SOCKET })?;
    }
    Ok(())
}

/// Another address on its own device makes nobody somebody else: a free one, and one of another network.
pub(crate) fn a_pod_that_changes_its_address_is_not_heard() -> Result<()> {
    let (mut cluster, wires) = guarded()?;
    let free: [DualStack; 2] = [
        DualStack {
            v4: Ipv4Addr::new(10, 244, 1, 222),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0x222),
        },
        DualStack { v4: Ipv4Addr::new(192, 0, 2, 22), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x22, 0, 0, 0, 0, 1) },
    ];
    let mut number = 0;
    for address in free.iter().flat_map(|free| free.both()) {
        number += 1;
        take(&mut cluster, address)?;
        ensure_unheard(&cluster, &wires, address, number)?;
        leave(&cluster, address)?;
    }
    for form in FORMS {
        let server = cluster.addresses(VICTIM)?.dial(form, PORT);
        ensure!(asks(&cluster, FRIEND, server)? && !asks(&cluster, ATTACKER, server)?, "{form}: as before");
    }
    Ok(())
}

/// The attacker gives its own device an address, and the agent has heard of it.
fn take(cluster: &mut Cluster, address: IpAddr) -> Result<()> {
    netns(cluster, ATTACKER)?.ip(&[format!("address add {address} dev eth0")])?;
    cluster.settle()
}

/// And takes it off again.
fn leave(cluster: &Cluster, address: IpAddr) -> Result<()> {
    netns(cluster, ATTACKER)?.ip(&[format!("address del {address} dev eth0")])
}

/// Nothing arrives that the attacker sends under an address.
fn ensure_unheard(cluster: &Cluster, wires: &Wires, address: IpAddr, number: u16) -> Result<()> {
    send_as(cluster, wires, address, number)?;
    let seen = wires.seen(cluster, LAST_MARK - 1, REST)?;
    ensure!(!seen.contains_key(&mark(number)), "{address} is heard");
    Ok(())
}

/// The attacker sends under an address, to the victim and to another node's pod.
fn send_as(cluster: &Cluster, wires: &Wires, source: IpAddr, number: u16) -> Result<()> {
    let form = if source.is_ipv4() { Form::V4 } else { Form::V6 };
    for (to, name) in [(To::Victim, VICTIM), (To::VictimByNode, VICTIM), (To::Remote, REMOTE)] {
        let (src, dst) = (SocketAddr::new(source, CLIENT), cluster.addresses(name)?.dial(form, PORT));
        wires.send(to, &frame::udp(src, dst, &content(mark(number))))?;
        wires.send(to, &frame::tcp(src, dst, TCP_SYN, &content(mark(number))))?;
    }
    Ok(())
}

/// A port of the node that leads to a pod, and a masquerade on the way, as other components have them: who comes by them bears
/// the node's address, and is not the node.
pub(crate) fn a_port_of_the_host_does_not_make_a_pod_the_node() -> Result<()> {
    let (mut cluster, _) = stage()?;
    for (form, program) in FORMS.into_iter().zip(["iptables-restore", "ip6tables-restore"]) {
        let (victim, own) = (cluster.addresses(VICTIM)?.dial(form, PORT), address::node(1).in_form(form));
        let remote = cluster.addresses(REMOTE)?.in_form(form);
        let rules = format!(
            "*nat\n-A PREROUTING -d {own} -p tcp --dport {HOST_PORT} -j DNAT --to-destination {victim}\n\
             -A POSTROUTING -d {} -p tcp --dport {PORT} -j MASQUERADE\n\
             -A POSTROUTING -d {remote} -p tcp -j MASQUERADE\nCOMMIT\n",
            victim.ip()
        );
        let [n1, _] = cluster.lab().nodes() else { anyhow::bail!("there are two nodes") };
        restore(n1.place().netns(), program, &rules)?;
    }
    let check = |cluster: &Cluster, passes: bool| -> Result<()> {
        for form in FORMS {
            let by_host = address::node(1).dial(form, HOST_PORT);
            let remote = cluster.addresses(REMOTE)?.dial(form, PORT);
            for (from, to) in [(ATTACKER, by_host), (FRIEND, by_host), (ATTACKER, remote), ("n1", remote)] {
                ensure!(asks(cluster, from, to)? == passes, "{from} to {to}: expected {passes}");
            }
            let victim = cluster.addresses(VICTIM)?.dial(form, PORT);
            ensure!(asks(cluster, "n1", victim)?, "the node itself reaches its pod");
        }
        Ok(())
    };
    check(&cluster, true).context("without Weir")?;
    cluster.start_agents()?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    let [victim, ..] = scenes();
    let mut remote = victim.policy.clone();
    remote["metadata"]["name"] = "remote".into();
    remote["spec"]["podSelector"]["matchLabels"]["app"] = "remote".into();
    cluster.apply("policy.yaml", &[victim.policy, remote])?;
    check(&cluster, false).context("with policies")?;
    for form in FORMS {
        let victim = cluster.addresses(VICTIM)?.dial(form, PORT);
        ensure!(!asks(&cluster, ATTACKER, victim)?, "{form}: directly it is denied as well");
    }
    Ok(())
}

/// The address of a neighbour on its own device makes nobody the neighbour, who keeps it.
pub(crate) fn a_pod_that_takes_a_neighbours_address_is_not_heard() -> Result<()> {
    let (mut cluster, wires) = guarded()?;
    for (number, form) in (1..).zip(FORMS) {
        let address = cluster.addresses(FRIEND)?.in_form(form);
        take(&mut cluster, address)?;
        ensure_unheard(&cluster, &wires, address, number)?;
        let server = cluster.addresses(VICTIM)?.dial(form, PORT);
        ensure!(asks(&cluster, FRIEND, server)?, "{form}: whose address it is");
        leave(&cluster, address)?;
        cluster.settle()?;
        ensure!(asks(&cluster, FRIEND, server)?, "{form}: whose address it was all the time");
    }
    Ok(())
}
