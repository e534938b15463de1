//! The tables in memory, frames, and what verdicts make of them, for whatever runs the datapath outside the kernel.

mod apply;
pub mod frame;
mod tables;

pub use apply::{Outcome, apply};
pub use tables::{FakeMoment, FakeNetwork, FakeSocket, FlowCopy, MemoryTables};
