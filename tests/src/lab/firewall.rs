//! What else is on a node: other people's netfilter rules, and settings that distributions ship.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::address::{CLUSTER_CIDRS, pod_cidrs};
use super::netns::Netns;

/// Something about a node that a dataplane has to live with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Neighbour {
    /// flannel's own masquerade and forward rules (flannel, pkg/trafficmngr/iptables; as k3s has them).
    Flannel,
    /// kindnet's masquerade rules (kind, images/kindnetd/cmd/kindnetd/masq.go).
    Kindnet,
    /// A firewall that drops what netfilter's conntrack finds invalid.
    DropInvalid,
    /// A firewall that forwards only what it must: to and from pods (docker and ufw have policy DROP).
    ForwardPodsOnly,
    /// `net.ipv4.conf.*.rp_filter=1`: a source must be reached by the device that its packet came in by.
    StrictReversePath,
    /// Bridged frames pass netfilter (`net.bridge.bridge-nf-call-iptables`; docker and kubeadm switch it on).
    BridgeNetfilter,
    /// Bridged frames do not pass netfilter.
    NoBridgeNetfilter,
}

impl Neighbour {
    /// Sets it up on node `number`. Once for each node.
    ///
    /// # Errors
    /// What iptables said, or a setting that this kernel does not have.
    pub fn ensure(self, node: &Netns, number: u8) -> Result<()> {
        let bridge =
            |value| [("bridge/bridge-nf-call-iptables", value), ("bridge/bridge-nf-call-ip6tables", value)];
        match self {
            Self::StrictReversePath => {
                let devices = ["all", "default", "eth0", "cni0"];
                let keys = devices.map(|device| format!("ipv4/conf/{device}/rp_filter"));
                let values: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "1")).collect();
                node.ensure_sysctls(&values)
            }
            Self::BridgeNetfilter => node.ensure_sysctls(&bridge("1")),
            Self::NoBridgeNetfilter => node.ensure_sysctls(&bridge("0")),
            Self::Flannel | Self::Kindnet | Self::DropInvalid | Self::ForwardPodsOnly => {
                let pods = pod_cidrs(number);
                for ((program, cluster), pods) in
                    ["iptables-restore", "ip6tables-restore"].into_iter().zip(CLUSTER_CIDRS).zip(&pods)
                {
                    restore(node, program, &self.rules(cluster, pods))?;
                }
                Ok(())
            }
        }
    }

    /// As `iptables-restore` reads it.
    fn rules(self, cluster: &str, pods: &str) -> String {
        let multicast = if cluster.contains(':') { "ff00::/8" } else { "224.0.0.0/4" };
        match self {
            Self::Flannel => format!(
                "*nat\n:FLANNEL-POSTRTG - [0:0]\n\
                 -A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n\
                 -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN\n\
                 -A FLANNEL-POSTRTG -s {pods} -d {cluster} -j RETURN\n\
                 -A FLANNEL-POSTRTG -s {cluster} -d {pods} -j RETURN\n\
                 -A FLANNEL-POSTRTG ! -s {cluster} -d {pods} -j RETURN\n\
                 -A FLANNEL-POSTRTG -s {cluster} ! -d {multicast} -j MASQUERADE --random-fully\n\
                 -A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} -j MASQUERADE --random-fully\nCOMMIT\n\
                 *filter\n:FLANNEL-FWD - [0:0]\n-A FORWARD -j FLANNEL-FWD\n\
                 -A FLANNEL-FWD -s {cluster} -j ACCEPT\n-A FLANNEL-FWD -d {cluster} -j ACCEPT\nCOMMIT\n"
            ),
            Self::Kindnet => format!(
                "*nat\n:KIND-MASQ-AGENT - [0:0]\n\
                 -A POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT\n\
                 -A KIND-MASQ-AGENT -d {cluster} -j RETURN\n-A KIND-MASQ-AGENT -j MASQUERADE\nCOMMIT\n"
            ),
            Self::DropInvalid => "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
                 -A INPUT -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
                .into(),
            Self::ForwardPodsOnly => format!(
                "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -s {cluster} -j ACCEPT\n\
                 -A FORWARD -d {cluster} -j ACCEPT\nCOMMIT\n"
            ),
            Self::StrictReversePath | Self::BridgeNetfilter | Self::NoBridgeNetfilter => String::new(),
        }
    }
}

/// Adds rules, as `iptables-restore` or `ip6tables-restore` reads them, to those that are there.
///
/// # Errors
/// What the program said.
pub fn restore(node: &Netns, program: &str, rules: &str) -> Result<()> {
    node.enter(|| {
        let mut child = Command::new(program)
            .arg("--noflush")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {program} (package iptables)"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{program}: {}\n{rules}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    })
}
