//! The tables in memory and frames, for whatever runs the datapath outside the kernel.

mod apply;
pub mod frame;
mod tables;

pub use apply::{Outcome, apply};
pub use tables::{FakeMoment, FakeNetwork, FakeSocket, FlowCopy, MemoryTables};
