//! A cgroup, a pin root, the programs and tables, and servers on loopback to be backends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use weir_agent::compile::{FrontendPlan, PortName, PortPlan, ServicePlan, SetPlan};
use weir_agent::kernel::{Generation, Grace, Hooks, KernelStore, PinRoot, cleanup};
use weir_agent::source::{Family, ObjectKey, Protocol};
use weir_agent::tables::{Sizes, Tables};
use weir_ebpf::abi::{DropReason, FrontendKind};

/// The process is in one cgroup at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Tables that are small enough to be filled.
pub(crate) const SIZES: Sizes = Sizes {
    frontends: 64,
    services: 32,
    backends: 256,
    connections: 4096,
    datagrams: 64,
    affinity: 64,
    source_ranges: 64,
    flows: 64,
    address_classes: 64,
    network_classes: 64,
    verdicts: 64,
    port_rules: 64,
    judged: 64,
    drop_events: 16,
};

pub(crate) struct World {
    pub(crate) root: PinRoot,
    pub(crate) generation: Generation,
    pub(crate) tables: Tables,
    pub(crate) store: KernelStore,
    cgroup: PathBuf,
    home: PathBuf,
    netns: Netns,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Loads, attaches, moves this process into the cgroup and this thread into a network namespace of its own: no
    /// packet of these tests has a way off the machine.
    pub(crate) fn new(name: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests load programs into the kernel: run them as root"
        );
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("weir-programs-{}-{name}", std::process::id());
        let mount = cgroup2_mount();
        let home = mount.join(own_cgroup().trim_start_matches('/'));
        let cgroup = mount.join(&id);
        fs::create_dir(&cgroup).unwrap();
        let netns = Netns::enter(&id);
        let root = PinRoot::new(Path::new("/sys/fs/bpf").join(&id));
        root.ensure().unwrap();
        let (generation, tables, store) = load(&root, &cgroup, SIZES);
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        Self { root, generation, tables, store, cgroup, home, netns, _alone: alone }
    }

    /// What a new agent does to what an old one left.
    pub(crate) fn restart(&mut self, sizes: Sizes) {
        (self.generation, self.tables, self.store) = load(&self.root, &self.cgroup, sizes);
    }

    /// Where the maps are pinned: the one generation that there is.
    pub(crate) fn maps(&self) -> PathBuf {
        let pins = fs::read_dir(self.root.path()).unwrap().flatten().map(|entry| entry.path());
        let mut generations = pins.filter(|path| path.join("sets").exists());
        let found = generations.next().unwrap();
        assert_eq!(generations.next(), None, "another generation beside {}", found.display());
        found
    }

    /// As a node has a default route, so that what is not translated has a way to go.
    pub(crate) fn route_to_loopback(&self, addr: std::net::IpAddr) {
        ip(&["-n", &self.netns.name, "route", "add", &addr.to_string(), "dev", "lo"]);
    }

    /// What a new agent does that serves another cgroup.
    pub(crate) fn attach(&self, cgroup: &Path) -> anyhow::Result<()> {
        Hooks::load(self.generation.load()?)?.attach(&self.root, cgroup)
    }

    /// A cgroup of this world, to be removed by the test.
    pub(crate) fn sub_cgroup(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroup.join(name);
        fs::create_dir(&cgroup).unwrap();
        cgroup
    }

    pub(crate) fn apply(&mut self, plan: &ServicePlan) {
        self.tables.apply(&plan.service, Some(plan), &mut self.store);
        assert_eq!(self.tables.problems().collect::<Vec<_>>(), []);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::write(self.home.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        let _pins = cleanup(&self.root).unwrap();
        self.netns.remove();
        // Sub-cgroups that a test that failed left there.
        for inside in fs::read_dir(&self.cgroup).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            fs::remove_dir(inside.path()).unwrap();
        }
        // A thread that is just ending is not moved, and keeps the cgroup busy until it is gone.
        let patience = Instant::now() + Duration::from_secs(10);
        while let Err(error) = fs::remove_dir(&self.cgroup) {
            assert!(Instant::now() < patience, "removing {}: {error}", self.cgroup.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A network namespace with nothing but loopback, mounted under a name as CNI plugins do.
struct Netns {
    name: String,
    home: fs::File,
}

impl Netns {
    fn enter(name: &str) -> Self {
        let home = fs::File::open("/proc/thread-self/ns/net").unwrap();
        ip(&["netns", "add", name]);
        let file = fs::File::open(Path::new("/run/netns").join(name)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        ip(&["link", "set", "lo", "up"]);
        ip(&["address", "add", "fd00::2/128", "dev", "lo", "nodad"]);
        Self { name: name.to_owned(), home }
    }

    fn remove(&self) {
        setns(&self.home, CloneFlags::CLONE_NEWNET).unwrap();
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

fn load(root: &PinRoot, cgroup: &Path, sizes: Sizes) -> (Generation, Tables, KernelStore) {
    let generation = Generation::wanted(root, sizes);
    let mut hooks = Hooks::load(generation.load().unwrap()).unwrap();
    let mut store = KernelStore::open(&generation, Grace::new().unwrap()).unwrap();
    let found = store.snapshot().unwrap();
    let tables = Tables::adopt(sizes, &found, &mut store).unwrap();
    hooks.attach(root, cgroup).unwrap();
    (generation, tables, store)
}

fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    line.split(' ').nth(1).unwrap().into()
}

fn own_cgroup() -> String {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

/// The frontend of every test, in each family.
pub(crate) fn vip(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "10.96.0.1:80".parse().unwrap(),
        Family::V6 => "[fd00:10:96::1]:80".parse().unwrap(),
    }
}

/// A Service of one port with these backends.
pub(crate) fn plan(protocol: Protocol, backends: &[SocketAddr]) -> ServicePlan {
    let service = ObjectKey::new("test", protocol.name().to_lowercase());
    let family = backends.first().map_or(Family::V4, |addr| Family::of(addr.ip()));
    let backends: BTreeMap<SocketAddr, bool> = backends.iter().map(|&addr| (addr, true)).collect();
    ServicePlan {
        service: service.clone(),
        created_s: None,
        present: backends.keys().map(SocketAddr::ip).collect(),
        ports: vec![PortPlan {
            name: PortName { service, port: "".into(), protocol, family },
            frontends: vec![FrontendPlan { addr: vip(family), kind: FrontendKind::ClusterIp, flags: 0 }],
            cluster: Some(SetPlan { backends, when_empty: DropReason::NoEndpoint }),
            local: None,
            source_ranges: Vec::new(),
            affinity_s: 0,
        }],
    }
}

/// The same for a Service of another name, without an address.
pub(crate) fn named(name: &str, plan: &ServicePlan) -> ServicePlan {
    let mut plan = plan.clone();
    plan.service = ObjectKey::new("test", name);
    for port in &mut plan.ports {
        port.name.service = plan.service.clone();
        port.frontends.clear();
    }
    plan
}

/// A server on loopback that answers each datagram with its own port; ends with the process.
pub(crate) fn udp_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _sent = socket.send_to(&addr.port().to_be_bytes(), from);
        }
    });
    addr
}

/// A server on loopback that answers each connection with its own port and echoes what comes then.
pub(crate) fn tcp_server(host: &str) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 64];
                let mut sent = stream.write_all(&addr.port().to_be_bytes());
                while let (Ok(()), Ok(len @ 1..)) = (&sent, stream.read(&mut buffer)) {
                    sent = stream.write_all(&buffer[..len]);
                }
            });
        }
    });
    addr
}
