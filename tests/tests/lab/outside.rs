//! Clients outside the cluster, while agents die and backends go.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::cases::spec::{Endpoint, ready, service, terminating};
use weir_tests::lab::{Cluster, Form, address};
use weir_tests::prober::{Answer, Command, How, Pending};

use crate::SETTINGS;
use crate::exposed::{self, FILE};
use crate::support::{ensure_all_delivered, eventually, exchange, load};

const CLIENT: &str = "outside";
const FORMS: [Form; 2] = [Form::V4, Form::V6];
/// The Services: name, endpoint, node port.
const SERVICES: [(&str, &str, u16); 2] = [("near", "n1-b", 30_080), ("far", "n2-a", 30_081)];

/// A socket that stays open, and what its first answer said.
struct Kept {
    socket: u64,
    how: How,
    to: SocketAddr,
    first: Answer,
}

impl Kept {
    fn open(cluster: &Cluster, socket: u64, how: How, to: SocketAddr) -> Result<Self> {
        cluster.prober(CLIENT)?.must(Command::Open { socket, how, to })?;
        let first = exchange(cluster, CLIENT, socket, to).with_context(|| format!("{how} to {to}"))?;
        Ok(Self { socket, how, to, first })
    }

    fn exchange(&self, cluster: &Cluster) -> Result<Answer> {
        exchange(cluster, CLIENT, self.socket, self.to)
            .with_context(|| format!("{} to {}", self.how, self.to))
    }

    /// The same server still sees the same client, which hears from whom it asked.
    fn ensure_same(&self, cluster: &Cluster) -> Result<()> {
        let Self { how, to, first, .. } = self;
        let now = self.exchange(cluster)?;
        let is_same = now.server == first.server && now.client == first.client;
        ensure!(is_same, "{how} to {to}: first {first:?}, now {now:?}");
        ensure!(now.from.is_none_or(|from| from == *to), "{how} to {to}: an answer from {:?}", now.from);
        Ok(())
    }
}

/// Both agents are killed and started again, twice, under load from outside: nothing fails, and what is open goes on,
/// also while no agent runs.
pub(crate) fn restart_under_load() -> Result<()> {
    let objects: Vec<_> = (20..)
        .zip(SERVICES)
        .flat_map(|(number, (name, endpoint, port))| {
            exposed::service(number, port, &service(name).to(&[endpoint]))
        })
        .collect();
    let mut cluster = exposed::cluster(SETTINGS, &objects, &[])?;
    let mut kept = Vec::new();
    for (_, _, port) in SERVICES {
        for (how, form) in How::ALL.into_iter().flat_map(|how| FORMS.map(|form| (how, form))) {
            let socket = u64::try_from(kept.len())? + 1;
            kept.push(Kept::open(&cluster, socket, how, address::node(1).dial(form, port))?);
        }
    }
    let loads = begin_loads(&cluster)?;
    for _ in 0..2 {
        sleep(Duration::from_millis(300));
        for node in [1, 2] {
            cluster.agent(node)?.kill()?;
        }
        sleep(Duration::from_millis(300));
        kept.iter().try_for_each(|kept| kept.ensure_same(&cluster)).context("while no agent runs")?;
        for node in [1, 2] {
            cluster.agent(node)?.start()?;
            cluster.agent(node)?.wait_ready()?;
        }
        kept.iter().try_for_each(|kept| kept.ensure_same(&cluster)).context("after the restart")?;
    }
    sleep(Duration::from_millis(300));
    for (name, load) in loads {
        ensure_all_delivered(&name, &cluster.prober(CLIENT)?.stop(load)?)?;
    }
    Ok(())
}

fn begin_loads(cluster: &Cluster) -> Result<Vec<(String, Pending)>> {
    let mut loads = Vec::new();
    for (name, _, port) in SERVICES {
        for (way, how) in [("tcp", How::Tcp), ("udp", How::UdpUnconnected)] {
            for form in FORMS {
                let mut spec = load(how, address::node(1).dial(form, port));
                if let Command::Bulk(spec) = &mut spec {
                    (spec.workers, spec.pause_us) = (1, 4_000);
                }
                let name = format!("outside.restart.{name}.{way}.{form}");
                loads.push((name, cluster.prober(CLIENT)?.begin(spec)?));
            }
        }
    }
    Ok(loads)
}

const NODE_PORT: u16 = 30_080;

fn apply(cluster: &mut Cluster, endpoints: &[Endpoint]) -> Result<()> {
    cluster.apply(FILE, &exposed::service(20, NODE_PORT, &service("web").slice(endpoints)))
}

/// A UDP socket whose backend goes reaches another with its very next datagram.
pub(crate) fn udp_backend_goes() -> Result<()> {
    let mut cluster = exposed::cluster(SETTINGS, &[], &[])?;
    for (how, form) in
        [How::UdpConnected, How::UdpUnconnected].into_iter().flat_map(|how| FORMS.map(|form| (how, form)))
    {
        apply(&mut cluster, &[ready("n1-b")])?;
        let kept = Kept::open(&cluster, 1, how, address::node(1).dial(form, NODE_PORT))?;
        ensure!(kept.first.server == "n1-b", "{:?}", kept.first);
        // from a backend here to one there, and back to another here
        for next in ["n2-a", "n1-c"] {
            let begun = Instant::now();
            apply(&mut cluster, &[ready(next)])?;
            // Flows are looked at a grace period after their set was swapped, as sockets are.
            let answer = eventually(&format!("{how}, {form}: {next} has the flow"), || {
                Ok(Some(kept.exchange(&cluster)?).filter(|answer| answer.server == next))
            })?;
            println!("figure lab.outside.rerouted_ms {:.1}", begun.elapsed().as_secs_f64() * 1000.0);
            ensure!(answer.from == Some(kept.to), "an answer from {:?}", answer.from);
        }
        cluster.prober(CLIENT)?.must(Command::Close { socket: 1 })?;
    }
    Ok(())
}

/// A TCP connection stays with a backend that terminates, while new ones get another.
pub(crate) fn tcp_backend_terminates() -> Result<()> {
    let mut cluster = exposed::cluster(SETTINGS, &[], &[])?;
    for (backend, other) in [("n1-b", "n2-a"), ("n2-a", "n1-b")] {
        for form in FORMS {
            apply(&mut cluster, &[ready(backend)])?;
            let to = address::node(1).dial(form, NODE_PORT);
            let kept = Kept::open(&cluster, 1, How::Tcp, to)?;
            for going in [terminating(backend), terminating(backend).not_serving()] {
                apply(&mut cluster, &[going, ready(other)])?;
                kept.ensure_same(&cluster).with_context(|| format!("{going:?}"))?;
                let new = Kept::open(&cluster, 2, How::Tcp, to)?;
                ensure!(new.first.server == other, "a new one: {} instead of {other}", new.first.server);
                cluster.prober(CLIENT)?.must(Command::Close { socket: 2 })?;
            }
            cluster.prober(CLIENT)?.must(Command::Close { socket: 1 })?;
        }
    }
    Ok(())
}

/// When one of three backends goes, no flow of the two others moves.
pub(crate) fn no_tracked_flow_moves() -> Result<()> {
    let mut cluster = exposed::cluster(SETTINGS, &[], &[])?;
    apply(&mut cluster, &["n1-b", "n1-c", "n2-a"].map(ready))?;
    let mut kept = Vec::new();
    for (how, form) in How::ALL.into_iter().flat_map(|how| FORMS.map(|form| (how, form))) {
        for _ in 0..15 {
            let socket = u64::try_from(kept.len())? + 1;
            kept.push(Kept::open(&cluster, socket, how, address::node(1).dial(form, NODE_PORT))?);
        }
    }
    let of = |server: &str| kept.iter().filter(|kept| kept.first.server == server).count();
    let counts = ["n1-b", "n1-c", "n2-a"].map(of);
    ensure!(counts.iter().all(|count| *count > 0), "not every backend has flows: {counts:?}");
    apply(&mut cluster, &["n1-b", "n2-a"].map(ready))?;
    eventually("the flows to n1-c are ended", || {
        let ended = cluster.agent(1)?.status()?["agent"]["flows"]["stale"].as_u64();
        Ok((ended == Some(u64::try_from(counts[1])?)).then_some(()))
    })?;
    let mut moved = 0;
    for flow in kept.iter().filter(|kept| kept.first.server != "n1-c") {
        moved += usize::from(flow.ensure_same(&cluster).inspect_err(|error| println!("{error:#}")).is_err());
    }
    println!("figure lab.disruption.moved {moved}/{}", counts[0] + counts[2]);
    ensure!(moved == 0, "{moved} flows of backends that stayed moved");
    for flow in kept.iter().filter(|kept| kept.first.server == "n1-c" && kept.how != How::Tcp) {
        let answer = flow.exchange(&cluster)?;
        ensure!(answer.server != "n1-c", "a datagram went to the backend that is gone");
    }
    Ok(())
}
