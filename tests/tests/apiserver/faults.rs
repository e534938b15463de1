//! Each fault does what it says, and nothing of it is left when it is taken back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::apiserver::{ApiServer, Cut, Refusal, RefuseWith, ServerOptions, StreamingLists};

use super::client::{Client, End, names};

const SERVICES: &str = "/api/v1/services";
const WATCH: &str = "/api/v1/services?watch=1&resourceVersion=0";
const STREAMING: &str = "/api/v1/services?watch=1&allowWatchBookmarks=1&resourceVersionMatch=NotOlderThan\
                         &sendInitialEvents=true";

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "n", "name": name}})
}

async fn start() -> (ApiServer, Client) {
    let server = ApiServer::start().await.unwrap();
    server.put(&service("a")).unwrap();
    let client = Client::of(&server);
    (server, client)
}

async fn assert_healthy(server: &ApiServer, client: &Client) {
    server.heal().await.unwrap();
    assert_eq!(names(&client.get(SERVICES).await.expect(200)), ["a"]);
    assert_eq!(client.watch(WATCH).await.next_names(1).await, ["ADDED a"]);
}

#[tokio::test]
async fn refusals() {
    let (server, client) = start().await;
    for (with, code, retry_after, reason) in [
        (RefuseWith::TooManyRequests(2), 429, Some("2"), None),
        (RefuseWith::CacheNotReady(3), 429, Some("3"), Some("TooManyRequests")),
        (RefuseWith::Internal, 500, None, Some("InternalError")),
        (RefuseWith::Unavailable, 503, None, Some("ServiceUnavailable")),
    ] {
        server.faults(|faults| faults.refusal = Some(Refusal { with, requests: Some(2) }));
        for path in [SERVICES, WATCH] {
            let answer = client.get(path).await;
            assert_eq!(answer.status.as_u16(), code);
            let header = answer.headers.get("retry-after").map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after, "{with:?}");
            match reason {
                Some(reason) => assert_eq!(answer.json()["reason"], reason),
                None => assert_eq!(answer.text, "Too many requests, please try again later.\n"),
            }
        }
        client.get(SERVICES).await.expect(200);
        server.faults(|faults| faults.refusal = Some(Refusal { with, requests: None }));
        for _ in 0..3 {
            assert_eq!(client.get(SERVICES).await.status.as_u16(), code);
        }
        assert_healthy(&server, &client).await;
    }
}

#[tokio::test]
async fn connections_that_drop() {
    let (server, client) = start().await;
    let mut watch = client.watch(WATCH).await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    server.drop_connections();
    assert_eq!(watch.next().await, Err(End::Broken(String::new())));
    server.until(|server| server.counts().connections_open == 0 && server.counts().watches_open == 0).await;
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn connections_that_are_refused() {
    let (server, client) = start().await;
    let mut watch = client.watch(WATCH).await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    server.refuse_connections().await;
    let refused = client.try_send("GET", SERVICES, None).await.err().unwrap();
    let kind = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionRefused), "{refused:?}");
    // Those that were there go on.
    server.put(&service("b")).unwrap();
    assert_eq!(watch.next_names(1).await, ["ADDED b"]);
    server.delete("Service", "n", "b").unwrap();
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn answers_that_break_off() {
    let (server, client) = start().await;
    let whole = client.get(SERVICES).await.text;
    for (cut, expected) in
        [(Cut::AfterBytes(0), 0), (Cut::AfterBytes(7), 7), (Cut::InTheMiddle, whole.len() / 2)]
    {
        server.faults(|faults| faults.cut = Some(cut));
        // What came of a connection that broke may be less than what was sent.
        if let Ok(answer) = client.try_send("GET", SERVICES, None).await {
            assert!(answer.broken.is_some(), "{cut:?}");
            assert!(
                whole.starts_with(&answer.text) && answer.text.len() <= expected,
                "{cut:?} {}",
                answer.text
            );
        }
        let End::Broken(rest) = client.watch(WATCH).await.next().await.unwrap_err() else {
            panic!("{cut:?}")
        };
        assert!(
            "{\"object\":{\"apiVersion\"".starts_with(&rest) || cut == Cut::InTheMiddle,
            "{cut:?} {rest}"
        );
        assert_healthy(&server, &client).await;
    }
}

#[tokio::test]
async fn json_that_is_truncated() {
    let (server, client) = start().await;
    let whole = client.get(SERVICES).await.text;
    server.faults(|faults| faults.truncated = true);
    let answer = client.get(SERVICES).await;
    assert!(answer.broken.is_none(), "the answer is whole for HTTP");
    assert_eq!(answer.text, whole[..whole.len() / 2]);
    let End::Whole(rest) = client.watch(WATCH).await.next().await.unwrap_err() else { panic!("broken") };
    assert!(!rest.is_empty() && serde_json::from_str::<Value>(&rest).is_err(), "{rest}");
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn silence() {
    let (server, client) = start().await;
    let mut watch = client.watch(WATCH).await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    server.faults(|faults| faults.silent = true);
    let accepted = server.counts().connections_accepted;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { names(&client.get(SERVICES).await.expect(200)) }
    });
    server.until(|server| server.counts().connections_accepted > accepted).await;
    server.put(&service("b")).unwrap();
    let before = server.requests().len();
    assert!(!asking.is_finished());
    assert_eq!(server.requests().len(), before, "not even the handshake is answered");
    server.faults(|faults| faults.silent = false);
    assert_eq!(asking.await.unwrap(), ["a", "b"]);
    assert_eq!(watch.next_names(1).await, ["ADDED b"]);
}

#[tokio::test]
async fn delay_and_drip() {
    let (server, client) = start().await;
    let whole = client.get(SERVICES).await.text;
    let delay = Duration::from_millis(50);
    server.faults(|faults| faults.delay = Some(delay));
    let start = Instant::now();
    client.get(SERVICES).await.expect(200);
    assert!(start.elapsed() >= delay);
    server.heal().await.unwrap();

    let pause = Duration::from_millis(1);
    server.faults(|faults| faults.drip = Some((10, pause)));
    let start = Instant::now();
    assert_eq!(client.get(SERVICES).await.text, whole);
    assert!(start.elapsed() >= pause * u32::try_from(whole.len() / 10).unwrap());
    let mut watch = client.watch(WATCH).await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    assert!(watch.frames > 10, "{}", watch.frames);
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn a_malformed_object_among_good_ones() {
    let (server, client) = start().await;
    let malformed = json!({"metadata": {"name": 7}, "spec": "nonsense"});
    server.faults(|faults| faults.malformed = Some(malformed.clone()));
    let list = client.get(SERVICES).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert!(items.contains(&malformed));
    let mut watch = client.watch(WATCH).await;
    assert_eq!(watch.next().await.unwrap()["object"], malformed);
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    assert_eq!(server.truth("Service").len(), 1);
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn servers_without_streaming_lists() {
    let (server, client) = start().await;
    for (lists, text) in [
        (
            StreamingLists::Off,
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        (
            StreamingLists::Unknown,
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch",
        ),
    ] {
        server.faults(|faults| faults.streaming_lists = lists);
        let status = client.get(STREAMING).await.expect(422);
        assert_eq!(status["reason"], "Invalid");
        assert!(status["message"].as_str().unwrap().contains(text), "{status}");
        assert_eq!(client.watch(WATCH).await.next_names(1).await, ["ADDED a"]);
    }
    // It is ignored where it comes without what is refused.
    let mut watch =
        client.watch("/api/v1/services?watch=1&sendInitialEvents=true&allowWatchBookmarks=1").await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    server.put(&service("b")).unwrap();
    assert_eq!(watch.next_names(1).await, ["ADDED b"], "no bookmark between");
    server.delete("Service", "n", "b").unwrap();
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn a_streaming_list_without_its_end() {
    let (server, client) = start().await;
    server.faults(|faults| faults.no_initial_end = true);
    let mut watch = client.watch(STREAMING).await;
    assert_eq!(watch.next_names(1).await, ["ADDED a"]);
    server.put(&service("b")).unwrap();
    assert_eq!(watch.next_names(1).await, ["ADDED b"], "no bookmark between");
    server.delete("Service", "n", "b").unwrap();
    assert_healthy(&server, &client).await;
}

#[tokio::test]
async fn answers_come_in_pieces_that_the_seed_decides() {
    for seed in [1, 2] {
        let mut frames = Vec::new();
        for _ in 0..2 {
            let options = ServerOptions { seed, ..ServerOptions::default() };
            let server = ApiServer::start_with(options).await.unwrap();
            for number in 0..20 {
                server.put(&service(&format!("s{number}"))).unwrap();
            }
            let mut watch = Client::of(&server).watch(WATCH).await;
            assert_eq!(watch.next_names(20).await.len(), 20);
            frames.push(watch.frames);
        }
        assert!(frames[0] > 20, "seed {seed}: {frames:?}");
        assert_eq!(frames[0], frames[1], "seed {seed}");
    }
}
