//! Addresses as the API writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An address, or why there is none. IPv4 with leading zeros is decimal, as in kube-proxy: old objects hold such
/// addresses, and the API server must keep them (KEP-4858).
pub(super) fn parse_addr(text: &str) -> Result<IpAddr, &'static str> {
    let addr = if text.contains(':') {
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        parse_v4(text).map(IpAddr::V4)
    };
    match addr {
        None => Err("no IP address"),
        // It would be an IPv4 address in disguise: in the tables both have the same form.
        Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Err("an IPv4 address mapped into IPv6"),
        Some(addr) => Ok(addr),
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then_some(octets.into())
}

/// A network, its host bits cleared, or why there is none.
pub(super) fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    const NONE: &str = "no network (address/bits)";
    let (addr, bits) = text.split_once('/').ok_or(NONE)?;
    let addr = parse_addr(addr)?;
    // `parse` would take a sign.
    let bits = Some(bits).filter(|bits| bits.bytes().all(|byte| byte.is_ascii_digit()));
    let bits = bits.and_then(|bits| bits.parse().ok()).ok_or(NONE)?;
    IpNet::new(addr, bits).map(|network| network.trunc()).map_err(|_| NONE)
}

/// Why an address can be neither an endpoint's nor a Service's, if so.
pub(super) fn never_remote(addr: IpAddr) -> Option<&'static str> {
    if addr.is_unspecified() {
        return Some("the unspecified address");
    }
    if addr.is_loopback() {
        return Some("a loopback address");
    }
    if addr.is_multicast() {
        return Some("a multicast address");
    }
    if addr == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some("the broadcast address");
    }
    None
}

/// Whether an address is link-local: valid on one link only, and where cloud metadata servers live.
pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let ok = |text: &str, want: &str| assert_eq!(parse_addr(text), Ok(want.parse().unwrap()), "{text}");
        ok("10.0.0.1", "10.0.0.1");
        ok("172.30.0.041", "172.30.0.41");
        ok("010.000.0000.8", "10.0.0.8");
        ok("fd00::1", "fd00::1");
        ok("FD00:0:0:0::1", "fd00::1");
        ok("::", "::");

        let no = |text: &str| assert_eq!(parse_addr(text), Err("no IP address"), "{text}");
        for text in
            ["", "10.0.0", "10.0.0.1.2", "10.0.0.256", "10.0.0.+1", "10.0..1", " 10.0.0.1", "10.0.0.1/32"]
        {
            no(text);
        }
        for text in ["localhost", "fe80::1%eth0", "fd00:::1", "[fd00::1]", "10.0.0.\u{661}", "0x0a.0.0.1"] {
            no(text);
        }
        for text in ["::ffff:10.0.0.1", "::ffff:a00:1"] {
            assert_eq!(parse_addr(text), Err("an IPv4 address mapped into IPv6"), "{text}");
        }
    }
}
