//! This node's network in the real kernel: what the agent hears of devices, addresses and pods, the programs that it
//! attaches to them, the flows that it forgets, and policies between sockets. No agent. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

mod ahead;
mod devices;
mod flows;
mod guarded;
mod owners;
mod policies;
mod resets;
mod stage;
mod watch;
mod xdp;
