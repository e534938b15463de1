//! One table of what a client of a Service must see, and the two ways in which it is run.
//!
//! A [`Case`] is data: objects of the cluster, what a client does, what it must see. [`rows`] expands it over
//! the ways to use a socket and the forms of an address, so that both families have the same rows. [`live`]
//! runs a row with real sockets in the lab; [`pure`] runs it through the manifests' parser, the state, the
//! compiler, the tables and the datapath, all in memory.
//!
//! Called by `tests/lab` and by the unit tests of [`pure`].

pub(crate) mod expect;
pub mod live;
pub mod objects;
pub mod pure;
mod row;
pub mod spec;
mod table;

pub use row::{Row, rows};
pub use spec::{Ask, Case, Endpoint, Expect, On, ServiceSpec, Step, Target};
pub use table::table;

use crate::lab::cluster::PodSpec;

/// The pods that cases speak of.
pub const CAST: [PodSpec<'static>; 5] = [(1, "n1-a"), (1, "n1-b"), (1, "n1-c"), (2, "n2-a"), (2, "n2-b")];
