//! The server pod's part: answers, and closes first where connections are short.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::Workload;

/// Bytes of a short connection's request and of its reply.
pub(super) const REQUEST: usize = 16;
/// Bytes of a ping and of its pong.
pub(super) const PING: usize = 64;
/// Bytes of a UDP query and of its answer.
pub(super) const QUERY: usize = 32;

/// Threads that take short connections.
const ACCEPTORS: usize = 4;

/// Serves every workload at this address, on threads of its own, until the process ends. Returns where each is
/// served: at its own port, or, with `any_port`, at one that was free.
///
/// # Errors
/// A port is taken.
pub fn serve(at: IpAddr, any_port: bool) -> io::Result<Vec<(Workload, SocketAddr)>> {
    Workload::ALL
        .into_iter()
        .map(|workload| {
            let port = if any_port { 0 } else { workload.port() };
            Ok((workload, serve_one(workload, SocketAddr::new(at, port))?))
        })
        .collect()
}

fn serve_one(workload: Workload, at: SocketAddr) -> io::Result<SocketAddr> {
    if workload == Workload::UdpConnect {
        let socket = UdpSocket::bind(at)?;
        let at = socket.local_addr()?;
        spawn("udp", move || answer_queries(&socket))?;
        return Ok(at);
    }
    let listener = Arc::new(TcpListener::bind(at)?);
    let at = listener.local_addr()?;
    let acceptors = if workload == Workload::Connect { ACCEPTORS } else { 1 };
    for _ in 0..acceptors {
        let listener = Arc::clone(&listener);
        spawn("accept", move || accept(&listener, workload))?;
    }
    Ok(at)
}

fn accept(listener: &TcpListener, workload: Workload) {
    // what goes wrong on a connection is seen, and counted, by its client
    for stream in listener.incoming().flatten() {
        match workload {
            Workload::Connect => drop(answer_request(stream)),
            Workload::Established => drop(spawn("echo", move || drop(answer_pings(stream)))),
            Workload::Stream | Workload::UdpConnect => drop(spawn("sink", move || drop(swallow(stream)))),
        }
    }
}

/// What is sent back: nothing that a broken path could produce by echoing.
pub(super) fn invert(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

fn answer_request(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; REQUEST];
    stream.read_exact(&mut request)?;
    invert(&mut request);
    stream.write_all(&request)
}

fn answer_pings(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut ping = [0; PING];
    loop {
        stream.read_exact(&mut ping)?;
        invert(&mut ping);
        stream.write_all(&ping)?;
    }
}

/// Answers at the end: how many bytes came, and the nanoseconds from the first to the last.
fn swallow(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut count = stream.read(&mut buffer)? as u64;
    let first = Instant::now();
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            more => count += more as u64,
        }
    }
    let elapsed = u64::try_from(first.elapsed().as_nanos()).unwrap_or(u64::MAX);
    stream.write_all(&count.to_be_bytes())?;
    stream.write_all(&elapsed.to_be_bytes())
}

fn answer_queries(socket: &UdpSocket) {
    let mut query = [0; QUERY];
    loop {
        // an error is an earlier answer's whose client did not wait
        let Ok((length, client)) = socket.recv_from(&mut query) else { continue };
        invert(&mut query[..length]);
        let _ = socket.send_to(&query[..length], client);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}
