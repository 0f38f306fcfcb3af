//! Connections to endpoints, kept alive between requests.
//!
//! A connection is driven by the very task that waits for its answer: no hand-over between tasks, and a request that is
//! dropped takes its connection with it. An idle one is driven by nobody; it is looked at before it is used again. HTTP/2 is
//! the exception: all requests of a worker to an endpoint share one connection, which has a task of its own.

use super::tls;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// An idle connection is closed after this long, before most servers would.
const IDLE: Duration = Duration::from_secs(55);
/// Idle connections kept for one endpoint, in each worker.
const IDLE_MAX: usize = 256;

type Stream = TokioIo<Either<TcpStream, Box<TlsStream<TcpStream>>>>;
pub(super) type Sender = http1::SendRequest<Upload>;
pub(super) type Connection = Pin<Box<http1::Connection<Stream, Upload>>>;

/// Where a connection goes, whether through TLS, and whether it speaks HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    pub(super) h2: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no answer in time")]
    Silent,
}

impl Error {
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Silent)
    }
}

/// A failed exchange; the request is handed back where none of it was sent.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) unsent: Option<Request<Upload>>,
}

/// A request's body on its way to the endpoint.
#[derive(Debug)]
pub(super) enum Upload {
    Empty,
    /// The client's body, and how often it moved.
    Client(Incoming, Arc<AtomicU64>),
}

impl Upload {
    pub(super) fn new(body: Incoming) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Client(body, Arc::default()) }
    }

    fn progress(&self) -> Option<Arc<AtomicU64>> {
        match self {
            Self::Empty => None,
            Self::Client(_, moved) => Some(moved.clone()),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(body, moved) => {
                let polled = Pin::new(body).poll_frame(cx);
                if polled.is_ready() {
                    moved.fetch_add(1, Ordering::Relaxed);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body, _) => body.size_hint(),
        }
    }
}

/// A connection to an endpoint.
pub(super) struct Upstream {
    sender: Sender,
    /// None once it has ended.
    connection: Option<Connection>,
}

impl Upstream {
    /// Lets the connection do what it can.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// Whether it can take a request, after a look at the socket.
    fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer; `silence` is how long neither side may move.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Upload>,
        silence: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        let progress = request.body().progress();
        let sending = self.sender.try_send_request(request);
        let connection = &mut self.connection;
        answered(sending, progress, silence, |cx| {
            if let Some(alive) = connection
                && alive.as_mut().poll(cx).is_ready()
            {
                *connection = None;
            }
        })
        .await
    }

    /// The two halves, for an exchange that becomes a tunnel.
    pub(super) fn into_parts(self) -> Option<(Sender, Connection)> {
        Some((self.sender, self.connection?))
    }
}

/// Waits for the head of an answer; `drive` lets the connection do what it can.
async fn answered(
    sending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>>,
    progress: Option<Arc<AtomicU64>>,
    silence: Duration,
    mut drive: impl FnMut(&mut Context<'_>),
) -> Result<Response<Incoming>, Failed> {
    let moved = || progress.as_ref().map_or(0, |moved| moved.load(Ordering::Relaxed));
    let mut seen = moved();
    let mut sending = pin!(sending);
    let mut timer = pin!(sleep(silence));
    poll_fn(|cx| {
        drive(cx);
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent.map_err(|mut error| {
                let unsent = error.take_message();
                Failed { error: Error::Broken(error.into_error()), unsent }
            }));
        }
        while timer.as_mut().poll(cx).is_ready() {
            if moved() == seen {
                return Poll::Ready(Err(Failed { error: Error::Silent, unsent: None }));
            }
            seen = moved();
            timer.as_mut().reset(Instant::now() + silence);
        }
        Poll::Pending
    })
    .await
}

struct Idle {
    upstream: Upstream,
    since: Instant,
}

/// A connection that requests share, and when the last one began.
struct Shared {
    sender: http2::SendRequest<Upload>,
    used: Instant,
}

/// The connections of one worker that are idle or shared.
pub(super) struct Pool {
    idle: Mutex<HashMap<Target, Vec<Idle>>>,
    shared: Mutex<HashMap<Target, Shared>>,
    /// A task closes what is idle for too long; it is there only while there is something.
    reaping: AtomicBool,
    tls: TlsConnector,
    tls_h2: TlsConnector,
}

impl Pool {
    pub(super) fn new() -> anyhow::Result<Arc<Self>> {
        let tls = TlsConnector::from(tls::client_config(&[])?);
        let tls_h2 = TlsConnector::from(tls::client_config(&["h2"])?);
        let reaping = AtomicBool::new(false);
        Ok(Arc::new(Self { idle: Mutex::default(), shared: Mutex::default(), reaping, tls, tls_h2 }))
    }

    /// An idle connection that still works.
    pub(super) async fn take(&self, target: Target) -> Option<Upstream> {
        loop {
            let mut idle = self.idle.lock().get_mut(&target)?.pop()?;
            let usable = poll_fn(|cx| Poll::Ready(idle.upstream.is_usable(cx))).await;
            if usable && idle.since.elapsed() < IDLE {
                return Some(idle.upstream);
            }
        }
    }

    pub(super) async fn connect(&self, target: Target, patience: Duration) -> Result<Upstream, Error> {
        tokio::time::timeout(patience, self.open(target)).await.unwrap_or(Err(Error::ConnectTimeout))
    }

    async fn open(&self, target: Target) -> Result<Upstream, Error> {
        let (sender, connection) = http1::Builder::new().handshake(self.dial(target).await?).await?;
        Ok(Upstream { sender, connection: Some(Box::pin(connection)) })
    }

    async fn dial(&self, target: Target) -> Result<Stream, Error> {
        let stream = TcpStream::connect(target.address).await.map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        if !target.tls {
            return Ok(TokioIo::new(Either::Left(stream)));
        }
        let name = ServerName::IpAddress(target.address.ip().into());
        let tls = if target.h2 { &self.tls_h2 } else { &self.tls };
        Ok(TokioIo::new(Either::Right(Box::new(tls.connect(name, stream).await.map_err(Error::Connect)?))))
    }

    /// Sends a request by the endpoint's shared connection, or by a new one where there is none that works.
    pub(super) async fn multiplex(
        self: &Arc<Self>,
        target: Target,
        mut request: Request<Upload>,
        patience: Duration,
        silence: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        let progress = request.body().progress();
        let known = self.shared.lock().get_mut(&target).map(|shared| {
            shared.used = Instant::now();
            shared.sender.clone()
        });
        if let Some(mut sender) = known
            && sender.ready().await.is_ok()
        {
            match answered(sender.try_send_request(request), progress.clone(), silence, |_| ()).await {
                Err(Failed { unsent: Some(again), .. }) => request = again,
                done => return done,
            }
        }
        let opened = tokio::time::timeout(patience, self.share(target)).await.unwrap_or(Err(Error::ConnectTimeout));
        match opened {
            Ok(mut sender) => answered(sender.try_send_request(request), progress, silence, |_| ()).await,
            Err(error) => Err(Failed { error, unsent: Some(request) }),
        }
    }

    async fn share(self: &Arc<Self>, target: Target) -> Result<http2::SendRequest<Upload>, Error> {
        let stream = self.dial(target).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new()).handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(address = %target.address, %error, "a shared connection ended");
            }
        });
        self.shared.lock().insert(target, Shared { sender: sender.clone(), used: Instant::now() });
        self.reap();
        Ok(sender)
    }

    /// Keeps a connection whose exchange is complete; drops one that cannot be used again.
    fn put(self: &Arc<Self>, target: Target, mut upstream: Upstream) {
        if !upstream.is_usable(&mut Context::from_waker(Waker::noop())) {
            return;
        }
        let idle = Idle { upstream, since: Instant::now() };
        let mut all = self.idle.lock();
        let list = all.entry(target).or_default();
        if list.len() < IDLE_MAX {
            list.push(idle);
        }
        drop(all);
        self.reap();
    }

    fn reap(self: &Arc<Self>) {
        // A worker that is shutting down has no runtime to reap in, and needs none.
        if !self.reaping.swap(true, Ordering::AcqRel)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(reap(self.clone()));
        }
    }
}

async fn reap(pool: Arc<Pool>) {
    loop {
        sleep(IDLE).await;
        let mut all = pool.idle.lock();
        all.retain(|_, list| {
            list.retain(|idle| idle.since.elapsed() < IDLE);
            !list.is_empty()
        });
        // Without its last sender a connection ends when its requests have.
        let mut shared = pool.shared.lock();
        shared.retain(|_, shared| shared.used.elapsed() < IDLE && !shared.sender.is_closed());
        if all.is_empty() && shared.is_empty() {
            pool.reaping.store(false, Ordering::Release);
            return;
        }
    }
}

/// An answer's body on its way to the client. When it is complete its connection becomes idle; when it is dropped before,
/// the connection closes.
pub(super) struct Download {
    incoming: Incoming,
    lease: Option<(Upstream, Target, Arc<Pool>)>,
    silence: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Download {
    pub(super) fn new(incoming: Incoming, lease: Option<(Upstream, Target, Arc<Pool>)>, silence: Duration) -> Self {
        Self { incoming, lease, silence, timer: None, ended: false }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if (self.ended || self.incoming.is_end_stream())
            && let Some((upstream, target, pool)) = self.lease.take()
        {
            pool.put(target, upstream);
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some((upstream, ..)) = &mut this.lease {
            upstream.drive(cx);
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(frame)) => {
                this.timer = None;
                Poll::Ready(Some(frame.map_err(Error::Broken)))
            }
            Poll::Ready(None) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let silence = this.silence;
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(silence)));
                timer.as_mut().poll(cx).map(|()| Some(Err(Error::Silent)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
