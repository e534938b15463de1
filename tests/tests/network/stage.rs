//! Network namespaces for a node and what is around it, and its tables. Removed when dropped.

use std::path::Path;
use std::time::Duration;

use weir_agent::kernel::{Generation, Hooks, PinRoot, cleanup};
use weir_agent::network::{Facts, Options, Watch};
use weir_agent::tables::Sizes;
use weir_tests::lab::netns::{self, Netns};
use weir_tests::lab::teardown;

/// Far longer than the kernel takes to announce anything: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

const SIZES: Sizes = Sizes {
    frontends: 64,
    services: 32,
    backends: 256,
    connections: 64,
    datagrams: 64,
    affinity: 64,
    source_ranges: 64,
    flows: 256,
    address_classes: 64,
    network_classes: 64,
    verdicts: 64,
    port_rules: 64,
    judged: 64,
    drop_events: 64,
};

pub(crate) struct Stage {
    name: String,
    namespaces: Vec<String>,
    pub(crate) node: Netns,
    root: Option<PinRoot>,
}

impl Stage {
    /// A node with `lo` and a bridge `cni0`, and nothing else.
    pub(crate) fn new(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
        let name = format!("weir-net-{}-{name}", std::process::id());
        let node = netns::create(&[format!("{name}-node")]).unwrap().remove(0);
        let stage = Self { namespaces: vec![node.name().into()], name, node, root: None };
        stage.ip(&["link set lo up", "link add cni0 type bridge", "link set cni0 up"]);
        stage
    }

    /// On the node.
    pub(crate) fn ip(&self, commands: &[&str]) {
        run(&self.node, commands);
    }

    /// Another namespace.
    pub(crate) fn namespace(&mut self, name: &str) -> Netns {
        let netns = netns::create(&[format!("{}-{name}", self.name)]).unwrap().remove(0);
        run(&netns, &["link set lo up"]);
        self.namespaces.push(netns.name().into());
        netns
    }

    /// A pod with these addresses, plugged into the bridge as CNI plugins do; its veth on the node has its name.
    pub(crate) fn pod(&mut self, name: &str, addresses: &[&str]) -> Netns {
        let pod = self.namespace(name);
        run(&pod, &[&format!("link add eth0 type veth peer name {name} netns {}", self.node.name())]);
        run(&pod, &["link set eth0 up"]);
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            run(&pod, &[&format!("address add {address} dev eth0 {nodad}")]);
        }
        self.ip(&[&format!("link set {name} master cni0 up")]);
        pod
    }

    pub(crate) fn remove(&mut self, netns: &Netns) {
        netns::remove(netns.name()).unwrap();
        self.namespaces.retain(|name| name != netns.name());
    }

    /// Listens on the node.
    pub(crate) fn watch(&self) -> Watch {
        self.node.enter(|| Watch::start(Options::default())).unwrap()
    }

    /// The index of a device of the node.
    pub(crate) fn index(&self, device: &str) -> u32 {
        let read = || Ok(nix::net::if_::if_nametoindex(device)?);
        self.node.enter(read).unwrap()
    }

    /// Where this stage pins; empty tables at the first call, what is there later.
    pub(crate) fn root(&mut self) -> (PinRoot, Generation) {
        teardown::ensure_bpffs().unwrap();
        let root = self.root.get_or_insert_with(|| PinRoot::new(Path::new("/sys/fs/bpf").join(&self.name)));
        root.ensure().unwrap();
        (root.clone(), Generation::wanted(root, SIZES))
    }

    /// Programs on those tables, as an agent that starts has them.
    pub(crate) fn load(&mut self) -> (PinRoot, Generation, Hooks) {
        let (root, generation) = self.root();
        let hooks = Hooks::load(generation.load().unwrap()).unwrap();
        (root, generation, hooks)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(root) = &self.root {
            self.node.enter(|| cleanup(root)).unwrap();
        }
        for name in &self.namespaces {
            netns::remove(name).unwrap();
        }
    }
}

/// `ip` commands in a namespace, all or up to the first that fails.
pub(crate) fn run(netns: &Netns, commands: &[&str]) {
    let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
    netns.ip(&commands).unwrap();
}

/// What is known once it is as expected.
pub(crate) fn until(watch: &mut Watch, expected: &str, is_so: impl Fn(&Facts) -> bool) -> Facts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            let facts = watch.now();
            if is_so(&facts) {
                return facts;
            }
            match tokio::time::timeout(PATIENCE, watch.changed()).await {
                Ok(changed) => changed.unwrap(),
                Err(_) => panic!("not seen: {expected}; known: {facts:#?}"),
            }
        }
    })
}
