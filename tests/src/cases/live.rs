//! A row with real sockets: the objects go to the agents, the client's actions to a prober.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::expect::{Seen, judge};
use super::row::Row;
use super::spec::{Ask, On, Step};
use crate::lab::Cluster;
use crate::lab::address;
use crate::prober::{Answer, Command, How, Outcome};

/// The file that holds the objects of the row that runs.
const FILE: &str = "case.yaml";

/// Sockets that stay open until the row is over: by place and name.
type Kept = BTreeMap<(&'static str, &'static str), u64>;

/// Runs a row.
///
/// # Errors
/// What a client saw and must not; or the lab itself failed.
pub fn run(row: &Row, cluster: &mut Cluster) -> Result<()> {
    let mut kept = Kept::new();
    let result = row.case.steps.iter().try_for_each(|step| match step {
        Step::Cluster(services) => cluster.apply(FILE, &row.objects(services)),
        Step::Ask(ask) => run_ask(row, ask, cluster, &mut kept),
    });
    for ((place, _), socket) in kept {
        cluster.prober(place)?.must(Command::Close { socket })?;
    }
    result
}

fn run_ask(row: &Row, ask: &Ask, cluster: &Cluster, kept: &mut Kept) -> Result<()> {
    let to = row.dialled(ask.to);
    let sight = Sight { from: ask.from, to, target_port: row.target_port(ask.to), how: row.how };
    let mut seen = BTreeSet::new();
    for _ in 0..ask.times {
        let outcome = match ask.on {
            On::New => cluster.prober(ask.from)?.call(Command::Ask { how: row.how, to })?,
            On::Kept(name) => exchange(row.how, ask.from, name, to, cluster, kept)?,
        };
        seen.insert(sight.see(cluster, outcome));
    }
    judge(ask, row.form, &seen).map_err(anyhow::Error::msg)
}

fn exchange(
    how: How,
    place: &'static str,
    name: &'static str,
    to: SocketAddr,
    cluster: &Cluster,
    kept: &mut Kept,
) -> Result<Outcome> {
    let prober = cluster.prober(place)?;
    let next = u64::try_from(kept.len())?;
    let socket = *kept.entry((place, name)).or_insert(next);
    if socket == next
        && let Outcome::Failed(failure) = prober.call(Command::Open { socket, how, to })?
    {
        bail!("{place} cannot open socket {name}: {failure}");
    }
    prober.call(Command::Exchange { socket, to })
}

/// What the client saw, judged by its addresses alone: what it dialled, from where, and behind which port the
/// endpoints are.
pub(crate) struct Sight<'a> {
    /// Where the client is.
    pub(crate) from: &'a str,
    /// What it dialled.
    pub(crate) to: SocketAddr,
    /// The port on which whoever answers must have been reached.
    pub(crate) target_port: u16,
    /// How it used its socket.
    pub(crate) how: How,
}

impl Sight<'_> {
    /// Reads an outcome.
    pub(crate) fn see(&self, cluster: &Cluster, outcome: Outcome) -> Seen {
        match outcome {
            Outcome::Answered(answer) => self.check_answer(cluster, &answer).unwrap_or_else(|what| {
                Seen::Wrong(format!("an answer from {}, but {what}: {answer:?}", answer.server))
            }),
            Outcome::Failed(failure) => {
                let names_destination = if self.how == How::UdpUnconnected { "send" } else { "connect" };
                if failure.at == names_destination {
                    Seen::Error(failure.error)
                } else {
                    Seen::Wrong(failure.to_string())
                }
            }
            other => Seen::Wrong(format!("{other:?}")),
        }
    }

    /// Every address that an answer tells.
    fn check_answer(&self, cluster: &Cluster, answer: &Answer) -> Result<Seen, String> {
        let to = self.to;
        if answer.peer.is_some_and(|peer| peer != to) {
            return Err(format!("getpeername is not {to}"));
        }
        if answer.from.is_some_and(|from| from != to) {
            return Err(format!("recvfrom's source is not {to}"));
        }
        check_client(self.from, cluster, answer)?;
        if answer.reached == SocketAddr::new(to.ip().to_canonical(), to.port()) && answer.server == "net" {
            return Ok(Seen::Untouched);
        }
        let own = cluster.addresses(&answer.server).map_err(|error| error.to_string())?;
        if !own.has(answer.reached.ip()) || answer.reached.port() != self.target_port {
            return Err("it was not reached where the endpoint is".into());
        }
        Ok(Seen::Answer(answer.server.clone()))
    }
}

/// The server must see the client's own address: nothing is masqueraded.
fn check_client(from: &str, cluster: &Cluster, answer: &Answer) -> Result<(), String> {
    let seen = answer.client.ip();
    let own = cluster.addresses(from).map_err(|error| error.to_string())?;
    // a node speaks to its own pods from the bridge's address
    let bridges = (1..=address::NODES).filter(|node| from == format!("n{node}")).map(address::gateway);
    if own.has(seen) || bridges.into_iter().any(|bridge| bridge.has(seen)) {
        Ok(())
    } else {
        Err(format!("the server saw {seen} instead of the client's own address"))
    }
}
