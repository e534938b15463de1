//! What a person can say about this node's network.

use std::net::IpAddr;

use globset::{Glob, GlobSet, GlobSetBuilder};
use ipnet::IpNet;

/// What to take for what. The default finds out by itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Exactly these devices lead to other nodes and the world (`--devices`); `None`: found out.
    pub devices: Option<GlobSet>,
    /// Where node ports are served.
    pub node_port_addresses: NodePortAddresses,
    /// The node's own addresses, at most one of each family (`--node-ip`); of a family without: found out.
    pub node_ips: Vec<IpAddr>,
}

impl Options {
    /// Names and globs of devices.
    ///
    /// # Errors
    /// Which is no glob.
    pub fn devices(patterns: &[String]) -> anyhow::Result<Option<GlobSet>> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(Glob::new(pattern)?);
        }
        Ok(Some(set.build()?))
    }
}

/// At which of this node's addresses node ports are served (kube-proxy's `--nodeport-addresses`, with the default of
/// its nftables mode).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum NodePortAddresses {
    /// The node's own address of each family.
    #[default]
    Primary,
    /// Those in these networks.
    Networks(Vec<IpNet>),
}

impl NodePortAddresses {
    /// `primary`, or networks.
    ///
    /// # Errors
    /// Which is no network.
    pub fn parse(words: &[String]) -> anyhow::Result<Self> {
        match words {
            [] => Ok(Self::Primary),
            [word] if word == "primary" => Ok(Self::Primary),
            words => {
                let parse = |word: &String| {
                    word.parse().map_err(|_| {
                        anyhow::anyhow!("--node-port-addresses: {word} is no network such as 192.0.2.0/24")
                    })
                };
                words.iter().map(parse).collect::<anyhow::Result<_>>().map(Self::Networks)
            }
        }
    }

    pub(super) fn serves(&self, addr: IpAddr, primary: &[Option<IpAddr>; 2]) -> bool {
        match self {
            Self::Primary => primary.contains(&Some(addr)),
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&addr)),
        }
    }
}
