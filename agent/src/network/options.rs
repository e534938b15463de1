//! What a person can say about this node's network.

use std::net::IpAddr;

use anyhow::Context as _;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What to take for what. The default finds out by itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Exactly these devices lead to other nodes and the world (`--devices`); `None`: found out.
    pub devices: Option<GlobSet>,
    /// What comes by these devices of pods may have any source (`--trusted-devices`).
    pub trusted: Option<GlobSet>,
    /// What these pods send may have any source, by namespace and name (`--trusted-pods`).
    pub trusted_pods: Option<GlobSet>,
    /// The node's own addresses, at most one of each family (`--node-ip`); of a family without: found out.
    pub node_ips: Vec<IpAddr>,
}

impl Options {
    /// Names and globs, as this option has them: of devices, or of pods, where no part of a glob is for namespace and name at once.
    ///
    /// # Errors
    /// Which is no glob.
    pub fn devices(option: &'static str, patterns: &[String]) -> anyhow::Result<Option<GlobSet>> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(GlobBuilder::new(pattern).literal_separator(true).build().context(option)?);
        }
        Ok(Some(set.build().context(option)?))
    }
}
