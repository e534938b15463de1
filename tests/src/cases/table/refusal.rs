//! Where nobody is to answer.

use super::{ALL, UDP};
use crate::cases::spec::{Case, Expect, case, cluster, from, service};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "no-endpoint",
            "a Service without endpoints refuses at once (as kube-proxy rejects)",
            ALL,
            [
                cluster([service("empty"), service("emptied").to(&[])]),
                from("n1-a").asks("empty", 80).expect(Expect::Refused),
                from("n1-a").asks("emptied", 80).expect(Expect::Refused),
                from("n1").asks("empty", 80).expect(Expect::Refused),
            ],
        ),
        case(
            "endpoints-gone-and-back",
            "a Service refuses while it has no endpoint, and no longer",
            ALL,
            [
                cluster([service("web").to(&["n1-b"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-b"]),
                cluster([service("web").to(&[])]),
                from("n1-a").asks("web", 80).expect(Expect::Refused),
                cluster([service("web").to(&["n1-c"])]),
                from("n1-a").asks("web", 80).reaches(&["n1-c"]),
            ],
        ),
        case(
            "unknown-port",
            "a ClusterIP refuses ports that no Service has (as kube-proxy's nftables backend)",
            ALL,
            [
                cluster([service("web").to(&["n1-b"])]),
                from("n1-a").asks("web", 81).expect(Expect::Refused),
                from("n1-a").asks("web", 8080).expect(Expect::Refused),
                from("n1").asks("web", 81).expect(Expect::Refused),
            ],
        ),
        case(
            "other-protocol",
            "a port is one protocol's: UDP to a TCP port is refused",
            UDP,
            [
                cluster([service("web").only(&["TCP"]).to(&["n1-b"])]),
                from("n1-a").asks("web", 80).expect(Expect::Refused),
            ],
        ),
    ]
}
