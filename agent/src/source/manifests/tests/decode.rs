//! What a file's text comes to.

use super::super::load::{Content, FileContent, Loaded, load, parse_json, parse_yaml};
use super::{service, slice};

/// The objects as text, the problems, whether some part is lost.
fn outcome(content: FileContent) -> (Vec<String>, Vec<String>, bool) {
    let objects = content.objects.iter().map(|object| {
        let mark = if object.content == Content::Nothing { " (nothing)" } else { "" };
        format!("{}{mark}", object.id)
    });
    let problems = content.problems.finish();
    (objects.collect(), problems.iter().map(ToString::to_string).collect(), content.broken)
}

#[test]
fn every_kind() {
    let text = [
        service("web", "10.0.0.1"),
        slice("web-1", &["10.1.0.1"]),
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}\n".into(),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n".into(),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n".into(),
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n".into(),
        "kind: Service\nmetadata: {name: late}\napiVersion: v1\nspec: {clusterIP: None}\n".into(),
    ]
    .join("---\n");
    let want = [
        "Service ns/web",
        "EndpointSlice ns/web-1",
        "Node n1",
        "Namespace ns",
        "Pod default/p",
        "NetworkPolicy default/deny",
        "Service default/late (nothing)",
    ];
    assert_eq!(outcome(parse_yaml(&text)), (want.map(String::from).into(), vec![], false));
}

/// A bad document, as the second of three, and what is said of it. The others count.
#[test]
fn bad_documents() {
    const LOST: &str = ": this part is not used; what the file held before stays";
    let rows = [
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: ns}\nspec:\n  ports:\n  - port: 1\n  \
             - port: eighty\n",
            "document 2: spec.ports[1].port: Service ns/x: invalid i32 (line 14)",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: 7}\n",
            "document 2: metadata.name: The string value [7] must be quoted (line 10)",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: []\n",
            "document 2: spec: Service x: expected mapping start (line 11)",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostNetwork: 5}\n",
            "document 2: spec.hostNetwork: Pod x: invalid boolean (line 11)",
        ),
        ("apiVersion: v1\nmetadata: {name: x}\n", "document 2: missing field `kind` (line 9)"),
        (
            "kind: Service\nmetadata: {name: x}\n",
            "document 2: Service x: missing field `apiVersion` (line 9)",
        ),
        ("just words\n", "document 2: expected mapping start (line 8)"),
        ("a: [\n", "document 2: a: unclosed bracket '[' (line 8)"),
    ];
    for (bad, want) in rows {
        let text = format!("{}---\n{bad}---\n{}", service("a", "10.0.0.1"), service("b", "10.0.0.2"));
        let (objects, problems, broken) = outcome(parse_yaml(&text));
        assert_eq!(objects, ["Service ns/a", "Service ns/b"], "{bad}");
        assert_eq!(problems, [format!("{want}{LOST}")], "{bad}");
        assert!(broken, "{bad}");
    }
}

#[test]
fn unknown_kinds_and_missing_names() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 1}\n---\n\
                apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: x}\n";
    let problems = vec![
        "document 1: kind: Deployment of apps/v1 is no kind that is read from manifests: ignored".into(),
        "document 2: kind: EndpointSlice of discovery.k8s.io/v1beta1 is no kind that is read from manifests: \
         ignored"
            .into(),
    ];
    assert_eq!(outcome(parse_yaml(text)), (vec![], problems, false));

    let text = "apiVersion: v1\nkind: Service\nmetadata: {generateName: x-}\n";
    let problems = vec!["document 1: metadata.name: missing: this Service is not used".into()];
    assert_eq!(outcome(parse_yaml(text)), (vec![], problems, true));
}

#[test]
fn lists_and_json() {
    let item = |name: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}}, "spec": {{"clusterIP": "10.0.0.1"}}}}"#
        )
    };
    let bad = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": "80"}]}}"#;
    let unknown = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}"#;
    let list = format!(
        "{{\"kind\": \"List\", \"items\": [{}, {bad}, {unknown}, {}],\n\t\"apiVersion\": \"v1\"}}",
        item("a"),
        item("b")
    );
    let objects: Vec<String> = vec!["Service default/a".into(), "Service default/b".into()];
    let problems: Vec<String> = vec![
        "document 1: items[1].spec.ports[0].port: Service x: invalid type: string \"80\", expected i32: this part \
         is not used; what the file held before stays"
            .into(),
        "document 1: items[2].kind: Secret of v1 is no kind that is read from manifests: ignored".into(),
    ];
    assert_eq!(outcome(parse_json(&list)), (objects.clone(), problems.clone(), true));
    assert_eq!(outcome(parse_yaml(&list)), (objects, problems, true), "JSON is YAML");

    assert_eq!(outcome(parse_json(&item("a"))).0, ["Service default/a"]);
    let (objects, problems, broken) = outcome(parse_json("{\n\"apiVersion\": \"v1\",\n\"kind\": 5}"));
    assert_eq!((objects.len(), broken), (0, true));
    assert_eq!(
        problems,
        [
            "document 1: kind: invalid type: integer `5`, expected a string (line 3): this part is not used; what \
          the file held before stays"
        ]
    );
    let trailing = outcome(parse_json(&format!("{} x", item("a"))));
    assert!(
        trailing.2 && trailing.1[0].starts_with("document 1: trailing characters (line 1)"),
        "{trailing:?}"
    );
    assert_eq!(outcome(parse_json(" \n")), (vec![], vec![], false));
}

#[test]
fn a_slice_of_a_hundred_thousand_addresses() {
    let addresses: Vec<String> =
        (0..100_000_u32).map(|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
    let list: Vec<_> = addresses.iter().map(|a| format!("{{\"addresses\": [\"{a}\"]}}")).collect();
    let text = format!(
        "{{\"apiVersion\": \"discovery.k8s.io/v1\", \"kind\": \"EndpointSlice\", \"metadata\": {{\"name\": \"big\", \
         \"labels\": {{\"kubernetes.io/service-name\": \"web\"}}}}, \"addressType\": \"IPv4\", \"endpoints\": [{}]}}",
        list.join(",\n")
    );
    let content = parse_json(&text);
    let [object] = &content.objects[..] else { panic!("{content:?}") };
    assert_eq!(object.content, Content::Nothing);
    assert_eq!(object.id.to_string(), "EndpointSlice default/big");
    assert_eq!(
        object.problems[0].to_string(),
        "endpoints: 100000 items, where the API allows 1000: this slice is not used"
    );
}

/// Aliases that unfold into a million nodes are refused, quickly.
#[test]
fn an_alias_bomb() {
    let mut text = String::from("apiVersion: v1\nkind: List\nx0: &x0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n");
    for n in 1..10 {
        let before = format!("*x{}", n - 1);
        text.push_str(&format!("x{n}: &x{n} [{}]\n", [before.as_str(); 10].join(", ")));
    }
    text.push_str("items: *x9\n");
    let (objects, problems, broken) = outcome(parse_yaml(&text));
    assert_eq!((objects.len(), problems.len(), broken), (0, 1, true), "{problems:?}");
}

#[test]
fn unreadable_files() {
    let dir = tempfile::tempdir().unwrap();
    let said = |name: &str| match load(&dir.path().join(name), false) {
        Loaded::Unreadable(problem) => problem.to_string(),
        other => panic!("{other:?}"),
    };
    std::fs::create_dir(dir.path().join("dir.yaml")).unwrap();
    std::fs::write(dir.path().join("latin1.yaml"), b"# caf\xe9\n").unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let stays = "what it held before stays in force";
    assert_eq!(said("dir.yaml"), format!("(file): not a regular file: {stays}"));
    assert_eq!(said("pipe.yaml"), format!("(file): not a regular file: {stays}"));
    assert_eq!(said("latin1.yaml"), format!("(file): not UTF-8 (byte 6): {stays}"));
    assert!(matches!(load(&dir.path().join("none.yaml"), false), Loaded::Missing));
    std::fs::write(dir.path().join("empty.yaml"), "").unwrap();
    assert!(matches!(load(&dir.path().join("empty.yaml"), true), Loaded::InProgress));
    assert!(matches!(load(&dir.path().join("empty.yaml"), false), Loaded::Read(..)));
}
