//! A row in memory: manifests as text, the parser, the state, the compiler, the tables and the datapath of
//! each node; everything but the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;
use weir_agent::compile::compile_service;
use weir_agent::source::{Event, ObjectKey, Parsed, parse_service, parse_slice};
use weir_agent::state::State;
use weir_agent::tables::memory::MemoryStore;
use weir_agent::tables::{Sizes, Tables};
use weir_ebpf::abi::{Peer, Protocol};
use weir_ebpf::datapath::socket::{self, Verdict};
use weir_ebpf::testing::{FakeMoment, FakeSocket};

use super::CAST;
use super::expect::{Seen, judge};
use super::row::{Row, node_of, place_addresses};
use super::spec::{Ask, On, Step};
use crate::lab::cluster::PORTS;
use crate::lab::manifests::to_yaml;
use crate::prober::How;

/// Runs a row.
///
/// # Errors
/// What a client saw and must not, or an object that could not be parsed or written.
pub fn run(row: &Row) -> Result<()> {
    let mut world = World::default();
    row.case.steps.iter().try_for_each(|step| match step {
        Step::Cluster(services) => world.apply(&row.objects(services)),
        Step::Ask(ask) => world.ask(row, ask),
    })
}

/// Both nodes, and the sockets of everybody.
struct World {
    nodes: BTreeMap<&'static str, Node>,
    known: BTreeSet<Known>,
    moment: FakeMoment,
    cookies: u64,
    kept: BTreeMap<(&'static str, &'static str), Kept>,
}

/// An object that was told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    Service(ObjectKey),
    EndpointSlice(ObjectKey),
}

/// An open socket.
#[derive(Clone, Copy)]
struct Kept {
    cookie: u64,
    /// Where a connected one was connected to.
    connected: Option<Verdict>,
}

/// What an agent has in memory.
struct Node {
    state: State,
    tables: Tables,
    store: MemoryStore,
}

impl Default for World {
    fn default() -> Self {
        let node = |name| {
            let (tables, store) = (Tables::new(Sizes::default()), MemoryStore::default());
            (name, Node { state: State::new(name), tables, store })
        };
        Self {
            nodes: ["n1", "n2"].map(node).into(),
            known: BTreeSet::new(),
            moment: FakeMoment::default(),
            cookies: 0,
            kept: BTreeMap::new(),
        }
    }
}

impl World {
    /// From now on these are all objects.
    fn apply(&mut self, objects: &[Value]) -> Result<()> {
        let (mut events, mut told) = (Vec::new(), BTreeSet::new());
        for text in to_yaml(objects)?.split("\n---\n") {
            let (known, event) = parse(text).with_context(|| text.to_owned())?;
            events.push(event);
            told.insert(known);
        }
        for gone in self.known.difference(&told).cloned() {
            events.push(match gone {
                Known::Service(key) => Event::Service(key, None),
                Known::EndpointSlice(key) => Event::EndpointSlice(key, None),
            });
        }
        self.known = told;
        self.nodes.values_mut().try_for_each(|node| node.apply(&events))
    }

    fn ask(&mut self, row: &Row, ask: &Ask) -> Result<()> {
        let mut seen = BTreeSet::new();
        for _ in 0..ask.times {
            seen.insert(self.ask_once(row, ask)?);
        }
        judge(ask, row.form, &seen).map_err(anyhow::Error::msg)
    }

    fn ask_once(&mut self, row: &Row, ask: &Ask) -> Result<Seen> {
        let mut kept = match ask.on {
            On::New => self.open(),
            On::Kept(name) => match self.kept.get(&(ask.from, name)) {
                Some(kept) => *kept,
                None => self.open(),
            },
        };
        let tables = &self.nodes.get(node_of(ask.from)).context("no such node")?.store.tables;
        let protocol = if row.how == How::Tcp { Protocol::Tcp } else { Protocol::Udp };
        let client = FakeSocket {
            protocol: Some(protocol),
            cookie: kept.cookie,
            netns: netns_of(ask.from),
            listener: false,
            in_pod: false,
        };
        let dialled: Peer = row.dialled(ask.to).into();
        let verdict = match (row.how, kept.connected) {
            (How::UdpUnconnected, _) => socket::sendmsg(tables, &self.moment, &client, dialled),
            (_, Some(before)) => before,
            (_, None) => socket::connect(tables, &self.moment, &client, dialled),
        };
        let seen = match verdict {
            Verdict::Deny(reason) => {
                Seen::Error(format!("{:?}", Errno::from_raw(socket::Errno::from(reason) as i32)))
            }
            Verdict::Translate(backend) if socket::reverse(tables, &client, backend) != Some(dialled) => {
                Seen::Wrong(format!("the way back from {backend} does not show {dialled}"))
            }
            Verdict::Pass if socket::reverse(tables, &client, dialled).is_some() => {
                Seen::Wrong(format!("{dialled} was not translated, but would be on the way back"))
            }
            Verdict::Translate(backend) => see(row, ask, backend.into(), true),
            Verdict::Pass => see(row, ask, dialled.into(), false),
        };
        if let On::Kept(name) = ask.on {
            kept.connected = Some(verdict);
            self.kept.insert((ask.from, name), kept);
        }
        Ok(seen)
    }

    fn open(&mut self) -> Kept {
        self.cookies += 1;
        Kept { cookie: self.cookies, connected: None }
    }
}

impl Node {
    fn apply(&mut self, events: &[Event]) -> Result<()> {
        events.iter().for_each(|event| self.state.apply(event.clone()));
        for key in self.state.take_dirty() {
            let node = self.state.node();
            let plan = self.state.service(&key).map(|view| compile_service(&view, node));
            self.tables.apply(&key, plan.as_ref(), &mut self.store);
        }
        self.tables.settle(&mut self.store)?;
        let problems: Vec<_> = self.tables.problems().collect();
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    }
}

/// A manifest, as an event; the table has none with a problem.
fn parse(text: &str) -> Result<(Known, Event)> {
    let object: Value = serde_saphyr::from_str(text)?;
    let name = |field: &str| object["metadata"][field].as_str().context("without a name");
    let key = ObjectKey::new(name("namespace")?, name("name")?);
    if object["kind"] == "Service" {
        let object = whole(parse_service(&serde_saphyr::from_str(text)?))?;
        return Ok((Known::Service(key.clone()), Event::Service(key, object)));
    }
    let object = whole(parse_slice(&serde_saphyr::from_str(text)?))?;
    Ok((Known::EndpointSlice(key.clone()), Event::EndpointSlice(key, object)))
}

fn whole<T>(parsed: Parsed<T>) -> Result<Option<T>> {
    ensure!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Ok(parsed.object)
}

/// Who has this address, and listens there.
fn see(row: &Row, ask: &Ask, at: SocketAddr, translated: bool) -> Seen {
    let mut places = CAST.iter().map(|(_, pod)| *pod).chain(["n1", "n2"]);
    match places.find(|place| place_addresses(place).has(at.ip())) {
        Some(place) if at.port() == row.target_port(ask.to) && PORTS.contains(&at.port()) => {
            Seen::Answer(place.into())
        }
        None if !translated => Seen::Untouched,
        _ => Seen::Wrong(format!("a packet to {at}, where nobody listens")),
    }
}

/// A number for the network namespace of a place.
fn netns_of(place: &str) -> u64 {
    let position = CAST.iter().position(|(_, pod)| *pod == place);
    // the nodes' own come after the pods'
    let number = position.unwrap_or(CAST.len() + usize::from(place == "n2"));
    u64::try_from(number).unwrap_or(u64::MAX) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Expect, objects, rows};

    #[test]
    fn every_row_holds() {
        let failures: Vec<String> =
            rows().iter().filter_map(|row| Some(format!("{row}: {:#}", run(row).err()?))).collect();
        assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
    }

    #[test]
    fn a_row_with_another_expectation_fails() {
        for mut row in rows() {
            let Some(Step::Ask(ask)) = row.case.steps.iter_mut().find(|step| matches!(step, Step::Ask(_)))
            else {
                panic!("{row} asks nothing");
            };
            ask.expect = Expect::One(&["nobody"]);
            assert!(run(&row).is_err(), "{row} holds whatever is wanted");
        }
    }

    #[test]
    fn services_are_written_as_manifests() {
        let web = super::super::spec::service("web").to(&["n1-b"]);
        let addresses = crate::lab::address::service(10);
        let yaml = to_yaml(&objects::of_service(&web, "ns", addresses)).unwrap();
        assert_eq!(yaml.split("\n---\n").count(), 3, "a Service and a slice of each family:\n{yaml}");
    }
}
