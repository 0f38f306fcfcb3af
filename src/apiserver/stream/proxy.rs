//! The `proxy` subresource: any request, passed on to a pod, an endpoint of a service, or a node's kubelet.
//!
//! The name may say more: `https:name:port`. What the client knows itself by stays here; redirects and the links of pages
//! lead through here again.

mod links;
mod target;

use super::kubelet::Endpoint;
use super::{upgrade, websocket};
use crate::Call;
use crate::body::{Body, full};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use links::Links;
use mini_api::{Reason, Status};
use mini_pki::AnyCertificate;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use target::{Name, pod_address, port, proxyable, service_address};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT: Duration = Duration::from_secs(30);

/// Headers of one connection, which do not pass.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// A backend may not say who else may read what comes from the API server's address.
const CORS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

pub(super) async fn serve(call: &Call, mut request: Request<Body>) -> Result<Response<Body>, Status> {
    let (prefix, rest) = split(request.uri().path(), call.resource.namespaced);
    let upgrades = request.headers().contains_key(header::UPGRADE);
    if rest.is_none() && !upgrades && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(with_slash(&request));
    }
    let path = format!("/{}", rest.unwrap_or_default());
    let mut links = Links { prefix: prefix.to_owned(), hosts: host(&request).into_iter().collect() };
    let name = Name::parse(&call.info.name)
        .ok_or_else(|| Status::bad_request(format!("invalid {} request {:?}", call.resource.plural, call.info.name)))?;
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let outgoing = outgoing(request, &links.prefix, &path)?;
    let answer = match call.resource.plural.as_str() {
        "nodes" => {
            let kubelet = Endpoint::of(&call.server, name.name)?;
            // Only the kubelet is shown our certificate: what else listens on the node is a stranger.
            match if name.port.is_empty() { kubelet.port } else { port(name.port)? } {
                port if port == kubelet.port => {
                    links.hosts.push(SocketAddr::new(kubelet.address, port).to_string());
                    call.server.kubelets.send(kubelet, outgoing).await?
                }
                port => {
                    let address = proxyable(&kubelet.address.to_string())?;
                    send(SocketAddr::new(address, port), name.tls, outgoing, &mut links).await?
                }
            }
        }
        "pods" => send(pod_address(call, &name)?, name.tls, outgoing, &mut links).await?,
        _ => send(service_address(call, &name)?, name.tls, outgoing, &mut links).await?,
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(links.rewrite(incoming(answer)));
    }
    let Some(client) = client.filter(|_| upgrades) else {
        return Err(Status::internal("the backend switched protocols without being asked"));
    };
    let mut response = Response::new(full(""));
    (*response.status_mut(), *response.headers_mut()) = (answer.status(), answer.headers().clone());
    let backend = hyper::upgrade::on(answer);
    upgrade::detach(call.server.clone(), async move { upgrade::copy(client.await?, backend.await?).await });
    Ok(response)
}

/// The path up to and with `/proxy`, and what follows its slash, if there is one.
fn split(path: &str, namespaced: bool) -> (&str, Option<&str>) {
    // The first segment is empty: `/api/v1/namespaces/a/pods/b/proxy/…`, `/api/v1/nodes/a/proxy/…`.
    let segments = if namespaced { 8 } else { 6 };
    match path.match_indices('/').nth(segments - 1) {
        Some((at, _)) => (path.get(..at).unwrap_or(path), path.get(at + 1..)),
        None => (path, None),
    }
}

/// Relative links of the root page need its slash.
fn with_slash(request: &Request<Body>) -> Response<Body> {
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", request.uri().path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// How the client calls this server: in HTTP/2 as part of the address.
fn host(request: &Request<Body>) -> Option<String> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    authority.or_else(|| request.headers().get(header::HOST)?.to_str().ok()).map(str::to_owned)
}

/// The request for the backend: without what is meant for this server, with what tells how it came here.
fn outgoing(request: Request<Body>, prefix: &str, path: &str) -> Result<Request<Body>, Status> {
    let host = host(&request);
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{path}{query}");
    *outgoing.uri_mut() = target.parse().map_err(|e| Status::bad_request(format!("bad path: {e}")))?;
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    let of_connection = connection_headers(&parts.headers);
    let headers = outgoing.headers_mut();
    for (name, value) in &parts.headers {
        let secret = matches!(*name, header::AUTHORIZATION | header::HOST) || name.as_str().starts_with("impersonate-");
        if !secret && !HOP.contains(name) && !of_connection.contains(name) {
            headers.append(name, value.clone());
        }
    }
    let mut set = |name: HeaderName, value: Option<String>| {
        headers.remove(&name);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    };
    // The client's token may have come as a protocol.
    let protocols = websocket::protocols(&parts.headers).join(", ");
    set(header::SEC_WEBSOCKET_PROTOCOL, Some(protocols).filter(|protocols| !protocols.is_empty()));
    set(header::HOST, host);
    set(FORWARDED_URI, Some(format!("{prefix}{path}")));
    if let Some(client) = parts.extensions.get::<SocketAddr>() {
        let before = parts.headers.get_all(&FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
        let all: Vec<String> = before.map(str::to_owned).chain([client.ip().to_canonical().to_string()]).collect();
        set(FORWARDED_FOR, Some(all.join(", ")));
    }
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // Links of a page are rewritten: it must come in a form that can be read.
    if text(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
        && let Some(encodings) = text(header::ACCEPT_ENCODING)
    {
        set(header::ACCEPT_ENCODING, encodings.contains("gzip").then(|| "gzip".to_owned()));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    Ok(outgoing)
}

/// Headers that are of one connection because `Connection` names them.
fn connection_headers(headers: &HeaderMap) -> Vec<HeaderName> {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn incoming(answer: Response<Incoming>) -> Response<Body> {
    let mut answer = answer.map(|body| body.map_err(Into::into).boxed_unsync());
    let of_connection = connection_headers(answer.headers());
    for name in HOP.iter().chain(&CORS).chain(&of_connection) {
        answer.headers_mut().remove(name);
    }
    answer
}

async fn send(
    to: SocketAddr,
    tls: bool,
    request: Request<Body>,
    links: &mut Links,
) -> Result<Response<Incoming>, Status> {
    links.hosts.push(to.to_string());
    let failed = |why: String| {
        let why = format!("error trying to reach service: dial tcp {to}: {why}");
        let mut status = Status::new(Reason::ServiceUnavailable, why);
        status.code = 503;
        status
    };
    let tcp =
        tokio::time::timeout(CONNECT, TcpStream::connect(to)).await.map_err(|_| failed("i/o timeout".to_owned()))?;
    let tcp = tcp.map_err(|e| failed(e.to_string()))?;
    tcp.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
    if !tls {
        return exchange(tcp, request).await.map_err(|e| failed(e.to_string()));
    }
    let stream = unverified()?.connect(ServerName::IpAddress(to.ip().into()), tcp).await;
    exchange(stream.map_err(|e| failed(e.to_string()))?, request).await.map_err(|e| failed(e.to_string()))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "proxied connection ended");
        }
    });
    sender.send_request(request).await
}

/// Pods have certificates that nobody here can judge; upstream does not try either.
fn unverified() -> Result<TlsConnector, Status> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Status::internal)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let pod = "/api/v1/namespaces/a/pods/b/proxy";
        assert_eq!(split(pod, true), (pod, None));
        assert_eq!(split(&format!("{pod}/"), true), (pod, Some("")));
        assert_eq!(split(&format!("{pod}/x%2Fy/z/"), true), (pod, Some("x%2Fy/z/")));
        assert_eq!(split("/api/v1/nodes/n/proxy/stats", false), ("/api/v1/nodes/n/proxy", Some("stats")));
    }

    #[test]
    fn credentials_stay_here() {
        let token = crate::authn::WEBSOCKET_TOKEN;
        let request = |protocols: &str| {
            let request = Request::builder().uri("/x").header("authorization", "Bearer x").header("cookie", "a=b");
            let request = request.header("impersonate-user", "x").header("sec-websocket-protocol", protocols);
            request.header("upgrade", "websocket").body(full("")).unwrap()
        };
        let passed = outgoing(request(&format!("one, {token}YWJj, two")), "/p", "/y").unwrap();
        assert_eq!(passed.headers()["sec-websocket-protocol"], "one, two");
        assert_eq!(passed.headers()["cookie"], "a=b");
        assert!(!passed.headers().contains_key("authorization") && !passed.headers().contains_key("impersonate-user"));
        let passed = outgoing(request(&format!("{token}YWJj")), "/p", "/y").unwrap();
        assert!(!passed.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn a_backend_is_told_how_a_request_came() {
        let request = Request::builder()
            .uri("https://api.test:6443/p/y?a=b")
            .header("x-forwarded-for", "192.0.2.9")
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("accept", "text/html,*/*")
            .header("accept-encoding", "gzip, br")
            .extension(SocketAddr::from(([192, 0, 2, 1], 5)))
            .body(full(""))
            .unwrap();
        let passed = outgoing(request, "/p", "/y/").unwrap();
        assert_eq!(passed.uri(), "/y/?a=b");
        for (name, value) in [
            ("host", "api.test:6443"),
            ("x-forwarded-uri", "/p/y/"),
            ("x-forwarded-for", "192.0.2.9, 192.0.2.1"),
            ("accept-encoding", "gzip"),
        ] {
            assert_eq!(passed.headers()[name], value, "{name}");
        }
        assert!(!passed.headers().contains_key("x-hop") && !passed.headers().contains_key("connection"));
    }
}
