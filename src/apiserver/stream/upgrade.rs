//! exec, attach and portforward: a connection that is upgraded on both sides.

use super::{Target, remote_command, websocket};
use crate::body::{Body, full};
use crate::{ApiServer, Call};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use mini_api::Status;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
pub(super) const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// What the client's side of the connection is.
enum Way {
    /// Bytes pass untouched.
    Raw,
    /// SPDY inside a WebSocket: the messages' bytes pass untouched.
    Tunnel,
    /// Channels of a WebSocket become streams of SPDY.
    Channels(remote_command::Version),
}

pub(super) async fn serve(call: &Call, mut request: Request<Body>, target: &Target) -> Result<Response<Body>, Status> {
    let wanted =
        request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_lowercase();
    if wanted.is_empty() {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let offered = websocket::protocols(request.headers());
    let way = if wanted == "websocket" { way(&call.info.subresource, &offered)? } else { Way::Raw };
    let Some(client) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(Status::bad_request("this connection cannot be upgraded"));
    };
    match way {
        Way::Raw => raw(call, request.method().clone(), client, target, &offered).await,
        Way::Tunnel => {
            let accepted = websocket::accept(request.headers(), websocket::TUNNEL)?;
            let backend = spdy(call, target, "portforward.k8s.io").await?;
            let server = call.server.clone();
            let (client, backend) = match backend {
                Ok(backend) => (client, backend),
                Err(refusal) => return Ok(refusal),
            };
            detach(server, async move { websocket::tunnel(client.await?, backend.await?).await });
            Ok(accepted)
        }
        Way::Channels(version) => {
            let accepted = websocket::accept(request.headers(), version.protocol())?;
            let backend = match spdy(call, target, "v4.channel.k8s.io").await? {
                Ok(backend) => backend,
                Err(refusal) => return Ok(refusal),
            };
            let streams = remote_command::Streams::of(&target.path);
            detach(
                call.server.clone(),
                async move { remote_command::run(client.await?, backend.await?, &streams).await },
            );
            Ok(accepted)
        }
    }
}

/// What to do with a WebSocket that offers these protocols.
fn way(subresource: &str, offered: &[String]) -> Result<Way, Status> {
    let offers = |protocol: &str| offered.iter().any(|p| p == protocol);
    if subresource == "portforward" {
        if offers(websocket::TUNNEL) {
            return Ok(Way::Tunnel);
        }
        return Ok(Way::Raw);
    }
    for version in [remote_command::Version::V5, remote_command::Version::V4] {
        if offers(version.protocol()) {
            return Ok(Way::Channels(version));
        }
    }
    // Older ones are known to the far end.
    Ok(Way::Raw)
}

/// Asks the kubelet for SPDY. `Ok(Err(…))` is its refusal, for the client to read.
async fn spdy(
    call: &Call,
    target: &Target,
    protocol: &'static str,
) -> Result<Result<OnUpgrade, Response<Body>>, Status> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, SPDY);
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    let answer = call.server.kubelets.call(target.endpoint, Method::POST, &target.path, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Err(refusal(answer)));
    }
    Ok(Ok(hyper::upgrade::on(answer)))
}

async fn raw(
    call: &Call,
    method: Method,
    client: OnUpgrade,
    target: &Target,
    offered: &[String],
) -> Result<Response<Body>, Status> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, UPGRADE);
    let passed = [
        header::UPGRADE,
        STREAM_PROTOCOL,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::ORIGIN,
    ];
    for name in passed {
        for value in call.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    // The token, if it came as a protocol, is not among these.
    if !offered.is_empty()
        && let Ok(value) = HeaderValue::from_str(&offered.join(", "))
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let answer = call.server.kubelets.call(target.endpoint, method, &target.path, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(refusal(answer));
    }
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_headers(&answer, &mut response);
    let backend = hyper::upgrade::on(answer);
    detach(call.server.clone(), async move { copy(client.await?, backend.await?).await });
    Ok(response)
}

/// The kubelet's answer, for the client to read.
fn refusal(answer: Response<Incoming>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    *response.status_mut() = parts.status;
    for name in [header::CONTENT_TYPE, ACCEPTED_PROTOCOLS, STREAM_PROTOCOL] {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

fn copy_headers(from: &Response<Incoming>, to: &mut Response<Body>) {
    for (name, value) in from.headers() {
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::DATE) {
            to.headers_mut().append(name, value.clone());
        }
    }
}

/// Copies both ways until either side is done for good.
pub(super) async fn copy(client: Upgraded, backend: Upgraded) -> Result<(), Failure> {
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
    let _ = client.shutdown().await;
    let _ = backend.shutdown().await;
    Ok(())
}

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a stream beside the request that opened it, until it ends or the server drains.
pub(super) fn detach(server: Arc<ApiServer>, work: impl Future<Output = Result<(), Failure>> + Send + 'static) {
    tokio::spawn(async move {
        tokio::select! {
            ended = work => if let Err(error) = ended {
                tracing::debug!(%error, "stream ended");
            },
            () = server.draining.cancelled() => {}
        }
    });
}
