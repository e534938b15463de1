//! From symbolic plans to rows: ids, places, and the order of writing. Pure but for the [`Store`] that it writes
//! through, which is the kernel's maps in the agent and memory in tests.
//!
//! [`Tables`] mirrors what is in the store, so that only differences are written. After a restart the mirror is
//! rebuilt from the store itself ([`Tables::adopt`]).

mod addresses;
mod adopt;
mod claims;
mod entry;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod policy;
mod ports;
mod rows;
mod runs;
mod service_tables;
mod sets;
mod store;
#[cfg(test)]
mod tests;

pub use adopt::Snapshot;
pub use policy::{PolicyOptions, PolicyRows, PolicySnapshot, PolicyStore, PolicyWrite, RetiredPolicy};
pub use service_tables::{Retired, Tables, Usage};
pub use store::{Sizes, Store, StoreError};
