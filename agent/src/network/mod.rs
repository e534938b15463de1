//! This node's network, as the kernel tells it over rtnetlink: which devices lead to other nodes and the world, which
//! are the host's ends of pods' veths, which addresses are whose. A source of facts about this machine, as
//! [`crate::source`] is one about the cluster; `daemon` starts it and has `kernel` act on what it says.
//!
//! Nothing is polled: the kernel announces changes, of this network namespace and of every one that a veth of ours
//! leads into (`NETLINK_LISTEN_ALL_NSID`), and only what it may have lost (`ENOBUFS`) is asked for again as a whole.
//! Whose the namespaces are is the exception: processes announce nothing, and are looked through while it is not known of some
//! namespace ([`search`]). What the kernel said is mirrored ([`mirror`]), judged by pure rules ([`classify`]), and handed on as one value,
//! [`Facts`].

#[cfg(feature = "live")]
pub(crate) mod channel;
#[cfg(feature = "live")]
mod classify;
#[cfg(feature = "live")]
mod elsewhere;
mod facts;
#[cfg(feature = "live")]
mod listener;
mod mirror;
#[cfg(feature = "live")]
pub(crate) mod netns;
#[cfg(feature = "live")]
mod options;
mod owner;
#[cfg(feature = "live")]
mod parse;
mod pod_cgroups;
#[cfg(feature = "live")]
mod query;
mod rows;
#[cfg(feature = "live")]
mod search;
#[cfg(test)]
#[cfg(feature = "live")]
mod tests;
#[cfg(feature = "live")]
mod watch;

pub use facts::{Carrier, Facts, NodeDevice, Pod, Seeks};
#[cfg(feature = "live")]
pub use options::Options;
pub use owner::Owner;
pub use pod_cgroups::find_pod_cgroups;
pub use rows::{Forwarding, NodeRows, RowOptions, SocketLb, Told, Xdp};
#[cfg(feature = "live")]
pub use watch::{Watch, own_netns};
