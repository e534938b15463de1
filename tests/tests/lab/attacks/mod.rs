//! What a pod with a raw socket may try against its neighbours, through real devices and an agent: nothing of it arrives, it is
//! dropped for the reason that it should be, and nothing of it stays.
//!
//! Each frame bears a mark, and packet sockets in the pods that it is for look for marks. Before there are agents all of it
//! arrives: so the frames are as they should be, and the observers see what there is to see.

mod borrowed;
mod denied;
mod frames;
mod scenes;
mod stories;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use weir_ebpf::testing::frame;
use weir_tests::cases::CAST;
use weir_tests::lab::{Cluster, Form, KernelLog, Neighbour, Wire, address};

use crate::SETTINGS;
use crate::policies::pods;
use frames::{content, mark};
use scenes::{Scene, scenes};
pub(crate) use stories::{
    a_connection_is_not_opened_backwards, a_pod_that_changes_its_address_is_not_heard,
    a_pod_that_takes_a_neighbours_address_is_not_heard, a_port_of_the_host_does_not_make_a_pod_the_node,
};
use table::{Attack, Cast, Table, To, Why};

const ATTACKER: &str = "n1-a";
const VICTIM: &str = "n1-b";
const FRIEND: &str = "n1-c";
const REMOTE: &str = "n2-a";
/// Who is what.
const LABELS: [(&str, &str); 5] =
    [(ATTACKER, "attacker"), (VICTIM, "victim"), (FRIEND, "friend"), (REMOTE, "remote"), ("n2-b", "other")];

/// How long something that is under way may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long something that should not come is waited for, once all that was sent before the last frame has arrived.
const REST: Duration = Duration::from_millis(200);

/// Where frames come from, and where they would be seen.
struct Wires {
    attacker: Wire,
    victim: Wire,
    friend: Wire,
    remote: Wire,
    /// The bridges of the nodes: what the node itself sends to its pods always arrives.
    bridges: [Wire; 2],
}

impl Wires {
    fn open(cluster: &Cluster) -> Result<Self> {
        let pod = |name: &str| {
            let pods = cluster.lab().nodes().iter().flat_map(|node| node.pods());
            let found = pods.into_iter().find(|pod| pod.place.name() == name);
            Wire::open(found.with_context(|| name.to_owned())?.place.netns(), "eth0")
        };
        let [n1, n2] = cluster.lab().nodes() else { bail!("there are two nodes") };
        Ok(Self {
            attacker: pod(ATTACKER)?,
            victim: pod(VICTIM)?,
            friend: pod(FRIEND)?,
            remote: pod(REMOTE)?,
            bridges: [Wire::open(n1.place().netns(), "cni0")?, Wire::open(n2.place().netns(), "cni0")?],
        })
    }

    /// The attacker sends a frame.
    fn send(&self, to: To, frame: &[u8]) -> Result<()> {
        let mac = match to {
            To::Victim => self.victim.mac(),
            To::Friend => self.friend.mac(),
            To::VictimByNode | To::Remote => self.bridges[0].mac(),
        };
        self.attacker.send(&addressed(frame, self.attacker.mac(), mac))
    }

    /// Every mark that arrives anywhere, up to a last frame that each node sends to its pods itself: what was sent before it
    /// has arrived by then.
    fn seen(&self, cluster: &Cluster, last: u16, patience: Duration) -> Result<BTreeMap<[u8; 4], usize>> {
        let mut seen = BTreeMap::new();
        let watched = [(VICTIM, &self.victim, 0), (FRIEND, &self.friend, 0), (REMOTE, &self.remote, 1)];
        for (name, wire, node) in watched {
            let bridge = &self.bridges[node];
            let src = SocketAddr::new(address::gateway(u8::try_from(node + 1)?).v4.into(), 9);
            let dst = SocketAddr::new(cluster.addresses(name)?.v4.into(), 9);
            let end = mark(last);
            bridge.send(&addressed(&frame::udp(src, dst, &content(end)), bridge.mac(), wire.mac()))?;
            let (mut ended, deadline) = (false, Instant::now() + PATIENCE);
            while !ended && Instant::now() < deadline {
                wire.watch(PATIENCE, |frame| {
                    ended = note(frame, &mut seen) == Some(end);
                    ended
                })?;
            }
            ensure!(ended, "{name} does not see what its node sends to it");
        }
        for (_, wire, _) in watched {
            wire.watch(patience, |frame| {
                note(frame, &mut seen);
                false
            })?;
        }
        Ok(seen)
    }
}

/// A frame with its Ethernet addresses.
fn addressed(frame: &[u8], from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &frame[12..]].concat()
}

/// The mark of a frame that has one.
fn note(frame: &[u8], seen: &mut BTreeMap<[u8; 4], usize>) -> Option<[u8; 4]> {
    let found = frame.windows(4).find(|window| window[..2] == mark(0)[..2] && is_mark(window))?;
    let found: [u8; 4] = found.try_into().ok()?;
    *seen.entry(found).or_default() += 1;
    Some(found)
}

fn is_mark(window: &[u8]) -> bool {
    u16::from_be_bytes([window[2], window[3]]) < LAST_MARK
}

/// There are fewer rows.
const LAST_MARK: u16 = 0x4000;

fn cast(cluster: &Cluster, form: Form, mac: [u8; 6]) -> Result<Cast> {
    let of = |name: &str| -> Result<IpAddr> { Ok(cluster.addresses(name)?.in_form(form)) };
    Ok(Cast {
        attacker: of(ATTACKER)?,
        victim: of(VICTIM)?,
        friend: of(FRIEND)?,
        remote: of(REMOTE)?,
        gateway: address::gateway(1).in_form(form),
        mac,
    })
}

fn attacks(cluster: &Cluster, scene: &Scene, mac: [u8; 6]) -> Result<Vec<Attack>> {
    let mut rows = Vec::new();
    for form in [Form::V4, Form::V6] {
        let mut table = Table::new(cast(cluster, form, mac)?, u16::try_from(rows.len())?);
        (scene.rows)(&mut table);
        rows.extend(table.rows());
    }
    Ok(rows)
}

/// Everything of the table in every scene, after everything was seen to arrive where there is no agent.
pub(crate) fn nothing_gets_through() -> Result<()> {
    let mut log = KernelLog::from_now()?;
    let scenes = scenes();
    // In a cluster of its own: what the victim answers is not to begin anything in the other.
    let (cluster, wires) = stage()?;
    for scene in &scenes {
        let attacks = attacks(&cluster, scene, wires.attacker.mac())?;
        is_seen_without_agents(&cluster, &wires, &attacks).with_context(|| scene.name)?;
    }
    drop(cluster);
    let (mut cluster, wires) = stage()?;
    cluster.start_agents()?;
    cluster.apply("pods.yaml", &pods(&cluster, LABELS)?)?;
    let mut tried = 0;
    for scene in &scenes {
        cluster.apply("policy.yaml", std::slice::from_ref(&scene.policy))?;
        let attacks = attacks(&cluster, scene, wires.attacker.mac())?;
        is_dropped(&mut cluster, &wires, &attacks).with_context(|| scene.name)?;
        tried += attacks.len();
    }
    let complaints = log.take_complaints()?;
    ensure!(complaints.is_empty(), "the kernel complains: {complaints:#?}");
    println!("figure lab.attacks {tried}/{tried}");
    Ok(())
}

fn stage() -> Result<(Cluster, Wires)> {
    let cluster = Cluster::create(SETTINGS, &CAST)?;
    // It would drop what is malformed before anybody sees it.
    for (number, node) in (1..).zip(cluster.lab().nodes()) {
        Neighbour::NoBridgeNetfilter.ensure(node.place().netns(), number)?;
    }
    let wires = Wires::open(&cluster)?;
    Ok((cluster, wires))
}

/// Every frame of each is seen.
fn is_seen_without_agents(cluster: &Cluster, wires: &Wires, attacks: &[Attack]) -> Result<()> {
    let expected: BTreeSet<[u8; 4]> = attacks.iter().map(|attack| attack.mark).collect();
    let mut seen: BTreeMap<[u8; 4], usize> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    // A neighbour that is looked for may cost a first packet.
    while !expected.iter().all(|mark| seen.contains_key(mark)) && Instant::now() < deadline {
        for attack in attacks.iter().filter(|attack| !seen.contains_key(&attack.mark)) {
            attack.frames.iter().try_for_each(|frame| wires.send(attack.to, frame))?;
        }
        seen.append(&mut wires.seen(cluster, LAST_MARK - 1, REST)?);
    }
    let lost: Vec<_> =
        attacks.iter().filter(|attack| !seen.contains_key(&attack.mark)).map(|attack| &attack.name).collect();
    ensure!(lost.is_empty(), "without Weir these do not arrive either: {lost:#?}");
    Ok(())
}

/// None of it is seen, the reasons are as they should be, and nothing of it stays.
fn is_dropped(cluster: &mut Cluster, wires: &Wires, attacks: &[Attack]) -> Result<()> {
    for attack in attacks {
        attack.before.iter().try_for_each(|frame| wires.send(attack.to, frame))?;
    }
    wires.seen(cluster, LAST_MARK - 1, REST)?;
    let pid = cluster.agent(1)?.pid();
    let before = cluster.agent(1)?.status()?;
    for attack in attacks {
        attack.frames.iter().try_for_each(|frame| wires.send(attack.to, frame))?;
    }
    let mut seen = wires.seen(cluster, LAST_MARK - 1, REST)?;
    seen.remove(&mark(LAST_MARK - 1));
    let through: Vec<_> =
        attacks.iter().filter(|attack| seen.contains_key(&attack.mark)).map(|attack| &attack.name).collect();
    ensure!(through.is_empty(), "{} of {} got through: {through:#?}", through.len(), attacks.len());
    let after = cluster.agent(1)?.status()?;
    ensure!(after["ready"] == json!(true) && cluster.agent(1)?.pid() == pid, "the agent is not what it was");
    for table in ["flows", "judged"] {
        let rows = |status: &Value| status["tables"]["rows"][table].as_u64().context(table);
        let (before, after) = (rows(&before)?, rows(&after)?);
        ensure!(after <= before, "{table}: {after} rows, {before} before");
    }
    for why in [Why::Policy, Why::Spoofed, Why::Router, Why::Mapped, Why::Unreadable, Why::Piece] {
        let counted = counted(&after, why).saturating_sub(counted(&before, why));
        let sent: usize =
            attacks.iter().filter(|attack| attack.why == why).map(|attack| attack.frames.len()).sum();
        ensure!(counted >= u64::try_from(sent)?, "{why:?}: {counted} counted, {sent} sent");
    }
    Ok(())
}

/// What the programs counted for a reason.
fn counted(status: &Value, why: Why) -> u64 {
    let labels: &[&str] = match why {
        Why::Policy => &["policy-ingress", "policy-egress"],
        Why::Spoofed => &["spoofed-source"],
        Why::Router => &["router-message"],
        Why::Mapped => &["v4-mapped-address"],
        Why::Unreadable => &["unreadable"],
        Why::Piece => &["fragment-without-first"],
    };
    labels.iter().filter_map(|label| status["drops"][label].as_u64()).sum()
}
