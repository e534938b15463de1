//! The nanoseconds of a `connect`: a UDP socket's, which sends nothing, so that what is left is the system call and
//! what hooks it.

mod bench;
mod calls;

pub use bench::{Options, Outcome, run};
pub use calls::{Batch, Sockets, Took, connect};
