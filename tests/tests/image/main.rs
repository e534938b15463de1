//! The image that `cargo xtask image` makes, loaded and run by Debian's containerd and runc as the DaemonSet in
//! `deploy/overlays/kind` describes it: on a node that is itself a container and has no BPF file system, as kind's
//! nodes, with an API server that grants what the ClusterRole says.

mod container;
mod control_plane;
mod large;
mod memory;
mod names;
mod node;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use weir_tests::cases::spec::{ready, service};
use weir_tests::cases::{CAST, objects};
use weir_tests::deploy::read_overlay;
use weir_tests::lab::{Cluster, DualStack, Form, Settings, address, binary, teardown};
use weir_tests::prober::{Command, How, Outcome, Prober};

use container::{Container, Description, run_to_end};
use control_plane::ControlPlane;
use memory::Charged;
use node::Node;

/// The ClusterIPs of the Service.
const WEB: DualStack = address::service(10);
/// How long something that is not instant may take.
const SOON: Duration = Duration::from_secs(5);
/// A socket of a prober's.
const SOCKET: u64 = 1;

/// A trial with a node of its own.
type Single = fn() -> Result<()>;

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    if let Err(error) = teardown::watch_signals() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let single: [(&str, Single); 3] = [
        ("runs-as-described", runs_as_described),
        ("each-capability-is-needed", each_capability_is_needed),
        ("a-large-cluster-fits", a_large_cluster_fits),
    ];
    let trials = single.map(|(name, run)| {
        Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// A lab whose first node is a container; a Service in it; what the agent's container is to be.
struct World {
    // in the order in which they end
    pod: Prober,
    node: Node,
    charged: Option<Charged>,
    control_plane: ControlPlane,
    cluster: Cluster,
    description: Description,
}

impl World {
    fn create() -> Result<Self> {
        let cluster = Cluster::create(Settings::default(), &CAST)?;
        let place = cluster.lab().nodes()[0].place().clone();
        let objects = read_overlay("kind")?;
        let (account, etc) =
            (cluster.lab().directory().join("account"), cluster.lab().directory().join("etc"));
        let control_plane = ControlPlane::start(&place, &objects, &account, &etc)?;
        let mut description = Description::read(&objects, "n1")?;
        ControlPlane::complete(&mut description, &account, &etc);
        let charged = Charged::create(&cluster.lab().id().name("agent"), description.memory)?;
        let node = Node::start(&cluster, &etc, charged.as_ref())?;
        let archive = env::var_os("WEIR_IMAGE").map(PathBuf::from).context("WEIR_IMAGE names no archive")?;
        let archive = archive.to_str().context("WEIR_IMAGE is not UTF-8")?;
        // As kind does it.
        node.ctr(&["images", "import", "--all-platforms", "--digests", "--snapshotter=native", archive])?;
        // A pod's process among the node's: as an agent in this node sees it.
        let program = node.wrap(&binary::find_prober()?)?;
        let place = cluster.lab().nodes()[0].pods()[0].place.clone();
        let pod = Prober::start(&program, &place)?;
        let world = Self { pod, node, charged, control_plane, cluster, description };
        world
            .control_plane
            .put(&[json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } })])?;
        world.serve(&["n1-b"])?;
        Ok(world)
    }

    /// Puts a Service with these endpoints in force, soon.
    fn serve(&self, endpoints: &[&'static str]) -> Result<()> {
        let endpoints: Vec<_> = endpoints.iter().map(|place| ready(place)).collect();
        self.control_plane.put(&objects::of_service(&service("web").slice(endpoints.as_slice()), "lab", WEB))
    }

    /// One question from the pod through the Service, and who answered.
    fn ask(&self, how: How, form: Form) -> Result<String> {
        match self.pod.call(Command::Ask { how, to: WEB.dial(form, 80) })? {
            Outcome::Answered(answer) => Ok(answer.server),
            other => bail!("no answer but {other:?}"),
        }
    }

    /// Every kind of socket reaches the Service.
    fn ensure_served(&self) -> Result<()> {
        for (how, form) in How::ALL.into_iter().flat_map(|how| Form::ALL.map(|form| (how, form))) {
            let server = self.ask(how, form).with_context(|| format!("{how}, {form}"))?;
            ensure!(server == "n1-b", "{how}, {form}: {server} answered");
        }
        Ok(())
    }

    /// Waits until the agent has told the pod's open socket that its backend is gone.
    fn wait_closed(&self) -> Result<bool> {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            match self.pod.call(Command::TakeError { socket: SOCKET })? {
                Outcome::Failed(failure) if failure.error == "ECONNABORTED" => return Ok(true),
                Outcome::Done => sleep(Duration::from_millis(5)),
                other => bail!("{other:?}"),
            }
        }
        Ok(false)
    }

    fn print_memory(&self, when: &str) -> Result<()> {
        match &self.charged {
            Some(charged) => charged.print(when),
            None => {
                println!("not run: no controller of memory of cgroup version 1: memory is not measured");
                Ok(())
            }
        }
    }

    fn open(&self) -> Result<()> {
        self.pod.must(Command::Open { socket: SOCKET, how: How::Tcp, to: WEB.dial(Form::V4, 80) })
    }

    /// A line of `/proc/<pid>/status` of a process of the node.
    fn process_status(&self, pid: u64, field: &str) -> Result<String> {
        let output = self.node.command("cat")?.arg(format!("/proc/{pid}/status")).output()?;
        let text = String::from_utf8(output.stdout)?;
        let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(found.with_context(|| format!("no {field} of process {pid}"))?.trim().to_owned())
    }
}

/// The whole life of an agent in a container: no more rights than described, translated traffic of pods, sockets
/// closed in their namespaces, and nothing lost when the container ends.
fn runs_as_described() -> Result<()> {
    let world = World::create()?;
    let agent = Container::start(&world.node, "agent", &world.description)?;
    let status = agent.wait_ready()?;
    let pid = status["agent"]["pid"].as_u64().context("no pid")?;
    let mask = capability_mask(&world.description.capabilities)?;
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        let found = u64::from_str_radix(&world.process_status(pid, field)?, 16)?;
        ensure!(found == mask, "{field}: {found:x} instead of {mask:x}");
    }
    ensure!(world.process_status(pid, "Seccomp")? == "2", "the agent runs without a seccomp filter");
    world.print_memory("")?;
    // Most pods have no process that this node sees: their namespaces are found where they are mounted.
    let network = &status["agent"]["network"];
    let pods = world.cluster.lab().nodes()[0].pods().len();
    ensure!(network["pods"] == pods && network["pods_without_namespace"] == 0, "{network}");
    ensure_attached_to_node(&world, &status)?;
    world.ensure_served()?;

    world.open()?;
    world.serve(&["n2-a"])?;
    ensure!(world.wait_closed()?, "the pod is not told that its backend is gone\n{}", agent.log());
    world.serve(&["n1-b"])?;
    // One slice for each family.
    for form in [Form::V4, Form::V6] {
        wait_for(|| Ok(world.ask(How::Tcp, form)? == "n1-b"))?;
    }

    agent.terminate()?;
    world.ensure_served().context("after the container has ended")?;
    let next = Container::start(&world.node, "next", &world.description)?;
    let status = next.wait_ready()?;
    ensure!(next.log().contains("adopted the pinned tables"), "the tables were made anew:\n{}", next.log());
    ensure_attached_to_node(&world, &status)?;
    world.ensure_served().context("after another container has taken over")?;
    next.terminate()?;

    // As deploy/README.md says.
    let mut cleanup = vec!["run", "--rm", "--privileged", "--snapshotter=native", "--cpu-shares=0"];
    cleanup.push("--mount=type=bind,src=/sys/fs/bpf,dst=/sys/fs/bpf,options=rbind:rw");
    cleanup.extend([world.description.image.as_str(), "cleanup", "/weir", "cleanup"]);
    let said = world.node.ctr(&cleanup)?;
    ensure!(said.contains("removed "), "weir cleanup: {said}");
    ensure!(world.ask(How::Tcp, Form::V4).is_err(), "the Service is served after `weir cleanup`");
    Ok(())
}

/// Without any one of them something fails, and says what.
fn each_capability_is_needed() -> Result<()> {
    let world = World::create()?;
    let without = |name: &str| {
        let mut description = world.description.clone();
        let before = description.capabilities.len();
        description.capabilities.retain(|own| own != name);
        ensure!(description.capabilities.len() + 1 == before, "{name} is not described");
        Ok(description)
    };
    // Each of the first three is missing before a BPF file system is mounted on the node, which the fourth one does.
    for (name, said) in [
        ("SYS_PTRACE", "CAP_SYS_PTRACE"),
        ("SYS_CHROOT", "CAP_SYS_CHROOT"),
        ("SYS_ADMIN", "CAP_SYS_ADMIN"),
        ("NET_BROADCAST", "CAP_NET_BROADCAST"),
    ] {
        let id = format!("without-{}", name.to_lowercase());
        let (succeeded, log) = run_to_end(&world.node, &id, &without(name)?)?;
        ensure!(!succeeded && log.contains(said), "without {name} it says:\n{log}");
    }
    let (succeeded, log) = run_to_end(&world.node, "without-net_broadcast", &without("NET_BROADCAST")?)?;
    ensure!(!succeeded && log.contains("CAP_NET_BROADCAST"), "without NET_BROADCAST it says:\n{log}");
    let agent = Container::start(&world.node, "without-net_admin", &without("NET_ADMIN")?)?;
    agent.wait_ready()?;
    world.ensure_served()?;
    world.open()?;
    world.serve(&["n2-a"])?;
    wait_for(|| Ok(agent.log().contains("CAP_NET_ADMIN")))
        .with_context(|| format!("without NET_ADMIN it says:\n{}", agent.log()))?;
    let mut tested =
        ["SYS_PTRACE", "SYS_CHROOT", "SYS_ADMIN", "NET_BROADCAST", "NET_ADMIN"].map(str::to_owned);
    let mut described = world.description.capabilities.clone();
    tested.sort();
    described.sort();
    ensure!(described == tested, "a capability that nobody was seen to need: {described:?}");
    Ok(())
}

/// 10,000 Services of 10 endpoints, within the limit of memory.
fn a_large_cluster_fits() -> Result<()> {
    let world = World::create()?;
    world.control_plane.put(&large::cluster(10_000, 10))?;
    let agent = Container::start(&world.node, "agent", &world.description)?;
    let status = agent.wait_ready()?;
    ensure!(status["problems"] == json!([]), "{}", status["problems"]);
    world.ensure_served()?;
    world.print_memory("@10000x10")
}

/// The programs are on the cgroup that is the root of the node's namespace, and not on the machine's.
fn ensure_attached_to_node(world: &World, status: &Value) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let wanted = fs::metadata(world.cluster.lab().nodes()[0].cgroup())?.ino();
    let hooks = status["hooks"].as_array().context("no hooks")?;
    ensure!(!hooks.is_empty() && hooks.iter().all(|hook| hook["cgroup"] == wanted), "{wanted}: {hooks:?}");
    Ok(())
}

/// As in `/proc/<pid>/status`; the kernel's numbers (include/uapi/linux/capability.h).
fn capability_mask(names: &[String]) -> Result<u64> {
    let bit = |name: &String| {
        Ok(1_u64
            << match name.as_str() {
                "NET_BROADCAST" => 11,
                "NET_ADMIN" => 12,
                "SYS_CHROOT" => 18,
                "SYS_PTRACE" => 19,
                "SYS_ADMIN" => 21,
                "PERFMON" => 38,
                "BPF" => 39,
                other => bail!("the number of {other} is not known here"),
            })
    };
    names.iter().map(bit).sum()
}

fn wait_for(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !done()? {
        ensure!(Instant::now() < deadline, "not within {SOON:?}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}
