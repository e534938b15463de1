//! The agent dies, comes back, goes for good.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::cases::objects;
use weir_tests::cases::spec::service;
use weir_tests::lab::{Cluster, Form, address};
use weir_tests::prober::{Command, How, Pending};

use crate::support::{self, WEB, ask, ensure_all_delivered, exchange, load, web};

/// What the kept sockets of these trials are.
const KEPT: [(u64, How); 3] = [(1, How::Tcp), (2, How::UdpConnected), (3, How::UdpUnconnected)];

/// With both agents killed, open connections go on, and new ones are translated and refused as before.
pub(crate) fn killed_agent() -> Result<()> {
    let mut cluster = support::cluster()?;
    let mut objects = web(&service("web").to(&["n1-b", "n2-a"]));
    objects.extend(objects::of_service(&service("empty"), "lab", address::service(11)));
    cluster.apply("web.yaml", &objects)?;
    let to = WEB.dial(Form::V4, 80);
    let before = open_kept(&cluster, to)?;
    for node in [1, 2] {
        cluster.agent(node)?.kill()?;
    }
    sleep(Duration::from_millis(300));
    ensure_kept(&cluster, to, &before)?;
    for (how, form) in How::ALL.into_iter().flat_map(|how| Form::ALL.map(|form| (how, form))) {
        for from in ["n1-a", "n1", "n2-b"] {
            let answer = ask(&cluster, from, how, WEB.dial(form, 80))?;
            ensure!(["n1-b", "n2-a"].contains(&answer.server.as_str()), "{answer:?}");
        }
        let refused =
            cluster.prober("n1-a")?.call(Command::Ask { how, to: address::service(11).dial(form, 80) })?;
        ensure!(format!("{refused:?}").contains("ECONNREFUSED"), "{refused:?}");
    }
    Ok(())
}

/// Killed and started again, twice, under load: no connection and no query fails, and what sockets had they
/// keep.
pub(crate) fn restart_under_load() -> Result<()> {
    let mut cluster = support::cluster()?;
    cluster.apply("web.yaml", &web(&service("web").to(&["n1-b", "n1-c", "n2-a"])))?;
    let to = WEB.dial(Form::V6, 80);
    let before = open_kept(&cluster, to)?;
    let loads = begin_loads(&cluster)?;
    for _ in 0..2 {
        sleep(Duration::from_millis(300));
        for node in [1, 2] {
            cluster.agent(node)?.kill()?;
        }
        sleep(Duration::from_millis(300));
        for node in [1, 2] {
            cluster.agent(node)?.start()?;
            cluster.agent(node)?.wait_ready()?;
        }
    }
    cluster.settle().context("the restarted agents do not follow changes")?;
    for (name, place, load) in loads {
        ensure_all_delivered(name, &cluster.prober(place)?.stop(load)?)?;
    }
    ensure_kept(&cluster, to, &before)?;
    cluster.apply("web.yaml", &web(&service("web").to(&["n2-b"])))?;
    let answer = ask(&cluster, "n1-a", How::Tcp, to)?;
    ensure!(answer.server == "n2-b", "the restarted agent does not apply changes: {answer:?}");
    Ok(())
}

fn begin_loads(cluster: &Cluster) -> Result<Vec<(&'static str, &'static str, Pending)>> {
    let loads = [
        ("restart.tcp", "n1-a", How::Tcp, Form::V4),
        ("restart.udp", "n2-b", How::UdpUnconnected, Form::V6),
        ("restart.udp-connected", "n1", How::UdpConnected, Form::V4),
    ];
    loads
        .into_iter()
        .map(|(name, place, how, form)| {
            Ok((name, place, cluster.prober(place)?.begin(load(how, WEB.dial(form, 80)))?))
        })
        .collect()
}

/// `weir cleanup`: no pin, no program. The Service has a ClusterIP that the router answers itself, so that
/// who is not translated is not merely lost.
pub(crate) fn cleanup() -> Result<()> {
    let mut cluster = support::cluster()?;
    let vip = address::foreign(10);
    cluster.apply("web.yaml", &objects::of_service(&service("web").to(&["n1-b"]), "lab", vip))?;
    ensure_all_answer(&cluster, vip, "n1-b")?;
    for node in [1, 2] {
        let agent = cluster.agent(node)?;
        agent.kill()?;
        ensure!(agent.pin_root().exists(), "nothing is pinned: there is nothing to prove");
        agent.cleanup()?;
        ensure!(!agent.pin_root().exists(), "{} is still there", agent.pin_root().display());
        agent.cleanup().context("a second cleanup")?;
    }
    ensure_all_answer(&cluster, vip, "net")
}

fn ensure_all_answer(cluster: &Cluster, vip: address::DualStack, who: &str) -> Result<()> {
    for (how, form) in How::ALL.into_iter().flat_map(|how| Form::ALL.map(|form| (how, form))) {
        for from in ["n1-a", "n1", "n2-a", "n2"] {
            let answer = ask(cluster, from, how, vip.dial(form, 80))?;
            ensure!(
                answer.server == who,
                "{from}, {how}, {form}: {} answered instead of {who}",
                answer.server
            );
        }
    }
    Ok(())
}

/// Opens a socket of each kind; returns who answers each.
fn open_kept(cluster: &Cluster, to: std::net::SocketAddr) -> Result<Vec<String>> {
    let open = |(socket, how)| {
        cluster.prober("n1-a")?.must(Command::Open { socket, how, to })?;
        Ok(exchange(cluster, "n1-a", socket, to)?.server)
    };
    KEPT.into_iter().map(open).collect()
}

/// The same still answer, each under the address that was dialled.
fn ensure_kept(cluster: &Cluster, to: std::net::SocketAddr, before: &[String]) -> Result<()> {
    for ((socket, how), server) in KEPT.into_iter().zip(before) {
        let answer =
            exchange(cluster, "n1-a", socket, to).with_context(|| format!("an open socket, {how}"))?;
        ensure!(answer.server == *server, "{how}: {} answers instead of {server}", answer.server);
        ensure!(answer.peer.is_none_or(|peer| peer == to), "{how}: {answer:?}");
        ensure!(answer.from.is_none_or(|from| from == to), "{how}: {answer:?}");
    }
    Ok(())
}
