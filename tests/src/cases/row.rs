//! The table's rows: each case in each way and form, with the addresses that follow from it.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;

use super::spec::{Case, ServiceSpec, Step, Target};
use super::{CAST, objects, table};
use crate::lab::Form;
use crate::lab::address::{self, DualStack};
use crate::prober::How;

/// The first ClusterIP that cases use.
const FIRST_SERVICE: u8 = 10;

/// A case, in one way to use a socket and one form of an address.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// How the client uses its sockets.
    pub how: How,
    /// How it writes addresses.
    pub form: Form,
}

/// Every row of the table.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for case in table() {
        for how in case.ways {
            rows.extend(Form::ALL.map(|form| Row { case: case.clone(), how: *how, form }));
        }
    }
    rows
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Tcp => "tcp",
            How::UdpConnected => "udp-connected",
            How::UdpUnconnected => "udp-unconnected",
        };
        write!(f, "{}/{how}/{}", self.case.name, self.form)
    }
}

impl Row {
    /// The Kubernetes objects of a step.
    #[must_use]
    pub fn objects(&self, services: &[ServiceSpec]) -> Vec<Value> {
        // a namespace for each row, so that none meets what another one left behind
        let namespace = self.to_string().replace('/', "-").to_lowercase();
        services
            .iter()
            .flat_map(|spec| objects::of_service(spec, &namespace, self.cluster_ips(spec.name)))
            .collect()
    }

    /// What the client dials.
    #[must_use]
    pub fn dialled(&self, target: Target) -> SocketAddr {
        let (addresses, port) = match target {
            Target::Service(name, port) => (self.cluster_ips(name), port),
            Target::Place(name, port) => (place_addresses(name), port),
        };
        addresses.dial(self.form, port)
    }

    /// The ports of the endpoints behind what the client dials.
    #[must_use]
    pub fn target_port(&self, target: Target) -> u16 {
        match target {
            Target::Place(_, port) => port,
            Target::Service(name, port) => {
                let ports = self.services().filter(|spec| spec.name == name).flat_map(|spec| &spec.ports);
                ports.into_iter().find(|(_, own, _)| *own == port).map_or(port, |(_, _, target)| *target)
            }
        }
    }

    /// A Service has the same ClusterIPs in all steps.
    fn cluster_ips(&self, name: &str) -> DualStack {
        let mut names: Vec<&str> = Vec::new();
        for spec in self.services() {
            if !names.contains(&spec.name) {
                names.push(spec.name);
            }
        }
        let foreign = self.services().any(|spec| spec.name == name && spec.foreign_label.is_some());
        let place = (FIRST_SERVICE..).zip(&names).find(|(_, known)| **known == name);
        let number = place.map_or(FIRST_SERVICE, |(number, _)| number);
        if foreign { address::foreign(number) } else { address::service(number) }
    }

    fn services(&self) -> impl Iterator<Item = &ServiceSpec> {
        self.case.steps.iter().flat_map(|step| match step {
            Step::Cluster(services) => services.as_slice(),
            Step::Ask(_) => &[],
        })
    }
}

/// The addresses of a pod of the cast, or of a node.
pub(super) fn place_addresses(name: &str) -> DualStack {
    for node in 1..=address::NODES {
        if name == format!("n{node}") {
            return address::node(node);
        }
        let pods = CAST.iter().filter(|(on, _)| *on == node);
        if let Some((ordinal, _)) = (0..).zip(pods).find(|(_, (_, pod))| *pod == name) {
            return address::pod(node, ordinal);
        }
    }
    panic!("the table speaks of {name}, which is not in the cast")
}

/// The node that a place of the cast is on.
pub(super) fn node_of(place: &str) -> &'static str {
    if place.starts_with("n1") { "n1" } else { "n2" }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_namespace() {
        let rows = rows();
        let names: BTreeSet<String> = rows.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), rows.len());
        for name in &names {
            assert!(name.len() <= 63, "{name} is longer than a namespace may be");
        }
    }

    #[test]
    fn both_families_have_the_same_rows() {
        let of = |form: Form| {
            let rows = rows().into_iter().filter(|row| row.form == form);
            rows.map(|row| (row.case.name, row.how)).collect::<BTreeSet<_>>()
        };
        assert_eq!(of(Form::V4), of(Form::V6));
        assert_eq!(of(Form::V4), of(Form::Mapped));
    }
}
