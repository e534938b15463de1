//! What compilation means, as rows that a person can check, and against a slow reference.

mod build;
mod outside;
mod random;
mod reference;
mod rows;
mod service;
