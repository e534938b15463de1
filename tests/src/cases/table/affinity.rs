//! sessionAffinity ClientIP.

use super::ALL;
use crate::cases::spec::{Case, Expect, case, cluster, from, not_ready, ready, service};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "affinity-sticks",
            "a client keeps its backend over many sockets, also when others appear",
            ALL,
            [
                cluster([service("web").affinity().to(&["n1-b"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-b"]),
                cluster([service("web").affinity().to(&["n1-b", "n1-c", "n2-a"])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-b"]),
            ],
        ),
        case(
            "affinity-any-then-one",
            "whichever backend a client got first, it keeps; the node and a pod are different clients",
            ALL,
            [
                cluster([service("web").affinity().to(&["n1-b", "n1-c", "n2-a"])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-b", "n1-c", "n2-a"]),
                from("n1").asks("web", 80).often().reaches(&["n1-b", "n1-c", "n2-a"]),
            ],
        ),
        case(
            "affinity-moves",
            "affinity ends when the backend is gone, and holds for the next one",
            ALL,
            [
                cluster([service("web").affinity().to(&["n1-b"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-b"]),
                cluster([service("web").affinity().to(&["n1-c", "n2-a"])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-c", "n2-a"]),
            ],
        ),
        case(
            "affinity-readiness",
            "affinity ends with the endpoint's readiness (kubernetes#110302)",
            ALL,
            [
                cluster([service("web").affinity().to(&["n1-b"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-b"]),
                cluster([service("web").affinity().slice([not_ready("n1-b"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n2-a"]),
                cluster([service("web").affinity().slice([not_ready("n1-b"), not_ready("n2-a")])]),
                from("n1-a").asks("web", 80).expect(Expect::Refused),
            ],
        ),
    ]
}
