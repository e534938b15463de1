//! A plain HTTP client: one connection for each request, nothing retried, nothing interpreted.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use weir_tests::apiserver::{ADMIN_TOKEN, ApiServer};

/// How a server is reached: all that a test of the protocol knows about it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) token: Option<String>,
}

/// A whole answer, or what came of it.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Why the body ended before its end.
    pub(crate) broken: Option<hyper::Error>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts the code, and gives the object.
    pub(crate) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.status.as_u16(), code, "{}", self.text);
        self.json()
    }
}

impl Client {
    pub(crate) fn of(server: &ApiServer) -> Self {
        Self { address: server.address(), ca_pem: server.ca_pem(), token: Some(ADMIN_TOKEN.into()) }
    }

    pub(crate) fn with_token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(Into::into);
        self
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(path).header("Host", self.address.to_string());
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if method == "PATCH" {
            request = request.header("Content-Type", "application/merge-patch+json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        Ok(sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?)
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let response = self.request(method, path, body).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        let mut broken = None;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(error) => broken = Some(error),
            }
        }
        Ok(Answer { status, headers, text: String::from_utf8(bytes)?, broken })
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_send(method, path, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// Begins a watch, which must be granted.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let response = self.request("GET", path, None).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        Watch { body: response.into_body(), buffer: Vec::new(), frames: 0 }
    }
}

/// A running watch.
pub(crate) struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
    /// Pieces that came.
    pub(crate) frames: usize,
}

/// How a watch ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// As HTTP wants it; with what came after the last event.
    Whole(String),
    /// The connection broke; with what came after the last event.
    Broken(String),
}

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<Value, End> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line).unwrap());
            }
            let rest = || String::from_utf8_lossy(&self.buffer).into_owned();
            match self.body.frame().await {
                None => return Err(End::Whole(rest())),
                Some(Err(_)) => return Err(End::Broken(rest())),
                Some(Ok(frame)) => {
                    self.frames += 1;
                    self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
            }
        }
    }

    /// The next event's type, name and version.
    pub(crate) async fn next_brief(&mut self) -> (String, String, u64) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]), version(&event["object"]))
    }

    /// The next `count` events as `TYPE name`.
    pub(crate) async fn next_names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let (kind, name, _) = self.next_brief().await;
            names.push(format!("{kind} {name}"));
        }
        names
    }
}

/// The version of an object or list.
pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0)
}

/// The names of a list's items.
pub(crate) fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_string()).collect()
}
