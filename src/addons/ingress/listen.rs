//! The doors: sockets, and the workers that serve them.
//!
//! Each worker is a thread with its own runtime, its own pair of sockets (the kernel deals connections out) and its own
//! connections to endpoints, so that workers never wait for each other.

use super::forward::Client;
use super::proxy::{self, Worker};
use super::table::Live;
use super::tls;
use super::upstream::Pool;
use anyhow::Context as _;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests that are under way may take once the server drains.
const DRAIN: Duration = Duration::from_secs(20);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that sends no request for this long is let go; like nginx, which takes one for the head, the other for
/// what lies between requests.
const HEAD: Duration = Duration::from_secs(75);
const BACKLOG: u32 = 4096;

/// Where to listen, and the ports by which clients know these doors.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) http_port: u16,
    pub(super) https_port: u16,
    pub(super) workers: usize,
}

/// The running workers.
pub(super) struct Workers {
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Binds and serves until `cancel`, then lets requests finish for a while.
    ///
    /// # Errors
    /// An address is taken.
    pub(super) fn spawn(mut doors: Doors, live: &Arc<Live>, cancel: &CancellationToken) -> anyhow::Result<Self> {
        let config = tls::server_config(live.clone())?;
        let mut threads = Vec::new();
        for number in 0..doors.workers.max(1) {
            let worker = Arc::new(Worker {
                live: live.clone(),
                pool: Pool::new()?,
                tunnels: TaskTracker::new(),
                https_port: doors.https_port,
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (http, https) = {
                let _entered = runtime.enter();
                (listen(&mut doors.http)?, listen(&mut doors.https)?)
            };
            let (acceptor, cancel, doors) = (TlsAcceptor::from(config.clone()), cancel.child_token(), doors.clone());
            let serve = move || runtime.block_on(serve(worker, http, https, acceptor, doors, cancel));
            let thread = std::thread::Builder::new().name(format!("proxy-{number}"));
            threads.push(thread.spawn(serve)?);
        }
        Ok(Self { http: doors.http, https: doors.https, threads })
    }

    /// Waits until the last worker has ended.
    pub(super) fn join(self) {
        for thread in self.threads {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// A socket, of several at the same address; port 0 becomes the one that was given. Belongs to the runtime entered.
fn listen(address: &mut SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(*address).with_context(|| format!("cannot listen on {address}"))?;
    *address = socket.local_addr()?;
    Ok(socket.listen(BACKLOG)?)
}

async fn serve(
    worker: Arc<Worker>,
    http: TcpListener,
    https: TcpListener,
    acceptor: TlsAcceptor,
    doors: Doors,
    cancel: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let (accepted, tls) = tokio::select! {
            accepted = accept(&http) => (accepted, false),
            accepted = accept(&https) => (accepted, true),
            () = cancel.cancelled() => break,
        };
        let Some((stream, peer)) = accepted else { continue };
        let port = if tls { doors.https_port } else { doors.http_port };
        let client = Client::new(peer, tls, port);
        let (worker, acceptor, cancel) = (worker.clone(), acceptor.clone(), cancel.clone());
        connections.spawn(async move {
            let ended = if tls {
                secured(worker, client, stream, acceptor, cancel).await
            } else {
                plain(worker, client, TokioIo::new(stream), cancel).await.map_err(Into::into)
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
    drop((http, https));
    connections.close();
    worker.tunnels.close();
    let drained = async {
        connections.wait().await;
        worker.tunnels.wait().await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("requests were still under way when the drain ended");
    }
}

async fn accept(socket: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match socket.accept().await {
        Ok((stream, peer)) => stream.set_nodelay(true).ok().map(|()| (stream, peer)),
        Err(error) => {
            // Out of file descriptors, mostly: the next moment may be better.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn secured(
    worker: Arc<Worker>,
    client: Client,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Ok(plain(worker, client, TokioIo::new(stream), cancel).await?);
    }
    let service = service_fn(move |request| {
        let (worker, client) = (worker.clone(), client.clone());
        async move { Ok::<_, Infallible>(proxy::serve(&worker, &client, request).await) }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(Duration::from_secs(20));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = cancel.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

async fn plain<S: Read + Write + Unpin + Send + 'static>(
    worker: Arc<Worker>,
    client: Client,
    stream: S,
    cancel: CancellationToken,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let (worker, client) = (worker.clone(), client.clone());
        async move { Ok::<_, Infallible>(proxy::serve(&worker, &client, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(stream, service).with_upgrades());
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = cancel.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
