//! What the demo tries.

use super::attempt::{Attempt, To};
use crate::cases::Expect;
use crate::prober::How;

use How::{Tcp, UdpConnected, UdpUnconnected};
use To::{Balancer, NodePort, Pod, Service};

const fn attempt(
    from: &'static str,
    to: To,
    how: How,
    times: u32,
    expect: Expect,
    wanted: &'static str,
) -> Attempt {
    Attempt { from, to, how, times, expect, wanted }
}

const BOTH: Expect = Expect::Every(&["web-1", "web-2"]);
const DNS: Expect = Expect::One(&["dns-1"]);

/// With everything as the manifests say.
pub(super) const SERVICES: &[Attempt] = &[
    attempt("shop", Service("web", 80), Tcp, 40, BOTH, "both endpoints share"),
    attempt("shop", Service("web", 80), UdpConnected, 40, BOTH, "both endpoints share"),
    attempt("n1", Service("web", 80), Tcp, 40, BOTH, "the same from a node"),
    attempt("n2", Service("web", 80), UdpUnconnected, 40, BOTH, "the same from a node"),
    attempt("web-1", Service("web", 80), Tcp, 40, BOTH, "also the client itself"),
    attempt("shop", Service("web", 9090), Tcp, 40, BOTH, "another port of the Service"),
    attempt("shop", Service("dns", 53), UdpUnconnected, 10, DNS, "the other node"),
    attempt("shop", Service("dns", 53), Tcp, 10, DNS, "the other node"),
    attempt("dns-1", Service("dns", 53), UdpConnected, 10, DNS, "itself (hairpin)"),
    attempt("shop", Service("shop", 80), Tcp, 10, Expect::One(&["shop"]), "itself (hairpin)"),
    attempt(
        "shop",
        Service("cart", 80),
        Tcp,
        40,
        Expect::One(&["web-1", "web-2"]),
        "always the same (affinity)",
    ),
    attempt("shop", Service("cache", 6379), Tcp, 10, Expect::One(&["web-1"]), "local endpoint only"),
    attempt("web-2", Service("cache", 6379), Tcp, 1, Expect::Unreachable, "no local endpoint: unreachable"),
    attempt(
        "n2",
        Service("cache", 8125),
        UdpUnconnected,
        1,
        Expect::Unreachable,
        "no local endpoint: unreachable",
    ),
    attempt("shop", Service("queue", 5672), Tcp, 1, Expect::Refused, "no endpoint: refused at once"),
    attempt("n1", Service("queue", 5672), UdpConnected, 1, Expect::Refused, "no endpoint: refused at once"),
    attempt("shop", Service("web", 443), Tcp, 1, Expect::Refused, "no such port: refused at once"),
    attempt("shop", Service("mesh", 80), Tcp, 1, Expect::Untouched, "another proxy's: left alone"),
    attempt("shop", Pod("web-2", 8080), Tcp, 1, Expect::One(&["web-2"]), "a pod's address: left alone"),
];

/// From outside the cluster. Whose answer is shown saw the client's own address.
pub(super) const OUTSIDE: &[Attempt] = &[
    attempt("outside", NodePort(1, "web", 80), Tcp, 10, Expect::One(&["web-1"]), "n1's own, sees the client"),
    attempt(
        "outside",
        NodePort(1, "web", 80),
        UdpUnconnected,
        10,
        Expect::One(&["web-1"]),
        "n1's own, sees the client",
    ),
    attempt("outside", NodePort(2, "web", 80), Tcp, 10, Expect::One(&["web-2"]), "n2's own, sees the client"),
    attempt(
        "outside",
        Balancer("web", 80),
        Tcp,
        10,
        Expect::One(&["web-1"]),
        "routed to n1, sees the client",
    ),
    attempt(
        "outside",
        Balancer("web", 9090),
        Tcp,
        10,
        Expect::One(&["web-1"]),
        "another port of the Service",
    ),
    attempt("shop", Balancer("web", 80), Tcp, 40, BOTH, "from inside: any endpoint"),
    attempt("outside", NodePort(2, "queue", 5672), Tcp, 1, Expect::Refused, "no endpoint: refused at once"),
];

/// With web-1 not ready.
pub(super) const AFTER_CHANGE: &[Attempt] = &[
    attempt("shop", Service("web", 80), Tcp, 40, Expect::One(&["web-2"]), "only web-2"),
    attempt("n1", Service("web", 80), UdpUnconnected, 40, Expect::One(&["web-2"]), "only web-2"),
    attempt("shop", Service("cart", 80), Tcp, 40, Expect::One(&["web-2"]), "affinity moves"),
    attempt("shop", Service("cache", 6379), Tcp, 1, Expect::Refused, "no endpoint is ready: refused"),
];

/// With no agent running, new connections.
pub(super) const WITHOUT_AGENTS: &[Attempt] = &[
    attempt("shop", Service("web", 80), Tcp, 40, Expect::One(&["web-2"]), "as before"),
    attempt("n2", Service("dns", 53), UdpConnected, 40, DNS, "as before"),
    attempt("shop", Service("queue", 5672), Tcp, 1, Expect::Refused, "as before"),
];
