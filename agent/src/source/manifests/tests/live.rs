//! The ways in which files come, change and go.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use super::{Lab, replace, service, slice};
use crate::source::{Event, ObjectKey, PodDemand, PolicyDemand};

#[tokio::test]
async fn everything_then_synced_then_changes() {
    let files = [
        ("a.yaml", service("a", "10.0.0.1") + "---\n" + &service("b", "10.0.0.2")),
        ("c.yml", slice("web-1", &["10.1.0.1", "10.1.0.2"])),
        (".hidden.yaml", service("hidden", "10.0.0.3")),
        ("notes.txt", "kind: none".into()),
        ("a.yaml~", service("backup", "10.0.0.4")),
    ];
    let mut lab = Lab::start(&files).await;
    assert_eq!(lab.log.last(), Some(&Event::Synced));
    assert_eq!(lab.log.len(), 5, "{:#?}", lab.log);
    assert_eq!((lab.ip("a").as_deref(), lab.ip("b").as_deref()), (Some("10.0.0.1"), Some("10.0.0.2")));
    assert_eq!(lab.state.counts().endpoints, 2);

    lab.write(
        "d.json",
        &format!(
            "{{{}",
            &r#" "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node",
        "labels": {"topology.kubernetes.io/zone": "z"}}}"#
        ),
    );
    lab.until("a zone", |lab| lab.state.node().zone.as_deref() == Some("z")).await;
    fs::remove_file(lab.path("d.json")).unwrap();
    lab.until("no zone", |lab| lab.state.node().zone.is_none()).await;
}

#[tokio::test]
async fn pods_namespaces_and_policies() {
    let pod = |phase: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: ns, name: web, labels: {{app: web}}}}\nspec:\n  \
             nodeName: node\n  containers: [{{name: c, ports: [{{name: http, containerPort: 8080}}]}}]\nstatus: \
             {{phase: {phase}, podIP: {ip}}}\n"
        )
    };
    let policy = |peer: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: ns, name: allow}}\nspec:\n  \
             podSelector: {{matchLabels: {{app: web}}}}\n  ingress: [{{from: [{{{peer}}}]}}]\n"
        )
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, labels: {team: t}}\n";
    let files = [
        ("pod.yaml", pod("Running", "10.1.0.1")),
        ("namespace.yaml", namespace.into()),
        ("policy.yaml", policy("namespaceSelector: {}")),
    ];
    let mut lab = Lab::start(&files).await;
    let owner =
        |lab: &Lab, ip: &str| lab.state.policy().owner(ip.parse().unwrap()).map(|view| view.name.to_string());
    assert_eq!(owner(&lab, "10.1.0.1").as_deref(), Some("web"));
    assert_eq!(lab.state.policy().namespace("ns").unwrap().labels.value("team"), Some("t"));
    assert_eq!(lab.state.policy().demand(), PolicyDemand::ALL);
    lab.write("pod.yaml", &pod("Running", "10.1.0.2"));
    lab.until("another address", |lab| owner(lab, "10.1.0.2").is_some() && owner(lab, "10.1.0.1").is_none())
        .await;
    lab.write("policy.yaml", &policy("podSelector: {}"));
    lab.until("another peer", |lab| lab.state.policy().demand().pods == PodDemand::Of(["ns".into()].into()))
        .await;

    // What is wrong is named by object and field, and allows nothing.
    lab.write("policy.yaml", &policy("podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}"));
    let wrong = "NetworkPolicy ns/allow: spec.ingress[0].from[0]: ipBlock beside a selector means nothing: this peer \
                 matches nobody";
    lab.until("a problem", |lab| lab.problems().contains(&wrong.to_owned())).await;
    assert_eq!(lab.state.policy().demand().pods, PodDemand::default());
    lab.write("pod.yaml", &pod("Succeeded", "10.1.0.2"));
    lab.until("ended", |lab| owner(lab, "10.1.0.2").is_none()).await;
    for name in ["policy.yaml", "namespace.yaml"] {
        fs::remove_file(lab.path(name)).unwrap();
    }
    lab.until("removed", |lab| lab.state.policy().namespace("ns").is_none() && lab.problems().is_empty())
        .await;
    assert_eq!(lab.state.policy().policies("ns").count(), 0);
}

#[tokio::test]
async fn policies_without_a_namespace() {
    let policy = |action: &str, port: &str| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p, annotations: \
             {{weir.dev/policy-mode: audit}}}}\nspec:\n  tier: Baseline\n  priority: 10\n  subject: {{namespaces: {{}}}}\n  \
             egress:\n  - action: {action}\n    to: [{{networks: [0.0.0.0/0]}}]\n    protocols: [{{tcp: {{destinationPort: \
             {{{port}}}}}}}]\n"
        )
    };
    let mut lab = Lab::start(&[("p.yaml", policy("Deny", "number: 80"))]).await;
    let counts = |lab: &Lab| (lab.state.counts().cluster_policies, lab.state.counts().audited);
    assert_eq!((counts(&lab), lab.problems()), ((1, 1), vec![]));
    lab.write("p.yaml", &policy("Deny", "name: web"));
    let wrong = "ClusterNetworkPolicy p: spec.egress[0].protocols[0].tcp.destinationPort.name: is not known here: this rule \
                 denies everybody everything";
    lab.until("a problem", |lab| lab.problems() == [wrong]).await;
    // What does not name its pods is no policy: the version before stays.
    lab.write("p.yaml", &policy("Deny", "number: 80").replace("namespaces", "services"));
    lab.until("another problem", |lab| lab.problems().len() == 2).await;
    assert_eq!(counts(&lab), (1, 1));
    fs::remove_file(lab.path("p.yaml")).unwrap();
    lab.until("removed", |lab| counts(lab) == (0, 0) && lab.problems().is_empty()).await;
}

#[tokio::test]
async fn rewritten_replaced_removed() {
    let mut lab = Lab::start(&[("a.yaml", service("a", "10.0.0.1"))]).await;
    lab.write("a.yaml", &service("a", "10.0.0.2"));
    lab.until("rewritten", |lab| lab.ip("a").as_deref() == Some("10.0.0.2")).await;
    replace(&lab.path("a.yaml"), &service("a", "10.0.0.3"));
    lab.until("replaced", |lab| lab.ip("a").as_deref() == Some("10.0.0.3")).await;
    fs::rename(lab.path("a.yaml"), lab.path("b.yaml")).unwrap();
    lab.settle().await;
    assert_eq!(lab.ip("a").as_deref(), Some("10.0.0.3"));
    fs::remove_file(lab.path("b.yaml")).unwrap();
    lab.until("removed", |lab| lab.ip("a").is_none()).await;
    let told = lab.told("a", 0);
    let told: Vec<_> = told.iter().map(Option::as_deref).collect();
    assert_eq!(told, [Some("10.0.0.1"), Some("10.0.0.2"), Some("10.0.0.3"), None], "nothing twice, no gap");
}

#[tokio::test]
async fn a_file_counts_when_it_is_closed() {
    // Both halves are valid by themselves, and so is nothing.
    let (first, second) = (service("a", "10.0.0.2"), "---\n".to_owned() + &service("b", "10.0.0.3"));
    for before in [vec![], vec![("a.yaml", service("a", "10.0.0.1"))]] {
        let mut lab = Lab::start(&before).await;
        let from = lab.log.len();
        let mut file = fs::File::create(lab.path("a.yaml")).unwrap();
        lab.settle().await;
        for half in [&first, &second] {
            file.write_all(half.as_bytes()).unwrap();
            file.sync_all().unwrap();
            lab.settle().await;
        }
        assert_eq!((lab.told("a", from), lab.told("b", from)), (vec![], vec![]), "not yet");
        drop(file);
        lab.until("complete", |lab| lab.ip("b").is_some()).await;
        assert_eq!(lab.told("a", from), [Some("10.0.0.2".into())]);
    }
}

/// vim, by default: moves the file away, writes a new one, removes the old one.
#[tokio::test]
async fn an_editor_with_a_backup() {
    let mut lab = Lab::start(&[("a.yaml", service("a", "10.0.0.1"))]).await;
    let from = lab.log.len();
    fs::rename(lab.path("a.yaml"), lab.path("a.yaml~")).unwrap();
    let mut file = fs::File::create(lab.path("a.yaml")).unwrap();
    lab.settle().await;
    lab.settle().await;
    file.write_all(service("a", "10.0.0.2").as_bytes()).unwrap();
    drop(file);
    fs::remove_file(lab.path("a.yaml~")).unwrap();
    lab.until("edited", |lab| lab.ip("a").as_deref() == Some("10.0.0.2")).await;
    assert_eq!(lab.told("a", from), [Some("10.0.0.2".into())], "never gone");
}

#[tokio::test]
async fn links() {
    let mut lab = Lab::start(&[]).await;
    fs::write(lab.beside("one"), service("a", "10.0.0.1")).unwrap();
    fs::write(lab.beside("two"), service("a", "10.0.0.2")).unwrap();
    fs::hard_link(lab.beside("one"), lab.path("hard.yaml")).unwrap();
    lab.until("hard link", |lab| lab.ip("a").as_deref() == Some("10.0.0.1")).await;
    fs::remove_file(lab.path("hard.yaml")).unwrap();
    lab.until("unlinked", |lab| lab.ip("a").is_none()).await;
    symlink(lab.beside("two"), lab.path("soft.yaml")).unwrap();
    lab.until("symbolic link", |lab| lab.ip("a").as_deref() == Some("10.0.0.2")).await;
    symlink(lab.beside("one"), lab.path("soft.tmp")).unwrap();
    fs::rename(lab.path("soft.tmp"), lab.path("soft.yaml")).unwrap();
    lab.until("another target", |lab| lab.ip("a").as_deref() == Some("10.0.0.1")).await;
    assert_eq!(lab.problems(), [""; 0]);
}

/// As the kubelet writes a ConfigMap's volume: files link through `..data`, which is replaced in one step.
#[tokio::test]
async fn a_config_map() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("manifests");
    let version = |name: &str, files: &[(&str, String)]| {
        fs::create_dir_all(dir.join(name)).unwrap();
        for (file, text) in files {
            fs::write(dir.join(name).join(file), text).unwrap();
        }
    };
    version("..1", &[("a.yaml", service("a", "10.0.0.1")), ("b.yaml", service("b", "10.0.0.2"))]);
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    symlink("..data/b.yaml", dir.join("b.yaml")).unwrap();
    let mut lab = Lab::watch(root, dir.clone()).await;
    assert_eq!((lab.ip("a").as_deref(), lab.ip("b").as_deref()), (Some("10.0.0.1"), Some("10.0.0.2")));

    let from = lab.log.len();
    version("..2", &[("a.yaml", service("a", "10.0.0.9")), ("b.yaml", service("b", "10.0.0.2"))]);
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    fs::remove_dir_all(dir.join("..1")).unwrap();
    lab.until("swapped", |lab| lab.ip("a").as_deref() == Some("10.0.0.9")).await;
    assert_eq!(lab.log.len(), from + 1, "b did not change");

    // A key is taken out of the ConfigMap.
    version("..3", &[("a.yaml", service("a", "10.0.0.9"))]);
    symlink("..3", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    fs::remove_file(dir.join("b.yaml")).unwrap();
    lab.until("b is gone", |lab| lab.ip("b").is_none()).await;
    assert_eq!((lab.ip("a").as_deref(), lab.told("a", from + 1)), (Some("10.0.0.9"), vec![]));
}

#[tokio::test]
async fn one_changed_document_of_many() {
    let mut text = String::new();
    for n in 0..50 {
        text += &(service(&format!("s{n}"), &format!("10.0.1.{n}")) + "---\n");
    }
    let mut lab = Lab::start(&[("all.yaml", text.clone())]).await;
    let from = lab.log.len();
    lab.write("all.yaml", &text.replace("10.0.1.7\n", "10.0.2.7\n"));
    lab.until("changed", |lab| lab.ip("s7").as_deref() == Some("10.0.2.7")).await;
    assert_eq!(lab.log.len(), from + 1);
}

#[tokio::test]
async fn two_files_with_one_object() {
    let mut lab =
        Lab::start(&[("a.yaml", service("x", "10.0.0.1")), ("b.yaml", service("x", "10.0.0.2"))]).await;
    assert_eq!(lab.ip("x").as_deref(), Some("10.0.0.1"));
    assert_eq!(
        lab.problems(),
        ["Service ns/x: metadata.name: DIR/a.yaml and DIR/b.yaml both hold this object: DIR/a.yaml is used"]
    );
    fs::remove_file(lab.path("a.yaml")).unwrap();
    lab.until("taken over", |lab| lab.ip("x").as_deref() == Some("10.0.0.2") && lab.problems().is_empty())
        .await;
    assert!(!lab.log.contains(&Event::Service(ObjectKey::new("ns", "x"), None)));
}

#[tokio::test]
async fn it_ends_with_its_receiver() {
    let lab = Lab::start(&[]).await;
    drop(lab.events);
    tokio::time::timeout(super::PATIENCE, lab.run).await.unwrap().unwrap().unwrap();
}
