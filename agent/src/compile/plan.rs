//! What compilation yields: symbolic rows. `tables` gives them ids and places.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use weir_ebpf::abi::{DropReason, FrontendKind};

use crate::source::{Family, ObjectKey, Protocol};

/// Everything that one Service is to have in the tables of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePlan {
    /// Which Service.
    pub service: ObjectKey,
    /// `metadata.creationTimestamp`: of two Services that claim one frontend, the older has it.
    pub created_s: Option<i64>,
    /// One for each port and family.
    pub ports: Vec<PortPlan>,
    /// Every address that stands in any slice of the Service, usable or not, whatever the port. A TCP socket is left
    /// alone for as long as its backend's is among these: a pod that drains, or that serves new connections on
    /// another port, still serves the old ones.
    pub present: BTreeSet<IpAddr>,
}

/// A port of a Service in one family: what a `ServiceId` stands for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PortName {
    /// The Service.
    pub service: ObjectKey,
    /// The port's name, empty where it has none.
    pub port: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its family.
    pub family: Family,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{} {}", self.service, self.port, self.protocol, self.family)
    }
}

/// A Service port in one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPlan {
    /// Its name.
    pub name: PortName,
    /// What clients dial.
    pub frontends: Vec<FrontendPlan>,
    /// For frontends and clients under traffic policy Cluster; `None` where there are none.
    pub cluster: Option<SetPlan>,
    /// For frontends and clients under traffic policy Local; `None` where there are none.
    pub local: Option<SetPlan>,
    /// From where its frontends with [`weir_ebpf::abi::Frontend::SOURCE_RANGES`] may be dialled.
    pub source_ranges: Vec<IpNet>,
    /// Session affinity's timeout; 0 without.
    pub affinity_s: u32,
}

/// What clients dial; the protocol is the port's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrontendPlan {
    /// Address and port; of a node port the unspecified address of the family.
    pub addr: SocketAddr,
    /// What the address is dialled as.
    pub kind: FrontendKind,
    /// The constants of [`weir_ebpf::abi::Frontend`], but for `NODE_ADDRESS`: that is not the Service's to say.
    pub flags: u8,
}

/// The backends that a client may get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetPlan {
    /// Each backend once; the value says whether it is on this node.
    pub backends: std::collections::BTreeMap<SocketAddr, bool>,
    /// What happens where `backends` is empty: [`DropReason::NoEndpoint`] or [`DropReason::NoLocalEndpoint`].
    pub when_empty: DropReason,
}
