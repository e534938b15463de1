//! One HTTP request from a place of the lab.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_tests::lab::Place;

const TIMEOUT: Duration = Duration::from_secs(2);

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// GET. The server closes the connection, as HTTP/1.0 wants.
pub(crate) fn get(from: &Place, to: SocketAddr, path: &str) -> Result<Response> {
    let text = from.netns().enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT).with_context(|| format!("{to}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).with_context(|| format!("{to}{path}"))?;
        Ok(text)
    })?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP response: {text:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Response { status, head: head.to_lowercase(), body: body.into() })
}
