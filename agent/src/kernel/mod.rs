//! The kernel: programs, maps, links. Everything that traffic depends on is pinned, so that it outlives the agent.
//!
//! Only this module knows aya and the `bpf` system call.

mod batch;
mod bpf_fs;
mod generation;
mod grace;
mod hooks;
mod migrate;
#[cfg(feature = "log")]
mod program_log;
mod row;
mod sock_diag;
mod stale;
mod store;
mod sys;
mod view;

pub use bpf_fs::{PinRoot, cleanup};
pub use generation::Generation;
pub use grace::Grace;
pub use hooks::{Attached, Hooks, attached, expected};
pub use migrate::migrate_clients;
pub use stale::{Closed, close_sockets, connected_sockets};
pub use store::KernelStore;
pub use view::View;
