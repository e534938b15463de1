//! This node's network, as the kernel tells it over rtnetlink: which devices lead to other nodes and the world, which
//! are the host's ends of pods' veths, which addresses are whose. A source of facts about this machine, as
//! [`crate::source`] is one about the cluster; `daemon` starts it and has `kernel` act on what it says.
//!
//! Nothing is polled: the kernel announces changes, of this network namespace and of every one that a veth of ours
//! leads into (`NETLINK_LISTEN_ALL_NSID`), and only what it may have lost (`ENOBUFS`) is asked for again as a whole.
//! Whose the namespaces are is the exception: processes announce nothing, and are looked through while it is not known of some
//! namespace ([`search`]). What the kernel said is mirrored ([`mirror`]), judged by pure rules ([`classify`]), and handed on as one value,
//! [`Facts`].

pub(crate) mod channel;
mod classify;
mod elsewhere;
mod facts;
mod listener;
mod mirror;
pub(crate) mod netns;
mod options;
mod owner;
mod parse;
mod pod_cgroups;
mod query;
mod rows;
mod search;
#[cfg(test)]
mod tests;
mod watch;

pub use facts::{Carrier, Facts, NodeDevice, Pod};
pub use options::Options;
pub use owner::Owner;
pub use pod_cgroups::find_pod_cgroups;
pub use rows::{Forwarding, NodeRows, RowOptions, SocketLb, Told, Xdp};
pub use search::Seeks;
pub use watch::{Watch, own_netns};
