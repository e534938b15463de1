//! `weir agent --source kubernetes` as it runs on a node, against the test API server: what the kernel's tables say.
//! What the source tells is tested in all its cases without root by the test `kubernetes`; here it is the program.
//!
//! Needs root. Each node here is a cgroup without a process in it, so that nobody's sockets are translated.
#![expect(clippy::unwrap_used, reason = "a test whose world cannot be set up has failed")]

mod churn;
mod events;
mod leaving;
mod node;
mod size;
mod troubles;
