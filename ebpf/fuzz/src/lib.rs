//! What holds of the datapath, the policy compiler and the reader of manifests whatever they meet.
//!
//! A fuzzer's bytes become a small [`world`] and steps through it, or a packet; each [`Target`] runs them and panics
//! where something does not hold. Called by libFuzzer (`targets/`, through `cargo xtask fuzz`), by the tests, which
//! replay the named files of `regressions/`, and by the program `replay`, which measures what a corpus reaches.

mod check;
mod compiler;
mod counted;
mod frame;
mod guarded;
mod manifests;
mod packet;
mod pool;
mod socket;
mod wire;
mod world;

use std::str::FromStr;

/// What a fuzzer can be pointed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// From objects to the tables of policies.
    Compiler,
    /// Policies at the hooks of pods.
    Guarded,
    /// From text to objects.
    Manifests,
    /// Translation per packet, from the bytes of a frame to those of what becomes of it.
    Packet,
    /// Translation at the socket.
    Socket,
    /// The parser alone, beside another's.
    Wire,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Compiler, Self::Guarded, Self::Manifests, Self::Packet, Self::Socket, Self::Wire];

    /// As it is called on the command line, and its folder under `regressions/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compiler => "compiler",
            Self::Guarded => "guarded",
            Self::Manifests => "manifests",
            Self::Packet => "packet",
            Self::Socket => "socket",
            Self::Wire => "wire",
        }
    }

    /// Tries one input.
    ///
    /// # Panics
    /// Where something does not hold that should: that is a bug of the datapath's, or of what is expected of it.
    pub fn run(self, data: &[u8]) {
        match self {
            Self::Compiler => compiler::run(data),
            Self::Guarded => guarded::run(data),
            Self::Manifests => manifests::run(data),
            Self::Packet => packet::run(data),
            Self::Socket => socket::run(data),
            Self::Wire => wire::run(data),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or(format!("no target {name}"))
    }
}
