//! The cluster that the agent's container is in: a test API server that the node reaches as kind's nodes reach theirs,
//! by a name in the kubelet's kubeconfig that DNS knows; and what the kubelet gives to every pod, credentials first of all. The
//! agent's user may do what the manifests' ClusterRole says, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weir_tests::apiserver::{ApiServer, Rule, ServerOptions};
use weir_tests::deploy::{Object, rules};
use weir_tests::lab::Place;

use crate::container::Description;
use crate::names;

/// Where a pod finds its credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN: &str = "the-agents-token";
/// What the node calls its API server.
const NAME: &str = "weir-control-plane";

/// See the module.
pub(crate) struct ControlPlane {
    /// What the cluster is made of.
    pub(crate) server: ApiServer,
    // After the server, which runs in it.
    runtime: Runtime,
}

impl ControlPlane {
    /// Starts an API server and a name server on the node's loopback; `account` becomes the agent's credentials, and `etc` the node's
    /// files.
    pub(crate) fn start(node: &Place, objects: &[Object], account: &Path, etc: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let names = vec![NAME.to_owned()];
        let options = ServerOptions { names, ..ServerOptions::default() };
        // Its sockets belong to the namespace of the thread that makes them.
        let server = node.netns().enter(|| {
            let resolver = runtime.block_on(names::bind())?;
            runtime.spawn(names::serve(resolver));
            runtime.block_on(ApiServer::start_with(options))
        })?;
        let granted = rules(objects).map(|rule| Rule {
            resources: rule.resources.clone().unwrap_or_default(),
            verbs: rule.verbs.clone(),
            namespace: None,
        });
        server.grant(TOKEN, "system:serviceaccount:kube-system:weir", granted.collect());
        fs::create_dir_all(account)?;
        fs::write(account.join("token"), TOKEN)?;
        fs::write(account.join("ca.crt"), server.ca_pem())?;

        let kubernetes = etc.join("kubernetes");
        fs::create_dir_all(&kubernetes)?;
        let port = server.address().port();
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{ "name": "k", "cluster": { "server": format!("https://{NAME}:{port}") } }],
            "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
            "users": [{ "name": "u", "user": { "client-key": "/var/lib/kubelet/pki/not-for-pods.pem" } }],
        });
        fs::write(kubernetes.join("kubelet.conf"), serde_json::to_string(&kubeconfig)?)?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n")?;
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\n")?;

        let control_plane = Self { server, runtime };
        control_plane.put(&[json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "namespace": "default", "name": "kubernetes" },
            "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443 }] },
        })])?;
        Ok(control_plane)
    }

    /// Writes objects into the cluster.
    pub(crate) fn put(&self, objects: &[Value]) -> Result<()> {
        let _context = self.runtime.enter();
        objects.iter().try_for_each(|object| self.server.put(object).map(drop).context("writing an object"))
    }

    /// Adds what the kubelet adds. The API server's Service leads nowhere: nobody but the agent itself would serve it.
    pub(crate) fn complete(description: &mut Description, account: &Path, etc: &Path) {
        let variables = ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"];
        description.add(account, SERVICE_ACCOUNT, &variables.map(str::to_owned));
        description.add(&etc.join("hosts"), "/etc/hosts", &[]);
        description.add(&etc.join("resolv.conf"), "/etc/resolv.conf", &[]);
    }
}
