//! `weir agent`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::network::NetworkArgs;
use super::{PinArgs, RunArgs};
use crate::daemon::{self, Config, SourceKind};
use crate::host;
use crate::source::KubernetesOptions;
use crate::tables::Sizes;

/// The most rows that a table may be given: larger is a mistake in the unit.
const MOST: i64 = 1 << 24;

#[derive(Args, Debug)]
pub(super) struct AgentArgs {
    /// Where Services and EndpointSlices come from: `kubernetes`, the cluster's API server; or `manifests:DIR`, a
    /// directory of YAML files. In a pod with a service account the default is `kubernetes`.
    #[arg(long, env = "WEIR_SOURCE", value_name = "SOURCE")]
    source: Option<Source>,
    #[command(flatten)]
    kubernetes: KubernetesArgs,
    /// This node's name, as EndpointSlices call it. Default: the host name.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// The cgroup (v2) whose sockets are translated. Default: the root of the node's hierarchy, also from within
    /// a container.
    #[arg(long, env = "WEIR_CGROUP_ROOT", value_name = "DIR")]
    cgroup_root: Option<PathBuf>,
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Where `/metrics` and `/readyz` are served.
    #[arg(long, env = "WEIR_METRICS_ADDRESS", default_value = "127.0.0.1:10247", value_name = "ADDRESS")]
    metrics_address: SocketAddr,
    /// Where `/healthz` and `/livez` are served, as kube-proxy serves them.
    #[arg(long, env = "WEIR_HEALTHZ_ADDRESS", default_value = "0.0.0.0:10256", value_name = "ADDRESS")]
    healthz_address: SocketAddr,
    /// What becomes of packets of and for pods of this node that nobody knows yet, while there are NetworkPolicies.
    #[arg(long, env = "WEIR_UNKNOWN_PODS", value_enum, default_value_t, value_name = "WHAT")]
    unknown_pods: UnknownPods,
    /// Drops that are kept for `weir drops`.
    #[arg(long, env = "WEIR_KEEP_DROPS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "DROPS")]
    keep_drops: u32,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    sizes: SizeArgs,
}

/// How the API server is reached. Found by itself on kubeadm, kind, k3s and the like.
#[derive(Args, Debug)]
struct KubernetesArgs {
    /// A kubeconfig, in place of the pod's service account or the node's own kubeconfig.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// An address of the API server to try before all others; may be repeated.
    #[arg(long = "api-server", env = "WEIR_API_SERVER", value_name = "URL", value_delimiter = ',')]
    api_servers: Vec<String>,
    /// Where the addresses of the API servers and the cluster's UID are kept for the next start.
    #[arg(long, env = "WEIR_STATE_DIR", default_value = "/var/lib/weir", value_name = "DIR")]
    state_dir: PathBuf,
    /// Where the node's root directory is mounted, to find the node's own kubeconfig in.
    #[arg(long, env = "WEIR_HOST_ROOT", default_value = "/", value_name = "DIR")]
    host_root: PathBuf,
}

impl KubernetesArgs {
    fn options(self, node_name: &str) -> KubernetesOptions {
        KubernetesOptions {
            kubeconfig: self.kubeconfig,
            api_servers: self.api_servers,
            host_root: self.host_root,
            ..KubernetesOptions::from_env(node_name, self.state_dir)
        }
    }
}

/// How many rows the tables have. Another choice after a restart builds new tables beside the old ones.
#[derive(Args, Debug)]
struct SizeArgs {
    /// Addresses and ports that clients dial, one more for each address.
    #[arg(long, env = "WEIR_MAX_FRONTENDS", default_value_t = Sizes::default().frontends, value_parser = rows(), value_name = "ROWS")]
    max_frontends: u32,
    /// Service ports, each family counted.
    #[arg(long, env = "WEIR_MAX_SERVICES", default_value_t = Sizes::default().services, value_parser = rows(), value_name = "ROWS")]
    max_services: u32,
    /// Endpoints of all Services; leave room for a set to be replaced.
    #[arg(long, env = "WEIR_MAX_BACKENDS", default_value_t = Sizes::default().backends, value_parser = rows(), value_name = "ROWS")]
    max_backends: u32,
    /// Connected sockets that are remembered, for as long as they live.
    #[arg(long, env = "WEIR_MAX_CONNECTIONS", default_value_t = Sizes::default().connections, value_parser = rows(), value_name = "ROWS")]
    max_connections: u32,
    /// Translations of unconnected UDP sockets that are remembered, two for each address that a socket speaks to; the
    /// longest unused are forgotten first.
    #[arg(long, env = "WEIR_MAX_DATAGRAMS", default_value_t = Sizes::default().datagrams, value_parser = rows(), value_name = "ROWS")]
    max_datagrams: u32,
    /// Clients with session affinity that are remembered; the longest unused are forgotten first.
    #[arg(long, env = "WEIR_MAX_AFFINITY", default_value_t = Sizes::default().affinity, value_parser = rows(), value_name = "ROWS")]
    max_affinity: u32,
    /// Networks in `loadBalancerSourceRanges`, those of each Service port and family counted.
    #[arg(long, env = "WEIR_MAX_SOURCE_RANGES", default_value_t = Sizes::default().source_ranges, value_parser = rows(), value_name = "ROWS")]
    max_source_ranges: u32,
    /// Forms of flows that are translated per packet, two or three for each; new ones are refused beyond.
    #[arg(long, env = "WEIR_MAX_FLOWS", default_value_t = Sizes::default().flows, value_parser = rows(), value_name = "ROWS")]
    max_flows: u32,
    /// Addresses that selectors of policies which apply here tell apart.
    #[arg(long, env = "WEIR_MAX_ADDRESS_CLASSES", default_value_t = Sizes::default().address_classes, value_parser = rows(), value_name = "ROWS")]
    max_address_classes: u32,
    /// Networks in policies that apply here.
    #[arg(long, env = "WEIR_MAX_NETWORK_CLASSES", default_value_t = Sizes::default().network_classes, value_parser = rows(), value_name = "ROWS")]
    max_network_classes: u32,
    /// What policies that apply here allow whom: in the worst case each pod's to each class of addresses.
    #[arg(long, env = "WEIR_MAX_VERDICTS", default_value_t = Sizes::default().verdicts, value_parser = rows(), value_name = "ROWS")]
    max_verdicts: u32,
    /// Ports in policies that apply here; a range is up to 30 rows.
    #[arg(long, env = "WEIR_MAX_PORT_RULES", default_value_t = Sizes::default().port_rules, value_parser = rows(), value_name = "ROWS")]
    max_port_rules: u32,
    /// Flows of pods that policies isolate; one pod has a quarter of them at most, and new ones are refused beyond.
    #[arg(long, env = "WEIR_MAX_JUDGED", default_value_t = Sizes::default().judged, value_parser = rows(), value_name = "ROWS")]
    max_judged: u32,
    /// Drops that wait for the agent to read of them, for `weir drops`; what comes beyond is only counted.
    #[arg(long, env = "WEIR_MAX_DROP_EVENTS", default_value_t = Sizes::default().drop_events, value_parser = rows(), value_name = "ROWS")]
    max_drop_events: u32,
}

fn rows() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=MOST)
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
enum UnknownPods {
    /// They are dropped, but for what the pod's own node sends to it.
    #[default]
    Hold,
    /// They pass, but not under another's address.
    Allow,
}

#[derive(Clone, Debug)]
enum Source {
    Manifests(PathBuf),
    Kubernetes,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("manifests", dir)) if !dir.is_empty() => Ok(Self::Manifests(dir.into())),
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err("expected kubernetes or manifests:DIR".into()),
        }
    }
}

pub(super) fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    let node_name = match args.node_name {
        Some(name) => name,
        None => nix::unistd::gethostname()?
            .into_string()
            .map_err(|_| anyhow::anyhow!("the host name is not UTF-8: give --node-name"))?,
    };
    let source = select_source(args.source, args.kubernetes.options(&node_name))?;
    let cgroup_root = match args.cgroup_root {
        Some(dir) => dir,
        None => host::find_cgroup_root()?,
    };
    let sizes = Sizes {
        frontends: args.sizes.max_frontends,
        services: args.sizes.max_services,
        backends: args.sizes.max_backends,
        connections: args.sizes.max_connections,
        datagrams: args.sizes.max_datagrams,
        affinity: args.sizes.max_affinity,
        source_ranges: args.sizes.max_source_ranges,
        flows: args.sizes.max_flows,
        address_classes: args.sizes.max_address_classes,
        network_classes: args.sizes.max_network_classes,
        verdicts: args.sizes.max_verdicts,
        port_rules: args.sizes.max_port_rules,
        judged: args.sizes.max_judged,
        drop_events: args.sizes.max_drop_events,
    };
    let config = Config {
        source,
        node_name,
        cgroup_root,
        pin_root: args.pins.root(),
        run_dir: args.run.run_dir,
        metrics: args.metrics_address,
        healthz: args.healthz_address,
        sizes,
        network: args.network.options()?,
        rows: args.network.rows(),
        holds_unknown_pods: args.unknown_pods == UnknownPods::Hold,
        node_ports: args.network.node_port_addresses,
        keep_drops: args.keep_drops as usize,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(daemon::run(config))?;
    Ok(ExitCode::SUCCESS)
}

fn select_source(asked: Option<Source>, options: KubernetesOptions) -> anyhow::Result<SourceKind> {
    match asked {
        Some(Source::Manifests(dir)) => Ok(SourceKind::Manifests(dir)),
        Some(Source::Kubernetes) => Ok(SourceKind::Kubernetes(options)),
        None if options.is_in_cluster() => Ok(SourceKind::Kubernetes(options)),
        None => bail!("not in a pod with a service account: give --source kubernetes or manifests:DIR"),
    }
}
