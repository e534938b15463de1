//! A drop as a person reads it: the names of both ends, and why.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// One packet or socket that did not get through, or would not have. What one version does not know of another's is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DropRecord {
    /// When, as RFC 3339 writes it, UTC.
    pub time: String,
    /// `drop`; `refuse`: its sender was told; `would-drop`: it passed, and an audited policy would deny it.
    pub verdict: String,
    /// As in `weir_drops_total`.
    pub reason: String,
    /// Where: the hook.
    pub hook: String,
    /// The pod that it is about, as `namespace/name`; missing where none is, or nobody knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The name of the device, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `ingress`: to the pod; `egress`: from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// Who sent it; missing where nobody could read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<DropEnd>,
    /// Whom it is for, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<DropEnd>,
    /// Whom it would have gone to, if it was translated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<DropEnd>,
    /// `TCP`, `ICMP` and so on; a number where it has no name here.
    pub protocol: String,
    /// Flags of TCP, the type of an ICMP message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The policy that denies it, or those that isolate the pod in the direction that was asked, as they were when this was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Of one without a namespace, the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<DropRule>,
    /// The pod's policy set and the peer's class that were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<(u32, u32)>,
    /// Why, in a sentence.
    pub why: String,
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropRule {
    /// Its place in the list, from 1; 0 where there is no list that could be read.
    pub number: u16,
    /// What the policy calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An end of what was dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropEnd {
    /// Its address.
    pub addr: IpAddr,
    /// Its port, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The pod that has the address, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The Service that has it, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// This node has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub node: bool,
}

impl fmt::Display for DropEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.addr, port))?,
            None if self.addr.is_unspecified() => f.write_str("somebody")?,
            None => write!(f, "{}", self.addr)?,
        }
        match (&self.pod, &self.service) {
            (Some(pod), _) => write!(f, " ({pod})"),
            (None, Some(service)) => write!(f, " (Service {service})"),
            (None, None) if self.node => f.write_str(" (this node)"),
            (None, None) => Ok(()),
        }
    }
}

impl DropRecord {
    /// All but the moment.
    #[must_use]
    pub fn timeless(&self) -> String {
        let mut text = format!("{} {}", self.verdict, self.reason);
        match (&self.src, &self.dst) {
            (Some(src), Some(dst)) => {
                text += &format!(" {src} -> {dst}");
                if let Some(backend) = self.backend.as_ref().filter(|backend| *backend != dst) {
                    text += &format!(" => {backend}");
                }
                text += &format!(" {}", self.protocol);
                if !self.detail.is_empty() {
                    text += &format!(" {}", self.detail);
                }
            }
            _ => text += &format!(" {}", self.protocol),
        }
        text += &format!(": {}", self.why);
        if let Some(place) = self.place() {
            text += &format!(" [{place}]");
        }
        text
    }

    /// The pod or device that it is about, where neither end says it.
    fn place(&self) -> Option<String> {
        let ends = [&self.src, &self.dst, &self.backend].into_iter().flatten();
        let mut said = ends.filter_map(|end| end.pod.as_ref());
        match (&self.pod, &self.device) {
            (Some(pod), _) if said.any(|other| other == pod) => None,
            (Some(pod), Some(device)) => Some(format!("{pod}, device {device}")),
            (Some(pod), None) => Some(pod.clone()),
            (None, Some(device)) => Some(format!("device {device}")),
            (None, None) => None,
        }
    }
}

impl fmt::Display for DropRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.time, self.timeless())
    }
}
