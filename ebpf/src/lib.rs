//! What Weir's kernel side knows and decides.
//!
//! * [`abi`]: the rows that user space writes and the programs read (and the other way round).
//! * [`datapath`]: the decisions, generic over where the tables live. The eBPF programs, the unit tests, the
//!   fuzzers and the commands that explain a connection all call these functions.
//! * [`wire`]: packets, from bytes to what the decisions ask for.
//! * [`act`]: what decisions make of packets, in bytes.
//! * [`testing`] (feature): the tables as hash maps, and frames.
#![cfg_attr(not(feature = "testing"), no_std)]

pub mod abi;
pub mod act;
pub mod datapath;
mod repeat;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;
