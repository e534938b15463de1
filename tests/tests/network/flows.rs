//! Flows that are forgotten, and those that are not.

use std::collections::HashSet;
use std::net::SocketAddr;

use nix::time::{ClockId, clock_gettime};
use weir_agent::kernel::{
    Generation, Swept, flow_backends, flow_forms, flows_to, insert_flow, remove_flows, sweep_flows,
};
use weir_ebpf::abi::{Flow, Form, Peer, Protocol, ServiceId, Signs};

use crate::stage::Stage;

fn now_s() -> u32 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap().tv_sec().try_into().unwrap()
}

fn peer(text: &str) -> Peer {
    text.parse::<SocketAddr>().unwrap().into()
}

/// A flow from this port that began some time ago.
fn flow(port: u16, ago_s: u32) -> Flow {
    let client = peer(&format!("198.51.100.1:{port}"));
    Flow::new(client, peer("192.0.2.1:30080"), peer("10.244.2.7:8080"), ServiceId(1), now_s() - ago_s)
}

/// How long before its last packet a flow begins here: more than a question and its answer take.
const BEFORE_S: u32 = 10;

/// Begins it, with what was seen of both ends and how long ago.
fn begin(
    generation: &Generation,
    protocol: Protocol,
    flow: &Flow,
    client: (u32, Signs),
    backend: (u32, Signs),
) {
    let mut rows = vec![
        (Form::Received, if backend.1 == Signs(0) { 0 } else { now_s() - backend.0 }, backend.1),
        (Form::Dialled, now_s() - client.0, client.1),
    ];
    if flow.hides_client() {
        rows.push((Form::Forwarded, 0, Signs(0)));
    }
    insert_flow(generation, protocol, flow, &rows).unwrap();
}

#[test]
fn flows_are_swept_when_their_lifetime_is_over_and_all_rows_together() {
    let mut stage = Stage::new("sweep");
    let (_, generation, _hooks) = stage.load();
    let nothing = (0, Signs(0));
    let seen = |ago_s| (ago_s, Signs::SEEN.and(Signs::ACK));
    let fin = |ago_s| (ago_s, Signs::SEEN.and(Signs::ACK).and(Signs::FIN));
    let reset = |ago_s| (ago_s, Signs::SEEN.and(Signs::RST));
    // Protocol, client, backend; whether it stays. Ten seconds and more from every limit.
    let rows = [
        (Protocol::Udp, seen(0), nothing, true),
        (Protocol::Udp, seen(60), nothing, false),
        (Protocol::Udp, seen(60), seen(60), true),
        (Protocol::Udp, seen(300), seen(300), false),
        (Protocol::Udp, seen(300), seen(5), true),
        (Protocol::Tcp, seen(60), nothing, true),
        (Protocol::Tcp, seen(200), nothing, false),
        (Protocol::Tcp, seen(600), seen(600), true),
        (Protocol::Tcp, fin(60), fin(60), false),
        (Protocol::Tcp, fin(5), fin(5), true),
        (Protocol::Tcp, fin(200), seen(200), true),
        (Protocol::Tcp, seen(60), reset(60), false),
        (Protocol::Sctp, seen(60), seen(60), true),
        (Protocol::Sctp, seen(400), seen(400), false),
    ];
    for (port, (protocol, client, backend, _)) in (1000..).zip(rows) {
        let mut flow = flow(port, client.0.max(backend.0) + BEFORE_S);
        if port % 2 == 0 {
            flow.set_source(Peer { port: weir_ebpf::abi::Port::new(port + 10_000), ..peer("192.0.2.1:1") });
        }
        begin(&generation, protocol, &flow, client, backend);
    }
    let swept = sweep_flows(&generation, Swept::default()).unwrap();
    assert_eq!(swept.flows, rows.iter().filter(|row| !row.3).count());
    for (port, (protocol, client, backend, stays)) in (1000..).zip(rows) {
        let mut flow = flow(port, client.0.max(backend.0) + BEFORE_S);
        let mut expected = vec![Form::Dialled, Form::Received];
        if port % 2 == 0 {
            flow.set_source(Peer { port: weir_ebpf::abi::Port::new(port + 10_000), ..peer("192.0.2.1:1") });
            expected.insert(1, Form::Forwarded);
        }
        let forms = forms(&generation, protocol, &flow);
        assert_eq!(forms, if stays { expected } else { Vec::new() }, "{protocol} {client:?} {backend:?}");
    }
    assert_eq!(sweep_flows(&generation, Swept::default()).unwrap().flows, 0);
}

/// Those that are there, whatever second it began in: the clock may have gone on.
fn forms(generation: &Generation, protocol: Protocol, flow: &Flow) -> Vec<Form> {
    let found = (0..5).map(|later| {
        let mut flow = *flow;
        flow.begun_s -= later;
        flow_forms(generation, protocol, &flow).unwrap()
    });
    found.max_by_key(Vec::len).unwrap()
}

#[test]
fn what_is_left_of_a_flow_goes_in_the_end() {
    let mut stage = Stage::new("orphans");
    let (_, generation, _hooks) = stage.load();
    let (young, old, foreign) = (flow(1, 30), flow(2, 90), flow(3, 90));
    for flow in [&young, &old, &foreign] {
        insert_flow(&generation, Protocol::Udp, flow, &[(Form::Received, 0, Signs(0))]).unwrap();
    }
    // Another flow of the same client that began in the same second is no reason to keep it.
    let mut other = foreign;
    other.set_source(peer("192.0.2.1:20000"));
    begin(&generation, Protocol::Udp, &other, (0, Signs::SEEN), (0, Signs::SEEN));
    assert_eq!(sweep_flows(&generation, Swept::default()).unwrap().flows, 0, "no flow was forgotten");
    assert_eq!(flow_forms(&generation, Protocol::Udp, &young).unwrap(), [Form::Received]);
    for gone in [&old, &foreign] {
        assert_eq!(flow_forms(&generation, Protocol::Udp, gone).unwrap(), []);
    }
    assert_eq!(flow_forms(&generation, Protocol::Udp, &other).unwrap().len(), 3);
}

#[test]
fn flows_of_a_backend_that_is_gone_go_and_no_others() {
    let mut stage = Stage::new("gone");
    let (_, generation, _hooks) = stage.load();
    let (tcp, mut udp) = (flow(1, 10), flow(2, 10));
    udp.set_source(peer("192.0.2.1:20000"));
    for (protocol, flow) in [(Protocol::Tcp, &tcp), (Protocol::Udp, &udp)] {
        begin(&generation, protocol, flow, (0, Signs::SEEN), (0, Signs::SEEN));
    }
    let all = [Form::Dialled, Form::Forwarded, Form::Received];
    assert_eq!(flow_forms(&generation, Protocol::Udp, &udp).unwrap(), all);
    let backends = flow_backends(&generation).unwrap();
    let backend = |protocol| (ServiceId(1), peer("10.244.2.7:8080"), protocol);
    assert_eq!(backends, HashSet::from([backend(Protocol::Tcp), backend(Protocol::Udp)]));
    let remove = |stale: &[_]| {
        let flows = flows_to(&generation, &stale.iter().copied().collect()).unwrap();
        remove_flows(&generation, &flows).unwrap();
        flows.len()
    };
    assert_eq!(remove(&[]), 0);
    // The client begins anew; an answer on its way is translated.
    assert_eq!(remove(&[backend(Protocol::Udp)]), 1);
    assert_eq!(flow_forms(&generation, Protocol::Udp, &udp).unwrap(), all[1..]);
    assert_eq!(flow_forms(&generation, Protocol::Tcp, &tcp).unwrap().len(), 2);
    assert_eq!(remove(&[backend(Protocol::Udp)]), 0);
    // The stack tells both ends of a connection.
    assert_eq!(remove(&[backend(Protocol::Tcp)]), 1);
    assert_eq!(flow_forms(&generation, Protocol::Tcp, &tcp).unwrap(), []);
}

#[test]
fn a_flow_that_began_in_the_place_of_one_stays() {
    let mut stage = Stage::new("instead");
    let (_, generation, _hooks) = stage.load();
    let before = flow(1, 10);
    begin(&generation, Protocol::Tcp, &before, (0, Signs::SEEN), (0, Signs::SEEN));
    let backend = (ServiceId(1), peer("10.244.2.7:8080"), Protocol::Tcp);
    let listed = flows_to(&generation, &HashSet::from([backend])).unwrap();
    assert_eq!(listed.len(), 1);
    remove_flows(&generation, &listed).unwrap();
    // The same client, the same backend, the same second; another, which was not there when they were listed.
    let mut again = before;
    again.set_source(peer("192.0.2.1:20000"));
    let other = flow(2, 10);
    for flow in [&again, &other] {
        begin(&generation, Protocol::Tcp, flow, (0, Signs::SEEN), (0, Signs::SEEN));
    }
    remove_flows(&generation, &listed).unwrap();
    assert_eq!(flow_forms(&generation, Protocol::Tcp, &again).unwrap().len(), 3);
    assert_eq!(flow_forms(&generation, Protocol::Tcp, &other).unwrap().len(), 2);
}
