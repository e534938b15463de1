//! Files as people write them, in real directories with real inotify.

mod catalog;
mod decode;
mod large;
mod live;
mod trouble;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Manifests;
use crate::source::{Event, ObjectKey};
use crate::state::State;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Service in namespace `ns` with this ClusterIP.
pub(super) fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{namespace: ns, name: {name}}}\nspec:\n  clusterIP: {ip}\n  \
         ports: [{{port: 80}}]\n"
    )
}

/// A slice of Service `ns/web` with these addresses.
fn slice(name: &str, addresses: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: ns\n  name: {name}\n  \
         labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{port: 8080}}]\nendpoints:\n"
    );
    for address in addresses {
        writeln!(text, "- addresses: [{address}]").unwrap();
    }
    text
}

/// A directory that is being watched, and what was told of it.
struct Lab {
    /// Holds `dir`, and room beside it.
    root: TempDir,
    dir: PathBuf,
    state: State,
    /// Every event, in order.
    log: Vec<Event>,
    /// How often it has settled.
    settled: u8,
    events: mpsc::Receiver<Event>,
    run: JoinHandle<anyhow::Result<()>>,
}

impl Lab {
    /// Starts with these files, and waits for the end of the first reading.
    async fn start(files: &[(&str, String)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("manifests");
        fs::create_dir(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        Self::watch(root, dir).await
    }

    async fn watch(root: TempDir, dir: PathBuf) -> Self {
        let (sender, events) = mpsc::channel(16);
        let run = tokio::spawn(Manifests::open(&dir).unwrap().run(sender));
        let mut lab = Self { root, dir, state: State::new("node"), log: Vec::new(), settled: 0, events, run };
        lab.until("synced", |lab| lab.state.is_complete()).await;
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Takes events until `done`.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let event = timeout(PATIENCE, self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!("never {what}: {event:?}; log {:#?}", self.log);
            };
            self.log.push(event.clone());
            self.state.apply(event);
        }
    }

    /// Takes the events of all that was done before: writes a file of its own and waits for it. Only what waits
    /// for a time (a removed file) may still be missing.
    async fn settle(&mut self) {
        self.settled += 1;
        let ip = format!("10.255.{}.1", self.settled);
        self.write("zz-settle.yaml", &service("settle", &ip));
        self.until("settled", |lab| lab.ip("settle").as_deref() == Some(&ip)).await;
    }

    /// The ClusterIP of Service `ns/NAME`.
    fn ip(&self, name: &str) -> Option<String> {
        let key = ObjectKey::new("ns", name);
        self.state.service(&key).map(|view| view.service.cluster_ips[0].to_string())
    }

    /// Everything that is wrong, with the directory's own path cut off.
    fn problems(&self) -> Vec<String> {
        let dir = self.dir.display().to_string();
        let text = |(object, problem)| format!("{object}: {problem}");
        self.state.problems().map(text).map(|text: String| text.replace(&dir, "DIR")).collect()
    }

    /// What was told about Service `ns/NAME` since event number `from`: its ClusterIP, or that it is gone.
    fn told(&self, name: &str, from: usize) -> Vec<Option<String>> {
        let key = ObjectKey::new("ns", name);
        let told = |event: &Event| match event {
            Event::Service(of, service) if *of == key => {
                Some(service.as_ref().map(|service| service.cluster_ips[0].to_string()))
            }
            _ => None,
        };
        self.log[from..].iter().filter_map(told).collect()
    }
}

/// Writes a file beside its place and moves it there, as careful editors do.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
}
