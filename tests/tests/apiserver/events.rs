//! Events under events.k8s.io/v1: what a real server refuses is refused here, and they change by merge patches alone.

use serde_json::{Value, json};
use weir_tests::apiserver::ApiServer;

use super::client::Client;

const PATH: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn event() -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": "shop", "name": "a.1"},
        "eventTime": "2026-01-02T03:04:05.000006Z", "type": "Warning", "reason": "Wrong", "action": "Serve",
        "note": "why", "reportingController": "example.org/a", "reportingInstance": "n",
        "regarding": {"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "a"}})
}

#[tokio::test]
async fn what_is_not_in_order_is_refused() {
    let server = ApiServer::start().await.unwrap();
    let client = Client::of(&server);
    let wrong = [
        ("eventTime", json!("2026-01-02T03:04:05Z"), "eventTime: Required value"),
        ("reason", json!(""), "reason: Required value"),
        ("action", Value::Null, "action: Required value"),
        ("reportingController", Value::Null, "reportingController: Required value"),
        ("reportingInstance", json!("n".repeat(129)), "reportingInstance: Invalid value"),
        ("note", json!("n".repeat(1025)), "message: Invalid value"),
        ("type", json!("Error"), "type: Invalid value"),
        ("regarding", json!({"namespace": "other"}), "involvedObject.namespace: Invalid value"),
        ("series", json!({"count": 1, "lastObservedTime": "2026-01-02T03:04:05.000006Z"}), "series.count: "),
    ];
    for (field, value, words) in wrong {
        let mut event = event();
        event[field] = value;
        let status = client.send("POST", PATH, Some(&event)).await.expect(422);
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert_eq!(status["details"]["causes"].as_array().unwrap().len(), 1, "{message}");
    }
    assert_eq!(server.truth("Event"), [Value::Null; 0]);
}

#[tokio::test]
async fn only_a_series_is_added_later() {
    let server = ApiServer::start().await.unwrap();
    let client = Client::of(&server);
    client.send("POST", PATH, Some(&event())).await.expect(201);
    let status = client.send("POST", PATH, Some(&event())).await.expect(409);
    assert_eq!(status["reason"], "AlreadyExists");

    let path = format!("{PATH}/a.1");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000006Z"}});
    let patched = client.send("PATCH", &path, Some(&series)).await.expect(200);
    assert_eq!((&patched["series"], &patched["note"]), (&series["series"], &json!("why")));
    assert_eq!(server.truth("Event"), [patched]);
    let status = client.send("PATCH", &path, Some(&json!({"note": "another"}))).await.expect(422);
    assert!(
        status["message"].as_str().unwrap().contains("note: Invalid value: \"\": field is immutable"),
        "{status}"
    );
    client.send("PATCH", &path, Some(&json!({"series": {"count": 1}}))).await.expect(422);
    client.send("PATCH", &format!("{PATH}/b.1"), Some(&series)).await.expect(404);
}
