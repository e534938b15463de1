//! kube's watcher, as a client that others wrote: after each fault it ends at the truth, with lists and with streaming
//! lists.
//!
//! Objects change while a fault lasts, by numbers from a seed: `WEIR_SEED`, printed with each run. A fault lasts until
//! the watcher has met it, and nothing here waits for a length of time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_tests::apiserver::{
    ApiServer, Contents, Cut, Faults, Refusal, RefuseWith, ServerOptions, StreamingLists, Validity,
};

/// Namespace/name to version.
type Model = BTreeMap<String, String>;

/// For a machine that is busy with others; no test waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Objects that come and go.
const NAMES: usize = 20;

/// A short pause, always the same.
struct Pause;

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(10))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {}
}

fn seed() -> u64 {
    let seed = std::env::var("WEIR_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    println!("WEIR_SEED={seed}");
    seed
}

/// A server, objects that change, and a watcher.
struct Rig {
    server: ApiServer,
    random: u64,
    model: watch::Receiver<Model>,
    /// Counts what the watcher says went wrong.
    failures: watch::Receiver<usize>,
    watching: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Rig {
    async fn start(streaming: bool) -> Self {
        let seed = seed();
        let server = ApiServer::start_with(ServerOptions { seed, ..ServerOptions::default() }).await.unwrap();
        let (told, model) = watch::channel(Model::new());
        let (failed, failures) = watch::channel(0);
        let client = client(&server).await;
        let watching = tokio::spawn(follow(client, streaming, told, failed));
        let mut rig = Self { server, random: seed, model, failures, watching };
        rig.churn(30);
        rig.assert_truth("at first").await;
        rig
    }

    fn next(&mut self, limit: usize) -> usize {
        // An LCG's high bits; all that is asked of it is to be repeatable.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % limit
    }

    fn churn(&mut self, steps: usize) {
        for step in 0..steps {
            let name = format!("slice-{}", self.next(NAMES));
            if self.next(3) == 0 && self.server.delete("EndpointSlice", "n", &name).is_ok() {
                continue;
            }
            let address = format!("10.0.{}.{}", step % 256, self.next(256));
            self.server.put(&slice(&name, &address)).unwrap();
        }
    }

    fn truth(&self) -> Model {
        let key = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap().to_string();
        let truth = self.server.truth("EndpointSlice");
        truth.iter().map(|object| (key(object, "name"), key(object, "resourceVersion"))).collect()
    }

    async fn assert_truth(&mut self, when: &str) {
        let truth = self.truth();
        let reached = self.model.wait_for(|model| *model == truth);
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{when}: {:?} is not {truth:?}; {:?}", *self.model.borrow(), self.server.requests());
        }
    }

    /// The watcher is cut off, and the version that it knows is gone before it comes back.
    async fn miss_a_compaction(&mut self) {
        self.server.refuse_connections().await;
        self.server.drop_connections();
        self.churn(20);
        self.server.compact();
        self.churn(1);
    }

    /// Until the watcher has sent a request after this one was called.
    async fn wait_for_request(&self) {
        let before = self.server.requests().len();
        let asked = self.server.until(|server| server.requests().len() > before);
        tokio::time::timeout(PATIENCE, asked).await.expect("no request came");
    }
}

fn slice(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"namespace": "n", "name": name},
        "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
    })
}

async fn client(server: &ApiServer) -> Client {
    let config = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn follow(
    client: Client,
    streaming: bool,
    model: watch::Sender<Model>,
    failures: watch::Sender<usize>,
) {
    let config = watcher::Config::default().page_size(7);
    let config = if streaming { config.streaming_lists() } else { config };
    let mut events = watcher(Api::<EndpointSlice>::all(client), config).backoff(Pause).boxed();
    let entry = |slice: EndpointSlice| {
        (slice.metadata.name.unwrap_or_default(), slice.metadata.resource_version.unwrap_or_default())
    };
    let mut initial = Model::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => initial.clear(),
            Ok(Event::InitApply(slice)) => initial.extend([entry(slice)]),
            Ok(Event::InitDone) => {
                model.send_replace(std::mem::take(&mut initial));
            }
            Ok(Event::Apply(slice)) => model.send_modify(|model| model.extend([entry(slice)])),
            Ok(Event::Delete(slice)) => model.send_modify(|model| {
                model.remove(&entry(slice).0);
            }),
            Err(_) => failures.send_modify(|count| *count += 1),
        }
    }
}

/// A fault that lasts while objects change, and that new requests meet.
async fn survives(fault: fn(&mut Faults)) {
    for streaming in [false, true] {
        let mut rig = Rig::start(streaming).await;
        rig.server.faults(fault);
        rig.server.drop_connections();
        rig.wait_for_request().await;
        rig.churn(20);
        rig.server.compact();
        rig.churn(20);
        // What runs under a fault may be stuck in it.
        rig.server.drop_connections();
        rig.server.heal().await.unwrap();
        rig.churn(5);
        rig.assert_truth(&format!("streaming {streaming}")).await;
    }
}

#[tokio::test]
async fn survives_dropped_connections() {
    survives(|_| {}).await;
}

#[tokio::test]
async fn survives_refusals() {
    survives(|faults| faults.refusal = Some(refusal(RefuseWith::TooManyRequests(1)))).await;
    survives(|faults| faults.refusal = Some(refusal(RefuseWith::CacheNotReady(1)))).await;
    survives(|faults| faults.refusal = Some(refusal(RefuseWith::Internal))).await;
    survives(|faults| faults.refusal = Some(refusal(RefuseWith::Unavailable))).await;
}

fn refusal(with: RefuseWith) -> Refusal {
    Refusal { with, requests: None }
}

#[tokio::test]
async fn survives_answers_that_break_off() {
    survives(|faults| faults.cut = Some(Cut::AfterBytes(0))).await;
    survives(|faults| faults.cut = Some(Cut::AfterBytes(1000))).await;
    survives(|faults| faults.cut = Some(Cut::InTheMiddle)).await;
    survives(|faults| faults.truncated = true).await;
}

#[tokio::test]
async fn survives_slowness() {
    survives(|faults| faults.delay = Some(Duration::from_millis(5))).await;
    survives(|faults| faults.drip = Some((50, Duration::from_millis(1)))).await;
}

#[tokio::test]
async fn survives_a_malformed_object() {
    survives(|faults| {
        faults.malformed = Some(json!({"metadata": {"namespace": "n", "name": "bad"}, "endpoints": 7}));
    })
    .await;
}

#[tokio::test]
async fn survives_bookmarks_that_are_missing() {
    survives(|faults| faults.no_bookmarks = true).await;
    survives(|faults| faults.no_initial_end = true).await;
}

#[tokio::test]
async fn survives_servers_without_streaming_lists() {
    survives(|faults| faults.streaming_lists = StreamingLists::Off).await;
    survives(|faults| faults.streaming_lists = StreamingLists::Unknown).await;
}

#[tokio::test]
async fn survives_silence() {
    for streaming in [false, true] {
        let mut rig = Rig::start(streaming).await;
        rig.server.faults(|faults| faults.silent = true);
        rig.churn(20);
        rig.server.faults(|faults| faults.silent = false);
        rig.assert_truth(&format!("streaming {streaming}")).await;
    }
}

#[tokio::test]
async fn survives_refused_connections() {
    for streaming in [false, true] {
        let mut rig = Rig::start(streaming).await;
        rig.server.refuse_connections().await;
        rig.server.drop_connections();
        rig.churn(20);
        rig.server.compact();
        rig.churn(1);
        // The watcher says that it failed; there is no request to see.
        let failed = *rig.failures.borrow();
        let again = rig.failures.wait_for(|count| *count > failed);
        tokio::time::timeout(PATIENCE, again).await.expect("nothing failed").unwrap();
        rig.server.heal().await.unwrap();
        rig.assert_truth(&format!("streaming {streaming}")).await;
    }
}

#[tokio::test]
async fn survives_compaction() {
    for streaming in [false, true] {
        let mut rig = Rig::start(streaming).await;
        rig.miss_a_compaction().await;
        rig.server.accept_connections(Validity::Valid).await.unwrap();
        rig.assert_truth(&format!("streaming {streaming}")).await;
    }
}

/// Kubernetes documents the HTTP status for an expired watch, though its servers send an ERROR event. kube's watcher
/// knows the event alone: it asks again and again from the version that is gone.
#[tokio::test]
async fn asks_again_from_an_expired_version_if_the_status_says_so() {
    let mut rig = Rig::start(false).await;
    rig.miss_a_compaction().await;
    rig.server.faults(|faults| faults.expired_as_status = true);
    let before = rig.server.requests().len();
    rig.server.accept_connections(Validity::Valid).await.unwrap();
    rig.server.until(|server| server.requests().len() >= before + 3).await;
    for request in &rig.server.requests()[before..before + 2] {
        assert!(request.is_watch() && request.status == Some(410), "{request:?}");
    }
    rig.server.heal().await.unwrap();
    rig.assert_truth("as an event").await;
}

#[tokio::test]
async fn survives_a_backup_that_was_restored_with_care() {
    for streaming in [false, true] {
        let mut rig = Rig::start(streaming).await;
        let backup = rig.server.version();
        rig.churn(20);
        rig.assert_truth("before").await;
        rig.server.restart(Contents::RestoredAndBumped(backup)).await.unwrap();
        rig.assert_truth(&format!("streaming {streaming}")).await;
    }
}

/// This is no praise: a watch that goes on from a version of the future is told nothing, by any API server, and the
/// watcher does not look whether its version is still one.
#[tokio::test]
async fn does_not_notice_versions_that_went_back() {
    for contents in [|_| Contents::Empty, Contents::RestoredTo] {
        let mut rig = Rig::start(false).await;
        let backup = rig.server.version();
        rig.churn(20);
        rig.assert_truth("before").await;
        let known = rig.truth();
        let before = rig.server.requests().len();
        rig.server.restart(contents(backup)).await.unwrap();
        rig.server.until(|server| server.requests().len() > before).await;
        let resumed = rig.server.requests()[before].clone();
        assert!(resumed.is_watch(), "{resumed:?}");
        assert!(resumed.parameter("resourceVersion").unwrap().parse::<u64>().unwrap() > rig.server.version());
        assert_eq!(*rig.model.borrow(), known);
        assert_ne!(rig.truth(), known);
    }
}
