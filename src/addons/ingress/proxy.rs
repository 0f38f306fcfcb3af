//! One request: its route, its backend, its answer.

use super::forward::{self, Client};
use super::path;
use super::table::{Hit, Live, Route};
use super::upstream::{Download, Error, Failed, Pool, Target, Upload, Upstream};
use super::{page, tunnel};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// An answer's body: a page of ours, or what a backend sends.
pub(super) type Body = Either<Full<Bytes>, Download>;

/// Answered by the controller itself, for whoever wants to know whether it is reached.
const OWN_PATH: &str = "/.well-known/mini-ingress";

/// So many endpoints are tried for one request.
const ENDPOINTS_TRIED: usize = 3;

/// What the requests of one worker share.
pub(super) struct Worker {
    pub(super) live: Arc<Live>,
    pub(super) pool: Arc<Pool>,
    /// Connections that have become tunnels.
    pub(super) tunnels: TaskTracker,
    /// The port at which clients reach HTTPS.
    pub(super) https_port: u16,
}

/// Answers a request. Never fails: what goes wrong is an answer too.
pub(super) async fn serve(worker: &Worker, client: &Client, request: Request<Incoming>) -> Response<Body> {
    let Ok((host, authority)) = host(&request) else {
        return page::bad_request("The request must name one host.");
    };
    if *request.method() == Method::CONNECT {
        return page::page(StatusCode::METHOD_NOT_ALLOWED, "This is no forward proxy.");
    }
    let Some(path) = path::normalize(request.uri().path()) else {
        return page::bad_request("The path leads out of the root.");
    };
    if path == OWN_PATH {
        return page::page(StatusCode::OK, "Ingresses are served.");
    }
    let Some(hit) = worker.live.load().find(&host, &path) else {
        return page::not_found();
    };
    if hit.route.secure && !client.tls {
        return page::redirect(&secure_location(&host, worker.https_port, request.uri()));
    }
    match outgoing(request, &hit, client, &authority) {
        Ok(request) if tunnel::is_wanted(&request) => tunnel::serve(worker, &hit.route, request).await,
        Ok(request) => {
            let (parts, body) = request.into_parts();
            forward(worker, &hit.route, Request::from_parts(parts, Upload::new(body))).await
        }
        Err(error) => {
            tracing::debug!(%error, "a rewritten path is no path");
            page::bad_request("The path cannot be rewritten.")
        }
    }
}

/// The host in lower case without port, and the authority as the client wrote it.
fn host(request: &Request<Incoming>) -> Result<(String, HeaderValue), ()> {
    let mut headers = request.headers().get_all(header::HOST).iter();
    let (of_header, more) = (headers.next(), headers.next());
    // A host in the request line goes before the header (RFC 9112, 3.2.2), which HTTP/1.1 asks for all the same.
    let value = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(drop)?,
        None => of_header.cloned().ok_or(())?,
    };
    if more.is_some() || (of_header.is_none() && request.version() == Version::HTTP_11) {
        return Err(());
    }
    let text = value.to_str().map_err(drop)?;
    let authority: Authority = text.parse().map_err(drop)?;
    if text.contains('@') {
        return Err(());
    }
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    Ok((host, value))
}

fn secure_location(host: &str, port: u16, uri: &Uri) -> String {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if port == 443 { format!("https://{host}{target}") } else { format!("https://{host}:{port}{target}") }
}

/// The client's request as the backend gets it, but for the body; an upgrade keeps its two headers.
fn outgoing(
    request: Request<Incoming>,
    hit: &Hit,
    client: &Client,
    authority: &HeaderValue,
) -> Result<Request<Incoming>, http::Error> {
    let (mut parts, body) = request.into_parts();
    let own = parts.uri.path_and_query();
    let target = match (&hit.path, own.and_then(PathAndQuery::query)) {
        (None, _) => own.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        (Some(path), None) => PathAndQuery::try_from(path.as_str())?,
        (Some(path), Some(query)) => PathAndQuery::try_from(format!("{path}?{query}"))?,
    };
    let upgrade = tunnel::wanted(&parts);
    parts.uri = Uri::from(target);
    parts.version = Version::HTTP_11;
    forward::outgoing(&mut parts.headers, client, authority);
    if let Some(upgrade) = upgrade {
        parts.headers.insert(header::UPGRADE, upgrade);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    Ok(Request::from_parts(parts, body))
}

/// The endpoints of a route, in the order in which they are to be tried.
pub(super) fn targets(route: &Route) -> impl Iterator<Item = Target> + '_ {
    let (tls, h2) = (route.settings.tls_backend, route.speaks_h2());
    route.backend.turn().take(ENDPOINTS_TRIED).map(move |address: SocketAddr| Target { address, tls, h2 })
}

/// Sends the request to an endpoint; to another one, or by another connection, where none of it has been done yet.
async fn forward(worker: &Worker, route: &Arc<Route>, mut request: Request<Upload>) -> Response<Body> {
    if route.speaks_h2() {
        as_http2(&mut request, route.settings.tls_backend);
    }
    let mut last = None;
    for target in targets(route) {
        match exchange(worker, route, target, request).await {
            Ok((response, upstream)) => {
                let lease = upstream.map(|upstream| (upstream, target, worker.pool.clone()));
                return answer(response, lease, route);
            }
            Err(Failed { error, unsent }) => {
                tracing::debug!(address = %target.address, %error, "no answer");
                last = Some(error);
                match unsent {
                    Some(again) => request = again,
                    None => break,
                }
            }
        }
    }
    last.map_or_else(page::no_endpoints, |error| failure(&error))
}

/// Makes the request one of HTTP/2, where the host is a part of the address.
fn as_http2(request: &mut Request<Upload>, tls: bool) {
    let mut parts = request.uri().clone().into_parts();
    let host = request.headers_mut().remove(header::HOST);
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    // gRPC's servers ask for it, to know that nobody on the way drops trailers.
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
}

/// One endpoint: idle connections first, which it may have closed meanwhile, then a new one.
async fn exchange(
    worker: &Worker,
    route: &Route,
    target: Target,
    mut request: Request<Upload>,
) -> Result<(Response<Incoming>, Option<Upstream>), Failed> {
    let silence = route.settings.silence;
    if target.h2 {
        let sent = worker.pool.multiplex(target, request, route.settings.connect, silence).await;
        return sent.map(|response| (response, None));
    }
    while let Some(mut upstream) = worker.pool.take(target).await {
        let spare = repeatable(&request);
        match upstream.exchange(request, silence).await {
            Ok(response) => return Ok((response, Some(upstream))),
            Err(Failed { unsent: Some(again), .. }) => request = again,
            Err(Failed { error: Error::Broken(error), unsent: None }) => match spare {
                Some(again) => request = again,
                None => return Err(Failed { error: Error::Broken(error), unsent: None }),
            },
            Err(failed) => return Err(failed),
        }
    }
    match worker.pool.connect(target, route.settings.connect).await {
        Ok(mut upstream) => upstream.exchange(request, silence).await.map(|response| (response, Some(upstream))),
        Err(error) => Err(Failed { error, unsent: Some(request) }),
    }
}

/// A copy of a request that does no harm when it is done twice, and has no body that is gone once it is sent.
fn repeatable(request: &Request<Upload>) -> Option<Request<Upload>> {
    let harmless = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !harmless || !matches!(request.body(), Upload::Empty) {
        return None;
    }
    let mut copy = Request::new(Upload::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

/// A backend's answer as the client gets it.
pub(super) fn answer(
    response: Response<Incoming>,
    lease: Option<(Upstream, Target, Arc<Pool>)>,
    route: &Route,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    forward::drop_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Either::Right(Download::new(body, lease, route.settings.silence)))
}

/// The page for a backend that did not answer.
pub(super) fn failure(error: &Error) -> Response<Body> {
    if error.is_timeout() {
        page::page(StatusCode::GATEWAY_TIMEOUT, "The Service behind this address did not answer in time.")
    } else {
        page::page(StatusCode::BAD_GATEWAY, "The Service behind this address did not answer, or broke off.")
    }
}
