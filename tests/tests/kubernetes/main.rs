//! The Kubernetes source against the test API server: what it tells, put together, must be what the server holds,
//! whatever the server does meanwhile. No root, no kernel.
#![expect(clippy::unwrap_used, reason = "a test whose world cannot be set up has failed")]

mod candidates;
mod churn;
mod cluster_policies;
mod events;
mod lists;
mod outages;
mod policies;
mod refusals;
mod world;
