//! Who reaches whom through a ClusterIP.

use super::ALL;
use crate::cases::spec::{Case, Expect, case, cluster, from, ready, service};

pub(super) fn cases() -> Vec<Case> {
    [reach(), shares(), changes(), untouched()].concat()
}

fn reach() -> Vec<Case> {
    vec![
        case(
            "endpoints-anywhere",
            "a pod reaches an endpoint on its own node, on another node, and itself (hairpin)",
            ALL,
            [
                cluster([
                    service("near").to(&["n1-b"]),
                    service("far").to(&["n2-a"]),
                    service("self").to(&["n1-a"]),
                ]),
                from("n1-a").asks("near", 80).reaches(&["n1-b"]),
                from("n1-a").asks("far", 80).reaches(&["n2-a"]),
                from("n1-a").asks("self", 80).reaches(&["n1-a"]),
                from("n2-a").asks("near", 80).reaches(&["n1-b"]),
            ],
        ),
        case(
            "from-the-node",
            "the node's own processes reach endpoints on their node and on another",
            ALL,
            [
                cluster([service("near").to(&["n1-b"]), service("far").to(&["n2-a"])]),
                from("n1").asks("near", 80).reaches(&["n1-b"]),
                from("n1").asks("far", 80).reaches(&["n2-a"]),
                from("n2").asks("far", 80).reaches(&["n2-a"]),
            ],
        ),
        case(
            "host-network-endpoint",
            "an endpoint may be a node's own process",
            ALL,
            [
                cluster([service("here").to(&["n1"]), service("there").to(&["n2"])]),
                from("n1-a").asks("here", 80).reaches(&["n1"]),
                from("n1-a").asks("there", 80).reaches(&["n2"]),
                from("n1").asks("here", 80).reaches(&["n1"]),
            ],
        ),
    ]
}

fn shares() -> Vec<Case> {
    vec![
        case(
            "endpoints-share",
            "every ready endpoint of every slice gets its part (EndpointSlice: a Service may have many)",
            ALL,
            [
                cluster([service("web").to(&["n1-b", "n1-c"]).to(&["n2-a"])]),
                from("n1-a").asks("web", 80).reaches_every(&["n1-b", "n1-c", "n2-a"]),
                from("n1").asks("web", 80).reaches_every(&["n1-b", "n1-c", "n2-a"]),
            ],
        ),
        case(
            "two-ports",
            "each port of a Service leads to the endpoints' port of the same name",
            ALL,
            [
                cluster([service("web").port("admin", 9090, 8081).to(&["n1-b"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-b"]),
                from("n1-a").asks("web", 9090).reaches(&["n1-b"]),
            ],
        ),
        case(
            "two-families",
            "each family of a dual-stack Service has its own endpoints (KEP-563)",
            ALL,
            [
                cluster([service("web").slice([ready("n1-b").only(4), ready("n2-a").only(6)])]),
                from("n1-a").asks("web", 80).often().expect(Expect::PerFamily("n1-b", "n2-a")),
            ],
        ),
    ]
}

fn changes() -> Vec<Case> {
    vec![
        case(
            "endpoint-moves",
            "a new socket goes where the endpoints are now",
            ALL,
            [
                cluster([service("web").to(&["n1-b"])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-b"]),
                cluster([service("web").to(&["n2-a"])]),
                from("n1-a").asks("web", 80).often().reaches(&["n2-a"]),
                cluster([service("web").to(&["n2-a", "n1-c"])]),
                from("n1-a").asks("web", 80).reaches_every(&["n2-a", "n1-c"]),
            ],
        ),
        case(
            "port-changes",
            "the old port of a Service is refused as soon as the new one is served",
            ALL,
            [
                cluster([service("web").to(&["n1-b"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-b"]),
                from("n1-a").asks("web", 9090).expect(Expect::Refused),
                cluster([service("web").port("admin", 9090, 8081).to(&["n1-b"])]),
                from("n1-a").asks("web", 9090).reaches(&["n1-b"]),
            ],
        ),
        case(
            "services-apart",
            "Services do not mix, whatever happens to the other one",
            ALL,
            [
                cluster([service("a").to(&["n1-b"]), service("b").to(&["n2-a"])]),
                from("n1-a").asks("a", 80).often().reaches(&["n1-b"]),
                from("n1-a").asks("b", 80).often().reaches(&["n2-a"]),
                cluster([service("a").to(&["n1-b"]), service("b")]),
                from("n1-a").asks("a", 80).often().reaches(&["n1-b"]),
                from("n1-a").asks("b", 80).expect(Expect::Refused),
                cluster([service("a").to(&["n1-b"])]),
                from("n1-a").asks("a", 80).often().reaches(&["n1-b"]),
            ],
        ),
    ]
}

fn untouched() -> Vec<Case> {
    vec![
        case(
            "direct",
            "traffic to a pod's own address is not for us, also when the pod is an endpoint",
            ALL,
            [
                cluster([service("web").to(&["n1-b", "n2-a"])]),
                from("n1-a").asks_place("n1-b", 8080).reaches(&["n1-b"]),
                from("n1-a").asks_place("n2-a", 8081).reaches(&["n2-a"]),
                from("n1-a").asks_place("n1-a", 8080).reaches(&["n1-a"]),
                from("n1").asks_place("n2-b", 8080).reaches(&["n2-b"]),
            ],
        ),
        case(
            "service-proxy-name",
            "a Service with this label is another proxy's (KEP-2447)",
            ALL,
            [
                cluster([service("theirs")
                    .foreign("service.kubernetes.io/service-proxy-name")
                    .to(&["n1-b"])]),
                from("n1-a").asks("theirs", 80).expect(Expect::Untouched),
                from("n1").asks("theirs", 80).expect(Expect::Untouched),
            ],
        ),
        case(
            "headless-label",
            "a Service with this label is served by nobody",
            ALL,
            [
                cluster([
                    service("quiet").foreign("service.kubernetes.io/headless").to(&["n1-b"]),
                    service("web").to(&["n1-c"]),
                ]),
                from("n1-a").asks("quiet", 80).expect(Expect::Untouched),
                from("n1-a").asks("web", 80).reaches(&["n1-c"]),
            ],
        ),
    ]
}
