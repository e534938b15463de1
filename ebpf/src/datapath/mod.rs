//! The decisions: pure functions of what is asked, the tables, and the moment.
//!
//! Called by the eBPF programs (tables are BPF maps), by tests and fuzzers (hash maps), and by commands that
//! explain (a dump of the maps). Nothing here reads a clock, draws a random number or knows a kernel context:
//! they come in through [`Socket`] and [`Moment`].

pub mod bind;
pub mod enforce;
pub mod events;
pub mod lifetime;
pub mod packet;
pub mod policy;
mod select;
pub mod socket;
mod tables;
#[cfg(test)]
mod tests;

pub use tables::{CreateError, Full, Instant, Moment, Network, PacketTables, PodSocket, Socket, Tables};
