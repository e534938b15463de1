//! The tables in memory and packets in vectors, for whatever runs the datapath outside the kernel.

mod apply;
mod tables;

pub use apply::{Outcome, apply};
pub use tables::{FakeMoment, FakeNetwork, FakeSocket, FlowCopy, MemoryTables};
