//! One question and its answer, over TCP or UDP.
//!
//! The question is a line: a nonce that no other question has, and `more` or `last`. The answer repeats the
//! nonce and says who answered, whom it saw and where it was reached; both may have as much padding. After `last` the server closes first,
//! so that it is not the client's ports that linger in TIME_WAIT.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use socket2::{Domain, Socket, Type};

use super::protocol::{Answer, Failure, How};

/// How long a connection or an answer may take: on one machine, a thousand times what it does.
const TIMEOUT: Duration = Duration::from_secs(2);
const LONGEST_LINE: usize = 65_536;

/// A socket, connected as far as it is going to be.
pub(super) enum OpenSocket {
    Tcp(BufReader<TcpStream>),
    Udp { socket: UdpSocket, connected: bool },
}

/// Microseconds, as the protocol counts them.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One question on a new socket.
pub(super) fn ask(how: How, to: SocketAddr) -> Result<Answer, Failure> {
    let start = Instant::now();
    let mut answer = OpenSocket::open(how, to)?.exchange(to, true, 0)?;
    answer.elapsed_us = micros(start.elapsed());
    Ok(answer)
}

impl OpenSocket {
    /// From this port, which several sockets may have at once.
    pub(super) fn open_from(how: How, to: SocketAddr, port: u16) -> Result<Self, Failure> {
        let kind = if how == How::Tcp { Type::STREAM } else { Type::DGRAM };
        let socket = Socket::new(Domain::for_address(to), kind, None).map_err(failed("socket"))?;
        socket.set_reuse_address(true).map_err(failed("bind"))?;
        socket.set_reuse_port(true).map_err(failed("bind"))?;
        let mut any = unspecified(to);
        any.set_port(port);
        socket.bind(&any.into()).map_err(failed("bind"))?;
        socket.set_read_timeout(Some(TIMEOUT)).map_err(failed("bind"))?;
        if how != How::UdpUnconnected {
            socket.connect_timeout(&to.into(), TIMEOUT).map_err(failed("connect"))?;
        }
        Ok(match how {
            How::Tcp => Self::Tcp(BufReader::new(socket.into())),
            _ => Self::Udp { socket: socket.into(), connected: how == How::UdpConnected },
        })
    }

    pub(super) fn open(how: How, to: SocketAddr) -> Result<Self, Failure> {
        match how {
            How::Tcp => {
                let stream = TcpStream::connect_timeout(&to, TIMEOUT).map_err(failed("connect"))?;
                stream.set_read_timeout(Some(TIMEOUT)).map_err(failed("connect"))?;
                stream.set_nodelay(true).map_err(failed("connect"))?;
                Ok(Self::Tcp(BufReader::new(stream)))
            }
            How::UdpConnected | How::UdpUnconnected => {
                let socket = UdpSocket::bind(unspecified(to)).map_err(failed("bind"))?;
                socket.set_read_timeout(Some(TIMEOUT)).map_err(failed("bind"))?;
                let connected = how == How::UdpConnected;
                if connected {
                    socket.connect(to).map_err(failed("connect"))?;
                }
                Ok(Self::Udp { socket, connected })
            }
        }
    }

    /// Asks; `to` is used by an unconnected socket only.
    pub(super) fn exchange(&mut self, to: SocketAddr, last: bool, padding: usize) -> Result<Answer, Failure> {
        let start = Instant::now();
        let nonce = next_nonce();
        let more = if last { "last" } else { "more" };
        let question = format!("{nonce} {more} {}\n", "x".repeat(padding));
        let mut answer = match self {
            Self::Tcp(stream) => exchange_tcp(stream, &question, nonce)?,
            Self::Udp { socket, connected } => {
                exchange_udp(socket, (!*connected).then_some(to), &question, nonce)?
            }
        };
        answer.elapsed_us = micros(start.elapsed());
        Ok(answer)
    }

    /// `SO_ERROR`
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.get_ref().take_error(),
            Self::Udp { socket, .. } => socket.take_error(),
        }
    }
}

/// The unspecified address of that family.
fn unspecified(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

fn next_nonce() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // the process id apart: two probers may ask one server
    u64::from(std::process::id()) << 40 | NEXT.fetch_add(1, Ordering::Relaxed)
}

fn exchange_tcp(stream: &mut BufReader<TcpStream>, question: &str, nonce: u64) -> Result<Answer, Failure> {
    stream.get_mut().write_all(question.as_bytes()).map_err(failed("send"))?;
    let mut line = String::new();
    stream.read_line(&mut line).map_err(failed("receive"))?;
    if line.is_empty() {
        return Err(Failure { error: "closed by the server".into(), at: "receive".into() });
    }
    let mut answer = parse_answer(&line, question, nonce)?;
    answer.peer = Some(stream.get_ref().peer_addr().map_err(failed("getpeername"))?);
    Ok(answer)
}

/// A socket that is destroyed between two calls (`udp_abort`) is told why by its pending error; the next call may find only
/// that it has no peer any more.
fn ended(socket: &UdpSocket, at: &str) -> impl Fn(io::Error) -> Failure {
    move |error| failed(at)(socket.take_error().ok().flatten().unwrap_or(error))
}

fn exchange_udp(
    socket: &UdpSocket,
    to: Option<SocketAddr>,
    question: &str,
    nonce: u64,
) -> Result<Answer, Failure> {
    let sent = match to {
        Some(to) => socket.send_to(question.as_bytes(), to),
        None => socket.send(question.as_bytes()),
    };
    sent.map_err(ended(socket, "send"))?;
    let deadline = Instant::now() + TIMEOUT;
    let mut buffer = vec![0; LONGEST_LINE];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).map_err(failed("receive"))?;
        let line = String::from_utf8_lossy(&buffer[..length]);
        match parse_answer(&line, question, nonce) {
            Ok(mut answer) => {
                answer.from = Some(from);
                if to.is_none() {
                    answer.peer = Some(socket.peer_addr().map_err(ended(socket, "getpeername"))?);
                }
                return Ok(answer);
            }
            // the late answer to an earlier question
            Err(_) if Instant::now() < deadline => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// The answer to a question, and whether it was the last. `None` if it is no question.
pub(super) fn answer_line(
    question: &str,
    name: &str,
    client: SocketAddr,
    reached: SocketAddr,
) -> Option<(String, bool)> {
    let mut fields = question.trim_end_matches('\n').splitn(3, ' ');
    let (nonce, more, padding) = (fields.next()?, fields.next()?, fields.next()?);
    Some((format!("{nonce} {name} {client} {reached} {padding}\n"), more == "last"))
}

/// An answer has the question's nonce, and its padding to the last byte.
fn parse_answer(line: &str, question: &str, nonce: u64) -> Result<Answer, Failure> {
    let wrong = || Failure { error: format!("wrong answer {:.100?}", line), at: "receive".into() };
    let fields: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
    let [echoed, server, client, reached, padding] = fields.as_slice() else { return Err(wrong()) };
    if echoed.parse() != Ok(nonce) || question.trim_end_matches('\n').split(' ').nth(2) != Some(padding) {
        return Err(wrong());
    }
    Ok(Answer {
        server: (*server).into(),
        client: client.parse().map_err(|_| wrong())?,
        reached: reached.parse().map_err(|_| wrong())?,
        peer: None,
        from: None,
        elapsed_us: 0,
    })
}

/// The failure that an error is, at that system call.
pub(super) fn failed(at: &str) -> impl Fn(io::Error) -> Failure {
    let at = at.to_owned();
    move |error| Failure { error: name_of(&error), at: at.clone() }
}

fn name_of(error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        // SO_RCVTIMEO and connect_timeout: nobody said no, nobody answered
        (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, _) => "no answer in time".into(),
        (_, Some(number)) => format!("{:?}", Errno::from_raw(number)),
        (_, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leads_back_to_its_question() {
        let (client, reached) = ("10.0.0.1:5".parse().unwrap(), "[fd00::1]:8080".parse().unwrap());
        let question = "42 last xxx\n";
        let (line, last) = answer_line(question, "web", client, reached).unwrap();
        assert!(last);
        let answer = parse_answer(&line, question, 42).unwrap();
        assert_eq!((answer.server.as_str(), answer.client, answer.reached), ("web", client, reached));
        assert!(parse_answer(&line, question, 43).is_err(), "another question's nonce");
        assert!(parse_answer(&line, "42 last xxxx\n", 42).is_err(), "a byte is missing");
    }

    #[test]
    fn errors_bear_their_names() {
        let refused = io::Error::from(Errno::ECONNREFUSED);
        assert_eq!(failed("connect")(refused).to_string(), "ECONNREFUSED at connect");
    }
}
