//! A node: a cgroup without processes, a place for pins and files, and an agent that watches a test API server.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::apiserver::ApiServer;
use weir_tests::lab::{LabId, binary, cgroup, teardown};

const NAME: &str = "node-a";

/// How long a test waits for what must happen. Nothing is slower when it passes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kernel has for a Service port: who dials what, and where it goes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Served {
    pub(crate) frontends: Vec<String>,
    pub(crate) backends: Vec<String>,
}

/// By namespace/name.
pub(crate) type Table = BTreeMap<String, Served>;

/// Gone with all that it made when it is dropped.
pub(crate) struct Node {
    id: LabId,
    directory: PathBuf,
    agent: Option<Child>,
    /// Where `/healthz` and `/livez` are.
    health: SocketAddr,
}

impl Node {
    /// A node without an agent. Panics without root.
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests load programs into the kernel: run them as root"
        );
        teardown::sweep().unwrap();
        teardown::ensure_bpffs().unwrap();
        let id = LabId::next();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let health = free.local_addr().unwrap();
        let node = Self { id, directory: teardown::directory(id), agent: None, health };
        fs::create_dir_all(&node.directory).unwrap();
        cgroup::ensure(&node.cgroup("pods")).unwrap();
        cgroup::ensure(&node.cgroup("agent")).unwrap();
        node
    }

    /// What the agent's credentials are from its next start, or its next attempt, on.
    pub(crate) fn set_kubeconfig(&self, text: &str) {
        let new = self.directory.join("kubeconfig.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.directory.join("kubeconfig")).unwrap();
    }

    /// Starts the agent, with an empty log.
    pub(crate) fn start(&mut self) {
        let log = OpenOptions::new().create(true).write(true).truncate(true).open(self.log_file()).unwrap();
        let mut command = self.weir("agent");
        command.args(["--source", "kubernetes", "--node-name", NAME, "--metrics-address", "127.0.0.1:0"]);
        command.arg("--cgroup-root").arg(self.cgroup("pods")).arg("--run-dir").arg(&self.directory);
        command.arg("--kubeconfig").arg(self.directory.join("kubeconfig"));
        command.arg("--state-dir").arg(self.directory.join("state"));
        command.arg("--healthz-address").arg(self.health.to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let agent = command.spawn().unwrap();
        // So that it is found by a sweep, should this process be killed.
        fs::write(self.cgroup("agent").join("cgroup.procs"), agent.id().to_string()).unwrap();
        self.agent = Some(agent);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// A line of `/proc/PID/status` of the agent, in KiB.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let pid = self.agent.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until the agent answers so to this path of its health: the status, and a word of the body.
    pub(crate) async fn until_health(&self, path: &str, status: u16, word: &str) {
        let begun = Instant::now();
        loop {
            let answer = self.ask_health(path).unwrap_or_else(|error| error.to_string());
            if answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(word) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} is not {status} {word}: {answer}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn ask_health(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.health, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.health)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// `weir status --json`
    pub(crate) fn status(&self) -> Value {
        let mut command = self.weir("status");
        let output = command.arg("--run-dir").arg(&self.directory).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `weir services --json`
    pub(crate) fn table(&self) -> Table {
        let output = self.weir("services").arg("--json").output().unwrap();
        let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let texts = |values: &Value, text: fn(&Value) -> &Value| {
            let values = values.as_array().unwrap().iter();
            let mut texts: Vec<String> = values.map(|value| text(value).as_str().unwrap().into()).collect();
            texts.sort();
            texts
        };
        let served = |line: &Value| Served {
            frontends: texts(&line["frontends"], |frontend| &frontend["address"]),
            backends: texts(&line["cluster"]["backends"], |backend| &backend["address"]),
        };
        let name = |line: &Value| line["service"].as_str().unwrap().to_owned();
        lines.iter().map(|line| (name(line), served(line))).collect()
    }

    /// Waits until `condition` holds of `weir status --json`.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        let mut status = self.status();
        while !condition(&status) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}: {status:#}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
            status = self.status();
        }
    }

    /// Waits until what was listed first is in force.
    pub(crate) async fn until_ready(&self) {
        self.until("ready", |status| status["ready"] == true).await;
    }

    /// Waits until `weir status` says these words about the API server.
    pub(crate) async fn until_error(&self, words: &str) {
        let says = |status: &Value| {
            let connection = &status["agent"]["connection"];
            connection["connected"] == false && connection["error"].as_str().unwrap().contains(words)
        };
        self.until(words, says).await;
    }

    /// Waits until the tables are so.
    pub(crate) async fn until_table(&self, table: &Table) {
        let begun = Instant::now();
        loop {
            let is = self.table();
            if is == *table {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{is:#?} is not {table:#?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the agent has written down which cluster this is.
    pub(crate) async fn until_remembered(&self) {
        let file = self.directory.join("state/cluster.json");
        let begun = Instant::now();
        let has_cluster = || {
            let memory: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
            memory["cluster"].is_string().then_some(())
        };
        while has_cluster().is_none() {
            assert!(begun.elapsed() < PATIENCE, "{} does not come\n{}", file.display(), self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the agent said since its start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn cgroup(&self, of: &str) -> PathBuf {
        cgroup::ensure_root().unwrap().join(self.id.to_string()).join(of)
    }

    fn weir(&self, verb: &str) -> Command {
        let mut command = Command::new(binary::find_weir().unwrap());
        // Of whoever runs the tests.
        for variable in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "WEIR_LOG"] {
            command.env_remove(variable);
        }
        command.arg(verb).arg("--pin-root").arg(Path::new("/sys/fs/bpf").join(self.id.name("pins")));
        if verb == "status" || verb == "agent" {
            command.current_dir(&self.directory);
        }
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.kill();
        }
        let cleaned = self.weir("cleanup").arg("--run-dir").arg(&self.directory).output();
        let removed = teardown::remove(self.id);
        if !std::thread::panicking() {
            let cleaned = cleaned.unwrap();
            assert!(cleaned.status.success(), "weir cleanup: {}", String::from_utf8_lossy(&cleaned.stderr));
            removed.unwrap();
        }
    }
}

/// Writes a Service with so many endpoints, and adds to `table` what it must become.
pub(crate) fn put(server: &ApiServer, table: &mut Table, number: usize, endpoints: usize) {
    let (namespace, name) = (format!("ns-{}", number % 100), format!("service-{number}"));
    let ip = format!("10.{}.{}.{}", 96 + number / 62_500, number / 250 % 250, 1 + number % 250);
    let address = |n: usize| format!("10.{}.{}.{}", 128 + n / 62_500, n / 250 % 250, 1 + n % 250);
    let addresses: Vec<String> = (0..endpoints).map(|n| address(10 * number + n)).collect();
    // With what a real one has besides: it costs what it costs.
    let managed = json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:ports": {".": {}}}}}]);
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "managedFields": managed},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}});
    let pod = |n: usize| json!({"kind": "Pod", "namespace": namespace, "name": format!("{name}-{n}")});
    let endpoint = |(n, address): (usize, &String)| {
        json!({"addresses": [address], "nodeName": format!("node-{}", n % 1000), "zone": "zone-1",
            "conditions": {"ready": true, "serving": true, "terminating": false}, "targetRef": pod(n)})
    };
    let endpoints: Vec<Value> = addresses.iter().enumerate().map(endpoint).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": format!("{name}-abcde"), "managedFields": managed,
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints});
    server.put(&service).unwrap();
    server.put(&slice).unwrap();
    let mut backends: Vec<String> = addresses.iter().map(|address| format!("{address}:8080")).collect();
    backends.sort();
    table.insert(format!("{namespace}/{name}"), Served { frontends: vec![format!("{ip}:80")], backends });
}

/// Writes the Service that every API server makes for itself.
pub(crate) fn put_api_service(server: &ApiServer, table: &mut Table) {
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"clusterIP": "10.95.0.1", "ports": [{"name": "https", "port": 443}]}});
    server.put(&service).unwrap();
    let served = Served { frontends: vec!["10.95.0.1:443".into()], backends: Vec::new() };
    table.insert("default/kubernetes".into(), served);
}
