//! Unconnected UDP sockets that live for more than one datagram.

use super::UNCONNECTED;
use crate::cases::spec::{Case, Expect, case, cluster, from, not_ready, ready, service};

pub(super) fn cases() -> Vec<Case> {
    [one_service(), several()].concat()
}

fn one_service() -> Vec<Case> {
    vec![
        case(
            "socket-keeps-backend",
            "an unconnected socket keeps its backend for as long as that is usable",
            UNCONNECTED,
            [
                cluster([service("dns").to(&["n1-b", "n1-c", "n2-a"])]),
                from("n1-a").asks("dns", 80).on("s").often().reaches(&["n1-b", "n1-c", "n2-a"]),
            ],
        ),
        case(
            "socket-keeps-backend-beside-new-ones",
            "new endpoints do not draw a socket away from its backend",
            UNCONNECTED,
            [
                cluster([service("dns").to(&["n1-b"])]),
                from("n1-a").asks("dns", 80).on("s").reaches(&["n1-b"]),
                cluster([service("dns").to(&["n1-b", "n1-c", "n2-a"])]),
                from("n1-a").asks("dns", 80).on("s").often().reaches(&["n1-b"]),
            ],
        ),
        case(
            "socket-moves",
            "a socket moves as soon as its backend is no longer usable (kubernetes#139628)",
            UNCONNECTED,
            [
                cluster([service("dns").to(&["n1-b"])]),
                from("n1-a").asks("dns", 80).on("s").reaches(&["n1-b"]),
                cluster([service("dns").slice([not_ready("n1-b"), ready("n1-c")])]),
                from("n1-a").asks("dns", 80).on("s").often().reaches(&["n1-c"]),
                cluster([service("dns").to(&["n2-a"])]),
                from("n1-a").asks("dns", 80).on("s").often().reaches(&["n2-a"]),
            ],
        ),
        case(
            "socket-refused-and-back",
            "a socket is refused while there is no endpoint, and works again after",
            UNCONNECTED,
            [
                cluster([service("dns").to(&["n1-b"])]),
                from("n1-a").asks("dns", 80).on("s").reaches(&["n1-b"]),
                cluster([service("dns").to(&[])]),
                from("n1-a").asks("dns", 80).on("s").expect(Expect::Refused),
                cluster([service("dns").to(&["n2-a"])]),
                from("n1-a").asks("dns", 80).on("s").reaches(&["n2-a"]),
            ],
        ),
    ]
}

fn several() -> Vec<Case> {
    vec![
        case(
            "one-socket-two-services",
            "one socket that speaks to two Services and to a pod gets each answer from whom it asked",
            UNCONNECTED,
            [
                cluster([service("a").to(&["n1-b"]), service("b").to(&["n2-a"])]),
                from("n1-a").asks("a", 80).on("s").reaches(&["n1-b"]),
                from("n1-a").asks("b", 80).on("s").reaches(&["n2-a"]),
                from("n1-a").asks_place("n1-c", 8080).on("s").reaches(&["n1-c"]),
                from("n1-a").asks("a", 80).on("s").often().reaches(&["n1-b"]),
                from("n1-a").asks("b", 80).on("s").often().reaches(&["n2-a"]),
            ],
        ),
        case(
            "one-socket-one-backend-twice",
            "one socket that reaches one backend through two Services, in turn (cilium#11810)",
            UNCONNECTED,
            [
                cluster([service("a").to(&["n1-b"]), service("b").to(&["n1-b"])]),
                from("n1-a").asks("a", 80).on("s").reaches(&["n1-b"]),
                from("n1-a").asks("b", 80).on("s").reaches(&["n1-b"]),
                from("n1-a").asks("a", 80).on("s").reaches(&["n1-b"]),
            ],
        ),
    ]
}
