//! What a person can say about this node's network.

use std::net::IpAddr;

use anyhow::Context as _;
use globset::{Glob, GlobSet, GlobSetBuilder};

/// What to take for what. The default finds out by itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Exactly these devices lead to other nodes and the world (`--devices`); `None`: found out.
    pub devices: Option<GlobSet>,
    /// What comes by these devices of pods may have any source (`--trusted-devices`).
    pub trusted: Option<GlobSet>,
    /// The node's own addresses, at most one of each family (`--node-ip`); of a family without: found out.
    pub node_ips: Vec<IpAddr>,
}

impl Options {
    /// Names and globs of devices, as this option has them.
    ///
    /// # Errors
    /// Which is no glob.
    pub fn devices(option: &'static str, patterns: &[String]) -> anyhow::Result<Option<GlobSet>> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(Glob::new(pattern).context(option)?);
        }
        Ok(Some(set.build().context(option)?))
    }
}
