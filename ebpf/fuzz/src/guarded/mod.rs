//! The datapath under policies: a world, rules, and packets at the hooks of its pods. Nothing passes that the rules do not permit,
//! no pod sends under another's address, and who was let begin is answered.

mod model;
mod rules;

use std::net::IpAddr;

use arbitrary::{Arbitrary, Unstructured};
use weir_ebpf::abi::{
    Addr, AddressUses, BoundPod, DropReason, Enforcement, FrontendKey, Peer, PodPolicy, PolicySetId,
    Protocol, Side,
};
use weir_ebpf::datapath::enforce::{PodHook, arrive_from_net, arrive_from_pod, leave_to_pod};
use weir_ebpf::datapath::packet::{Node, Onward, Translation, Verdict};
use weir_ebpf::wire::{Fragment, Kind, Packet, TCP_ACK, TCP_SYN, Unusable, parse};

use self::model::{At, Model};
use self::rules::{Rules, RulesSeed, SetSeed, pod_policy};
use crate::frame::{ETHERNET, Frame, Headers, Shape, transport};
use crate::pool::Place;
use crate::world::{FIRST_POD, UPLINK, World, WorldSeed};

/// The most steps that are taken.
const MOST_STEPS: usize = 24;

#[derive(Arbitrary, Debug)]
struct Story {
    world: WorldSeed,
    rules: RulesSeed,
    pods: [(SetSeed, SetSeed); 2],
    steps: Vec<Step>,
}

/// Where a packet is.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    /// It leaves a pod.
    From(bool),
    /// It comes to a pod: from another node, the other pod, or the node itself.
    To(bool, Origin),
    /// It comes to the node.
    Net,
}

#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    World,
    OtherPod,
    Node,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A packet.
    Send(Hook, Shape),
    /// The last packet turned around, at this hook, with these flags.
    Back(Hook, u8),
    /// The last packet again, at this hook, with these flags.
    Again(Hook, u8),
    /// Any bytes; IPv6 or not.
    Raw(Hook, bool, Vec<u8>),
    /// A pod is isolated otherwise.
    Isolate(bool, SetSeed, SetSeed),
    /// An address is in another class, or in none.
    Class(Place, Option<u8>),
    /// Time.
    Wait(u16),
    /// So many rows for each pod, or as many as there are.
    Share(Option<u8>),
    /// Nothing finds room, or everything.
    Full(bool),
    /// All flows are forgotten.
    Sweep,
}

struct Stage {
    world: World,
    rules: Rules,
    model: Model,
    last: Option<(Protocol, Peer, Peer)>,
}

pub(crate) fn run(data: &[u8]) {
    let Ok(story) = Story::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut world = story.world.build();
    let rules = Rules::new(&story.rules);
    world.tables.policy = rules.tables();
    world.tables.enforcement = Enforcement::new(Enforcement::ON | Enforcement::HOLD_UNKNOWN, 1, u32::MAX);
    // The sockets of one of the pods can be seen.
    if let Some(device) = world.tables.devices.get_mut(&device(true)) {
        device.netns = 1;
    }
    let mut stage = Stage { world, rules, model: Model::default(), last: None };
    for (second, (ingress, egress)) in [false, true].into_iter().zip(story.pods) {
        stage.isolate(second, pod_policy(ingress, egress));
    }
    for step in story.steps.iter().take(MOST_STEPS) {
        stage.take_step(step);
    }
}

const fn device(second: bool) -> u32 {
    FIRST_POD + second as u32
}

impl Stage {
    fn isolate(&mut self, second: bool, policy: PodPolicy) {
        let [v4, v6] = [false, true].map(|v6| Place::LocalPod(second).addr(v6));
        self.world.tables.pods.insert(device(second), BoundPod::new(v4, v6, policy, 0));
    }

    fn take_step(&mut self, step: &Step) {
        let tables = &mut self.world.tables;
        match step {
            Step::Send(hook, shape) => self.send(*hook, &with_ethernet(shape.build())),
            Step::Back(hook, flags) | Step::Again(hook, flags) => {
                let Some((protocol, src, dst)) = self.last else { return };
                let (src, dst) = if matches!(step, Step::Back(..)) { (dst, src) } else { (src, dst) };
                let frame = transport(src, dst, protocol, *flags, &Headers::PLAIN);
                self.send(*hook, &frame);
            }
            Step::Raw(hook, v6, bytes) => {
                let ether_type = if *v6 { 0x86dd } else { 0x0800 };
                self.send(*hook, &with_ethernet(Frame { bytes: bytes.clone(), l3: 0, ether_type }));
            }
            Step::Isolate(second, ingress, egress) => self.isolate(*second, pod_policy(*ingress, *egress)),
            Step::Class(place, class) => {
                self.rules.set_class(*place, *class);
                tables.policy.addresses = self.rules.tables().addresses;
                tables.enforcement.generation += 1;
            }
            Step::Wait(seconds) => {
                let later = self.world.moment.seconds.get().saturating_add(u32::from(*seconds));
                self.world.moment.seconds.set(later);
            }
            Step::Share(rows) => tables.enforcement.most_per_pod = rows.map_or(u32::MAX, u32::from),
            Step::Full(full) => tables.full.set(*full),
            Step::Sweep => {
                tables.judged.borrow_mut().clear();
                tables.shares.borrow_mut().clear();
            }
        }
    }

    fn send(&mut self, hook: Hook, frame: &Frame) {
        let Some((verdict, packet)) = ask(&self.world, hook, frame) else { return };
        let Ok(packet) = packet else {
            let is_own = hook == Hook::Net || matches!(hook, Hook::To(_, Origin::Node));
            assert!(
                is_own || !self.is_isolated(hook) || verdict != Verdict::Pass,
                "{hook:?}: nobody can read it"
            );
            return;
        };
        self.model.see_piece(&packet);
        let translation = match &verdict {
            Verdict::Pass => None,
            Verdict::Translate(translation) => Some(translation),
            Verdict::Drop(_) | Verdict::Cut(..) | Verdict::Answer(_) => return,
        };
        if let Some(Translation { src, dst, .. }) = translation {
            // Its later pieces may meet the next hook as what they become.
            self.model.see_piece(&Packet { src: *src, dst: *dst, ..packet });
        }
        if let Hook::From(second) = hook {
            self.bears_its_address(second, &packet);
        }
        let sides = Self::sides(hook, translation);
        let mut may = true;
        for (device, side, came_by) in sides {
            may &= self.is_permitted((device, side, came_by), &packet, translation, &frame.bytes);
        }
        assert!(may, "{hook:?} lets pass {packet:?} as {verdict:?}");
        if let (Kind::Transport(protocol), true) = (packet.kind, packet.has_ports()) {
            self.last = Some((protocol, packet.src, packet.dst));
        }
        if translation.is_none() {
            self.is_answered(hook, &packet);
        }
    }

    fn is_isolated(&self, hook: Hook) -> bool {
        let (Hook::From(second) | Hook::To(second, _)) = hook else { return false };
        self.world.tables.pods.get(&device(second)).is_some_and(|pod| !pod.policy.is_open())
    }

    /// The pods that the packet meets at this hook: which, on which side, and whence.
    fn sides(hook: Hook, translation: Option<&Translation>) -> Vec<(u32, Side, u32)> {
        let mut sides = Vec::new();
        let came_by = match hook {
            Hook::From(second) => {
                sides.push((device(second), Side::Egress, device(second)));
                device(second)
            }
            Hook::To(second, origin) => {
                let came_by = came_by(second, origin);
                sides.push((device(second), Side::Ingress, came_by));
                came_by
            }
            Hook::Net => UPLINK,
        };
        let goes_in = !matches!(hook, Hook::To(..));
        if let (Some(Translation { onward: Onward::Workload(workload), .. }), true) = (translation, goes_in) {
            sides.push((workload.ifindex, Side::Ingress, came_by));
        }
        sides
    }

    fn is_permitted(
        &mut self,
        (device, side, came_by): (u32, Side, u32),
        packet: &Packet,
        translation: Option<&Translation>,
        bytes: &[u8],
    ) -> bool {
        if side == Side::Ingress && (came_by == 0 || came_by == device) {
            return true;
        }
        let Some(pod) = self.world.tables.pods.get(&device).copied() else { return false };
        let goes_to = translation.map_or(packet.dst, |translation| translation.dst);
        if pod.policy.is_open() {
            return true;
        }
        let ends = self.model.ends(packet);
        let to_node = side == Side::Egress && (self.is_node(goes_to) || self.is_node(packet.dst));
        // A later piece whose first nobody saw: where the pod is not isolated nothing is asked of its ports.
        if ends.is_empty() {
            return to_node || pod.policy.set(side) == PolicySetId::OPEN;
        }
        let is_permitted = ends.into_iter().any(|came| {
            let goes = translation.map_or(came, |translation| (translation.src, translation.dst));
            let (own, near, far) = match side {
                Side::Egress => (came.0, came.1, goes.1),
                Side::Ingress => (goes.1, goes.0, came.0),
            };
            let owner = self.owner(near.addr, came_by);
            let is_seen = self.world.tables.devices.get(&device).is_some_and(|device| device.netns != 0);
            let is_translated = translation.is_some();
            let at =
                At { device, policy: pod.policy, side, pod: own, near, far, owner, is_seen, is_translated };
            self.model.permits(&self.rules, &at, packet, bytes)
        });
        // Its own node is always reached; what is allowed anyway begins as any other.
        is_permitted || to_node
    }

    /// Who has an address: of the link, whoever is behind the device by which it came.
    fn owner(&self, addr: Addr, came_by: u32) -> Addr {
        let sender = self.world.tables.pods.get(&came_by).filter(|_| is_of_link(addr));
        sender.and_then(|pod| pod.address_like(addr)).unwrap_or(addr)
    }

    fn is_node(&self, peer: Peer) -> bool {
        let row = self.world.tables.frontends.get(&FrontendKey::whole_address(peer.addr));
        row.is_some_and(|row| row.uses().contains(AddressUses::NODE))
    }

    /// Its own, one of the link, or none.
    fn bears_its_address(&self, second: bool, packet: &Packet) {
        let own = Place::LocalPod(second).addr(!packet.src.addr.is_v4());
        let src = packet.src.addr;
        assert!(src == own || is_of_link(src), "a pod sends as {}", IpAddr::from(src));
    }

    /// What comes back to who was let begin passes, if there was room to remember.
    fn is_answered(&self, hook: Hook, packet: &Packet) {
        let tables = &self.world.tables;
        let (Kind::Transport(protocol), Fragment::Whole) = (packet.kind, packet.fragment) else { return };
        let is_syn = packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
        if (protocol == Protocol::Tcp && !is_syn) || tables.full.get() {
            return;
        }
        let (second, back) = match hook {
            Hook::From(second) => (second, Hook::To(second, Origin::World)),
            Hook::To(second, Origin::World | Origin::OtherPod) => (second, Hook::From(second)),
            Hook::To(_, Origin::Node) | Hook::Net => return,
        };
        let own = Place::LocalPod(second).addr(!packet.src.addr.is_v4());
        let is_its_own = match hook {
            Hook::From(_) => packet.src.addr == own,
            _ => packet.dst.addr == own,
        };
        if !is_its_own || packet.src.addr == packet.dst.addr || tables.enforcement.most_per_pod != u32::MAX {
            return;
        }
        let reply = transport(packet.dst, packet.src, protocol, TCP_SYN | TCP_ACK, &Headers::PLAIN);
        let world = self.world.clone();
        let Some((verdict, Ok(read))) = ask(&world, back, &reply) else { return };
        // Of an address of a Service, the world's, or one that is no host's, the reply is somebody else's matter.
        let denied = matches!(
            verdict,
            Verdict::Drop(DropReason::PolicyIngress | DropReason::PolicyEgress | DropReason::JudgedFull)
        );
        let is_service = |peer: Peer| tables.frontends.contains_key(&FrontendKey::whole_address(peer.addr));
        assert!(
            !denied || is_service(packet.src) || is_service(packet.dst),
            "{hook:?} let pass {packet:?}, and not its reply {read:?}: {verdict:?}"
        );
    }
}

fn is_of_link(addr: Addr) -> bool {
    match IpAddr::from(addr) {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

const fn came_by(second: bool, origin: Origin) -> u32 {
    match origin {
        Origin::World => UPLINK,
        Origin::OtherPod => device(!second),
        Origin::Node => 0,
    }
}

/// The hooks know where an Ethernet header ends.
fn with_ethernet(frame: Frame) -> Frame {
    if frame.l3 == ETHERNET {
        return frame;
    }
    let mut bytes = vec![2; ETHERNET - 2];
    bytes.extend(frame.ether_type.to_be_bytes());
    bytes.extend(&frame.bytes[frame.l3.min(frame.bytes.len())..]);
    Frame { bytes, l3: ETHERNET, ether_type: frame.ether_type }
}

/// What is decided at a hook, and what was read. `None`: it is no packet, and no pod's.
fn ask(world: &World, hook: Hook, frame: &Frame) -> Option<(Verdict, Result<Packet, Unusable>)> {
    let node = Node { tables: &world.tables, moment: &world.moment, network: &world.network };
    let (bytes, l3) = (frame.bytes.as_slice(), u32::try_from(frame.l3).expect("short"));
    let read = parse(bytes, l3, frame.ether_type);
    let at = |second, came_by| PodHook {
        device: device(second),
        came_by,
        ether_type: frame.ether_type,
        read,
        bytes,
    };
    let verdict = match hook {
        Hook::From(second) => arrive_from_pod(&node, &at(second, device(second))),
        Hook::To(second, origin) => leave_to_pod(&node, &at(second, came_by(second, origin)), false),
        Hook::Net => arrive_from_net(&node, UPLINK, read.as_ref().ok()?, bytes),
    };
    Some((verdict, read))
}
