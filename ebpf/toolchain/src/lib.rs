//! Finds the compiler of the eBPF programs and builds their object. Called by `agent/build.rs`, which embeds the
//! object in the agent, and by `xtask`, which installs what [`find_toolchain`] misses.
//!
//! Compiling for `bpfel-unknown-none` takes three things that belong together: a rustc, a `core` for that target
//! and a `bpf-linker` made with rustc's own version of LLVM. [`find`] knows the two ways of having them: from
//! Debian's packages, or a nightly from rustup that builds `core` itself. [`object`] builds; [`btf`] makes the result the same each time.

pub mod btf;
pub mod find;
pub mod host;
pub mod object;

pub use find::{Kind, Missing, Toolchain, find_toolchain};
pub use object::{BuildError, ObjectRequest, inputs};
