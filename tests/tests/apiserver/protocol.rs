//! What holds for every API server. Each test gets one as a parameter, writes over HTTP alone, and stays within a
//! namespace of its own.

use serde_json::{Value, json};

use super::client::{Client, End, names, version};

/// Hands all of them to a macro that knows a server.
macro_rules! for_each_test {
    ($run:ident) => {
        $run![
            paging,
            versions_of_a_list,
            selectors_of_a_list,
            a_watch_tells_each_change,
            selectors_of_a_watch,
            pods_by_their_node,
            streaming_list,
            a_watch_ends_with_its_timeout,
            contradictory_options,
            writes_that_conflict,
            the_form_of_objects,
        ];
    };
}
pub(crate) use for_each_test;

/// A server, and a namespace in it.
pub(crate) struct Fixture {
    client: Client,
    namespace: String,
}

impl Fixture {
    pub(crate) async fn new(client: Client, name: &str) -> Self {
        let namespace = name.replace('_', "-");
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        client.send("POST", "/api/v1/namespaces", Some(&object)).await.expect(201);
        Self { client, namespace }
    }

    fn path(&self, rest: &str) -> String {
        format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices{rest}", self.namespace)
    }

    async fn list(&self, query: &str) -> Value {
        self.client.get(&self.path(query)).await.expect(200)
    }

    async fn create(&self, name: &str, labels: Value) -> Value {
        let object = slice(name, labels);
        self.client.send("POST", &self.path(""), Some(&object)).await.expect(201)
    }

    async fn replace(&self, name: &str, labels: Value) -> Value {
        let object = slice(name, labels);
        self.client.send("PUT", &self.path(&format!("/{name}")), Some(&object)).await.expect(200)
    }

    async fn delete(&self, name: &str) {
        self.client.send("DELETE", &self.path(&format!("/{name}")), None).await.expect(200);
    }
}

fn slice(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
    })
}

pub(crate) async fn paging(server: &Fixture) {
    for name in ["a", "b", "c", "d", "e"] {
        server.create(name, json!({})).await;
    }
    let first = server.list("?limit=2").await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // The other pages show what there was when the first was read.
    server.delete("c").await;
    server.create("f", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.list(&format!("?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(version(&second), version(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.list(&format!("?limit=2&continue={token}")).await;
    assert_eq!(names(&third), ["e"]);
    assert_eq!(third["metadata"].get("continue").and_then(Value::as_str).unwrap_or_default(), "");
    assert_eq!(names(&server.list("").await), ["a", "b", "d", "e", "f"]);
    let bad = server.client.get(&server.path(&format!("?continue={token}&resourceVersion=7"))).await;
    assert_eq!(bad.expect(400)["reason"], "BadRequest");
    assert_eq!(server.client.get(&server.path("?continue=x")).await.expect(400)["reason"], "BadRequest");
}

pub(crate) async fn versions_of_a_list(server: &Fixture) {
    let first = version(&server.create("a", json!({})).await);
    server.create("b", json!({})).await;
    let exact = server.list(&format!("?resourceVersion={first}&resourceVersionMatch=Exact")).await;
    assert_eq!((names(&exact), version(&exact)), (vec!["a".to_string()], first));
    // The old form of the same.
    let exact = server.list(&format!("?resourceVersion={first}&limit=10")).await;
    assert_eq!((names(&exact), version(&exact)), (vec!["a".to_string()], first));
    for query in [
        String::new(),
        format!("?resourceVersion={first}"),
        format!("?resourceVersion={first}&resourceVersionMatch=NotOlderThan"),
    ] {
        let list = server.list(&query).await;
        assert_eq!(names(&list), ["a", "b"], "{query}");
        assert!(version(&list) > first, "{query}");
    }
    let future = version(&server.list("").await) + 1_000_000;
    let answer = server.client.get(&server.path(&format!("?resourceVersion={future}&limit=1"))).await;
    let status = answer.expect(504);
    assert_eq!(status["reason"], "Timeout");
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

pub(crate) async fn selectors_of_a_list(server: &Fixture) {
    server.create("a", json!({"app": "web", "tier": "front"})).await;
    server.create("b", json!({"app": "db"})).await;
    server.create("c", json!({})).await;
    for (query, expected) in [
        ("labelSelector=app%3Dweb", &["a"][..]),
        ("labelSelector=app%21%3Dweb", &["b", "c"]),
        ("labelSelector=app+in+(web,db),!tier", &["b"]),
        ("labelSelector=app+notin+(db)", &["a", "c"]),
        ("labelSelector=app", &["a", "b"]),
        ("labelSelector=%21app", &["c"]),
        ("fieldSelector=metadata.name%3Db", &["b"]),
        ("fieldSelector=metadata.name!%3Db", &["a", "c"]),
        ("fieldSelector=metadata.namespace%3Delsewhere", &[]),
    ] {
        assert_eq!(names(&server.list(&format!("?{query}")).await), expected, "{query}");
    }
    // What does not match does not count, and how much remains is not said.
    let page = server.list("?labelSelector=app&limit=1").await;
    assert_eq!(names(&page), ["a"]);
    assert_eq!(page["metadata"].get("remainingItemCount"), None);
    assert_ne!(page["metadata"]["continue"], Value::Null);
    let bad = server.client.get(&server.path("?fieldSelector=spec.x%3Da")).await.expect(400);
    assert!(bad["message"].as_str().unwrap().contains("\"spec.x\" is not a known field selector"), "{bad}");
}

pub(crate) async fn a_watch_tells_each_change(server: &Fixture) {
    server.create("a", json!({})).await;
    let start = version(&server.list("").await);
    let mut watch = server.client.watch(&server.path(&format!("?watch=1&resourceVersion={start}"))).await;
    let added = version(&server.create("b", json!({})).await);
    let modified = version(&server.replace("b", json!({"x": "y"})).await);
    assert_eq!(version(&server.replace("b", json!({"x": "y"})).await), modified, "nothing changed");
    server.delete("b").await;
    assert_eq!(watch.next_brief().await, ("ADDED".into(), "b".into(), added));
    assert_eq!(watch.next_brief().await, ("MODIFIED".into(), "b".into(), modified));
    let (kind, name, deleted) = watch.next_brief().await;
    assert_eq!((&*kind, &*name), ("DELETED", "b"));
    assert!(deleted > modified, "a deletion has a version of its own");
    // Resuming from the middle, and from where all was told.
    let mut resumed =
        server.client.watch(&server.path(&format!("?watch=true&resourceVersion={modified}"))).await;
    assert_eq!(resumed.next_brief().await, ("DELETED".into(), "b".into(), deleted));
    let mut resumed = server.client.watch(&server.path(&format!("?watch&resourceVersion={deleted}"))).await;
    server.create("c", json!({})).await;
    assert_eq!(resumed.next_names(1).await, ["ADDED c"]);
    // Without a version, or with 0: first what there is.
    for query in ["?watch=1", "?watch=1&resourceVersion=0"] {
        let mut watch = server.client.watch(&server.path(query)).await;
        assert_eq!(watch.next_names(2).await, ["ADDED a", "ADDED c"], "{query}");
    }
}

pub(crate) async fn selectors_of_a_watch(server: &Fixture) {
    let start = version(&server.list("").await);
    let path = |query: &str| server.path(&format!("?watch=1&resourceVersion={start}&{query}"));
    let mut web = server.client.watch(&path("labelSelector=app%3Dweb")).await;
    let mut named = server.client.watch(&path("fieldSelector=metadata.name%3Db")).await;
    server.create("a", json!({"app": "db"})).await;
    server.replace("a", json!({"app": "web"})).await;
    server.replace("a", json!({"app": "web", "x": "y"})).await;
    let left = version(&server.replace("a", json!({"app": "db"})).await);
    server.create("b", json!({"app": "web"})).await;
    assert_eq!(web.next_names(2).await, ["ADDED a", "MODIFIED a"]);
    let event = web.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "web", "what was known last");
    assert_eq!(version(&event["object"]), left);
    assert_eq!(web.next_names(1).await, ["ADDED b"]);
    assert_eq!(named.next_names(1).await, ["ADDED b"]);
}

/// Pods are told apart by where they run and whether they have ended; a change of that ends them for a watch.
pub(crate) async fn pods_by_their_node(server: &Fixture) {
    const NOT_ENDED: &str = "status.phase!%3DSucceeded,status.phase!%3DFailed";
    let path = format!("/api/v1/namespaces/{}/pods", server.namespace);
    let create = async |name: &str, node: Option<&str>| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        if let Some(node) = node {
            pod["spec"]["nodeName"] = node.into();
        }
        server.client.send("POST", &path, Some(&pod)).await.expect(201)
    };
    for (name, node) in [("a", Some("one")), ("b", Some("two")), ("c", None)] {
        create(name, node).await;
    }
    let list = async |selector: &str| {
        names(&server.client.get(&format!("{path}?fieldSelector={selector}")).await.expect(200))
    };
    assert_eq!(list(&format!("spec.nodeName%3Done,{NOT_ENDED}")).await, ["a"]);
    assert_eq!(list("spec.nodeName!%3Done").await, ["b", "c"]);
    let elsewhere = format!("spec.nodeName!%3Done,spec.nodeName!%3D,{NOT_ENDED}");
    assert_eq!(list(&elsewhere).await, ["b"]);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.client.watch(&format!("{path}?fieldSelector={elsewhere}&{query}")).await;
    assert_eq!(watch.next_names(2).await, ["ADDED b", "BOOKMARK "]);
    create("d", Some("one")).await;
    create("e", Some("three")).await;
    server.client.send("DELETE", &format!("{path}/b?gracePeriodSeconds=0"), None).await.expect(200);
    assert_eq!(watch.next_names(1).await, ["ADDED e"]);
    // A real server may first note when it was deleted.
    while watch.next_names(1).await != ["DELETED b"] {}
}

pub(crate) async fn streaming_list(server: &Fixture) {
    server.create("a", json!({})).await;
    let query = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.client.watch(&server.path(query)).await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "BOOKMARK");
    assert_eq!(event["object"]["kind"], "EndpointSlice");
    assert_eq!(event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(version(&event["object"]) > 0);
    server.create("b", json!({})).await;
    assert_eq!(watch.next_names(1).await, ["ADDED b"]);
    // Without the initial events: only what comes.
    let query = "?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let mut watch = server.client.watch(&server.path(query)).await;
    server.create("c", json!({})).await;
    assert_eq!(watch.next_names(1).await, ["ADDED c"]);
}

pub(crate) async fn a_watch_ends_with_its_timeout(server: &Fixture) {
    let mut watch = server.client.watch(&server.path("?watch=1&timeoutSeconds=1&resourceVersion=0")).await;
    assert_eq!(watch.next().await, Err(End::Whole(String::new())));
}

pub(crate) async fn contradictory_options(server: &Fixture) {
    for (query, text) in [
        (
            "resourceVersionMatch=Exact",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        ("resourceVersion=1&resourceVersionMatch=Some", "Unsupported value: \"Some\""),
        ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
        (
            "watch=1&sendInitialEvents=true",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ] {
        let status = server.client.get(&server.path(&format!("?{query}"))).await.expect(422);
        assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("Invalid")), "{query}");
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("ListOptions.meta.k8s.io \"\" is invalid: "), "{message}");
        assert!(message.contains(text), "{message}");
    }
    let status = server.client.get(&server.path("?resourceVersion=x")).await.expect(400);
    assert_eq!(status["reason"], "BadRequest");
}

pub(crate) async fn writes_that_conflict(server: &Fixture) {
    let first = server.create("a", json!({})).await;
    let status = server.client.send("POST", &server.path(""), Some(&slice("a", json!({})))).await.expect(409);
    assert_eq!(status["reason"], "AlreadyExists");
    assert_eq!(status["message"], "endpointslices.discovery.k8s.io \"a\" already exists");
    server.replace("a", json!({"x": "y"})).await;
    let status = server.client.send("PUT", &server.path("/a"), Some(&first)).await.expect(409);
    assert_eq!(status["reason"], "Conflict");
    assert!(status["message"].as_str().unwrap().starts_with("Operation cannot be fulfilled on "), "{status}");
    server.delete("a").await;
    for method in ["GET", "DELETE"] {
        let status = server.client.send(method, &server.path("/a"), None).await.expect(404);
        assert_eq!(status["message"], "endpointslices.discovery.k8s.io \"a\" not found");
        assert_eq!(
            status["details"],
            json!({"name": "a", "group": "discovery.k8s.io", "kind": "endpointslices"})
        );
    }
    let status = server.client.get("/api/v1/nonsense").await.expect(404);
    assert_eq!((&status["reason"], &status["details"]), (&json!("NotFound"), &json!({})));
    assert_eq!(server.client.get("/apis/no.such.group/v1/things").await.text, "404 page not found\n");
}

pub(crate) async fn the_form_of_objects(server: &Fixture) {
    let created = server.create("a", json!({})).await;
    let list = server.list("").await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("EndpointSliceList"), &json!("discovery.k8s.io/v1"))
    );
    let item = &list["items"][0];
    assert_eq!((item.get("kind"), item.get("apiVersion")), (None, None));
    assert_eq!(item["metadata"]["uid"], created["metadata"]["uid"]);
    let replaced = server.replace("a", json!({"x": "y"})).await;
    assert_eq!(replaced["metadata"]["uid"], created["metadata"]["uid"]);
    server.delete("a").await;
    let again = server.create("a", json!({})).await;
    assert_ne!(again["metadata"]["uid"], created["metadata"]["uid"]);
    let namespace = server.client.get(&format!("/api/v1/namespaces/{}", server.namespace)).await.expect(200);
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], *server.namespace);
    let everywhere = server.client.get("/apis/discovery.k8s.io/v1/endpointslices").await.expect(200);
    assert!(names(&everywhere).contains(&"a".to_string()));
    assert!(
        server.client.get("/version").await.expect(200)["gitVersion"].as_str().unwrap().starts_with("v1.")
    );
}
