//! The reader of manifests: any text, between two objects that are as they should be. Nothing panics, and the two are what they
//! are alone.

use weir_agent::source::read_manifest;

const FIRST: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: first\n  labels: {team: one}\n";
const LAST: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: one, name: last}\n\
                    spec:\n  podSelector: {}\n  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]\n";

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let alone = |text: &str| read_manifest(text, false);
    let (first, last) = (alone(FIRST), alone(LAST));
    assert!(first.len() == 1 && last.len() == 1);
    let all = alone(&format!("{FIRST}---\n{text}\n---\n{LAST}"));
    assert_eq!(all.first(), first.first(), "what comes after it changes the first object");
    assert_eq!(all.last(), last.last(), "what comes before it changes the last object");
    // The text by itself is the same objects as between others.
    let inner = alone(&format!("---\n{text}\n"));
    assert_eq!(all.get(1..all.len() - 1), Some(&inner[..]));
    // A file of JSON is one document.
    let _nothing_panics = read_manifest(&text, true);
}
