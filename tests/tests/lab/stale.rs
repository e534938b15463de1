//! Sockets whose backend is gone are closed; all others are left alone: those whose endpoint is terminating drain (KEP-1669).

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use weir_tests::cases::spec::{Endpoint, not_ready, ready, service, terminating};
use weir_tests::lab::{Cluster, Form};
use weir_tests::prober::{Command, How, Outcome};

use crate::support::{self, WEB, eventually, exchange, web};

/// A socket that went through the Service, and one that dialled its backend.
const TRANSLATED: u64 = 1;
const DIRECT: u64 = 2;
/// The file of the Service.
const FILE: &str = "web.yaml";
/// Who has sockets: pods on both nodes and a process of the node.
const CLIENTS: [&str; 3] = ["n1-a", "n2-b", "n1"];
/// How long a socket must be left alone to count as such. Closing takes milliseconds.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

/// TCP is closed only when the backend left every slice: not while it is merely not ready, or terminating.
pub(crate) fn tcp() -> Result<()> {
    let mut cluster = support::cluster()?;
    for form in Form::ALL {
        apply(&mut cluster, &[ready("n1-b")])?;
        open(&cluster, How::Tcp, form)?;
        for condition in [not_ready("n1-b"), terminating("n1-b"), terminating("n1-b").not_serving()] {
            apply(&mut cluster, &[condition, ready("n2-a")])?;
            sleep(LONG_ENOUGH);
            ensure_alive(&cluster, TRANSLATED, form).with_context(|| format!("{condition:?}"))?;
        }
        let begun = Instant::now();
        apply(&mut cluster, &[ready("n2-a")])?;
        ensure_closed(&cluster)?;
        println!("figure lab.stale.tcp.{form}.closed_ms {:.1}", begun.elapsed().as_secs_f64() * 1000.0);
        ensure_alive(&cluster, DIRECT, form)?;
    }
    Ok(())
}

/// Connected UDP is told as soon as no new flow would get the backend.
pub(crate) fn udp_connected() -> Result<()> {
    let mut cluster = support::cluster()?;
    for form in Form::ALL {
        for condition in [Some(not_ready("n1-b")), Some(terminating("n1-b")), None] {
            apply(&mut cluster, &[ready("n1-b")])?;
            open(&cluster, How::UdpConnected, form)?;
            apply(&mut cluster, &[ready("n1-b"), ready("n2-a")])?;
            sleep(LONG_ENOUGH);
            ensure_alive(&cluster, TRANSLATED, form)?;
            let endpoints: Vec<Endpoint> = condition.into_iter().chain([ready("n2-a")]).collect();
            apply(&mut cluster, &endpoints)?;
            ensure_closed(&cluster).with_context(|| format!("{condition:?}"))?;
            ensure_alive(&cluster, DIRECT, form)?;
        }
    }
    Ok(())
}

/// A Service whose port or which itself is gone: nothing leads to its backends any more.
pub(crate) fn service_port_gone() -> Result<()> {
    let mut cluster = support::cluster()?;
    for (how, form) in [(How::Tcp, Form::V4), (How::UdpConnected, Form::V6)] {
        apply(&mut cluster, &[ready("n1-b")])?;
        open(&cluster, how, form)?;
        let mut other_port = service("web").slice([ready("n1-b")]);
        other_port.ports = vec![("other", 81, 8080)];
        cluster.apply(FILE, &web(&other_port))?;
        ensure_closed(&cluster).with_context(|| format!("{how}, the port is gone"))?;
        ensure_alive(&cluster, DIRECT, form)?;

        apply(&mut cluster, &[ready("n1-b")])?;
        open(&cluster, how, form)?;
        cluster.manifests.remove(FILE)?;
        cluster.settle()?;
        ensure_closed(&cluster).with_context(|| format!("{how}, the Service is gone"))?;
        ensure_alive(&cluster, DIRECT, form)?;
    }
    Ok(())
}

fn apply(cluster: &mut Cluster, endpoints: &[Endpoint]) -> Result<()> {
    cluster.apply(FILE, &web(&service("web").slice(endpoints)))
}

fn dialled(cluster: &Cluster, socket: u64, form: Form) -> Result<SocketAddr> {
    Ok(match socket {
        TRANSLATED => WEB.dial(form, 80),
        _ => cluster.addresses("n1-b")?.dial(form, 8080),
    })
}

fn open(cluster: &Cluster, how: How, form: Form) -> Result<()> {
    for (client, socket) in CLIENTS.into_iter().flat_map(|client| [TRANSLATED, DIRECT].map(|it| (client, it)))
    {
        let to = dialled(cluster, socket, form)?;
        cluster.prober(client)?.must(Command::Open { socket, how, to })?;
        let answer = exchange(cluster, client, socket, to)?;
        ensure!(answer.server == "n1-b", "{client} reached {}", answer.server);
    }
    Ok(())
}

fn ensure_alive(cluster: &Cluster, socket: u64, form: Form) -> Result<()> {
    for client in CLIENTS {
        let to = dialled(cluster, socket, form)?;
        let answer = exchange(cluster, client, socket, to)
            .with_context(|| format!("{client}'s socket to {to} was not left alone"))?;
        ensure!(answer.server == "n1-b", "{client} reached {}", answer.server);
    }
    Ok(())
}

fn ensure_closed(cluster: &Cluster) -> Result<()> {
    for client in CLIENTS {
        eventually(&format!("{client} is not told"), || {
            match cluster.prober(client)?.call(Command::TakeError { socket: TRANSLATED })? {
                Outcome::Failed(failure) if failure.error == "ECONNABORTED" => Ok(Some(())),
                Outcome::Done => Ok(None),
                other => bail!("{client}: {other:?}"),
            }
        })?;
    }
    Ok(())
}
