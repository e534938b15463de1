//! Health, as kube-proxy tells it (pkg/proxy/healthcheck): `/healthz` and `/livez` of the node, and for each Service with
//! a `healthCheckNodePort` whether this node has endpoints of it. Load balancers ask all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::source::{ObjectKey, ServiceType, TrafficPolicy};
use crate::state::ServiceView;

/// How long changes may wait for their place in the tables until the node is called unhealthy: as long as kube-proxy
/// waits with its defaults.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long until an address that could not be listened on is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// `X-Load-Balancing-Endpoint-Weight`: how many local endpoints there are.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What is to be told.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The tables have said once what the cluster says.
    pub synced: bool,
    /// Since when changes wait.
    late_since: Option<Instant>,
    /// The node is being deleted, or about to be.
    leaving: bool,
    /// Addresses at which node ports are served.
    addresses: Vec<IpAddr>,
    checks: BTreeMap<ObjectKey, HealthCheck>,
}

/// The health check of a Service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`
    pub port: u16,
    /// Ready endpoints on this node with an IPv4 address, and with an IPv6 address. Whoever asks hears of those in the
    /// family in which it asks, as from kube-proxy: a pod with an address of each is one endpoint.
    pub endpoints: [usize; 2],
}

impl HealthCheck {
    /// `None` where the Service has none: only load balancers with a local external policy need it (API field
    /// `spec.healthCheckNodePort`).
    #[must_use]
    pub fn of(view: &ServiceView<'_>, node: &str) -> Option<Self> {
        let service = view.service;
        let needed =
            service.kind == ServiceType::LoadBalancer && service.external_policy == TrafficPolicy::Local;
        let port = service.health_check_node_port.filter(|_| needed)?;
        let endpoints = view.slices.iter().flat_map(|slice| slice.endpoints.iter());
        let local = endpoints.filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
        let addresses: BTreeSet<IpAddr> = local.map(|endpoint| endpoint.addr).collect();
        let of_v6 = addresses.iter().filter(|addr| addr.is_ipv6()).count();
        Some(Self { port, endpoints: [addresses.len() - of_v6, of_v6] })
    }

    fn endpoints_like(&self, asked: IpAddr) -> usize {
        let [v4, v6] = self.endpoints;
        if asked.is_ipv4() { v4 } else { v6 }
    }
}

impl Health {
    /// Replaces the health check of a Service. Whether that is news.
    pub fn set_check(&mut self, service: &ObjectKey, check: Option<HealthCheck>) -> bool {
        match check {
            Some(check) => self.checks.insert(service.clone(), check) != Some(check),
            None => self.checks.remove(service).is_some(),
        }
    }

    /// Says where health checks are served. Whether that is news.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) -> bool {
        let is_new = self.addresses != addresses;
        self.addresses = addresses;
        is_new
    }

    /// Says whether changes wait, and whether the node is leaving. Whether that is news.
    pub fn set_state(&mut self, late: bool, leaving: bool) -> bool {
        let is_new = (self.late_since.is_some(), self.leaving) != (late, leaving);
        self.late_since = late.then(|| self.late_since.unwrap_or_else(Instant::now));
        self.leaving = leaving;
        is_new
    }

    fn is_healthy(&self) -> bool {
        self.synced && self.late_since.is_none_or(|since| since.elapsed() < PATIENCE)
    }

    /// Where to listen, and for which Service. Of two with one port at most one can be right: the first has it.
    fn listeners(&self) -> HashMap<SocketAddr, ObjectKey> {
        let mut listeners = HashMap::new();
        for (service, check) in &self.checks {
            for addr in &self.addresses {
                listeners.entry(SocketAddr::new(*addr, check.port)).or_insert_with(|| service.clone());
            }
        }
        listeners
    }
}

/// Serves `/healthz` and `/livez` until the process ends. Where another process has the address, as kube-proxy has while
/// it is being replaced, it is tried again until that one is gone.
///
/// # Errors
/// The server's.
pub async fn serve_health(address: SocketAddr, health: watch::Receiver<Health>) -> anyhow::Result<()> {
    let routes = Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(health);
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if told => tracing::debug!("--healthz-address {address}: {error}"),
            Err(error) => tracing::warn!("--healthz-address {address}: {error}; trying again"),
        }
        told = true;
        tokio::time::sleep(RETRY).await;
    };
    axum::serve(listener, routes).await.map_err(Into::into)
}

async fn healthz(State(health): State<watch::Receiver<Health>>) -> Response {
    let health = health.borrow();
    let eligible = !health.leaving;
    answer(&health, health.is_healthy() && eligible, &format!(", \"nodeEligible\": {eligible}"))
}

async fn livez(State(health): State<watch::Receiver<Health>>) -> Response {
    let health = health.borrow();
    answer(&health, health.is_healthy(), "")
}

/// kube-proxy's fields: while it is well, it was updated just now.
fn answer(health: &Health, well: bool, more: &str) -> Response {
    let now = jiff::Timestamp::now();
    let updated = match health.late_since {
        _ if well => now,
        Some(since) => jiff::SignedDuration::try_from(since.elapsed())
            .ok()
            .and_then(|ago| now.checked_sub(ago).ok())
            .unwrap_or(now),
        None if health.synced => now,
        None => jiff::Timestamp::UNIX_EPOCH,
    };
    let text = |time: jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string();
    let body = format!(r#"{{"lastUpdated": "{}","currentTime": "{}"{more}}}"#, text(updated), text(now));
    (status(well), headers(), body).into_response()
}

fn status(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn headers() -> [(HeaderName, HeaderValue); 2] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

/// Serves the health checks of Services at the node's addresses, as both come and go, until the process ends.
///
/// # Errors
/// Nobody is left who says what to serve.
pub async fn serve_health_checks(mut health: watch::Receiver<Health>) -> anyhow::Result<()> {
    let mut servers = Servers::default();
    loop {
        let wanted = health.borrow_and_update().listeners();
        let complete = servers.ensure(&wanted, &health).await;
        tokio::select! {
            changed = health.changed() => changed?,
            () = tokio::time::sleep(RETRY), if !complete => {}
        }
    }
}

/// What is listened on.
#[derive(Default)]
struct Servers {
    running: HashMap<SocketAddr, (ObjectKey, JoinHandle<()>)>,
    /// Those of which it was said that they are somebody else's.
    refused: BTreeSet<SocketAddr>,
}

impl Servers {
    /// Whether all of them are there.
    async fn ensure(
        &mut self,
        wanted: &HashMap<SocketAddr, ObjectKey>,
        health: &watch::Receiver<Health>,
    ) -> bool {
        self.running.retain(|address, (service, server)| {
            let keep = wanted.get(address) == Some(service) && !server.is_finished();
            if !keep {
                server.abort();
            }
            keep
        });
        self.refused.retain(|address| wanted.contains_key(address));
        // What was aborted lets go of its address.
        tokio::task::yield_now().await;
        for (address, service) in wanted {
            if self.running.contains_key(address) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    self.refused.remove(address);
                    let server =
                        tokio::spawn(serve_check(listener, address.ip(), service.clone(), health.clone()));
                    self.running.insert(*address, (service.clone(), server));
                }
                Err(error) if self.refused.insert(*address) => {
                    tracing::warn!(
                        "Service {service}: healthCheckNodePort at {address}: {error}; trying again"
                    );
                }
                Err(_) => {}
            }
        }
        self.refused.is_empty()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running.values().for_each(|(_, server)| server.abort());
    }
}

async fn serve_check(listener: TcpListener, at: IpAddr, service: ObjectKey, health: watch::Receiver<Health>) {
    // Whatever the path, as kube-proxy.
    let routes = Router::new().fallback(any(check)).with_state((at, service.clone(), health));
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::warn!("Service {service}: serving its health check: {error}");
    }
}

/// The address at which a health check is asked, whose it is, and what there is to tell.
type Asked = (IpAddr, ObjectKey, watch::Receiver<Health>);

async fn check(State((at, service, health)): State<Asked>) -> Response {
    let health = health.borrow();
    let count = health.checks.get(&service).map_or(0, |check| check.endpoints_like(at));
    let healthy = health.is_healthy();
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": \
         {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        service.namespace, service.name
    );
    let weight = [(WEIGHT, HeaderValue::from(count))];
    (status(count > 0 && healthy), headers(), weight, body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "default".into(), name: name.into() }
    }

    async fn read(response: Response) -> (u16, serde_json::Value, axum::http::HeaderMap) {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap(), headers)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Synced, late since so many seconds, leaving; what `/healthz` and `/livez` answer.
    #[test]
    fn the_nodes_health() {
        runtime().block_on(async {
            for (synced, late_s, leaving, healthy, alive) in [
                (false, None, false, 503, 503),
                (true, None, false, 200, 200),
                (true, None, true, 503, 200),
                (true, Some(1), false, 200, 200),
                (true, Some(61), false, 503, 503),
                (true, Some(61), true, 503, 503),
            ] {
                let late_since = late_s.map(|s| Instant::now().checked_sub(Duration::from_secs(s)).unwrap());
                let health = Health { synced, late_since, leaving, ..Health::default() };
                let (_sender, receiver) = watch::channel(health);
                let (status, body, headers) = read(healthz(State(receiver.clone())).await).await;
                assert_eq!((status, &body["nodeEligible"]), (healthy, &serde_json::json!(!leaving)));
                assert_eq!(headers["content-type"], "application/json");
                assert_eq!(headers["x-content-type-options"], "nosniff");
                assert_eq!(
                    body["lastUpdated"] == body["currentTime"],
                    healthy == 200 || (synced && late_s.is_none())
                );
                let (status, body, _) = read(livez(State(receiver)).await).await;
                assert_eq!(status, alive);
                assert_eq!(body.as_object().unwrap().len(), 2);
            }
        });
    }

    #[test]
    fn a_services_health() {
        runtime().block_on(async {
            // Asked in this family; ready endpoints in each.
            for (synced, at, endpoints, count, status) in [
                (true, "192.0.2.1", [2, 1], 2, 200),
                (true, "2001:db8::1", [2, 1], 1, 200),
                (true, "2001:db8::1", [2, 0], 0, 503),
                (true, "192.0.2.1", [0, 0], 0, 503),
                (false, "192.0.2.1", [2, 2], 2, 503),
            ] {
                let mut health = Health { synced, ..Health::default() };
                assert!(health.set_check(&key("web"), Some(HealthCheck { port: 30000, endpoints })));
                assert!(!health.set_check(&key("web"), Some(HealthCheck { port: 30000, endpoints })));
                let (_sender, receiver) = watch::channel(health);
                let state = State((at.parse().unwrap(), key("web"), receiver));
                let (found, body, headers) = read(check(state).await).await;
                assert_eq!(found, status);
                assert_eq!(headers["x-load-balancing-endpoint-weight"], count.to_string());
                let expected = serde_json::json!({
                    "service": { "namespace": "default", "name": "web" },
                    "localEndpoints": count,
                    "serviceProxyHealthy": synced,
                });
                assert_eq!(body, expected);
            }
        });
    }

    #[test]
    fn servers_come_and_go_with_services_and_addresses() {
        runtime().block_on(async {
            let port = |listener: std::net::TcpListener| listener.local_addr().unwrap().port();
            let free = || port(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            let loopback: IpAddr = "127.0.0.1".parse().unwrap();
            let mut health = Health { synced: true, addresses: vec![loopback], ..Health::default() };
            let (first, second) = (free(), free());
            health.set_check(&key("a"), Some(HealthCheck { port: first, endpoints: [1, 0] }));
            let (sender, receiver) = watch::channel(health);
            let mut servers = Servers::default();
            let connects = async |port| tokio::net::TcpStream::connect((loopback, port)).await.is_ok();
            assert!(servers.ensure(&receiver.borrow().listeners(), &receiver).await);
            assert!(connects(first).await);
            // Another Service takes the port, and the first one moves.
            sender.send_modify(|health| {
                health.set_check(&key("a"), Some(HealthCheck { port: second, endpoints: [1, 0] }));
                health.set_check(&key("b"), Some(HealthCheck { port: first, endpoints: [1, 0] }));
            });
            while !servers.ensure(&receiver.borrow().listeners(), &receiver).await {}
            assert!(connects(first).await && connects(second).await);
            assert_eq!(servers.running[&SocketAddr::new(loopback, first)].0, key("b"));
            sender.send_modify(|health| {
                health.set_addresses(Vec::new());
            });
            assert!(servers.ensure(&receiver.borrow().listeners(), &receiver).await);
            while connects(first).await || connects(second).await {
                tokio::task::yield_now().await;
            }
            assert!(servers.running.is_empty());
        });
    }
}
