//! The prober's own end: reads commands, carries out each on a thread of its own, answers.

use std::collections::HashMap;
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use super::exchange::{OpenSocket, ask, failed};
use super::protocol::{Command, Failure, Outcome, Reply, Request};
use super::{bulk, echo, server};
use crate::lab::locked;

#[derive(Default)]
struct Prober {
    sockets: Mutex<HashMap<u64, Arc<Mutex<OpenSocket>>>>,
    bulks: Mutex<HashMap<u64, Arc<AtomicBool>>>,
}

/// Serves standard input until it ends.
///
/// # Errors
/// A line that is no request, or standard output is gone.
pub fn run() -> Result<()> {
    let prober = Arc::new(Prober::default());
    for line in io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?).context("not a request")?;
        prober.prepare(&request);
        let prober = Arc::clone(&prober);
        std::thread::Builder::new().spawn(move || {
            let reply = Reply { id: request.id, outcome: prober.carry_out(request) };
            // whoever asked is gone: there is nobody to tell
            let _ = print(&reply);
        })?;
    }
    Ok(())
}

fn print(reply: &Reply) -> Result<()> {
    let line = serde_json::to_string(reply)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

impl Prober {
    /// What the next command may already refer to.
    fn prepare(&self, request: &Request) {
        if matches!(request.command, Command::Bulk(_)) {
            locked(&self.bulks).insert(request.id, Arc::default());
        }
    }

    fn carry_out(&self, request: Request) -> Outcome {
        match request.command {
            Command::Serve { name, at } => done(at.iter().try_for_each(|at| {
                server::serve(&name, *at).map_err(|error| failed(&format!("serving at {at}"))(error))
            })),
            Command::Connect { how, to } => done(OpenSocket::open(how, to).map(drop)),
            Command::Ask { how, to } => ask(how, to).map_or_else(Outcome::Failed, Outcome::Answered),
            Command::Open { socket, how, to } => done(OpenSocket::open(how, to).map(|open| {
                locked(&self.sockets).insert(socket, Arc::new(Mutex::new(open)));
            })),
            Command::OpenFrom { socket, how, to, port } => {
                done(OpenSocket::open_from(how, to, port).map(|open| {
                    locked(&self.sockets).insert(socket, Arc::new(Mutex::new(open)));
                }))
            }
            Command::Exchange { socket, to } => self.exchange(socket, to, 0),
            Command::ExchangeLong { socket, to, padding } => self.exchange(socket, to, padding),
            Command::Echo { to } => done(echo::echo(to)),
            Command::TakeError { socket } => self.take_error(socket),
            Command::Close { socket } => {
                locked(&self.sockets).remove(&socket);
                Outcome::Done
            }
            Command::Bulk(spec) => {
                let stop = locked(&self.bulks).get(&request.id).cloned().unwrap_or_default();
                let report = bulk::run(&spec, &stop);
                locked(&self.bulks).remove(&request.id);
                Outcome::Counted(report)
            }
            Command::Stop { bulk } => {
                if let Some(stop) = locked(&self.bulks).get(&bulk) {
                    stop.store(true, Ordering::Relaxed);
                }
                Outcome::Done
            }
        }
    }

    fn exchange(&self, socket: u64, to: SocketAddr, padding: usize) -> Outcome {
        self.with(socket, |open| {
            open.exchange(to, false, padding).map_or_else(Outcome::Failed, Outcome::Answered)
        })
    }

    fn take_error(&self, socket: u64) -> Outcome {
        self.with(socket, |open| match open.take_error() {
            Ok(None) => Outcome::Done,
            Ok(Some(error)) | Err(error) => Outcome::Failed(failed("the socket")(error)),
        })
    }

    fn with(&self, socket: u64, work: impl FnOnce(&mut OpenSocket) -> Outcome) -> Outcome {
        let open = locked(&self.sockets).get(&socket).cloned();
        match open {
            Some(open) => work(&mut locked(&open)),
            None => {
                Outcome::Failed(Failure { error: format!("no socket {socket} is open"), at: "open".into() })
            }
        }
    }
}

fn done(result: Result<(), Failure>) -> Outcome {
    result.map_or_else(Outcome::Failed, |()| Outcome::Done)
}
