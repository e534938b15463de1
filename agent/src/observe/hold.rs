//! Where pods that nobody knows are held, and where not, with the reason: for metrics and `weir status`.

use serde::{Deserialize, Serialize};

use super::Report;

/// What the agent knows of it that has to do with policies and pods.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldReport {
    /// `--unknown-pods hold`.
    pub is_asked: bool,
    /// Whether there are policies as well.
    pub is_on: bool,
    /// Devices of pods that cannot be told from unknown ones at their sockets.
    pub untold: Vec<String>,
}

/// One of the places at which they are held or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// `devices`, `sockets` or `addresses`.
    pub at: &'static str,
    /// Why not; `None`: they are held there.
    pub off: Option<Off>,
}

/// Why nobody is held somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Off {
    /// `--unknown-pods allow`.
    Allowed,
    /// There is none that could be about them.
    NoPolicies,
    /// Some pod that is known has no UID and a namespace that cannot be reached.
    Untold,
    /// The kubelet has no cgroup for its pods in the hierarchy of version 2.
    NoCgroups,
    /// Nobody has said which networks this node's pods have their addresses of.
    NoNetworks,
}

impl Off {
    /// As a metric's label has it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NoPolicies => "no-policies",
            Self::Untold => "no-uid",
            Self::NoCgroups => "no-cgroups",
            Self::NoNetworks => "no-networks",
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Allowed => "--unknown-pods allow",
            Self::NoPolicies => "there are no policies",
            Self::Untold => "a pod without metadata.uid is in a network namespace that cannot be reached",
            Self::NoCgroups => "the kubelet has its pods in no cgroup (v2) below --cgroup-root",
            Self::NoNetworks => "neither the Node nor --pod-cidrs says of which networks pods have addresses",
        }
    }
}

/// The places, each once.
#[must_use]
pub fn holds(report: &Report) -> [Hold; 3] {
    let (hold, network) = (&report.places.hold, &report.network);
    let all = match (hold.is_asked, hold.is_on) {
        (false, _) => Some(Off::Allowed),
        (true, false) => Some(Off::NoPolicies),
        (true, true) => None,
    };
    let beyond = all.or((!hold.untold.is_empty()).then_some(Off::Untold));
    let sockets = beyond.or((network.pod_cgroups == 0).then_some(Off::NoCgroups));
    let addresses = beyond.or((network.pod_networks == 0).then_some(Off::NoNetworks));
    [("devices", all), ("sockets", sockets), ("addresses", addresses)].map(|(at, off)| Hold { at, off })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(change: impl FnOnce(&mut Report)) -> [Option<&'static str>; 3] {
        let mut report = Report::default();
        (report.places.hold.is_asked, report.places.hold.is_on) = (true, true);
        (report.network.pod_cgroups, report.network.pod_networks) = (1, 1);
        change(&mut report);
        holds(&report).map(|hold| hold.off.map(Off::label))
    }

    #[test]
    fn where_nobody_is_held_has_a_reason() {
        assert_eq!(off(|_| {}), [None, None, None]);
        assert_eq!(off(|report| report.places.hold.is_asked = false), [Some("allowed"); 3]);
        assert_eq!(off(|report| report.places.hold.is_on = false), [Some("no-policies"); 3]);
        let untold = off(|report| report.places.hold.untold = vec!["veth1".into()]);
        assert_eq!(untold, [None, Some("no-uid"), Some("no-uid")]);
        assert_eq!(off(|report| report.network.pod_cgroups = 0), [None, Some("no-cgroups"), None]);
        assert_eq!(off(|report| report.network.pod_networks = 0), [None, None, Some("no-networks")]);
    }
}
