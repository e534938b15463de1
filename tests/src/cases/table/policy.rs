//! internalTrafficPolicy and hints.

use super::ALL;
use crate::cases::spec::{Case, Expect, case, cluster, from, ready, service, terminating};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "local-with-local",
            "internalTrafficPolicy Local uses this node's endpoints only (KEP-2086)",
            ALL,
            [
                cluster([service("web").local().to(&["n1-b", "n1-c", "n2-a"])]),
                from("n1-a").asks("web", 80).reaches_every(&["n1-b", "n1-c"]),
                from("n1").asks("web", 80).reaches_every(&["n1-b", "n1-c"]),
                from("n2-b").asks("web", 80).often().reaches(&["n2-a"]),
            ],
        ),
        case(
            "local-without-local",
            "internalTrafficPolicy Local without an endpoint on this node drops, which a socket learns at once",
            ALL,
            [
                cluster([service("web").local().to(&["n2-a"])]),
                from("n1-a").asks("web", 80).expect(Expect::Unreachable),
                from("n1").asks("web", 80).expect(Expect::Unreachable),
                from("n2-b").asks("web", 80).reaches(&["n2-a"]),
            ],
        ),
        case(
            "local-without-any",
            "a Service without any endpoint refuses, whatever its policy (as kube-proxy rejects)",
            ALL,
            [cluster([service("web").local()]), from("n1-a").asks("web", 80).expect(Expect::Refused)],
        ),
        case(
            "local-terminating",
            "the fallback to terminating endpoints is decided for the local set by itself (KEP-1669)",
            ALL,
            [
                cluster([service("web").local().slice([terminating("n1-b"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-b"]),
                from("n2-b").asks("web", 80).often().reaches(&["n2-a"]),
            ],
        ),
        case(
            "node-hints",
            "hints for a node are followed where every endpoint has one and this node is among them (KEP-3015)",
            ALL,
            [
                cluster([service("web")
                    .distribution("PreferSameNode")
                    .slice([ready("n1-b").for_node("n1"), ready("n2-a").for_node("n2")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-b"]),
                from("n2-b").asks("web", 80).often().reaches(&["n2-a"]),
                cluster([service("web")
                    .distribution("PreferSameNode")
                    .slice([ready("n1-b").for_node("n1"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).reaches_every(&["n1-b", "n2-a"]),
            ],
        ),
    ]
}
