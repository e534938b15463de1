//! At which addresses of the node its node ports are served (kube-proxy: `--nodeport-addresses`).

use std::str::FromStr;

use ipnet::IpNet;
use weir_ebpf::abi::AddressUses;

use crate::source::NodeAddress;

/// The choice. Loopback addresses serve sockets of the node alone, whatever it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum NodePortAddresses {
    /// Every address, loopback addresses included.
    #[default]
    All,
    /// The primary address of each family (KEP-3866), and loopback addresses. kube-proxy leaves those out, because its
    /// rules can serve them in IPv4 alone and at the price of a sysctl; at the socket neither holds.
    Primary,
    /// Addresses in these networks; `0.0.0.0/0` has the node's IPv4 addresses, `127.0.0.1` among them.
    Networks(Vec<IpNet>),
}

impl NodePortAddresses {
    /// What an address of the node is used for.
    #[must_use]
    pub fn uses(&self, address: NodeAddress) -> AddressUses {
        let served = match self {
            Self::All => true,
            Self::Primary => address.primary || address.addr.is_loopback(),
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address.addr)),
        };
        match (served, address.addr.is_loopback()) {
            (false, _) => AddressUses::NODE,
            (true, false) => AddressUses::NODE.and(AddressUses::NODE_PORTS),
            (true, true) => AddressUses::NODE.and(AddressUses::NODE_PORTS).and(AddressUses::LOOPBACK),
        }
    }
}

impl FromStr for NodePortAddresses {
    type Err = String;

    /// `primary`, or networks with commas between them; nothing means all.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::All),
            "primary" => Ok(Self::Primary),
            networks => networks.split(',').map(parse_network).collect::<Result<_, _>>().map(Self::Networks),
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is neither `primary` nor a network (address/bits)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: AddressUses = AddressUses::NODE;

    /// The choice as it is typed, an address, whether it is a primary one; what it is used for beside being the node's.
    #[test]
    fn uses() {
        let served = AddressUses::NODE_PORTS;
        let nothing = AddressUses::default();
        let rows = [
            ("", "192.0.2.1", false, served),
            ("", "2001:db8::1", false, served),
            ("", "127.0.0.1", false, served.and(AddressUses::LOOPBACK)),
            ("", "::1", false, served.and(AddressUses::LOOPBACK)),
            ("primary", "192.0.2.1", true, served),
            ("primary", "192.0.2.2", false, nothing),
            ("primary", "127.0.0.1", false, served.and(AddressUses::LOOPBACK)),
            ("primary", "::1", false, served.and(AddressUses::LOOPBACK)),
            ("192.0.2.0/24", "192.0.2.1", false, served),
            ("192.0.2.0/24", "198.51.100.1", true, nothing),
            ("192.0.2.0/24", "127.0.0.1", false, nothing),
            ("192.0.2.0/24", "2001:db8::1", true, nothing),
            ("0.0.0.0/0, 2001:db8::/32", "2001:db8::1", false, served),
            ("0.0.0.0/0, 2001:db8::/32", "2001:db9::1", false, nothing),
            ("0.0.0.0/0", "127.0.0.1", false, served.and(AddressUses::LOOPBACK)),
            ("127.0.0.0/8", "127.0.0.1", false, served.and(AddressUses::LOOPBACK)),
            ("::1/128", "::1", false, served.and(AddressUses::LOOPBACK)),
        ];
        for (typed, addr, primary, more) in rows {
            let choice: NodePortAddresses = typed.parse().unwrap();
            let address = NodeAddress { addr: addr.parse().unwrap(), primary };
            assert_eq!(choice.uses(address), NODE.and(more), "{typed}: {addr}");
        }
    }

    #[test]
    fn what_is_neither_is_named() {
        for text in ["Primary", "192.0.2.1", "192.0.2.0/24,", "192.0.2.0/24,primary", "x"] {
            let error = text.parse::<NodePortAddresses>().unwrap_err();
            assert!(error.contains("is neither"), "{text}: {error}");
        }
    }
}
