//! Broken files, lost events, directories that go away.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Lab, service};
use crate::source::{Manifests, Selector};

#[tokio::test]
async fn a_file_that_does_not_parse() {
    let mut lab = Lab::start(&[("a.yaml", service("a", "10.0.0.1")), ("b.yaml", "a: [".into())]).await;
    assert_eq!(
        lab.problems(),
        [
            "File DIR/b.yaml: document 1: a: unclosed bracket '[' (line 1): this part is not used; what the file held \
          before stays"
        ]
    );
    let from = lab.log.len();
    lab.write("a.yaml", &service("a", "10.0.0.2").replace("80", "eighty"));
    lab.until("reported", |lab| lab.problems().len() == 2).await;
    assert_eq!(
        lab.problems()[0],
        "File DIR/a.yaml: document 1: spec.ports[0].port: Service ns/a: invalid i32 (line 6): this part is not \
         used; what the file held before stays"
    );
    assert_eq!((lab.ip("a").as_deref(), lab.told("a", from)), (Some("10.0.0.1"), vec![]));
    lab.write("a.yaml", &service("a", "10.0.0.3"));
    fs::remove_file(lab.path("b.yaml")).unwrap();
    lab.until("mended", |lab| lab.problems().is_empty()).await;
    assert_eq!(lab.ip("a").as_deref(), Some("10.0.0.3"));
}

/// Whoever wrote it meant to isolate somebody: its pods, or all of its namespace where not even these can be told.
#[tokio::test]
async fn a_policy_that_does_not_parse_closes() {
    let policy = |selector: &str, ingress: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: ns, name: p}}\nspec:\n  \
             podSelector: {selector}\n  ingress: {ingress}\n"
        )
    };
    let web = "{matchLabels: {app: web}}";
    let mut lab = Lab::start(&[("a.yaml", policy(web, "{from: [{}]}"))]).await;
    let told = |lab: &Lab| {
        let found: Vec<_> = lab.state.policy().policies("ns").collect();
        let [policy] = found[..] else { panic!("{found:?}") };
        let rules = |rules: &Option<Box<[_]>>| rules.as_ref().map(|rules| rules.len());
        (policy.pods == Selector::default(), rules(&policy.ingress), rules(&policy.egress))
    };
    assert_eq!(told(&lab), (false, Some(0), Some(0)));
    let said = lab.problems().join("\n");
    assert!(
        said.contains("NetworkPolicy ns/p: metadata.name: its pods are isolated in both directions"),
        "{said}"
    );
    lab.write("a.yaml", &policy("all", "[{}]"));
    lab.settle().await;
    assert_eq!(told(&lab), (false, Some(0), Some(0)), "the version before it stays");
    lab.write("a.yaml", &policy(web, "[{}]"));
    lab.until("mended", |lab| told(lab) == (false, Some(1), None)).await;
    fs::remove_file(lab.path("a.yaml")).unwrap();
    lab.until("gone", |lab| lab.state.policy().policies("ns").count() == 0).await;
    lab.write("a.yaml", &policy("all", "[{}]"));
    lab.until("all pods", |lab| lab.state.policy().policies("ns").count() == 1).await;
    assert_eq!(told(&lab), (true, Some(0), Some(0)));
}

#[tokio::test]
async fn what_is_no_text_leaves_all_as_it_was() {
    let mut lab = Lab::start(&[("a.yaml", service("a", "10.0.0.1"))]).await;
    fs::write(lab.path("a.yaml"), b"\xff\xfe").unwrap();
    lab.until("reported", |lab| !lab.problems().is_empty()).await;
    assert_eq!(
        lab.problems(),
        ["File DIR/a.yaml: (file): not UTF-8 (byte 1): what it held before stays in force"]
    );
    assert_eq!(lab.ip("a").as_deref(), Some("10.0.0.1"));
    fs::remove_file(lab.path("a.yaml")).unwrap();
    lab.until("gone", |lab| lab.ip("a").is_none() && lab.problems().is_empty()).await;
}

/// More events than the queue holds, while nobody reads it; then a change whose event is lost.
#[tokio::test]
async fn an_overflow() {
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    let files = [("a.yaml", service("a", "10.0.0.1")), ("b.yaml", service("b", "10.0.0.2"))];
    let mut lab = Lab::start(&files).await;
    let from = lab.log.len();
    // The runtime has one thread, and this is it: the queue fills. Moving a file makes two events.
    fs::write(lab.path("x"), "").unwrap();
    for _ in 0..queue / 4 + 1 {
        fs::rename(lab.path("x"), lab.path("y")).unwrap();
        fs::rename(lab.path("y"), lab.path("x")).unwrap();
    }
    lab.write("a.yaml", &service("a", "10.0.0.9"));
    lab.write("c.yaml", &service("c", "10.0.0.3"));
    fs::remove_file(lab.path("b.yaml")).unwrap();
    lab.until("all found out", |lab| lab.ip("c").is_some() && lab.ip("b").is_none()).await;
    assert_eq!(lab.ip("a").as_deref(), Some("10.0.0.9"));
    assert_eq!(lab.log.len(), from + 3, "{:#?}", &lab.log[from..]);
}

#[tokio::test]
async fn a_directory_is_removed_and_made_again() {
    let files = [("a.yaml", service("a", "10.0.0.1")), ("b.yaml", service("b", "10.0.0.2"))];
    let mut lab = Lab::start(&files).await;
    let from = lab.log.len();
    fs::remove_dir_all(&lab.dir).unwrap();
    lab.until("reported", |lab| !lab.problems().is_empty()).await;
    assert_eq!(
        lab.problems(),
        [
            "File DIR: (directory): No such file or directory (os error 2): what its files held stays in force until \
          it is back"
        ]
    );
    assert_eq!((lab.told("a", from), lab.told("b", from)), (vec![], vec![]), "still in force");

    fs::create_dir(&lab.dir).unwrap();
    lab.until("it is back", |lab| lab.problems().is_empty()).await;
    lab.write("a.yaml", &service("a", "10.0.0.9"));
    lab.until("it is read", |lab| lab.ip("a").as_deref() == Some("10.0.0.9")).await;
    assert_eq!(lab.told("b", from), [], "it may still come");
    lab.until("what did not come back is gone", |lab| lab.ip("b").is_none()).await;
    assert_eq!(lab.told("a", from), [Some("10.0.0.9".into())], "never gone");
}

#[tokio::test]
async fn a_directory_is_missing_with_all_above_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("x/y/manifests");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut lab = Lab::watch(root, dir.clone()).await;
    let from = lab.log.len();
    fs::rename(lab.beside("x"), lab.beside("away")).unwrap();
    // Nothing tells of a directory above that moves; the first event afterwards does not count any more.
    fs::remove_dir_all(lab.beside("away")).unwrap();
    lab.until("reported", |lab| !lab.problems().is_empty()).await;
    fs::create_dir_all(&dir).unwrap();
    lab.until("back", |lab| lab.problems().is_empty()).await;
    lab.write("a.yaml", &service("a", "10.0.0.2"));
    lab.until("read", |lab| lab.ip("a").as_deref() == Some("10.0.0.2")).await;
    assert_eq!(lab.told("a", from), [Some("10.0.0.2".into())]);
}

#[tokio::test]
async fn another_directory_takes_its_place() {
    let mut lab = Lab::start(&[("a.yaml", service("a", "10.0.0.1"))]).await;
    let from = lab.log.len();
    fs::create_dir(lab.beside("next")).unwrap();
    fs::write(lab.beside("next").join("a.yaml"), service("a", "10.0.0.2")).unwrap();
    fs::rename(&lab.dir, lab.beside("old")).unwrap();
    fs::rename(lab.beside("next"), &lab.dir).unwrap();
    lab.until("read", |lab| lab.ip("a").as_deref() == Some("10.0.0.2")).await;
    // The old one does not matter any more, the new one does.
    fs::write(lab.beside("old").join("a.yaml"), service("a", "10.0.0.3")).unwrap();
    lab.write("a.yaml", &service("a", "10.0.0.4"));
    lab.until("watched", |lab| lab.ip("a").as_deref() == Some("10.0.0.4")).await;
    assert_eq!(lab.told("a", from), [Some("10.0.0.2".into()), Some("10.0.0.4".into())]);
    assert_eq!(lab.problems(), [""; 0]);
}

#[tokio::test]
async fn a_link_to_a_directory_turns() {
    let root = tempfile::tempdir().unwrap();
    for (name, ip) in [("one", "10.0.0.1"), ("two", "10.0.0.2")] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join("a.yaml"), service("a", ip)).unwrap();
    }
    let dir = root.path().join("current");
    symlink("one", &dir).unwrap();
    let mut lab = Lab::watch(root, dir.clone()).await;
    assert_eq!(lab.ip("a").as_deref(), Some("10.0.0.1"));
    for target in ["two", "one", "two"] {
        let ip = if target == "one" { "10.0.0.1" } else { "10.0.0.2" };
        symlink(target, lab.beside("current.tmp")).unwrap();
        fs::rename(lab.beside("current.tmp"), &dir).unwrap();
        lab.until("turned", |lab| lab.ip("a").as_deref() == Some(ip)).await;
    }
    assert!(!lab.told("a", 0).contains(&None));
}

#[test]
fn no_directory_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    let error = format!("{:#}", Manifests::open(&missing).unwrap_err());
    assert_eq!(
        error,
        format!("cannot read the manifests in {}: No such file or directory (os error 2)", missing.display())
    );
}
