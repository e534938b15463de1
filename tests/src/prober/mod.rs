//! A process in a pod that serves, connects and tells what it saw.
//!
//! `weir-lab prober` runs [`run`], which reads a request per line and answers each with a
//! reply; [`Prober`] is the other end, in the test, the demo or the benchmark. What goes over
//! the wire between probers is in `exchange`.

mod bulk;
mod client;
mod echo;
mod exchange;
mod protocol;
mod server;
mod service;

pub use client::{Pending, Prober};
pub use protocol::{Answer, BulkReport, BulkSpec, Command, Failure, Failures, How, Outcome};
pub use service::run;
