//! This node's network in the real kernel: what the agent hears of devices, addresses and pods, the programs that it
//! attaches to them, and the flows that it forgets. No agent, and no packets but single ones. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

mod ahead;
mod devices;
mod flows;
mod stage;
mod watch;
mod xdp;
