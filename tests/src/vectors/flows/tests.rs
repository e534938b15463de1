//! The harness itself: on objects of its own, so that it is proved where the vectors are not.

use super::*;

const STATES: &str = r#"[{
    "name": "small",
    "node": {"name": "here", "ip": "192.168.0.2", "localIPs": ["192.168.0.2", "127.0.0.1"]},
    "options": {
        "ipFamily": "IPv4", "nodePortAddresses": ["0.0.0.0/0"], "localhostNodePorts": true,
        "localDetector": {"mode": "ClusterCIDR", "clusterCIDR": "10.0.0.0/8"}
    },
    "services": [{
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "NodePort", "clusterIP": "172.30.0.1", "externalIPs": ["192.0.2.7"],
            "ports": [
                {"name": "a", "protocol": "TCP", "port": 80, "nodePort": 30080},
                {"name": "b", "protocol": "UDP", "port": 53}
            ]
        }
    }],
    "endpointSlices": [{
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [
            {"addresses": ["10.0.1.1"], "nodeName": "here"}, {"addresses": ["10.0.1.2"]}, {"addresses": ["10.0.1.3"]}
        ],
        "ports": [{"name": "a", "protocol": "TCP", "port": 8080}]
    }],
    "flowsAsserted": true,
    "flows": [
        {"name": "pod", "sourceIP": "10.0.0.2", "protocol": "TCP", "destIP": "172.30.0.1", "destPort": 80,
         "outcome": "dnat", "output": ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.1.3:8080"], "masq": false},
        {"name": "node", "sourceIP": "192.168.0.2", "protocol": "UDP", "destIP": "172.30.0.1", "destPort": 53,
         "outcome": "reject", "output": ["REJECT"], "masq": false},
        {"name": "other port", "sourceIP": "10.0.0.2", "protocol": "TCP", "destIP": "172.30.0.1", "destPort": 81,
         "outcome": "pass", "output": [], "masq": false},
        {"name": "outside", "sourceIP": "203.0.113.1", "protocol": "TCP", "destIP": "172.30.0.1", "destPort": 80,
         "outcome": "dnat", "output": ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.1.3:8080"], "masq": true},
        {"name": "external", "sourceIP": "203.0.113.1", "protocol": "UDP", "destIP": "192.0.2.7", "destPort": 53,
         "outcome": "reject", "output": ["REJECT"], "masq": false},
        {"name": "node port", "sourceIP": "10.0.1.1", "protocol": "TCP", "destIP": "192.168.0.2", "destPort": 30080,
         "outcome": "dnat", "output": ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.1.3:8080"], "masq": true},
        {"name": "localhost", "sourceIP": "127.0.0.1", "protocol": "TCP", "destIP": "127.0.0.1", "destPort": 30080,
         "outcome": "dnat", "output": ["10.0.1.1:8080", "10.0.1.2:8080", "10.0.1.3:8080"], "masq": true}
    ]
}]"#;

fn states() -> Vec<State> {
    serde_json::from_str(STATES).unwrap()
}

#[test]
fn flows_of_every_origin_pass_and_are_counted() {
    let tally = judge(&states());
    assert_eq!(
        (tally.passed(), tally.pending(), tally.failed()),
        (7, 0, 0),
        "{tally} {:?}",
        tally.cases().collect::<Vec<_>>()
    );
    assert_eq!(count_asserted(&states()).unwrap(), 7);
}

#[test]
fn every_altered_expectation_fails() {
    let altered = altered(&states());
    let tally = judge(&altered);
    assert_eq!((tally.passed(), tally.pending(), tally.failed()), (0, 0, altered.len()), "{tally}");
    // Of each flow to backends 6, of the others 2; and two with `masq`: from outside, and from a backend itself.
    assert_eq!(altered.len(), 4 * 6 + 3 * 2 + 2);
}

/// `masq` of each flow, turned round; whether that is still within the rule.
#[test]
fn masq_may_become_less_and_never_more() {
    let flip = |name: &str| {
        let mut states = states();
        let flow = states[0].flows.iter_mut().find(|flow| flow.name == name).unwrap();
        flow.masq = !flow.masq;
        let flow = flow.clone();
        states[0].flows = vec![flow];
        judge(&states).failed() == 0
    };
    assert!(flip("pod"), "true may become false where the client is on this node");
    assert!(!flip("outside"), "a backend elsewhere would not answer by way of this node");
    assert!(!flip("node port"), "a pod that reaches itself by packets is hidden from itself");
    assert!(flip("localhost"), "false is what is found");
}

/// A backend too few or too many in the tables is seen, whichever it is.
#[test]
fn a_changed_endpoint_fails() {
    for lost in 0..3 {
        let mut states = states();
        let endpoint = &mut states[0].endpoint_slices[0].endpoints[lost];
        endpoint.conditions =
            Some(discovery::EndpointConditions { ready: Some(false), ..Default::default() });
        assert_eq!(judge(&states).failed(), 4);
    }
    let mut states = states();
    let slice = &mut states[0].endpoint_slices[0];
    slice
        .endpoints
        .push(discovery::Endpoint { addresses: vec!["10.0.1.4".to_owned()], ..Default::default() });
    assert_eq!(judge(&states).failed(), 4);
}

#[test]
fn a_bad_object_fails_the_flows_of_its_state() {
    let mut states = states();
    states[0].endpoint_slices[0].endpoints[0].addresses = vec!["fd00::1".to_owned()];
    assert_eq!(judge(&states).failed(), 7);
}

#[test]
fn a_state_that_hides_its_flows_is_noticed() {
    let mut states = states();
    states[0].flows_asserted = false;
    assert!(count_asserted(&states).is_err());
}
