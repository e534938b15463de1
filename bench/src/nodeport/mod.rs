//! What a packet from outside costs the node that sends it on to another one: through a node port with Weir, through the
//! rules that kube-proxy writes, and forwarded without either.
//!
//! * [`wires`]: client, node and backend in a row, and which CPU does whose work.
//! * [`site`]: one subject in its own lab: what is in force on its node.
//! * [`rules`]: the netfilter rules of the subjects that have some; [`services`]: what Weir is told.
//! * [`flood`]: datagrams, counted by who gets them; [`flush`]: flows are forgotten between measurements.
//! * [`bench`]: rounds of measurements and the figures from them.

mod bench;
mod flood;
mod flush;
mod frame;
mod plan;
mod program;
mod rules;
mod services;
mod site;
mod wires;

pub use bench::{Options, Outcome, Traffic, run};
pub use flood::{Arrivals, CollectSpec, FloodSpec, collect, flood};
