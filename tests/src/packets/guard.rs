//! Policies on the node of the cases: who may what.

use weir_ebpf::abi::Port;
use weir_ebpf::testing::Allows;

use super::case::Who;
use super::node::{FIRST_POD, LOCAL, Node};

impl Node {
    /// There are policies. The pods of this node are known; the first is isolated like this, the other is not.
    pub(super) fn guard(&mut self, ingress: Allows, egress: Allows) {
        self.tables.guard(8);
        for pod in 0..LOCAL {
            self.isolate(pod, Allows::Everything, Allows::Everything);
        }
        self.isolate(0, ingress, egress);
    }

    /// How a pod of this node is isolated from now on.
    pub(super) fn isolate(&mut self, pod: u32, ingress: Allows, egress: Allows) {
        let addr = self.peer(Who::Pod(pod)).addr;
        self.tables.isolate(FIRST_POD + pod, addr, ingress, egress);
    }

    /// A pod of this node that nobody knows yet.
    pub(super) fn forget_pod(&mut self, pod: u32) {
        self.tables.pods.remove(&(FIRST_POD + pod));
    }

    /// The node takes packets out of tunnels at a UDP port.
    pub(super) fn take_tunnels(&mut self, port: u16) {
        if let Some(config) = &mut self.tables.config {
            config.tunnel_ports[1] = Port::new(port);
        }
    }

    /// Policies know this address from now on.
    pub(super) fn befriend(&mut self, who: Who) {
        let addr = self.peer(who).addr;
        self.tables.befriend(addr);
        self.tables.enforcement.generation += 1;
    }

    /// Policies know no address any more.
    pub(super) fn forget_friends(&mut self) {
        self.tables.policy.addresses.clear();
        self.tables.enforcement.generation += 1;
    }

    /// What each pod may have of the table of judged flows.
    pub(super) fn set_share(&mut self, most_per_pod: u32) {
        self.tables.enforcement.most_per_pod = most_per_pod;
    }
}
