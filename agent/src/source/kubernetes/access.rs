//! With which credentials, and at which addresses, the API server may be reached: never through a Service, if there
//! is another way, for it is us who make Services work.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Uri;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where a node keeps the kubeconfigs of its own components, and whose those are. Their addresses work before any
/// Service does. kube-proxy's stand first: its rights are the ones that we need.
const NODE_KUBECONFIGS: &[&str] = &[
    // k3s and RKE2
    "/var/lib/rancher/k3s/agent/kubeproxy.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
    // kubeadm, kind
    "/etc/kubernetes/kubelet.conf",
    // EKS, GKE, AKS
    "/var/lib/kubelet/kubeconfig",
    // k0s
    "/var/lib/k0s/kubelet.conf",
    // MicroK8s
    "/var/snap/microk8s/current/credentials/kubelet.config",
];

/// A pod that is replaced is gone for a moment, and with it what the policies asked for that select it. To list all pods of
/// a cluster anew each time would cost the API server more than to go on.
const LINGER: Duration = Duration::from_secs(30);

/// Asking whether there is a kind costs an API server next to nothing, and who has just installed it waits for it.
const REDISCOVER: Duration = Duration::from_secs(60);

/// A pod's own credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How to reach the API server.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// This node's name: the one Node that is watched.
    pub node_name: String,
    /// A kubeconfig, in place of the service account's credentials and of the node's own kubeconfigs'.
    pub kubeconfig: Option<PathBuf>,
    /// Addresses to try first, as URLs (or `host:port`).
    pub api_servers: Vec<String>,
    /// Where to keep what a later start needs: the addresses of the API servers.
    pub state_dir: PathBuf,
    /// The root of the node's own files: `/`, or where a pod has them mounted.
    pub host_root: PathBuf,
    /// The directory of the pod's service account.
    pub service_account: PathBuf,
    /// The API server's Service: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.
    pub service_address: Option<String>,
    /// How long namespaces and other nodes' pods are still watched when no policy asks for them any more.
    pub linger: Duration,
    /// How long at most until a server is asked again whether it has ClusterNetworkPolicies, where it had none.
    pub rediscover: Duration,
}

impl KubernetesOptions {
    /// What a process finds around itself.
    #[must_use]
    pub fn from_env(node_name: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        let host = env::var("KUBERNETES_SERVICE_HOST").ok();
        let port = env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".into());
        Self {
            node_name: node_name.into(),
            kubeconfig: None,
            api_servers: Vec::new(),
            state_dir: state_dir.into(),
            host_root: "/".into(),
            service_account: SERVICE_ACCOUNT.into(),
            service_address: host.map(|host| server_url(&host, &port)),
            linger: LINGER,
            rediscover: REDISCOVER,
        }
    }

    /// Whether this process is a pod that may speak to its cluster.
    #[must_use]
    pub fn is_in_cluster(&self) -> bool {
        self.service_address.is_some() && self.service_account.join("token").exists()
    }

    fn node_kubeconfigs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        NODE_KUBECONFIGS.iter().map(|path| self.host_root.join(path.trim_start_matches('/')))
    }
}

/// `https://host:port`; a bare IPv6 address gets its brackets.
pub(super) fn server_url(host: &str, port: &str) -> String {
    if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") }
}

/// Whose CA and credentials are used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Credentials {
    Kubeconfig(PathBuf),
    ServiceAccount(PathBuf),
}

/// Credentials, and the addresses that do not change.
#[derive(Debug)]
pub(super) struct Access {
    credentials: Credentials,
    options: KubernetesOptions,
    explicit: Vec<String>,
}

impl Access {
    /// Finds the credentials: the kubeconfig that was named, the service account, the node's own.
    ///
    /// # Errors
    /// There are none, or an address is no URL.
    pub(super) fn find(options: KubernetesOptions) -> anyhow::Result<Self> {
        let explicit = options.api_servers.iter().map(|text| parse_server(text)).collect::<Result<_, _>>()?;
        let credentials = if let Some(path) = &options.kubeconfig {
            // Said at once: whoever typed it is still there.
            read_kubeconfig(path)?;
            Credentials::Kubeconfig(path.clone())
        } else if options.service_account.join("token").exists() {
            Credentials::ServiceAccount(options.service_account.clone())
        } else if let Some(path) = options.node_kubeconfigs().find(|path| fs::read(path).is_ok()) {
            Credentials::Kubeconfig(path)
        } else {
            bail!(
                "no credentials for the API server: not in a pod ({} is not there), and none of the node's own \
                 kubeconfigs can be read: give --kubeconfig",
                options.service_account.display()
            );
        };
        Ok(Self { credentials, options, explicit })
    }

    /// Where to try, in this order. `remembered`: where API servers were when we last heard.
    pub(super) fn servers(&self, remembered: &[String]) -> Vec<String> {
        let mut servers = self.explicit.clone();
        if let Credentials::Kubeconfig(path) = &self.credentials {
            servers.extend(kubeconfig_server(path));
        }
        if self.options.kubeconfig.is_none() {
            servers.extend(self.options.node_kubeconfigs().filter_map(|path| kubeconfig_server(&path)));
        }
        servers.extend_from_slice(remembered);
        servers.extend(self.options.service_address.clone());
        let mut seen = Vec::new();
        servers.retain(|server| {
            let new = !seen.contains(server);
            if new {
                seen.push(server.clone());
            }
            new
        });
        servers
    }

    /// Reads the credentials anew (certificates are rotated on disk) for a server.
    ///
    /// # Errors
    /// Files that cannot be read or do not parse.
    pub(super) async fn config(&self, server: &str) -> anyhow::Result<Config> {
        let uri: Uri = server.parse().with_context(|| format!("{server} is no URL"))?;
        let mut config = match &self.credentials {
            Credentials::ServiceAccount(dir) => {
                let mut config = Config::new(uri.clone());
                config.auth_info.token_file = Some(dir.join("token").display().to_string());
                config.root_cert = Some(read_certificates(&dir.join("ca.crt"))?);
                config
            }
            Credentials::Kubeconfig(path) => {
                let kubeconfig = read_kubeconfig(path)?;
                if kubeconfig.clusters.iter().flat_map(|c| &c.cluster).any(|c| c.proxy_url.is_some()) {
                    bail!("{}: proxy-url is not supported", path.display());
                }
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .with_context(|| path.display().to_string())?
            }
        };
        config.cluster_url = uri;
        Ok(config)
    }
}

/// A URL; `https` where nothing is said.
fn parse_server(text: &str) -> anyhow::Result<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = url.parse().with_context(|| format!("--api-server {text}: no URL"))?;
    if uri.host().is_none() || !matches!(uri.scheme_str(), Some("https" | "http")) {
        bail!("--api-server {text}: expected https://HOST:PORT");
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let of_path = || path.display().to_string();
    let certificates = CertificateDer::pem_file_iter(path).with_context(of_path)?;
    let certificates: Result<Vec<_>, _> = certificates.map(|der| der.map(|der| der.to_vec())).collect();
    let certificates = certificates.with_context(of_path)?;
    if certificates.is_empty() {
        bail!("{}: no certificate in it", path.display());
    }
    Ok(certificates)
}

fn read_kubeconfig(path: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| path.display().to_string())
}

/// The server of a kubeconfig's current context (or of its only cluster), if it can be read.
fn kubeconfig_server(path: &Path) -> Option<String> {
    let kubeconfig = Kubeconfig::read_from(path).ok()?;
    let current = kubeconfig.current_context.as_deref().unwrap_or_default();
    let context = kubeconfig.contexts.iter().find(|context| context.name == current);
    let cluster = context.and_then(|context| Some(context.context.as_ref()?.cluster.as_str()));
    let found = match cluster {
        Some(name) => kubeconfig.clusters.iter().find(|cluster| cluster.name == name)?,
        None => kubeconfig.clusters.first()?,
    };
    let server = found.cluster.as_ref()?.server.as_deref()?;
    Some(server.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(server: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: other, cluster: {{server: \"https://other:1\"}}}}, \
             {{name: k, cluster: {{server: \"{server}\"}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        )
    }

    fn options(dir: &Path) -> KubernetesOptions {
        KubernetesOptions {
            node_name: "node".into(),
            kubeconfig: None,
            api_servers: Vec::new(),
            state_dir: dir.join("state"),
            host_root: dir.to_owned(),
            service_account: dir.join("account"),
            service_address: Some(server_url("fd00::1", "443")),
            linger: LINGER,
            rediscover: REDISCOVER,
        }
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn a_pods_credentials_and_the_nodes_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        assert!(!options.is_in_cluster());
        write(&dir.path().join("account/token"), "secret");
        let ca = "-----BEGIN CERTIFICATE-----\nYW55\n-----END CERTIFICATE-----\n";
        write(&dir.path().join("account/ca.crt"), ca);
        write(&dir.path().join("etc/kubernetes/kubelet.conf"), &kubeconfig("https://10.0.0.1:6443/"));
        assert!(options.is_in_cluster());
        options.api_servers = vec!["10.9.9.9:6443".into()];
        let access = Access::find(options).unwrap();
        let remembered = ["https://10.0.0.2:6443".into(), "https://10.0.0.1:6443".into()];
        assert_eq!(
            access.servers(&remembered),
            [
                "https://10.9.9.9:6443",
                "https://10.0.0.1:6443",
                "https://10.0.0.2:6443",
                "https://[fd00::1]:443"
            ]
        );
        let config = access.config("https://10.0.0.2:6443").await.unwrap();
        assert_eq!(config.cluster_url, "https://10.0.0.2:6443/");
        assert_eq!(config.root_cert, Some(vec![b"any".to_vec()]));
        assert!(config.auth_info.token_file.unwrap().ends_with("account/token"));
    }

    #[tokio::test]
    async fn the_nodes_credentials_where_there_are_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        let nothing = Access::find(options.clone()).unwrap_err().to_string();
        assert!(nothing.contains("--kubeconfig"), "{nothing}");

        let k3s = dir.path().join("var/lib/rancher/k3s/agent/kubelet.kubeconfig");
        write(&k3s, &kubeconfig("https://127.0.0.1:6443"));
        options.service_address = None;
        let access = Access::find(options.clone()).unwrap();
        assert_eq!(access.credentials, Credentials::Kubeconfig(k3s));
        assert_eq!(access.servers(&[]), ["https://127.0.0.1:6443"]);
        let config = access.config("https://127.0.0.1:7443").await.unwrap();
        assert_eq!(config.cluster_url, "https://127.0.0.1:7443/");

        // A kubeconfig that was named counts before all others, and alone.
        let named = dir.path().join("named");
        write(&named, &kubeconfig("https://named:1"));
        options.kubeconfig = Some(named);
        assert_eq!(Access::find(options).unwrap().servers(&[]), ["https://named:1"]);
    }

    #[test]
    fn addresses_as_people_type_them() {
        assert_eq!(parse_server("10.0.0.1:6443").unwrap(), "https://10.0.0.1:6443");
        assert_eq!(parse_server("https://[fd00::1]:6443/").unwrap(), "https://[fd00::1]:6443");
        for bad in ["", "ftp://a", "https://", "a b"] {
            assert!(parse_server(bad).is_err(), "{bad:?}");
        }
    }
}
