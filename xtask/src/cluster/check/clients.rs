//! Who dials: pods of every node, pods in the nodes' own networks, and this process as somebody outside.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::NAMESPACE;
use super::objects::{HTTP, ON_NODE};
use super::services::{Port, items};
use crate::cluster::kubectl::Kubectl;
use crate::cluster::plan::CONTROL;

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Somebody who dials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Client {
    /// A pod that does so when it is asked by HTTP.
    Pod {
        /// Its name.
        name: String,
        /// Where it runs.
        node: String,
        /// Where it is asked.
        port: u16,
    },
    /// A machine beside the nodes: this process, in the control plane's network.
    Outside,
}

/// What is dialled, and what is said there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Port,
    /// `hostname` or `clientip`.
    pub(super) word: &'static str,
    /// On as many new connections.
    pub(super) times: u32,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Answers {
    pub(super) said: Vec<String>,
    pub(super) errors: Vec<String>,
}

/// All clients that the check has put onto the cluster, and the one outside.
pub(super) fn find(kubectl: &Kubectl) -> Result<Vec<Client>> {
    let pods =
        kubectl.get(&[&format!("--namespace={NAMESPACE}"), "pods", "--selector=app in (pod, node)"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = items(&pods)?.iter().map(|pod| {
        let on_node = pod["spec"]["hostNetwork"] == true;
        let (name, node) = (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        Client::Pod { name, node, port: if on_node { ON_NODE } else { HTTP } }
    });
    Ok(pods.chain([Client::Outside]).collect())
}

impl Client {
    /// Its name, if it is a pod.
    pub(super) fn pod(&self) -> Option<&str> {
        match self {
            Self::Pod { name, .. } => Some(name),
            Self::Outside => None,
        }
    }

    /// Whether it has an address of its own.
    pub(super) fn is_in_pod_network(&self) -> bool {
        matches!(self, Self::Pod { port: HTTP, .. })
    }

    /// Dials.
    ///
    /// # Errors
    /// It cannot be asked to; what it meets itself is in the answers.
    pub(super) fn ask(&self, kubectl: &Kubectl, request: &Request) -> Result<Answers> {
        match self {
            Self::Pod { name, port, .. } => {
                let path =
                    format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:{port}/proxy/{}", query(request));
                parse(&kubectl.raw(&path)?)
            }
            Self::Outside => outside(request),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { node, port: HTTP, .. } => write!(f, "pod on {node}"),
            Self::Pod { node, .. } => f.write_str(node),
            Self::Outside => f.write_str("outside"),
        }
    }
}

fn query(request: &Request) -> String {
    let protocol = match request.protocol {
        Port::Http => "http",
        Port::Dns => "udp",
    };
    let Request { address, port, word, times, .. } = request;
    format!("dial?host={address}&port={port}&protocol={protocol}&request={word}&tries={times}")
}

fn parse(text: &str) -> Result<Answers> {
    let mut lists: BTreeMap<String, Vec<String>> =
        serde_json::from_str(text).with_context(|| text.to_owned())?;
    let mut take = |name: &str| lists.remove(name).unwrap_or_default();
    Ok(Answers { said: take("responses"), errors: take("errors") })
}

/// On a thread in the control plane's network.
fn outside(request: &Request) -> Result<Answers> {
    let namespace =
        File::open(Path::new("/run/netns").join(CONTROL)).context("the cluster's network namespace")?;
    let work = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the cluster's network")?;
        let mut answers = Answers::default();
        for _ in 0..request.times {
            match dial(request) {
                Ok(said) => answers.said.push(said),
                Err(error) => answers.errors.push(format!("{error:#}")),
            }
        }
        Ok(answers)
    };
    std::thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the thread panicked"))?)
}

fn dial(request: &Request) -> Result<String> {
    let to = SocketAddr::new(request.address, request.port);
    match request.protocol {
        Port::Http => {
            let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            write!(stream, "GET /{} HTTP/1.0\r\n\r\n", request.word)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("not HTTP: {answer}"))?;
            Ok(body.trim().to_owned())
        }
        Port::Dns => {
            let any = if to.is_ipv4() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(TIMEOUT))?;
            socket.connect(to)?;
            socket.send(request.word.as_bytes())?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).trim().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_errors_are_told_apart() {
        let answers = parse(r#"{"responses":["a","b"],"errors":["refused"]}"#).unwrap();
        assert_eq!((answers.said.len(), answers.errors), (2, vec!["refused".to_owned()]));
        assert_eq!(parse("{}").unwrap(), Answers::default());
        assert!(parse("upstream connect error").unwrap_err().to_string().contains("upstream"));
    }

    #[test]
    fn a_pod_is_asked_by_what_netexec_understands() {
        let address = "fd00:96::5".parse().unwrap();
        let request = Request { address, port: 53, protocol: Port::Dns, word: "hostname", times: 2 };
        assert_eq!(query(&request), "dial?host=fd00:96::5&port=53&protocol=udp&request=hostname&tries=2");
    }
}
