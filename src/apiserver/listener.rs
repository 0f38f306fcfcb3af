//! The socket: TLS with optional client certificates, HTTP/1.1 and HTTP/2 on one port, upgrades, and a drain with a deadline.
//!
//! The handshake takes any client certificate whose key the client holds: whether it is trusted is a question for authn,
//! so that a wrong one is told 401 and not cut off.

use crate::body::Body;
use crate::{ApiServer, Config, Error, TlsFiles, bootstrap, definitions, expire, handler, quota};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mini_pki::AnyCertificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests that are under way may take once the server drains.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a client may take for its handshake, and after it for the first byte of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is read ahead of the first request: no more than what the buffer held is copied.
const GREETING: usize = 512;
/// Connections that may be at that point at a time. Others wait in the kernel's queue.
const GREETINGS: usize = 512;

/// The far end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// What the client presented, leaf first; not verified against any authority.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

/// A bound, not yet serving socket.
pub struct Listener {
    socket: TcpListener,
    tls: TlsAcceptor,
    address: SocketAddr,
}

impl Listener {
    /// Reads the serving certificate and binds.
    ///
    /// # Errors
    /// The certificate is damaged or the address taken.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let tls = TlsAcceptor::from(Arc::new(server_tls(&config.tls)?));
        let bind = |source| Error::Bind { address: config.listen, source };
        let socket = TcpListener::bind(config.listen).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        Ok(Self { socket, tls, address })
    }

    /// Where it listens; the real port if the configured one was 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the system objects, serves until `cancel`, then lets requests finish for a few seconds.
    ///
    /// # Errors
    /// The system objects cannot be made.
    pub async fn run(self, server: Arc<ApiServer>, cancel: CancellationToken) -> Result<(), Error> {
        server.bootstrap(self.address).await?;
        let chores = TaskTracker::new();
        chores.spawn(bootstrap::keep(server.clone(), self.address, server.draining.clone()));
        chores.spawn(expire::run(server.clone(), server.draining.clone()));
        chores.spawn(quota::run(server.clone(), server.draining.clone()));
        chores.spawn(definitions::run(server.clone(), server.draining.clone()));
        let connections = TaskTracker::new();
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let http = Arc::new(http);
        let greetings = Arc::new(Semaphore::new(GREETINGS));
        loop {
            let next = async {
                let greeting = greetings.clone().acquire_owned().await.map_err(std::io::Error::other)?;
                self.socket.accept().await.map(|(stream, address)| (stream, address, greeting))
            };
            let Some(accepted) = cancel.run_until_cancelled(next).await else { break };
            let (stream, address, greeting) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: the next moment may be better.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (server, tls, http) = (server.clone(), self.tls.clone(), http.clone());
            connections.spawn(async move {
                if let Err(error) = connection(server, tls, &http, (stream, address), greeting).await {
                    tracing::debug!(%address, %error, "connection ended");
                }
            });
        }
        drop(self.socket);
        server.draining.cancel();
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("requests were still under way when the drain ended");
        }
        chores.close();
        chores.wait().await;
        if let Some(audit) = &server.audit {
            audit.flush().await;
        }
        Ok(())
    }
}

async fn connection(
    server: Arc<ApiServer>,
    tls: TlsAcceptor,
    http: &auto::Builder<TokioExecutor>,
    (stream, address): (TcpStream, SocketAddr),
    greeting: OwnedSemaphorePermit,
) -> Result<(), crate::body::BoxError> {
    stream.set_nodelay(true)?;
    let greeted = server.draining.run_until_cancelled(greet(tls, stream)).await;
    drop(greeting);
    let Some(greeted) = greeted else { return Ok(()) };
    let Some(stream) = greeted.inspect_err(|_| server.metrics.handshake_failed())? else {
        return Ok(());
    };
    let certificates = stream.get_ref().get_ref().1.peer_certificates().map(Arc::from);
    let draining = server.draining.clone();
    let peer = Peer { address, certificates };
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            Ok::<Response<Body>, Infallible>(handler::serve(server, peer, request).await)
        }
    });
    let mut connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = draining.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// The handshake and the first byte of a request; `None` if it ends before one. Nothing but this bounds how long a
/// connection may say nothing at all.
async fn greet(
    tls: TlsAcceptor,
    stream: TcpStream,
) -> Result<Option<BufReader<TlsStream<TcpStream>>>, crate::body::BoxError> {
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
    let mut stream = BufReader::with_capacity(GREETING, stream);
    let ended = tokio::time::timeout(HANDSHAKE, stream.fill_buf()).await??.is_empty();
    Ok((!ended).then_some(stream))
}

fn server_tls(files: &TlsFiles) -> Result<rustls::ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let damaged = |path: &std::path::Path, what, why: String| Error::Material { path: path.to_owned(), what, why };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| damaged(&files.cert, "certificate", e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| damaged(&files.key, "key", e.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| damaged(&files.cert, "certificate", e.to_string()))?
        .with_client_cert_verifier(Arc::new(AnyCertificate::new(provider)))
        .with_single_cert(chain, key)
        .map_err(|e| damaged(&files.cert, "certificate", e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
