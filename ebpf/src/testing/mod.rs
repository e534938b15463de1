//! The tables in memory and frames, for whatever runs the datapath outside the kernel.

mod apply;
mod enforce;
pub mod frame;
mod guard;
mod policy;
mod tables;

pub use apply::{Outcome, apply, apply_too_long, cut_entering};
pub use enforce::JudgedCopy;
pub use guard::{Allows, GUARDED_PORT};
pub use policy::MemoryPolicy;
pub use tables::{FakeMoment, FakeNetwork, FakeSocket, FlowCopy, MemoryTables};
