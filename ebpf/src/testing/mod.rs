//! The tables in memory and frames, for whatever runs the datapath outside the kernel.

pub mod frame;
mod tables;

pub use tables::{FakeMoment, FakeNetwork, FakeSocket, FlowCopy, MemoryTables};
