//! What is proved outside of the packages that it is about.
//!
//! * [`vectors`]: Kubernetes' own conformance vectors, run through the whole chain from API objects to decisions.

pub mod vectors;
