//! The tables in memory, for whatever runs the datapath outside the kernel.

mod tables;

pub use tables::{FakeMoment, FakeSocket, MemoryTables};
