//! The kernel: programs, maps, links. Everything that traffic depends on is pinned, so that it outlives the agent.
//!
//! Only this module knows aya and the `bpf` system call.

mod batch;
mod bpf_fs;
mod clsact;
mod events;
mod flows;
mod generation;
mod grace;
mod hooks;
mod judged;
mod migrate;
mod node;
mod policy;
#[cfg(feature = "log")]
mod program_log;
mod row;
mod sock_diag;
mod stale;
mod store;
mod sys;
mod tc;
#[cfg(feature = "testing")]
mod trial;
mod view;
mod xdp;

pub use bpf_fs::{PinRoot, cleanup};
pub use events::DropEvents;
#[cfg(feature = "testing")]
pub use events::take_drop_events;
pub use flows::{
    FlowBackend, FlowRow, Swept, backend_of, flow_backends, flows_to, remove_flows, sweep_flows,
};
#[cfg(feature = "testing")]
pub use flows::{flow_forms, insert_flow};
pub use generation::Generation;
pub use grace::Grace;
pub use hooks::{Attached, Hooks, attached, expected};
pub use judged::{SweptJudged, migrate_judged, sweep_judged};
pub use migrate::{Migrated, migrate_clients};
pub use node::NodeTables;
pub use policy::KernelPolicyStore;
pub use stale::{Closed, close_sockets, connected_sockets};
pub use store::KernelStore;
pub use tc::{AttachedDevice, DeviceKind, attached_devices};
#[cfg(feature = "testing")]
pub use trial::{
    PacketIn, PacketOut, Series, Trial, fill_flows, fill_judged, fill_policies, pass_at_xdp, read_flows,
    read_judged, run_at_xdp,
};
pub use view::{Fill, View};
