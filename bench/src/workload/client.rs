//! The client pod's part, and the counting: only what came back, and is what had to come back, counts.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::server::{PING, QUERY, REQUEST, invert};
use super::socket::{connect_tcp, connect_udp};
use super::{Sample, Spec, Workload};
use crate::cpu;

/// What one worker counted.
#[derive(Default)]
struct Tally {
    delivered: u64,
    failed: u64,
    failure: Option<String>,
    /// Nanoseconds from the beginning of counting to the last delivery that counts.
    elapsed: Duration,
}

impl Tally {
    fn fail(&mut self, error: &io::Error) {
        self.failed += 1;
        self.failure.get_or_insert_with(|| error.to_string());
    }
}

/// When counting begins and ends.
#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    end: Instant,
    /// Each worker's part of the bound on the count.
    count: u64,
}

/// Makes a measurement.
///
/// # Errors
/// The server's process is gone, or a thread cannot be made. That nothing is delivered is a result, not an error.
pub fn measure(spec: &Spec) -> Result<Sample> {
    let workers = spec.workers.max(1);
    let ready = Barrier::new(workers as usize + 1);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|number| {
                let ready = &ready;
                let work = move || work(spec, number, ready);
                thread::Builder::new().name("client".into()).spawn_scoped(scope, work)
            })
            .collect::<io::Result<_>>()?;
        ready.wait();
        let window = window(spec);
        let usage = watch(window, spec.server_pid);
        let mut tallies = Vec::new();
        for handle in handles {
            tallies.push(handle.join().map_err(|_| anyhow!("a client panicked"))?);
        }
        Ok(sum(spec, &tallies, usage?))
    })
}

fn window(spec: &Spec) -> Window {
    // a stream is measured by its receiver, from its first byte on
    let warm_up = if spec.workload == Workload::Stream { 0 } else { spec.warm_up_ms };
    let start = Instant::now() + Duration::from_millis(warm_up);
    let end = start + Duration::from_millis(spec.limit_ms);
    Window { start, end, count: (spec.limit_count / u64::from(spec.workers.max(1))).max(1) }
}

/// Client, server, everything else.
fn watch(window: Window, server_pid: u32) -> Result<[Duration; 3]> {
    let read = || Ok::<_, anyhow::Error>([cpu::used(0)?, cpu::used(server_pid)?, cpu::busy()?]);
    thread::sleep(window.start.saturating_duration_since(Instant::now()));
    let before = read()?;
    thread::sleep(window.end.saturating_duration_since(Instant::now()));
    let after = read()?;
    let [client, server, busy] = [0, 1, 2].map(|i| after[i].saturating_sub(before[i]));
    Ok([client, server, busy.saturating_sub(client + server)])
}

fn sum(spec: &Spec, tallies: &[Tally], usage: [Duration; 3]) -> Sample {
    let delivered: u64 = tallies.iter().map(|tally| tally.delivered).sum();
    let full = delivered >= spec.limit_count || spec.workload == Workload::Stream;
    let slowest = tallies.iter().map(|tally| tally.elapsed).max().unwrap_or_default();
    // up to the last delivery only where the bound on the count ended it: a subject that stops is not fast
    let elapsed = if full { slowest } else { Duration::from_millis(spec.limit_ms) };
    let [client, server, other] = usage.map(nanos);
    Sample {
        delivered,
        failed: tallies.iter().map(|tally| tally.failed).sum(),
        failure: tallies.iter().find_map(|tally| tally.failure.clone()),
        elapsed_ns: nanos(elapsed),
        client_cpu_ns: client,
        server_cpu_ns: server,
        other_cpu_ns: other,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn work(spec: &Spec, number: u32, ready: &Barrier) -> Tally {
    let nonces = u64::from(number) << 48;
    match spec.workload {
        Workload::Connect => repeat(spec, ready, nonces, |nonce| request(spec.to, nonce)),
        Workload::UdpConnect => repeat(spec, ready, nonces, |nonce| query(spec.to, nonce)),
        Workload::Established => {
            let mut stream = prepare(spec.to);
            repeat(spec, ready, nonces, |nonce| ping(stream.as_mut(), nonce))
        }
        Workload::Stream => {
            let stream = prepare(spec.to);
            ready.wait();
            let mut tally = Tally::default();
            match stream.and_then(|stream| push(stream, window(spec))) {
                Ok((count, elapsed)) => (tally.delivered, tally.elapsed) = (count, elapsed),
                Err(error) => tally.fail(&error),
            }
            tally
        }
    }
}

/// Exchanges until the time is over, and counts those that ended within it.
fn repeat(
    spec: &Spec,
    ready: &Barrier,
    nonces: u64,
    mut exchange: impl FnMut(u64) -> io::Result<()>,
) -> Tally {
    ready.wait();
    let window = window(spec);
    let mut tally = Tally::default();
    for nonce in nonces.. {
        let result = exchange(nonce);
        let now = Instant::now();
        if let Err(error) = result {
            tally.fail(&error);
        } else if now >= window.start && now < window.end {
            tally.delivered += 1;
            tally.elapsed = now - window.start;
        }
        if now >= window.end || tally.delivered >= window.count {
            break;
        }
    }
    tally
}

fn prepare(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = connect_tcp(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Bytes that no other exchange has.
fn fresh<const N: usize>(nonce: u64) -> [u8; N] {
    let mut bytes = [0; N];
    for (at, part) in (0_u64..).zip(bytes.chunks_mut(8)) {
        part.copy_from_slice(&nonce.rotate_left(8).wrapping_add(at).to_be_bytes()[..part.len()]);
    }
    bytes
}

fn verify<const N: usize>(mut answer: [u8; N], nonce: u64) -> io::Result<()> {
    invert(&mut answer);
    if answer == fresh(nonce) { Ok(()) } else { Err(io::Error::other("another question's answer")) }
}

fn request(to: SocketAddr, nonce: u64) -> io::Result<()> {
    let mut stream = connect_tcp(to)?;
    stream.write_all(&fresh::<REQUEST>(nonce))?;
    let mut reply = [0; REQUEST];
    stream.read_exact(&mut reply)?;
    verify(reply, nonce)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more than the reply")),
    }
}

fn query(to: SocketAddr, nonce: u64) -> io::Result<()> {
    let socket = connect_udp(to)?;
    socket.send(&fresh::<QUERY>(nonce))?;
    let mut answer = [0; QUERY];
    match socket.recv(&mut answer)? {
        QUERY => verify(answer, nonce),
        length => Err(io::Error::other(format!("an answer of {length} bytes"))),
    }
}

fn ping(stream: Result<&mut TcpStream, &mut io::Error>, nonce: u64) -> io::Result<()> {
    let stream = stream.map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    stream.write_all(&fresh::<PING>(nonce))?;
    let mut pong = [0; PING];
    stream.read_exact(&mut pong)?;
    verify(pong, nonce)
}

/// Writes until the time is over. The receiver says how much it got, and in what time.
fn push(mut stream: TcpStream, window: Window) -> io::Result<(u64, Duration)> {
    let buffer = vec![0x5a; 64 * 1024];
    let mut written = 0_u64;
    while Instant::now() < window.end {
        stream.write_all(&buffer)?;
        written += buffer.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut number = [0; 8];
    stream.read_exact(&mut number)?;
    let received = u64::from_be_bytes(number);
    stream.read_exact(&mut number)?;
    if received == written {
        Ok((received, Duration::from_nanos(u64::from_be_bytes(number))))
    } else {
        Err(io::Error::other(format!("{received} of {written} bytes arrived")))
    }
}
