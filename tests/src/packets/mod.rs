//! Packets through the programs in this kernel, one at a time, and the table of cases that they are judged by.
//!
//! * [`case`]: the words in which cases are written.
//! * [`table`]: the cases.
//! * [`node`]: the node that they are about, as tables in memory.
//! * `guard`: policies on it.
//! * `frames`: frames that no library builds.
//! * [`judge`]: runs a case in pure Rust, and something else beside it that has to do the same.
//! * [`beside`]: the kernel, beside it.
//! * `told`: what the kernel tells of those that were dropped.
//! * [`checksums`]: every checksum of a packet, by another library.
//! * [`kernel`]: a network namespace, the programs and their tables in the kernel, and single packets through them.
//!
//! Run by `tests/packets`; the kernel also by `tests/vectors.rs`, with the feature `kernel`.

#[cfg(feature = "kernel")]
pub mod beside;
pub mod case;
pub mod checksums;
mod frames;
mod guard;
pub mod judge;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod node;
pub mod table;
#[cfg(feature = "kernel")]
mod told;
