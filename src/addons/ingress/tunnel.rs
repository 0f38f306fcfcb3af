//! Upgrades, such as WebSockets: the connection is given to the backend, byte by byte.

use super::proxy::{Body, Worker, answer, failure, targets};
use super::table::Route;
use super::upstream::{Error, Upload};
use super::{forward, page};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// A tunnel in which nothing moves for this long is closed, unless an annotation allows more.
const SILENCE: Duration = Duration::from_secs(3600);

/// The protocol that a request wants to change to. Cleartext HTTP/2 is none: it would lead around the routes.
pub(super) fn wanted(parts: &Parts) -> Option<HeaderValue> {
    let asks = || forward::tokens(&parts.headers, &header::CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let cleartext = || forward::tokens(&parts.headers, &header::UPGRADE).any(|t| t.eq_ignore_ascii_case("h2c"));
    let upgrade = parts.headers.get(header::UPGRADE)?;
    (parts.version == Version::HTTP_11 && asks() && !cleartext()).then(|| upgrade.clone())
}

/// Whether our own request, which has the header only then, is to become a tunnel.
pub(super) fn is_wanted(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(header::UPGRADE)
}

/// Sends the request by a connection of its own, and joins the two where the backend agrees.
pub(super) async fn serve(worker: &Worker, route: &Arc<Route>, mut request: Request<Incoming>) -> Response<Body> {
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let mut connected = None;
    let mut last = None;
    for target in targets(route) {
        match worker.pool.connect(target, route.settings.connect).await {
            Ok(upstream) => {
                connected = upstream.into_parts();
                break;
            }
            Err(error) => last = Some(error),
        }
    }
    let Some((mut sender, connection)) = connected else {
        return last.map_or_else(page::no_endpoints, |error| failure(&error));
    };
    let connection = Pin::into_inner(connection).with_upgrades();
    worker.tunnels.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upgraded connection ended");
        }
    });
    let (parts, body) = request.into_parts();
    let sent = sender.send_request(Request::from_parts(parts, Upload::new(body)));
    let mut response = match tokio::time::timeout(route.settings.silence, sent).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return failure(&Error::Broken(error)),
        Err(_) => return failure(&Error::Silent),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return answer(response, None, route);
    }
    let backend = response.extensions_mut().remove::<OnUpgrade>();
    let (Some(client), Some(backend)) = (client, backend) else {
        return failure(&Error::Silent);
    };
    worker.tunnels.spawn(join(client, backend, SILENCE.max(route.settings.silence)));
    switched(&response)
}

/// The backend's 101, with the protocol it changes to.
fn switched(response: &Response<Incoming>) -> Response<Body> {
    let mut out = Response::new(Either::Left(Full::default()));
    *out.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *out.headers_mut() = response.headers().clone();
    forward::drop_hop_by_hop(out.headers_mut());
    if let Some(upgrade) = response.headers().get(header::UPGRADE) {
        out.headers_mut().insert(header::UPGRADE, upgrade.clone());
    }
    out.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out
}

async fn join(client: OnUpgrade, backend: OnUpgrade, silence: Duration) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade broke off");
            return;
        }
    };
    let moved = AtomicU64::new(0);
    let (mut client, mut backend) = (Counted::new(client, &moved), Counted::new(backend, &moved));
    tokio::select! {
        ended = copy_bidirectional(&mut client, &mut backend) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        () = silent(&moved, silence) => tracing::debug!("a tunnel was silent for too long"),
    }
}

/// Ends once nothing has moved for this long.
async fn silent(moved: &AtomicU64, silence: Duration) {
    loop {
        let before = moved.load(Ordering::Relaxed);
        tokio::time::sleep(silence).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// A side of a tunnel, which counts its reads.
struct Counted<'a> {
    side: TokioIo<Upgraded>,
    moved: &'a AtomicU64,
}

impl<'a> Counted<'a> {
    fn new(side: Upgraded, moved: &'a AtomicU64) -> Self {
        Self { side: TokioIo::new(side), moved }
    }
}

impl AsyncRead for Counted<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.side).poll_read(cx, buffer);
        if polled.is_ready() {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.side).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side).poll_shutdown(cx)
    }
}
