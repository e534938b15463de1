//! Claims, winners and the fewest events, without files.

use std::sync::Arc;

use super::super::catalog::Catalog;
use super::super::load::parse_yaml;
use super::{service, slice};
use crate::source::{Event, Problem};

/// Names and ClusterIPs of Services; `bad` is a document that does not decode.
fn put(catalog: &mut Catalog, file: &str, services: &[(&str, &str)]) -> Vec<String> {
    let documents: Vec<String> = services
        .iter()
        .map(|(name, ip)| if *name == "bad" { "bad".into() } else { service(name, ip) })
        .collect();
    catalog.replace(&Arc::from(file), parse_yaml(&documents.join("\n---\n")));
    told(catalog)
}

fn drop(catalog: &mut Catalog, file: &str) -> Vec<String> {
    catalog.remove(&Arc::from(file));
    told(catalog)
}

/// The events in short: `a=IP`, `a gone`, `Service ns/a: what is wrong`.
fn told(catalog: &mut Catalog) -> Vec<String> {
    let short = |event| match event {
        Event::Service(key, Some(service)) => format!("{}={}", key.name, service.cluster_ips[0]),
        Event::Service(key, None) => format!("{} gone", key.name),
        Event::EndpointSlice(key, slice) => {
            format!("{} {:?}", key.name, slice.map(|slice| slice.endpoints.len()))
        }
        Event::Problems(object, problems) => {
            let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
            format!("{object}: {problems:?}")
        }
        other => format!("{other:?}"),
    };
    catalog.take_events().into_iter().map(short).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_real_changes_are_told() {
    let mut catalog = Catalog::default();
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.1"), ("b", "10.0.0.2")]), ["a=10.0.0.1", "b=10.0.0.2"]);
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.1"), ("b", "10.0.0.2")]), NOTHING);
    assert_eq!(put(&mut catalog, "f", &[("b", "10.0.0.2"), ("a", "10.0.0.3")]), ["a=10.0.0.3"]);
    assert_eq!(put(&mut catalog, "f", &[("b", "10.0.0.2")]), ["a gone"]);
    assert_eq!(put(&mut catalog, "f", &[("b", "None")]), ["b gone"], "headless: not ours any more");
    assert_eq!(put(&mut catalog, "f", &[]), NOTHING);
    assert_eq!(drop(&mut catalog, "f"), NOTHING);
    assert_eq!(drop(&mut catalog, "unknown"), NOTHING);
}

#[test]
fn an_object_moves_between_files() {
    let mut catalog = Catalog::default();
    put(&mut catalog, "f", &[("a", "10.0.0.1")]);
    // Both files change before the next look: nothing changed.
    catalog.replace(&Arc::from("f"), parse_yaml(""));
    assert_eq!(put(&mut catalog, "g", &[("a", "10.0.0.1")]), NOTHING);
    assert_eq!(drop(&mut catalog, "f"), NOTHING);
    assert_eq!(drop(&mut catalog, "g"), ["a gone"]);
}

#[test]
fn the_first_file_wins_and_the_next_takes_over() {
    let mut catalog = Catalog::default();
    assert_eq!(put(&mut catalog, "g", &[("a", "10.0.0.2")]), ["a=10.0.0.2"]);
    let both = r#"Service ns/a: ["metadata.name: f and g both hold this object: f is used"]"#;
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.1")]), ["a=10.0.0.1", both]);
    assert_eq!(put(&mut catalog, "g", &[("a", "10.0.0.9")]), NOTHING, "it does not count");
    assert_eq!(drop(&mut catalog, "f"), ["a=10.0.0.9", "Service ns/a: []"]);
    assert_eq!(put(&mut catalog, "h", &[("a", "10.0.0.3")]).len(), 1, "said again");
    assert_eq!(drop(&mut catalog, "h"), ["Service ns/a: []"]);
}

#[test]
fn twice_in_one_file() {
    let mut catalog = Catalog::default();
    let twice =
        r#"Service ns/a: ["metadata.name: f holds this object more than once: the first one is used"]"#;
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.1"), ("a", "10.0.0.2")]), ["a=10.0.0.1", twice]);
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.2")]), ["a=10.0.0.2", "Service ns/a: []"]);
    assert_eq!(drop(&mut catalog, "f"), ["a gone"]);
}

#[test]
fn what_a_broken_file_held_stays() {
    let mut catalog = Catalog::default();
    put(&mut catalog, "f", &[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")]);
    // b cannot be read; a changed; c was taken out, or stood where "bad" stands: it stays as well.
    let told = put(&mut catalog, "f", &[("a", "10.0.0.9"), ("bad", "")]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "a=10.0.0.9");
    assert!(told[1].starts_with(r#"File f: ["document 2: expected mapping start (line "#), "{told:?}");
    // Still broken, and b is back: the same document is as bad as before.
    assert_eq!(put(&mut catalog, "f", &[("b", "10.0.0.7"), ("bad", "")]), ["b=10.0.0.7"]);
    // Whole again: now what is not there is gone.
    assert_eq!(put(&mut catalog, "f", &[("b", "10.0.0.7")]), ["a gone", "c gone", "File f: []"]);
}

#[test]
fn what_became_unusable_stays_as_it_was() {
    let mut catalog = Catalog::default();
    put(&mut catalog, "f", &[("a", "10.0.0.1")]);
    let unusable = r#"Service ns/a: ["spec.clusterIP: \"10.0.0.256\" is no IP address: this address is not served", "metadata.name: nothing of this version can be used: the version before it stays in force"]"#;
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.256")]), [unusable]);
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.256")]), NOTHING);
    assert_eq!(put(&mut catalog, "f", &[("a", "10.0.0.3")]), ["a=10.0.0.3", "Service ns/a: []"]);
    put(&mut catalog, "f", &[("a", "10.0.0.256")]);
    assert_eq!(put(&mut catalog, "f", &[]), ["a gone", "Service ns/a: []"]);
}

#[test]
fn problems_of_a_part_leave_the_rest() {
    let mut catalog = Catalog::default();
    catalog.replace(&Arc::from("f"), parse_yaml(&slice("web-1", &["10.0.0.1", "fd00::1", "10.0.0.3"])));
    assert_eq!(
        told(&mut catalog),
        [
            "web-1 Some(2)",
            r#"EndpointSlice ns/web-1: ["endpoints[1].addresses[0]: fd00::1 is no IPv4 address, as addressType says: this endpoint is not used"]"#
        ]
    );
    assert_eq!(drop(&mut catalog, "f"), ["web-1 None", "EndpointSlice ns/web-1: []"]);
}

#[test]
fn an_unreadable_file_keeps_its_objects() {
    let mut catalog = Catalog::default();
    put(&mut catalog, "f", &[("a", "10.0.0.1")]);
    let problem = Problem { field: "(file)".into(), message: "no".into() };
    catalog.set_faults(&Arc::from("f"), vec![problem]);
    assert_eq!(told(&mut catalog), [r#"File f: ["(file): no"]"#]);
    assert_eq!(drop(&mut catalog, "f"), ["a gone", "File f: []"]);
}
