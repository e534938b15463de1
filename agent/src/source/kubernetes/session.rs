//! A connection to one server.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Builder;
use http::{Request, Response, header};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tower::{BoxError, ServiceBuilder};

use super::body::{SILENCE, read_all};
use super::decode::{Page, decode_object};
use super::fault::Fault;
use super::kind::{API_SERVICE, Kind, LIST_API_SERVICE};

/// For a TCP connection.
const CONNECT: Duration = Duration::from_secs(5);

/// TCP's own probes find a server that vanished without a word, without waking us up while all is well.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// A server that can be asked.
pub(super) struct Session {
    client: Client,
    /// When it was asked which version is its newest, and what it said, if versions are numbers.
    pub(super) newest: Option<(Instant, u64)>,
    /// It may know streaming lists.
    streaming: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl Session {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// Credentials or certificates that cannot be used.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { client: build_client(config)?, newest: None, streaming: AtomicBool::new(true) })
    }

    /// Asks for the UID of the Service `default/kubernetes`, and for the server's newest version.
    pub(super) async fn identify(&mut self) -> Result<Option<String>, Fault> {
        let asked = Instant::now();
        let body = self.list(Kind::Service, LIST_API_SERVICE).await?;
        let page: Page<'_> =
            serde_json::from_slice(&body).map_err(|error| Fault::Protocol(error.to_string()))?;
        self.newest = page.metadata.resource_version.parse().ok().map(|version| (asked, version));
        let uid = page.items.unwrap_or_default().iter().find_map(|item| {
            let service = decode_object(Kind::Service, item.get()).ok()?;
            let key = (&*service.key.namespace, &*service.key.name);
            service.uid.filter(|_| key == API_SERVICE)
        });
        Ok(uid)
    }

    /// An answer that is a success.
    pub(super) async fn get(
        &self,
        kind: Kind,
        verb: &'static str,
        path: &str,
    ) -> Result<Response<Body>, Fault> {
        self.send(kind, verb, Request::get(path), Body::empty()).await
    }

    /// The whole answer to a list.
    pub(super) async fn list(&self, kind: Kind, path: &str) -> Result<Vec<u8>, Fault> {
        read_all(self.get(kind, "list", path).await?.into_body()).await
    }

    /// Creates an object that says something about one of this kind.
    pub(super) async fn create(&self, kind: Kind, path: &str, object: &Value) -> Result<(), Fault> {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.write(kind, "create", request, object).await
    }

    /// Changes fields of such an object (RFC 7386).
    pub(super) async fn patch(&self, kind: Kind, path: &str, fields: &Value) -> Result<(), Fault> {
        let request = Request::patch(path).header(header::CONTENT_TYPE, "application/merge-patch+json");
        self.write(kind, "patch", request, fields).await
    }

    async fn write(
        &self,
        kind: Kind,
        verb: &'static str,
        request: Builder,
        content: &Value,
    ) -> Result<(), Fault> {
        let answer = self.send(kind, verb, request, Body::from(content.to_string().into_bytes())).await?;
        // Or the connection could not be used again.
        read_all(answer.into_body()).await.map(drop)
    }

    async fn send(
        &self,
        kind: Kind,
        verb: &'static str,
        request: Builder,
        body: Body,
    ) -> Result<Response<Body>, Fault> {
        let request = request.header(header::ACCEPT, "application/json").body(body);
        let request = request.map_err(|error| Fault::Config(error.to_string()))?;
        let answer = timeout(SILENCE, self.client.send(request))
            .await
            .map_err(|_| Fault::Unreachable(format!("no answer within {} s", SILENCE.as_secs())))?
            .map_err(|error| Fault::of_client(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = read_all(body).await.unwrap_or_default();
        Err(Fault::of_answer(kind, verb, head.status, &head.headers, &body))
    }

    /// Whether to ask for streaming lists.
    pub(super) fn may_stream(&self) -> bool {
        self.streaming.load(Ordering::Relaxed)
    }

    /// It does not know them.
    pub(super) fn no_streaming(&self) {
        self.streaming.store(false, Ordering::Relaxed);
    }
}

/// kube's own stack, but with TCP's keepalive, and without retries and log lines: those are our own.
fn build_client(config: &Config) -> anyhow::Result<Client> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE / KEEPALIVE_PROBES));
    http.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    http.set_tcp_user_timeout(Some(2 * KEEPALIVE));
    let https = config.rustls_https_connector_with_connector(http)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace.clone()))
}
