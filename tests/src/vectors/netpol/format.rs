//! The format of `netpol-e2e.json` and `gaps.json`, as the README beside them has it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;

/// A file of them.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    /// What its cases begin with that have no beginning of their own.
    pub(super) initial: Option<Initial>,
    pub(super) cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Case {
    #[serde(default)]
    pub(super) suite: String,
    pub(super) name: String,
    pub(super) ip_family: Option<String>,
    pub(super) initial: Option<Initial>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Initial {
    pub(super) namespaces: Vec<NamespaceRow>,
    pub(super) pods: Vec<PodRow>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NamespaceRow {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodRow {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) ip: IpAddr,
    pub(super) ip6: IpAddr,
    pub(super) containers: Vec<ContainerRow>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerRow {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) port_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Step {
    pub(super) actions: Vec<Action>,
    pub(super) probe: Probe,
    pub(super) expected: Verdicts,
    pub(super) ingress: Option<Verdicts>,
    pub(super) egress: Option<Verdicts>,
}

pub(super) type Verdicts = BTreeMap<String, Verdict>;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Allowed,
    Blocked,
    Ignored,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Action {
    CreatePolicy(NetworkPolicy),
    UpdatePolicy(NetworkPolicy),
    DeletePolicy(NameRow),
    CreateNamespace(NamespaceRow),
    SetNamespaceLabels(NamespaceRow),
    DeleteNamespace(NamespaceRow),
    CreatePod(PodRow),
    SetPodLabels(LabelsRow),
    DeletePod(NameRow),
    AddExternal(PodRow),
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NameRow {
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct LabelsRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(super) enum Probe {
    One { port: u16, protocol: String },
    All { all_available: bool },
}

impl Probe {
    /// Whether this is what is probed.
    pub(super) fn asks(&self, protocol: &str, port: u16) -> bool {
        match self {
            Self::All { all_available } => *all_available,
            Self::One { port: one, protocol: of } => *one == port && of == protocol,
        }
    }
}
