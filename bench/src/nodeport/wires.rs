//! Client, node and backend in a row, on devices of their own beside those of the lab:
//!
//! ```text
//!   outside: up0 ---- up0 :n1: fab0 ---- fab0 :n2
//! ```
//!
//! What a veth device is sent is handled on the sender's CPU, unless the receiving device steers it (RPS). So the node's
//! devices steer all of it to one CPU, and client and backend run on the other: the node's CPU is the one that has more to
//! do than it can, and what arrives says how fast it is. A packet too many is lost in the queue before it, at no cost of
//! its own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir_tests::lab::netns::Netns;
use weir_tests::lab::{Lab, Place};

use super::plan::{DEVICES, End, FABRIC, Family, UPLINK, backends, network};

/// The places in a row.
pub(super) struct Row {
    pub(super) client: Place,
    pub(super) node: Place,
    pub(super) other: Place,
}

impl Row {
    /// Makes the devices. Everything that reaches the node is its CPU's work.
    ///
    /// # Errors
    /// What `ip` said, or the kernel cannot steer packets.
    pub(super) fn wire(lab: &Lab, node_cpu: usize) -> Result<Self> {
        let place = |number: u8| {
            let node = lab.nodes().iter().find(|node| node.number() == number).context("no node")?;
            Ok::<_, anyhow::Error>(node.place().clone())
        };
        let row = Self { client: lab.client().clone(), node: place(1)?, other: place(2)? };
        let (client, node, other) = (row.client.netns(), row.node.netns(), row.other.netns());
        node.ip(&[
            veth(UPLINK, End::NodeUplink, End::Client, client),
            veth(FABRIC, End::NodeFabric, End::Other, other),
        ])?;
        let ends = [
            (client, UPLINK, End::Client, End::NodeUplink),
            (node, UPLINK, End::NodeUplink, End::Client),
            (node, FABRIC, End::NodeFabric, End::Other),
            (other, FABRIC, End::Other, End::NodeFabric),
        ];
        for (netns, device, own, neighbour) in ends {
            netns.ip(&configure(device, own, neighbour))?;
        }
        for family in Family::BOTH {
            let via = |end: End, device: &str, to: &str| {
                format!("route add {to} via {} dev {device}", end.address(family))
            };
            client.ip(&[
                via(End::NodeUplink, UPLINK, backends(family)),
                via(End::NodeUplink, UPLINK, network(End::Other, family)),
            ])?;
            node.ip(&[via(End::Other, FABRIC, backends(family))])?;
            // the other node's pods, all in one place
            other.ip(&[
                format!("route add local {} dev lo", backends(family)),
                via(End::NodeFabric, FABRIC, network(End::Client, family)),
            ])?;
        }
        other.ensure_sysctls(&[("ipv6/ip_nonlocal_bind", "1")])?;
        steer(node, node_cpu)?;
        Ok(row)
    }
}

fn veth(device: &str, own: End, other: End, netns: &Netns) -> String {
    let (address, peer) = (own.mac_text(), other.mac_text());
    format!(
        "link add {device} address {address} type veth peer name {device} address {peer} netns {}",
        netns.name()
    )
}

fn configure(device: &str, own: End, neighbour: End) -> Vec<String> {
    let mut commands = vec![format!("link set {device} up")];
    for family in Family::BOTH {
        let (bits, nodad) = if family == Family::V4 { (16, "") } else { (64, " nodad") };
        commands.push(format!("addr add {}/{bits} dev {device}{nodad}", own.address(family)));
        // neither its resolution nor its probes are part of anything measured
        commands.push(format!(
            "neigh replace {} lladdr {} dev {device} nud permanent",
            neighbour.address(family),
            neighbour.mac_text()
        ));
    }
    commands
}

/// Has a CPU do the work for what reaches the node's devices.
fn steer(node: &Netns, cpu: usize) -> Result<()> {
    node.enter(|| {
        // a thread's own view of /sys: the one at hand shows another namespace's devices
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
        let none: Option<&Path> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("private mounts")?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("sysfs")?;
        for device in DEVICES {
            let path = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
            fs::write(&path, format!("{:x}", 1_u64 << cpu)).with_context(|| path.clone())?;
        }
        Ok(())
    })
}
