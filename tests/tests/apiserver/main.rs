//! The test API server, judged as a client sees it: [`protocol`] holds for every API server.

mod client;
mod protocol;
