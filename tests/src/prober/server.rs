//! The serving side: answers every question with who it is, whom it sees and where it was reached.
//!
//! Bound to each address apart, so that a UDP answer leaves from the address at which the question arrived.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::exchange::answer_line;

/// Longer than any question.
const LONGEST: usize = 65_536;

/// Listens on TCP and UDP, on threads of its own, until the process ends.
pub(super) fn serve(name: &str, at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    let socket = UdpSocket::bind(at)?;
    let name: Arc<str> = name.into();
    let for_udp = Arc::clone(&name);
    thread::Builder::new().name("udp".into()).spawn(move || serve_udp(&socket, &for_udp, at))?;
    thread::Builder::new().name("tcp".into()).spawn(move || serve_tcp(&listener, &name))?;
    Ok(())
}

fn serve_udp(socket: &UdpSocket, name: &str, at: SocketAddr) {
    let mut buffer = vec![0; LONGEST];
    loop {
        // an error is an earlier answer's that nobody waited for: the port was closed by then
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let question = String::from_utf8_lossy(&buffer[..length]);
        if let Some((answer, _)) = answer_line(&question, name, client, at) {
            // whom it does not reach will say so
            let _ = socket.send_to(answer.as_bytes(), client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &Arc<str>) {
    loop {
        let Ok((stream, client)) = listener.accept() else {
            // out of descriptors or memory: what is open must end first
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let name = Arc::clone(name);
        let session = move || {
            // the client reports what went wrong
            let _ = answer_tcp(stream, client, &name);
        };
        // no thread left: the connection is closed unanswered, which the client reports
        let _ = thread::Builder::new().name("tcp session".into()).spawn(session);
    }
}

fn answer_tcp(stream: TcpStream, client: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let reached = stream.local_addr()?;
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    while stream.read_line(&mut question)? > 0 {
        let Some((answer, last)) = answer_line(&question, name, client, reached) else { break };
        stream.get_mut().write_all(answer.as_bytes())?;
        if last {
            break;
        }
        question.clear();
    }
    Ok(())
}
