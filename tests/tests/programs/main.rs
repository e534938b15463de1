//! The programs in the real kernel, without an agent: this process loads them, attaches them to a cgroup of its
//! own, and is their client. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

mod adoption;
mod datagrams;
mod events;
mod release;
mod stale;
mod swap;
mod world;
