//! Events become records, and records reach whoever asks.

mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use weir_ebpf::abi::{
    ClassId, DropEvent, DropReason, FrontendKind, HookPoint, Mac, Peer, PolicySetId, Port, Protocol, Side,
};

use super::*;
use crate::compile::policy::{Change, Update};
use crate::compile::{FrontendPlan, PortName, PortPlan, ServicePlan};
use crate::network::{Facts, Owner, Pod as Device};
use crate::source::{
    Event, Family, Labels, NetworkPolicy, ObjectKey, Pod, PolicyModes, PolicyRule, Requirement, Selector,
    Test,
};
use crate::state::{Given, State};
use crate::tables::memory::MemoryStore;
use crate::tables::{
    PolicyOptions, PolicyRows, PolicySnapshot, PolicyStore, PolicyWrite, Sizes, StoreError, Tables,
};

const NOBODY: Mac = [0; 6];
const WEB: u32 = 7;

/// One family of a cluster: two pods here that policies select, one elsewhere, a Service.
#[derive(Clone, Copy)]
struct Cast {
    web: &'static str,
    client: &'static str,
    stranger: &'static str,
    vip: &'static str,
}

const CASTS: [Cast; 2] = [
    Cast { web: "10.0.2.3", client: "10.0.1.7", stranger: "8.8.8.8", vip: "10.96.0.1" },
    Cast { web: "fd00::2:3", client: "fd00::1:7", stranger: "2001:db8::8", vip: "fd00:96::1" },
];

/// Puts pods and devices together, for the first time.
fn place(state: &mut State, network: &Facts) {
    state.place(network, Given { before: &BTreeMap::new(), networks: &[], settled: &BTreeSet::new() });
}

struct World {
    state: State,
    tables: Tables,
    network: Facts,
    rows: PolicyRows,
}

/// Where rows of policies go; whether there is no room for their verdicts and names.
struct Rows {
    full: bool,
}

impl PolicyStore for Rows {
    fn write_policy(&mut self, write: &PolicyWrite) -> Result<(), StoreError> {
        match (self.full, write) {
            (true, PolicyWrite::Verdict(..) | PolicyWrite::Name(..)) => {
                Err(StoreError::Full { table: "verdicts", capacity: 1 })
            }
            _ => Ok(()),
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn peer(text: &str, port: u16) -> Peer {
    Peer { addr: ip(text).into(), port: Port::new(port) }
}

fn pod(node: &str, app: &str, addresses: &[&str]) -> Pod {
    Pod {
        labels: Labels::from_iter([("app".into(), app.into())]),
        addresses: addresses.iter().map(|addr| ip(addr)).collect(),
        node: Some(node.into()),
        ..Pod::default()
    }
}

fn selecting(app: &str) -> Selector {
    let test = Test::In([app.into()].into());
    Selector::from_iter([Requirement { key: "app".into(), test }])
}

impl World {
    fn new() -> Self {
        let mut state = State::new("here");
        let mut add = |namespace: &str, name: &str, pod| {
            state.apply(Event::Pod(ObjectKey::new(namespace, name), Some(pod)));
        };
        add("default", "web-1", pod("here", "web", &CASTS.map(|cast| cast.web)));
        add("other", "client", pod("there", "client", &CASTS.map(|cast| cast.client)));
        let nothing: Option<Box<[PolicyRule]>> = Some(Box::default());
        let mut policy = |namespace: &str, name: &str, pods, ingress, egress| {
            let policy = NetworkPolicy { pods, ingress, egress, modes: PolicyModes::default() };
            state.apply(Event::NetworkPolicy(ObjectKey::new(namespace, name), Some(policy)));
        };
        policy("default", "deny-all", Selector::default(), nothing.clone(), nothing.clone());
        policy("default", "web", selecting("web"), nothing.clone(), None);
        policy("default", "clients", selecting("client"), nothing.clone(), None);
        policy("other", "deny-all", Selector::default(), nothing.clone(), nothing);
        let mut tables = Tables::new(Sizes::default());
        let mut store = MemoryStore::default();
        let service = ObjectKey::new("default", "web");
        let port = |cast: Cast, family| PortPlan {
            name: PortName { service: service.clone(), port: "".into(), protocol: Protocol::Tcp, family },
            frontends: vec![FrontendPlan {
                addr: SocketAddr::new(ip(cast.vip), 80),
                kind: FrontendKind::ClusterIp,
                flags: 0,
            }],
            cluster: None,
            local: None,
            source_ranges: Vec::new(),
            affinity_s: 0,
        };
        let ports = vec![port(CASTS[0], Family::V4), port(CASTS[1], Family::V6)];
        let plan = ServicePlan { service: service.clone(), created_s: None, ports, present: [].into() };
        tables.apply(&service, Some(&plan), &mut store);
        let device = Device {
            name: "veth7".into(),
            host_mac: NOBODY,
            mac: NOBODY,
            mtu: 1500,
            netns: None,
            nsid: None,
            addresses: CASTS.map(|cast| ip(cast.web)).into(),
            early: Vec::new(),
            owner: Owner::default(),
        };
        let network = Facts { pods: BTreeMap::from([(WEB, device)]), ..Facts::default() };
        place(&mut state, &network);
        let options = PolicyOptions { judged: 64, holds_unknown: true };
        let mut rows = PolicyRows::new(options, PolicySnapshot::default());
        rows.apply(Update::default(), true, &mut Rows { full: false });
        Self { state, tables, network, rows }
    }

    fn known(&self) -> Known<'_> {
        Known { state: &self.state, tables: &self.tables, network: &self.network, rows: &self.rows }
    }

    fn explain(&self, event: &DropEvent) -> DropRecord {
        let known = self.known();
        let clocks = Clocks { boot_ns: 5_000_000_000, now: "2026-11-22T12:03:06Z".parse().unwrap() };
        Explainer::new(known, clocks).explain(event).unwrap()
    }
}

/// A SYN.
fn event(hook: HookPoint, reason: DropReason, src: Peer, dst: Peer) -> DropEvent {
    let mut event = DropEvent::new(3_000_000_000, hook, reason);
    event.set_ends(src, dst);
    (event.protocol, event.detail, event.device) = (6, 2, WEB);
    match hook {
        HookPoint::FromPod => event.set_side(Side::Egress),
        HookPoint::ToPod => event.set_side(Side::Ingress),
        _ => event.device = 0,
    }
    event
}

#[test]
fn ingress_names_both_pods_and_the_policies_that_isolate() {
    let world = World::new();
    for cast in CASTS {
        let (src, dst) = (peer(cast.client, 41234), peer(cast.web, 80));
        let mut denied = event(HookPoint::ToPod, DropReason::PolicyIngress, src, dst);
        denied.set_judged(PolicySetId(5), ClassId(6));
        let record = world.explain(&denied);
        assert_eq!(record.policies, ["default/deny-all", "default/web"]);
        assert_eq!((record.direction.as_deref(), record.judged), (Some("ingress"), Some((5, 6))));
        assert_eq!(
            record.to_string(),
            format!(
                "2026-11-22T12:03:04.000Z drop policy-ingress {src} (other/client) -> {dst} (default/web-1) TCP SYN: \
                 default/web-1 is isolated for ingress by default/deny-all, default/web; none allows it"
            )
        );
    }
}

#[test]
fn egress_names_the_service_and_the_backend() {
    let world = World::new();
    for cast in CASTS {
        let (src, dst) = (peer(cast.web, 5000), peer(cast.vip, 80));
        let mut denied = event(HookPoint::FromPod, DropReason::PolicyEgress, src, dst);
        denied.set_translation(peer(cast.client, 8080));
        let record = world.explain(&denied);
        assert_eq!(record.policies, ["default/deny-all"], "the other is about ingress alone");
        let text = record.timeless();
        let ends = format!(
            "{src} (default/web-1) -> {dst} (Service default/web) => {} (other/client)",
            peer(cast.client, 8080)
        );
        assert!(text.contains(&ends), "{text}");
    }
}

#[test]
fn who_is_watched_is_named_for_what_would_be_dropped_and_for_nothing_else() {
    let mut world = World::new();
    let modes = PolicyModes { audit: true, ..PolicyModes::default() };
    let nothing = Some(Box::default());
    let watched =
        NetworkPolicy { pods: Selector::default(), ingress: nothing.clone(), egress: nothing, modes };
    world.state.apply(Event::NetworkPolicy(ObjectKey::new("default", "watched"), Some(watched)));
    let sent = |cast: Cast| {
        let (src, dst) = (peer(cast.web, 5000), peer(cast.client, 80));
        event(HookPoint::FromPod, DropReason::PolicyEgress, src, dst)
    };
    for cast in CASTS {
        assert_eq!(world.explain(&sent(cast)).policies, ["default/deny-all"]);
    }
    // Nothing would be dropped that is.
    world.state.apply(Event::NetworkPolicy(ObjectKey::new("default", "deny-all"), None));
    for cast in CASTS {
        let mut event = sent(cast);
        event.flags |= DropEvent::WOULD;
        let record = world.explain(&event);
        assert_eq!(record.policies, ["default/watched"]);
        let text = record.timeless();
        assert!(text.starts_with("would-drop policy-egress "), "{text}");
        assert!(text.contains("would be isolated for egress by default/watched; none allows it"), "{text}");
    }
}

#[test]
fn what_is_not_known_is_said_to_be_so() {
    let mut world = World::new();
    let cast = CASTS[0];
    let (stranger, web) = (peer(cast.stranger, 9), peer(cast.web, 80));
    // A reply, of a flow that the pod began.
    let reply = event(HookPoint::ToPod, DropReason::PolicyEgress, stranger, web);
    assert!(world.explain(&reply).why.starts_with("a reply; default/web-1 is isolated for egress by"));
    let spoofed = event(HookPoint::FromPod, DropReason::SpoofedSource, stranger, peer(cast.client, 1));
    let text = world.explain(&spoofed).timeless();
    assert!(text.ends_with(" [default/web-1, device veth7]"), "{text}");
    let mut unread = DropEvent::new(1, HookPoint::FromPod, DropReason::Unreadable);
    (unread.device, unread.ether_type) = (99, 0x8847);
    let text = world.explain(&unread).timeless();
    assert!(text.starts_with("drop unreadable ether type 0x8847: "), "{text}");
    assert!(text.ends_with(" [device 99]"), "{text}");
    for name in ["deny-all", "web"] {
        world.state.apply(Event::NetworkPolicy(ObjectKey::new("default", name), None));
    }
    let late = world.explain(&event(HookPoint::ToPod, DropReason::PolicyIngress, stranger, web));
    assert_eq!((late.policies.len(), late.why.contains("have changed since")), (0, true));
    let other = DropEvent::new(1, HookPoint::FromPod, DropReason::Unreadable);
    let mut bytes = zerocopy::IntoBytes::as_bytes(&other).to_vec();
    // The reason and the hook of another version.
    bytes[80..83].fill(0xee);
    let other = <DropEvent as zerocopy::FromBytes>::read_from_bytes(&bytes).unwrap();
    let known = world.known();
    let clocks = Clocks { boot_ns: 0, now: jiff::Timestamp::UNIX_EPOCH };
    assert_eq!(Explainer::new(known, clocks).explain(&other), None);
}

#[test]
fn a_socket_is_its_pods() {
    let world = World::new();
    for cast in CASTS {
        let mut refused =
            event(HookPoint::Connect, DropReason::UnknownPort, peer(cast.web, 0), peer(cast.vip, 80));
        refused.flags |= DropEvent::REFUSED;
        let record = world.explain(&refused);
        assert_eq!((record.pod.as_deref(), record.device), (Some("default/web-1"), None));
        let text = world.explain(&refused).timeless();
        let start = format!("refuse unknown-port {} (default/web-1) -> {}", cast.web, peer(cast.vip, 80));
        assert!(text.starts_with(&start), "{text}");
    }
}

#[test]
fn of_very_many_policies_some_are_named() {
    let mut world = World::new();
    for number in 0..100 {
        let policy = NetworkPolicy {
            pods: Selector::default(),
            ingress: Some(Box::default()),
            egress: None,
            modes: PolicyModes::default(),
        };
        let key = ObjectKey::new("default", format!("p{number:03}"));
        world.state.apply(Event::NetworkPolicy(key, Some(policy)));
    }
    let (src, dst) = (peer(CASTS[0].client, 1), peer(CASTS[0].web, 80));
    let record = world.explain(&event(HookPoint::ToPod, DropReason::PolicyIngress, src, dst));
    assert_eq!(record.policies.len(), 10);
    assert!(record.why.contains("and 92 more"), "{}", record.why);
}

fn record(number: usize) -> DropRecord {
    DropRecord { reason: number.to_string(), ..DropRecord::default() }
}

#[test]
fn the_last_are_kept_and_who_is_slow_is_told_so() {
    let drops = SharedDrops::new(3);
    for number in 0..5 {
        drops.push(&record(number));
    }
    let numbers = |page: &Page| -> Vec<String> {
        let parse = |line: &Arc<str>| serde_json::from_str::<DropRecord>(line).unwrap().reason;
        page.lines.iter().map(parse).collect()
    };
    let page = drops.page(0, 2);
    assert_eq!((numbers(&page), page.missed, page.end), (vec!["2".into(), "3".into()], 2, 4));
    let page = drops.page(page.end, 2);
    assert_eq!((numbers(&page), page.missed, page.end), (vec!["4".into()], 0, 5));
    let page = drops.page(page.end, 2);
    assert_eq!((page.lines.len(), page.missed, page.end), (0, 0, 5));
}

/// Serves drops in a thread, until the sender is dropped.
fn serve(run_dir: &std::path::Path, drops: SharedDrops) -> tokio::sync::oneshot::Sender<()> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let run_dir = run_dir.to_owned();
    let (up, is_up) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let serving = serve_drops(&run_dir, drops);
            tokio::pin!(serving);
            // Up to where it waits for the first connection.
            assert!(futures_now(serving.as_mut()).await.is_none());
            up.send(()).unwrap();
            tokio::select! {
                ended = serving => ended.unwrap(),
                _ = stopped => {}
            }
        });
    });
    is_up.recv().unwrap();
    stop
}

/// What a future comes to if it is polled once.
async fn futures_now<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn whoever_asks_gets_what_is_kept_and_follows() {
    let run_dir = tempfile::tempdir().unwrap();
    let none = read_drops(run_dir.path(), false, |_| Ok(())).unwrap();
    assert!(!none, "nobody serves");
    let drops = SharedDrops::new(100);
    let stop = serve(run_dir.path(), drops.clone());
    let read = || {
        let mut records = Vec::new();
        let show = |one| {
            records.push(one);
            Ok(())
        };
        assert!(read_drops(run_dir.path(), false, show).unwrap());
        records
    };
    assert_eq!(read(), []);
    (0..300).for_each(|number| drops.push(&record(number)));
    let expected: Vec<Followed> =
        (200..300).map(|number| Followed::Record(Box::new(record(number)))).collect();
    assert_eq!(read(), expected);
    let (sender, seen) = mpsc::channel();
    let dir = run_dir.path().to_owned();
    let follower = std::thread::spawn(move || read_drops(&dir, true, |one| Ok(sender.send(one)?)));
    let patience = Duration::from_secs(20);
    for record in expected {
        assert_eq!(seen.recv_timeout(patience).unwrap(), record);
    }
    drops.push(&record(300));
    assert_eq!(seen.recv_timeout(patience).unwrap(), Followed::Record(Box::new(record(300))));
    drop(stop);
    let ended = follower.join().unwrap().unwrap_err().to_string();
    assert!(ended.contains("has ended"), "{ended}");
}

#[test]
fn the_socket_is_roots() {
    use std::os::unix::fs::PermissionsExt as _;
    let run_dir = tempfile::tempdir().unwrap();
    let _stop = serve(run_dir.path(), SharedDrops::new(1));
    let mode = std::fs::metadata(run_dir.path().join("drops.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
