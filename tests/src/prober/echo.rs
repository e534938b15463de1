//! One ICMP echo and its reply. Through a raw socket: whether others may be used is a choice of each namespace.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::exchange::failed;
use super::protocol::Failure;

const TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any that is asked for.
const LONGEST: usize = 4_096;
/// What a reply must bring back.
const PAYLOAD: &[u8] = b"the reply has what the request had, to the last byte of an odd length.";

/// An address family's words for it (RFC 792, RFC 4443).
struct Words {
    request: u8,
    reply: u8,
    /// Whether what is received begins with the IP header.
    has_header: bool,
}

const V4: Words = Words { request: 8, reply: 0, has_header: true };
const V6: Words = Words { request: 128, reply: 129, has_header: false };

/// Waits for the reply from the address itself, under the same number and with the same content.
pub(super) fn echo(to: IpAddr) -> Result<(), Failure> {
    let (domain, protocol, words) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, V4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, V6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).map_err(failed("socket"))?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(failed("socket"))?;
    let request = request(&words);
    let to: SocketAddr = (to, 0).into();
    socket.send_to(&request, &to.into()).map_err(failed("send"))?;
    let deadline = Instant::now() + TIMEOUT;
    let mut buffer = [MaybeUninit::<u8>::uninit(); LONGEST];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).map_err(failed("receive"))?;
        // SAFETY: the kernel has written this many bytes.
        let bytes: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        if from.as_socket().is_some_and(|from| from.ip() == to.ip()) && is_reply(&words, &bytes, &request) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure { error: "no answer in time".into(), at: "receive".into() });
        }
    }
}

/// Type, code, checksum, identifier, number, content. The kernel fills in ICMPv6's checksum, which covers addresses.
fn request(words: &Words) -> Vec<u8> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., high, low] = std::process::id().to_be_bytes();
    let mut bytes = vec![words.request, 0, 0, 0, high, low, number[0], number[1]];
    bytes.extend_from_slice(PAYLOAD);
    let sum = checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

fn is_reply(words: &Words, bytes: &[u8], request: &[u8]) -> bool {
    let header =
        if words.has_header { bytes.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
    let Some(message) = bytes.get(header..) else { return false };
    let sum_holds = !words.has_header || checksum(message) == 0;
    sum_holds && message.starts_with(&[words.reply, 0]) && message.get(4..) == request.get(4..)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_content_is_a_reply() {
        let request = request(&V6);
        let mut reply = request.clone();
        reply[0] = V6.reply;
        assert!(is_reply(&V6, &reply, &request));
        assert!(!is_reply(&V6, &request, &request), "one's own request");
        *reply.last_mut().unwrap() ^= 1;
        assert!(!is_reply(&V6, &reply, &request));
    }

    #[test]
    fn an_ipv4_reply_is_behind_its_header_and_has_a_checksum_that_holds() {
        let request = request(&V4);
        assert_eq!(checksum(&request), 0);
        let mut reply = vec![0; 20];
        reply[0] = 0x45;
        reply.extend_from_slice(&request);
        reply[20] = V4.reply;
        assert!(!is_reply(&V4, &reply, &request), "the sum is still the request's");
        reply[22..24].copy_from_slice(&[0, 0]);
        let sum = checksum(&reply[20..]).to_be_bytes();
        reply[22..24].copy_from_slice(&sum);
        assert!(is_reply(&V4, &reply, &request));
    }
}
