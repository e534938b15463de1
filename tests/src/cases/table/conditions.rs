//! Ready, serving, terminating (KEP-1672, KEP-1669).

use super::ALL;
use crate::cases::spec::{Case, Expect, case, cluster, from, not_ready, ready, service, terminating};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "not-ready",
            "an endpoint that is not ready gets nothing",
            ALL,
            [
                cluster([service("web").slice([not_ready("n1-b"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n2-a"]),
                cluster([service("web").slice([not_ready("n1-b"), not_ready("n2-a")])]),
                from("n1-a").asks("web", 80).expect(Expect::Refused),
            ],
        ),
        case(
            "terminating-beside-ready",
            "a terminating endpoint gets nothing new while another is ready",
            ALL,
            [
                cluster([service("web").slice([terminating("n1-b"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n2-a"]),
            ],
        ),
        case(
            "terminating-alone",
            "terminating endpoints that still serve are used when no ready one is left",
            ALL,
            [
                cluster([service("web").slice([
                    terminating("n1-b"),
                    not_ready("n1-c"),
                    terminating("n2-a"),
                ])]),
                from("n1-a").asks("web", 80).reaches_every(&["n1-b", "n2-a"]),
            ],
        ),
        case(
            "terminating-not-serving",
            "a terminating endpoint that no longer serves gets nothing",
            ALL,
            [
                cluster([service("web").slice([terminating("n1-b").not_serving()])]),
                from("n1-a").asks("web", 80).expect(Expect::Refused),
            ],
        ),
        case(
            "readiness-comes-and-goes",
            "each change of a condition counts for the next socket",
            ALL,
            [
                cluster([service("web").slice([ready("n1-b"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).reaches_every(&["n1-b", "n2-a"]),
                cluster([service("web").slice([ready("n1-b"), not_ready("n2-a")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n1-b"]),
                cluster([service("web").slice([terminating("n1-b"), ready("n2-a")])]),
                from("n1-a").asks("web", 80).often().reaches(&["n2-a"]),
            ],
        ),
    ]
}
