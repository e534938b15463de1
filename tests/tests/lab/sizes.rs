//! Long packets through a node port: fragments, segments that the kernel cuts late or puts together early, and ways that
//! are narrower than the client knows.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::cases::spec::service;
use weir_tests::lab::{Cluster, Form, Network, Settings, address};
use weir_tests::prober::{Answer, Command, How, Outcome};

use crate::exposed;

/// A lab in which long packets travel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// What it is called in the list of trials.
    pub(crate) name: &'static str,
    network: Network,
    forwarding: &'static str,
    offload: Offload,
}

/// Which devices leave checksums and segments to the next one, as all that are virtual do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Offload {
    /// All: no checksum is ever computed.
    Everywhere,
    /// Those of pods and of the client: what they put off, the nodes have to make up for after the translation.
    OfSenders,
    /// None.
    Nowhere,
}

const fn scene(name: &'static str, network: Network, forwarding: &'static str, offload: Offload) -> Scene {
    Scene { name, network, forwarding, offload }
}

pub(crate) const SCENES: [Scene; 8] = [
    scene("routed-redirect", Network::Routed, "redirect", Offload::Everywhere),
    scene("routed-stack", Network::Routed, "stack", Offload::Everywhere),
    scene("overlay-redirect", Network::Overlay, "redirect", Offload::Everywhere),
    scene("overlay-stack", Network::Overlay, "stack", Offload::Everywhere),
    scene("routed-redirect-late-checksums", Network::Routed, "redirect", Offload::OfSenders),
    scene("routed-stack-late-checksums", Network::Routed, "stack", Offload::OfSenders),
    scene("routed-redirect-no-offload", Network::Routed, "redirect", Offload::Nowhere),
    scene("overlay-stack-no-offload", Network::Overlay, "stack", Offload::Nowhere),
];

/// A Service: name, endpoint, node port.
type Exposed = (&'static str, &'static str, u16);

const SERVICES: [Exposed; 2] = [("near", "n1-b", 30_080), ("far", "n2-a", 30_081)];
const FORMS: [Form; 2] = [Form::V4, Form::V6];
const SOCKET: u64 = 1;
/// What is one packet everywhere. Of those that follow each other at once, all but the first go ahead.
const SHORT: usize = 64;
/// What fits nowhere: six fragments.
const DATAGRAM: usize = 8_192;
/// What TCP gives to a device at once.
const STREAM: usize = 65_536;

fn cluster(settings: Settings, services: &[Exposed], forwarding: &str) -> Result<Cluster> {
    let objects: Vec<_> = (20..)
        .zip(services)
        .flat_map(|(number, (name, endpoint, port))| {
            exposed::service(number, *port, &service(name).to(&[endpoint]))
        })
        .collect();
    exposed::cluster(settings, &objects, &["--forwarding", forwarding, "--socket-lb", "node"])
}

/// Datagrams of 8 KiB, streams of 64 KiB and short ones arrive whole, there and back, from outside and from a pod.
pub(crate) fn long_ones_arrive(scene: &Scene) -> Result<()> {
    let settings = Settings { network: scene.network, ..Settings::default() };
    let cluster = cluster(settings, &SERVICES, scene.forwarding)?;
    match scene.offload {
        Offload::Everywhere => {}
        Offload::OfSenders => cluster.lab().ensure_no_offload_of_nodes()?,
        Offload::Nowhere => cluster.lab().ensure_no_offload()?,
    }
    let (mut asked, mut wrong) = (0, Vec::new());
    for (from, (_, endpoint, port)) in
        ["outside", "n1-a", "n2-b"].into_iter().flat_map(|from| SERVICES.map(|it| (from, it)))
    {
        for (how, form) in How::ALL.into_iter().flat_map(|how| FORMS.map(|form| (how, form))) {
            let to = address::node(1).dial(form, port);
            for padding in [SHORT, if how == How::Tcp { STREAM } else { DATAGRAM }] {
                asked += 1;
                if let Err(error) = exchange_long(&cluster, from, how, to, padding, endpoint) {
                    wrong.push(format!("{from} -> {endpoint} by {to}, {how}, {padding}: {error:#}"));
                }
            }
        }
    }
    println!("figure lab.sizes.{} {}/{asked}", scene.name, asked - wrong.len());
    ensure!(wrong.is_empty(), "{} of {asked}:\n{}\n{}", wrong.len(), wrong.join("\n"), cluster.logs());
    Ok(())
}

/// Three times on one socket. A datagram before them may teach the client how long a packet may be: in IPv6 nobody on
/// the way cuts what is too long for the pods' network.
fn exchange_long(
    cluster: &Cluster,
    from: &str,
    how: How,
    to: SocketAddr,
    padding: usize,
    endpoint: &str,
) -> Result<()> {
    let prober = cluster.prober(from)?;
    prober.must(Command::Open { socket: SOCKET, how, to })?;
    let exchange = || prober.call(Command::ExchangeLong { socket: SOCKET, to, padding });
    let result = (|| {
        let first = exchange()?;
        let learnt = matches!(&first, Outcome::Failed(failure)
            if failure.error == "EMSGSIZE" && to.is_ipv6() && how == How::UdpConnected);
        let first = if learnt { exchange()? } else { first };
        for outcome in [first, exchange()?, exchange()?] {
            let answer = answered(outcome)?;
            ensure!(answer.server == endpoint, "{} answered", answer.server);
            ensure!(answer.from.is_none_or(|source| source == to), "the answer came from {:?}", answer.from);
        }
        Ok(())
    })();
    prober.must(Command::Close { socket: SOCKET })?;
    result
}

fn answered(outcome: Outcome) -> Result<Answer> {
    match outcome {
        Outcome::Answered(answer) => Ok(answer),
        other => bail!("no answer but {other:?}"),
    }
}

/// The least that every way carries in these trials.
const NARROW: u16 = 1_300;
/// A datagram that fits into a packet, but not there.
const FITS_NOT: usize = 1_350;

/// Endpoints that are told by TCP, and others that are told by UDP: what one has learnt it knows for both.
const TOLD: [(Exposed, How); 4] = [
    (("near-tcp", "n1-b", 30_080), How::Tcp),
    (("near-udp", "n1-c", 30_081), How::UdpConnected),
    (("far-tcp", "n2-a", 30_082), How::Tcp),
    (("far-udp", "n2-b", 30_083), How::UdpConnected),
];

/// Behind the node the way to the client is narrow: the backend hears of it through the translation.
pub(crate) fn narrow_towards_client() -> Result<()> {
    for forwarding in ["redirect", "stack"] {
        let cluster = cluster(Settings::default(), &TOLD.map(|(exposed, _)| exposed), forwarding)?;
        cluster.lab().router().netns().ip(&[
            format!("route replace 203.0.113.0/24 dev out0 mtu lock {NARROW}"),
            format!("route add 2001:db8:113::/64 dev out0 metric 100 mtu lock {NARROW}"),
        ])?;
        for (((_, endpoint, port), how), form) in
            TOLD.into_iter().flat_map(|told| FORMS.map(|form| (told, form)))
        {
            let to = address::node(1).dial(form, port);
            if how == How::Tcp {
                exchange_long(&cluster, "outside", how, to, STREAM, endpoint)
            } else {
                datagram_of_server(&cluster, to)
            }
            .with_context(|| format!("{forwarding}, {endpoint} by {to}"))?;
        }
    }
    Ok(())
}

/// The server's first answer is lost, and its kernel is told; the next one comes in pieces.
fn datagram_of_server(cluster: &Cluster, to: SocketAddr) -> Result<()> {
    let (first, second) = two_datagrams(cluster, to)?;
    let lost = matches!(&first, Outcome::Failed(failure) if failure.error == "no answer in time");
    ensure!(lost, "an answer that is too long for the way: {first:?}");
    answered(second).context("the second answer").map(drop)
}

fn two_datagrams(cluster: &Cluster, to: SocketAddr) -> Result<(Outcome, Outcome)> {
    let prober = cluster.prober("outside")?;
    prober.must(Command::Open { socket: SOCKET, how: How::UdpConnected, to })?;
    let exchange = || prober.call(Command::ExchangeLong { socket: SOCKET, to, padding: FITS_NOT });
    let both = (exchange()?, exchange()?);
    prober.must(Command::Close { socket: SOCKET })?;
    Ok(both)
}

/// Behind the node the way to the backend is narrow: the client hears of it, as from the address that it dialled.
pub(crate) fn narrow_towards_backend() -> Result<()> {
    for forwarding in ["redirect", "stack"] {
        let cluster = cluster(Settings::default(), &SERVICES, forwarding)?;
        let peer = address::node(2);
        let [v4, v6] = address::pod_cidrs(2);
        cluster.lab().nodes()[0].place().netns().ip(&[
            format!("route replace {v4} via {} mtu lock {NARROW}", peer.v4),
            format!("route replace {v6} via {} mtu lock {NARROW}", peer.v6),
        ])?;
        let (_, endpoint, port) = SERVICES[1];
        for form in FORMS {
            // by two addresses: what the client has learnt of one it does not know of the other
            let [datagrams, streams] =
                [address::node(1).dial(form, port), address::balancer(21).dial(form, 80)];
            datagram_of_client(&cluster, datagrams).with_context(|| format!("{forwarding}, {datagrams}"))?;
            exchange_long(&cluster, "outside", How::Tcp, streams, STREAM, endpoint)
                .with_context(|| format!("{forwarding}, {streams}"))?;
        }
    }
    Ok(())
}

/// The client's first datagram must not be cut and is too long: its socket is told. The next one goes in pieces.
fn datagram_of_client(cluster: &Cluster, to: SocketAddr) -> Result<()> {
    let (first, second) = two_datagrams(cluster, to)?;
    let told = matches!(&first, Outcome::Failed(failure) if failure.error == "EMSGSIZE");
    ensure!(told, "a datagram that is too long for the way: {first:?}");
    answered(second).context("the second datagram").map(drop)
}
