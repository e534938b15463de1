//! Tokens and rules, and that requests, connections and watches are counted.

use serde_json::json;
use weir_tests::apiserver::{ApiServer, Resource, Rule};

use super::client::{Client, names};

#[tokio::test]
async fn tokens() {
    let server = ApiServer::start().await.unwrap();
    let admin = Client::of(&server);
    let status = admin.clone().with_token(Some("nonsense")).get("/api/v1/pods").await.expect(401);
    assert_eq!((&status["reason"], &status["message"]), (&json!("Unauthorized"), &json!("Unauthorized")));
    let nobody = admin.clone().with_token(None);
    let status = nobody.get("/api/v1/pods").await.expect(403);
    let text = "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the \
                cluster scope";
    assert_eq!(status["message"], text);
    let status = nobody.get("/apis").await.expect(403);
    assert_eq!(status["message"], "forbidden: User \"system:anonymous\" cannot get path \"/apis\"");
    nobody.get("/version").await.expect(200);
    server.grant("t", "u", vec![Rule::new(&["pods"], &["list"])]);
    let user = admin.with_token(Some("t"));
    user.get("/api/v1/pods").await.expect(200);
    server.revoke("t");
    user.get("/api/v1/pods").await.expect(401);
}

#[tokio::test]
async fn rules() {
    let server = ApiServer::start().await.unwrap();
    let user = "system:serviceaccount:kube-system:weir";
    let mut there = Rule::new(&["pods"], &["list"]);
    there.namespace = Some("n".into());
    server.grant("t", user, vec![Rule::new(&["services"], &["list", "watch"]), there]);
    let client = Client::of(&server).with_token(Some("t"));
    client.get("/api/v1/services").await.expect(200);
    client.watch("/api/v1/services?watch=1").await;
    client.get("/api/v1/namespaces/n/pods").await.expect(200);
    let slices = "/apis/discovery.k8s.io/v1";
    for (path, what) in [
        (
            format!("{slices}/endpointslices?watch=1"),
            "endpointslices.discovery.k8s.io is forbidden: User \"U\" cannot watch resource \"endpointslices\" in API \
             group \"discovery.k8s.io\" at the cluster scope",
        ),
        (
            format!("{slices}/namespaces/n/endpointslices"),
            "endpointslices.discovery.k8s.io is forbidden: User \"U\" cannot list resource \"endpointslices\" in API \
             group \"discovery.k8s.io\" in the namespace \"n\"",
        ),
        (
            "/api/v1/nodes?fieldSelector=metadata.name%3Done".into(),
            "nodes \"one\" is forbidden: User \"U\" cannot list resource \"nodes\" in API group \"\" at the cluster \
             scope",
        ),
        (
            "/api/v1/namespaces/m/pods".into(),
            "pods is forbidden: User \"U\" cannot list resource \"pods\" in API group \"\" in the namespace \"m\"",
        ),
    ] {
        let status = client.get(&path).await.expect(403);
        assert_eq!((&status["reason"], &status["code"]), (&json!("Forbidden"), &json!(403)));
        assert_eq!(status["message"], what.replace("\"U\"", &format!("{user:?}")), "{path}");
    }
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}});
    let status =
        client.send("POST", "/apis/events.k8s.io/v1/namespaces/n/events", Some(&event)).await.expect(403);
    assert!(status["message"].as_str().unwrap().contains("cannot create resource \"events\""), "{status}");
}

#[tokio::test]
async fn a_further_resource() {
    let server = ApiServer::start().await.unwrap();
    server.register(Resource::new("coordination.k8s.io/v1", "leases", "Lease", true));
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    server.put(&lease).unwrap();
    let list =
        Client::of(&server).get("/apis/coordination.k8s.io/v1/namespaces/default/leases").await.expect(200);
    assert_eq!(names(&list), ["l"]);
    let unknown = json!({"apiVersion": "v2", "kind": "Lease", "metadata": {"name": "l"}});
    assert!(server.put(&unknown).unwrap_err().to_string().contains("v2 Lease is not registered"));
    assert!(server.delete("Lease", "default", "m").is_err());
}

#[tokio::test]
async fn what_clients_do_is_seen() {
    let server = ApiServer::start().await.unwrap();
    let client = Client::of(&server);
    client.get("/api/v1/pods?labelSelector=a%3Db&limit=5").await.expect(200);
    let watch = client.watch("/api/v1/pods?watch=1").await;
    server.until(|server| server.counts().watches_open == 1).await;
    drop(watch);
    server.until(|server| server.counts().watches_open == 0 && server.counts().connections_open == 0).await;
    assert_eq!(server.counts().connections_accepted, 2);
    let [list, watch] = &server.requests()[..] else { panic!("{:?}", server.requests()) };
    assert_eq!((&*list.method, &*list.path, list.status), ("GET", "/api/v1/pods", Some(200)));
    assert_eq!((list.parameter("labelSelector").as_deref(), list.is_watch()), (Some("a=b"), false));
    assert_eq!(list.parameter("watch"), None);
    assert!(watch.is_watch());
    assert_eq!(watch.user, "system:admin");
    assert!(server.kubeconfig().contains(&server.url()));
}
