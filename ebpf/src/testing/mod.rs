//! The tables in memory, for whatever runs the datapath outside the kernel.

mod tables;

pub use tables::{FakeMoment, FakeNetwork, FakeSocket, FlowCopy, MemoryTables};
