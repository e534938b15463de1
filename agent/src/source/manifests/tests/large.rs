//! Many objects: all are there, and a change costs what it is, not what there is.

use std::fs;

use super::super::Reader;
use super::{Lab, service};
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

#[tokio::test]
async fn only_what_changed_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name).with_extension("yaml"), service(name, "10.0.0.1")).unwrap();
    }
    let mut reader = Reader::new(dir.path()).unwrap();
    reader.refresh().await.unwrap();
    assert_eq!(reader.catalog.take_events().len(), 3);

    assert!(reader.scan());
    assert!(reader.changes.ready.is_empty(), "a second look finds nothing new: {:?}", reader.changes);
    fs::write(dir.path().join("b.yaml"), service("b", "10.0.0.22")).unwrap();
    assert!(reader.scan());
    assert_eq!(reader.changes.ready.keys().map(|name| &**name).collect::<Vec<_>>(), ["b.yaml"]);
    reader.changes.ready.clear();
    reader.watcher.drain(&mut reader.changes).unwrap();
    assert_eq!(reader.changes.ready.keys().map(|name| &**name).collect::<Vec<_>>(), ["b.yaml"]);
    reader.refresh().await.unwrap();
    assert_eq!(reader.catalog.take_events().len(), 1);
}
