//! Verdicts carried out on bytes: other addresses for a packet, or an answer in its place.
//!
//! Generic over where the bytes are: the programs at tc and XDP bring packets of the kernel, [`crate::testing`] vectors. So
//! what a packet becomes is decided once.

pub mod answer;
pub mod checksum;
mod crc32c;
pub mod ethernet;
pub mod reset;
pub mod rewrite;
