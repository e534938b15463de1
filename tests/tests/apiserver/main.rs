//! The test API server, judged as a client sees it: `cargo xtask test apiserver`.
//!
//! [`protocol`] holds for every API server and gets the server as a parameter, here from [`on_test_server`], in the test
//! `real_apiserver` a real one; the rest is about this one: [`history`]
//! (compaction, restarts), [`access`], [`faults`], and [`watcher`], in which kube's watcher as an independent client
//! ends at the truth after each fault; [`events`] is about what has rules of its own.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

mod access;
mod client;
mod events;
mod faults;
mod history;
mod on_test_server;
mod protocol;
mod watcher;
