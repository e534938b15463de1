//! The socket: accepting, refusing, TLS, and connections that can all be dropped at once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::server::{Shared, tick};

/// Connections that may wait to be accepted.
const WAITING: u32 = 128;

/// Where a server listens, or does not for a while.
pub(super) struct Gate {
    address: SocketAddr,
    /// Bound and never listening: while the listener is closed, connecting is refused and nobody takes the port.
    _reserved: TcpSocket,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Ticks when all connections shall be dropped.
    dropped: Arc<watch::Sender<u64>>,
}

impl Gate {
    /// Takes an address; port 0 is any. It refuses until [`Gate::open`].
    pub(super) fn reserve(address: SocketAddr) -> Result<Self> {
        let reserved = bind(address)?;
        let address = reserved.local_addr()?;
        let dropped = Arc::new(watch::Sender::new(0));
        Ok(Self { address, _reserved: reserved, accepting: Mutex::new(None), dropped })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens, and serves with this certificate. What was accepted before keeps its own.
    pub(super) async fn open(&self, shared: &Arc<Shared>, acceptor: TlsAcceptor) -> Result<()> {
        self.close().await;
        let listener = bind(self.address)?.listen(WAITING).context("cannot listen")?;
        let task = tokio::spawn(accept(listener, shared.clone(), acceptor, self.dropped.clone()));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    /// Refuses new connections from when this returns; those that exist go on.
    pub(super) async fn close(&self) {
        let task = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // Its listener is closed when it has ended.
            let _ = task.await;
        }
    }

    /// Drops every connection, in whatever it is, without a word of TLS.
    pub(super) fn drop_connections(&self) {
        tick(&self.dropped);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.drop_connections();
    }
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    dropped: Arc<watch::Sender<u64>>,
) {
    loop {
        // One that is gone before it was accepted is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (shared, acceptor, mut dropped) = (shared.clone(), acceptor.clone(), dropped.subscribe());
        tokio::spawn(async move {
            let _open = shared.log.connection_opened();
            tokio::select! {
                _ = dropped.changed() => {}
                () = serve(stream, &shared, acceptor) => {}
            }
        });
    }
}

async fn serve(stream: TcpStream, shared: &Arc<Shared>, acceptor: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let mut faults = shared.faults.subscribe();
    let _ = faults.wait_for(|faults| !faults.silent).await;
    // A client that does not trust us leaves here.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(shared.answer(request).await) }
    });
    // It ends in an error whenever a body was cut, and whenever the client left.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
