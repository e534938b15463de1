//! Many objects: all are there, and a change costs what it is, not what there is.

use super::Lab;
use crate::source::Event;

/// Service `n` and its slice of ten endpoints, as a list in JSON.
fn list(n: usize) -> String {
    let (high, low) = (n >> 8, n & 255);
    let endpoints: Vec<String> = (0..10)
        .map(|e| {
            format!(
                r#"{{"addresses": ["10.{}.{high}.{low}"], "conditions": {{"ready": true}}, "nodeName": "node-{}"}}"#,
                e + 1,
                (n + e) % 500,
            )
        })
        .collect();
    format!(
        r#"{{"apiVersion": "v1", "kind": "List", "items": [
        {{"apiVersion": "v1", "kind": "Service", "metadata": {{"namespace": "ns", "name": "s{n}"}},
          "spec": {{"clusterIP": "10.96.{high}.{low}", "ports": [{{"name": "http", "port": 80}}]}}}},
        {{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
          "metadata": {{"namespace": "ns", "name": "s{n}-1", "labels": {{"kubernetes.io/service-name": "s{n}"}}}},
          "ports": [{{"name": "http", "port": 8080}}], "endpoints": [{}]}}]}}"#,
        endpoints.join(",")
    )
}

#[tokio::test]
async fn ten_thousand_services() {
    let names: Vec<String> = (0..10_000).map(|n| format!("s{n}.json")).collect();
    let files: Vec<_> = names.iter().enumerate().map(|(n, name)| (name.as_str(), list(n))).collect();
    let mut lab = Lab::start(&files).await;
    let counts = lab.state.counts();
    assert_eq!((counts.services, counts.slices, counts.endpoints), (10_000, 10_000, 100_000));
    assert_eq!(lab.problems(), [""; 0]);

    let from = lab.log.len();
    lab.write("s77.json", &list(77).replace("node-77\"", "elsewhere\""));
    lab.until("changed", |lab| lab.log.len() > from).await;
    lab.settle().await;
    let [Event::EndpointSlice(key, Some(slice)), Event::Service(..)] = &lab.log[from..] else {
        panic!("{:#?}", &lab.log[from..]);
    };
    assert_eq!((&*key.name, slice.endpoints[0].node.as_deref()), ("s77-1", Some("elsewhere")));
}
