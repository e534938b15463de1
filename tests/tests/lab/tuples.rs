//! One client that reaches one backend by several addresses and directly, all at once and from one port: as many flows,
//! and none takes another's packets. And echoes to these addresses.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use weir_tests::cases::spec::service;
use weir_tests::lab::{Cluster, Form, Network, Settings, address};
use weir_tests::prober::{Command, How, Outcome};

use crate::SETTINGS;
use crate::exposed;
use crate::support::exchange;

/// The Services: endpoint, node port.
const SERVICES: [(&str, u16); 2] = [("n1-b", 30_080), ("n2-a", 30_081)];
const FORMS: [Form; 2] = [Form::V4, Form::V6];

fn cluster(network: Network, arguments: &[&str]) -> Result<Cluster> {
    let objects: Vec<_> = (20..)
        .zip([("near", SERVICES[0]), ("far", SERVICES[1])])
        .flat_map(|(number, (name, (endpoint, port)))| {
            exposed::service(number, port, &service(name).to(&[endpoint]))
        })
        .collect();
    exposed::cluster(Settings { network, ..Settings::default() }, &objects, arguments)
}

/// See the module.
pub(crate) fn one_client_by_several_ways() -> Result<()> {
    for network in [Network::Routed, Network::Overlay] {
        for forwarding in ["redirect", "stack"] {
            let cluster = cluster(network, &["--socket-lb", "node", "--forwarding", forwarding])?;
            let mut port = 40_000;
            for from in ["outside", "n1-a", "n2-b"] {
                for (number, (endpoint, node_port)) in (20..).zip(SERVICES) {
                    for (how, form) in How::ALL.into_iter().flat_map(|how| FORMS.map(|form| (how, form))) {
                        port += 1;
                        let ways = ways(&cluster, number, node_port, endpoint, form)?;
                        all_at_once(&cluster, from, how, port, &ways, endpoint).with_context(|| {
                            format!("{network:?}, {forwarding}: {from} to {endpoint}, {how}, {form}")
                        })?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The addresses of the Service, and the backend's own.
fn ways(
    cluster: &Cluster,
    number: u8,
    node_port: u16,
    endpoint: &str,
    form: Form,
) -> Result<Vec<SocketAddr>> {
    let services = exposed::addresses(number, node_port);
    let mut ways: Vec<_> = services.into_iter().map(|(_, own, port)| own.dial(form, port)).collect();
    ways.push(cluster.addresses(endpoint)?.dial(form, 8080));
    Ok(ways)
}

fn all_at_once(
    cluster: &Cluster,
    from: &str,
    how: How,
    port: u16,
    ways: &[SocketAddr],
    endpoint: &str,
) -> Result<()> {
    let prober = cluster.prober(from)?;
    // one unconnected socket for all: of several with one port any might get an answer
    let socket = |way: usize| if how == How::UdpUnconnected { 1 } else { 1 + way as u64 };
    for (way, to) in ways.iter().enumerate() {
        if way == 0 || socket(way) != socket(0) {
            let open = Command::OpenFrom { socket: socket(way), how, to: *to, port };
            prober.must(open).with_context(|| format!("{to}"))?;
        }
    }
    let mut clients = Vec::new();
    for round in 0..3 {
        for (way, to) in ways.iter().enumerate() {
            let answer = exchange(cluster, from, socket(way), *to).with_context(|| format!("{to}"))?;
            ensure!(answer.server == endpoint, "{to}: {} answered", answer.server);
            ensure!(answer.from.is_none_or(|source| source == *to), "{to}: from {:?}", answer.from);
            match clients.get(way) {
                None => clients.push(answer.client),
                Some(first) => {
                    ensure!(*first == answer.client, "{to}, round {round}: {first}, then {}", answer.client);
                }
            }
        }
    }
    for (way, client) in clients.iter().enumerate() {
        ensure!(!clients[..way].contains(client), "two flows are one to the backend: {clients:?}");
        prober.must(Command::Close { socket: socket(way) })?;
    }
    Ok(())
}

/// Whoever may dial an address of a Service may also see whether it is there.
pub(crate) fn echoes() -> Result<()> {
    let mut cluster = cluster(SETTINGS.network, &["--service-cidrs", "10.96.0.0/24,fd00:10:96::/120"])?;
    for from in ["outside", "n1-a", "n2-b", "n1", "n2"] {
        for (kind, own, _) in exposed::addresses(20, 0) {
            for to in own.both() {
                let outcome = cluster.prober(from)?.call(Command::Echo { to })?;
                ensure!(outcome == Outcome::Done, "{from} to {kind} {to}: {outcome:?}");
            }
        }
    }
    let counted = cluster.agent(1)?.status()?["events"]["echo"].as_u64();
    ensure!(counted.is_some_and(|counted| counted >= 6), "echoes that were counted: {counted:?}");
    // Nobody's address: no answer, and no way around in circles.
    for to in address::service(99).both() {
        let outcome = cluster.prober("outside")?.call(Command::Echo { to })?;
        ensure!(matches!(outcome, Outcome::Failed(_)), "nobody has {to}, and it answers");
    }
    Ok(())
}
