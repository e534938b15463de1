//! The name server of the node, as Docker has one for kind's nodes: every name is 127.0.0.1, and has no IPv6 address.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;

/// RFC 1035, 4.1.1 and 4.1.2: the header; type and class behind the name of a question.
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

/// Takes port 53 of the loopback.
pub(crate) async fn bind() -> Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).await.context("taking port 53 for a name server")
}

/// Answers for as long as it is polled.
pub(crate) async fn serve(socket: UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length]) {
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

/// The answer to a message with one question; `None` if it is none.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    while *message.get(end)? != 0 {
        end += 1 + usize::from(message[end]);
    }
    let question = message.get(HEADER..end + 5)?;
    let is_address = message[end + 1..end + 3] == TYPE_A;
    let mut answer = message[..2].to_vec();
    // A response without an error, recursion as it was asked for; one question, one answer or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        // Of the name in the question (a pointer to it), for a minute.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}
