//! One line of the demo's table: what a client tries in each family, and what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;

use super::manifests::Examples;
use crate::cases::Expect;
use crate::cases::expect::Seen;
use crate::cases::live::Sight;
use crate::lab::{Cluster, Form, address};
use crate::prober::{Command, How};

/// The families that the demo shows.
pub(super) const FORMS: [Form; 2] = [Form::V4, Form::V6];

/// What a client dials.
#[derive(Clone, Copy)]
pub(super) enum To {
    Service(&'static str, u16),
    Pod(&'static str, u16),
    /// The node port of a Service's port, at a node.
    NodePort(u8, &'static str, u16),
    /// A Service's port at its load balancer's address.
    Balancer(&'static str, u16),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name, port) => write!(f, "{name}:{port}"),
            Self::Pod(name, port) => write!(f, "pod {name}:{port}"),
            Self::NodePort(node, name, port) => write!(f, "n{node}, node port of {name}:{port}"),
            Self::Balancer(name, port) => write!(f, "load balancer of {name}:{port}"),
        }
    }
}

/// What a client is to try.
pub(super) struct Attempt {
    pub(super) from: &'static str,
    pub(super) to: To,
    pub(super) how: How,
    pub(super) times: u32,
    pub(super) expect: Expect,
    /// What it must see, in words.
    pub(super) wanted: &'static str,
}

/// What came of it.
pub(super) struct Attempted {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) how: How,
    pub(super) wanted: String,
    /// In words, and whether it is as wanted.
    pub(super) saw: BTreeMap<Form, (String, bool)>,
}

impl Attempted {
    pub(super) fn new(from: &str, to: &str, how: How, wanted: &str) -> Self {
        Self { from: from.into(), to: to.into(), how, wanted: wanted.into(), saw: BTreeMap::new() }
    }

    pub(super) fn saw(&mut self, form: Form, what: String, as_expected: bool) {
        self.saw.insert(form, (what, as_expected));
    }

    pub(super) fn is_as_expected(&self) -> bool {
        FORMS.iter().all(|form| self.saw.get(form).is_some_and(|(_, as_expected)| *as_expected))
    }
}

impl Attempt {
    /// Tries it in each family.
    pub(super) fn run(&self, cluster: &Cluster, examples: &Examples) -> Result<Attempted> {
        let mut done = Attempted::new(self.from, &self.to.to_string(), self.how, self.wanted);
        for form in FORMS {
            let mut seen: BTreeMap<Seen, u32> = BTreeMap::new();
            let sight = self.sight(form, cluster, examples)?;
            for _ in 0..self.times {
                let ask = Command::Ask { how: self.how, to: sight.to };
                let outcome = cluster.prober(self.from)?.call(ask)?;
                *seen.entry(sight.see(cluster, outcome)).or_default() += 1;
            }
            let kinds: BTreeSet<Seen> = seen.keys().cloned().collect();
            done.saw(form, describe(&seen), self.expect.is_met(form, &kinds));
        }
        Ok(done)
    }

    fn sight(&self, form: Form, cluster: &Cluster, examples: &Examples) -> Result<Sight<'static>> {
        let protocol = if self.how == How::Tcp { "TCP" } else { "UDP" };
        let target = |name, port| examples.target_port(name, port, protocol);
        let (addresses, port, target_port) = match self.to {
            To::Service(name, port) => (examples.cluster_ips(name)?, port, target(name, port)?),
            To::Pod(name, port) => (cluster.addresses(name)?, port, port),
            To::NodePort(node, name, port) => {
                (address::node(node), examples.node_port(name, port, protocol)?, target(name, port)?)
            }
            To::Balancer(name, port) => (examples.balancer(name)?, port, target(name, port)?),
        };
        Ok(Sight { from: self.from, to: addresses.dial(form, port), target_port, how: self.how })
    }
}

fn describe(seen: &BTreeMap<Seen, u32>) -> String {
    let one = seen.values().sum::<u32>() == 1;
    let kind = |(seen, count): (&Seen, &u32)| {
        let what = match seen {
            Seen::Answer(server) => server.clone(),
            Seen::Wrong(what) | Seen::Error(what) => what.clone(),
            Seen::Untouched => "not translated".into(),
        };
        if one { what } else { format!("{what} x {count}") }
    };
    seen.iter().map(kind).collect::<Vec<_>>().join(", ")
}
