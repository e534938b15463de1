//! The rows shared by the kernel and user space: layout, byte order, units.
//!
//! Every row is `repr(C)` without implicit padding: `IntoBytes` refuses to derive otherwise, and `ebpf/abi.lock`
//! records each size and offset, so that a layout cannot change without [`ABI_VERSION`].

mod addr;
mod backend;
mod counter;
mod enforce;
mod event;
mod flow;
mod hop;
pub mod layout;
mod node;
mod policy;
mod service;
mod socket;

pub use addr::{Addr, Peer, Port, Protocol};
pub use backend::{Backend, mix};
pub use counter::{Counter, DropReason};
pub use enforce::{BoundPod, Enforcement, Judged, JudgedKey, Share, Standing};
pub use event::{DropEvent, HookPoint};
pub use flow::{End, Flow, Form, FragmentKey, FragmentRow, Path, Signs, Tuple};
pub use hop::{Hop, HopRow, Window};
pub use node::{Config, Device, Mac, Netns, PodCgroups, Prefix, Workload};
pub use policy::{
    ClassId, NetworkKey, PodPolicy, PolicyName, PolicyNameKey, PolicySetId, PortRule, PortRuleKey,
    PortRulesId, Side, VerdictKey,
};
pub use service::{
    AddressUses, Frontend, FrontendKey, FrontendKind, Origin, Run, Scope, ServiceId, ServiceName, SetId,
    SetWord, SourceRangeKey,
};
pub use socket::{AffinityKey, AffinityRow, Client, Connection, DatagramKey, DatagramRow, Direction};

/// Version of every row in this module. Pinned maps of another version are never read as this one's: they are
/// rebuilt beside the old ones and swapped in.
pub const ABI_VERSION: u32 = 9;
