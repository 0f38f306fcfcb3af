//! The `proxy` subresource: any request, passed on to a pod, an endpoint of a service, or a node's kubelet.
//!
//! The name may say more: `https:name:port`. What the client knows itself by stays here.

use super::kubelet::Endpoint;
use super::{upgrade, websocket};
use crate::body::{Body, full};
use crate::{ApiServer, Call};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mini_api::{Meta, Reason, Status, Value};
use mini_pki::AnyCertificate;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
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

/// The parts of `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { tls: scheme == "https", name, port })
    }
}

pub(super) async fn serve(call: &Call, mut request: Request<Body>) -> Result<Response<Body>, Status> {
    let (prefix, rest) = split(request.uri().path(), call.resource.namespaced);
    if rest.is_none() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(with_slash(&request));
    }
    let prefix = prefix.to_owned();
    let mut target = format!("/{}", rest.unwrap_or_default());
    if let Some(query) = request.uri().query() {
        target = format!("{target}?{query}");
    }
    let name = Name::parse(&call.info.name)
        .ok_or_else(|| Status::bad_request(format!("invalid {} request {:?}", call.resource.plural, call.info.name)))?;
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let upgrades = request.headers().contains_key(header::UPGRADE);
    let outgoing = outgoing(request, &target)?;
    let answer = match call.resource.plural.as_str() {
        "nodes" => {
            let kubelet = Endpoint::of(&call.server, name.name)?;
            // Only the kubelet is shown our certificate: what else listens on the node is a stranger.
            match if name.port.is_empty() { kubelet.port } else { port(name.port)? } {
                port if port == kubelet.port => call.server.kubelets.send(kubelet, outgoing).await?,
                port => {
                    let address = proxyable(&kubelet.address.to_string())?;
                    send(SocketAddr::new(address, port), name.tls, outgoing).await?
                }
            }
        }
        "pods" => send(pod_address(call, &name)?, name.tls, outgoing).await?,
        _ => send(service_address(call, &name)?, name.tls, outgoing).await?,
    };
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let response = incoming(&answer, &prefix);
    if !switches {
        let mut body = Response::new(answer.into_body().map_err(Into::into).boxed_unsync());
        (*body.status_mut(), *body.headers_mut()) = (response.status(), response.headers().clone());
        return Ok(body);
    }
    let Some(client) = client.filter(|_| upgrades) else {
        return Err(Status::internal("the backend switched protocols without being asked"));
    };
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

fn outgoing(request: Request<Body>, target: &str) -> Result<Request<Body>, Status> {
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = target.parse().map_err(|e| Status::bad_request(format!("bad path: {e}")))?;
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    let headers = outgoing.headers_mut();
    for (name, value) in &parts.headers {
        let secret = matches!(*name, header::AUTHORIZATION | header::HOST) || name.as_str().starts_with("impersonate-");
        if !secret && !HOP.contains(name) {
            headers.append(name, value.clone());
        }
    }
    // The client's token may have come as a protocol.
    let protocols = websocket::protocols(&parts.headers).join(", ");
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if !protocols.is_empty()
        && let Ok(value) = HeaderValue::from_str(&protocols)
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    Ok(outgoing)
}

/// The answer without its body; redirects within the backend lead through here again.
fn incoming(answer: &Response<Incoming>, prefix: &str) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = answer.status();
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in answer.headers() {
        if switches || !HOP.contains(name) {
            headers.append(name, value.clone());
        }
    }
    let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let moved = location.filter(|l| l.starts_with('/') && !l.starts_with("//")).map(|l| format!("{prefix}{l}"));
    if let Some(moved) = moved.and_then(|l| HeaderValue::from_str(&l).ok()) {
        headers.insert(header::LOCATION, moved);
    }
    response
}

fn port(text: &str) -> Result<u16, Status> {
    text.parse().map_err(|_| Status::bad_request(format!("{text:?} is no port")))
}

fn read(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let entry = server.store.snapshot().get(&format!("/registry/{plural}/{namespace}/{name}"));
    let entry = entry.ok_or_else(|| Status::not_found("", plural, name))?;
    serde_json::from_slice(&entry.bytes).map_err(Status::internal)
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn pod_address(call: &Call, name: &Name<'_>) -> Result<SocketAddr, Status> {
    let pod = read(&call.server, "pods", &call.info.namespace, name.name)?;
    let containers = items(&pod, "/spec/containers").iter();
    let declared = containers.flat_map(|c| items(c, "/ports")).find_map(|p| {
        let of_port = name.port.is_empty() || p.text(&["name"]) == name.port;
        p.get("containerPort").filter(|_| of_port).and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok())
    });
    let port = match declared {
        Some(declared) => declared,
        None if name.port.is_empty() => 80,
        None => port(name.port)?,
    };
    Ok(SocketAddr::new(proxyable(pod.text(&["status", "podIP"]))?, port))
}

/// The API server is no way to the machine's own loopback or to the cloud's metadata.
fn proxyable(text: &str) -> Result<IpAddr, Status> {
    let refused = |why: &str| Status::bad_request(format!("address not allowed: {why}"));
    let address: IpAddr = text.parse().map_err(|_| refused("the pod has none yet"))?;
    // `::ffff:127.0.0.1` leads where `127.0.0.1` does.
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local {
        return Err(refused("it is not one of a pod"));
    }
    Ok(address)
}

fn service_address(call: &Call, name: &Name<'_>) -> Result<SocketAddr, Status> {
    let namespace = &call.info.namespace;
    let service = read(&call.server, "services", namespace, name.name)?;
    let ports = items(&service, "/spec/ports");
    let wanted = match (ports, name.port) {
        ([one], "") => Some(one),
        (_, port) => ports.iter().find(|p| {
            p.text(&["name"]) == port || p.get("port").and_then(Value::as_u64).is_some_and(|n| n.to_string() == port)
        }),
    };
    let unavailable = |why: String| Status::new(Reason::ServiceUnavailable, why);
    let Some(wanted) = wanted else {
        let why = format!("no service port {:?} found for service {:?}", name.port, name.name);
        return Err(unavailable(why));
    };
    let prefix = format!("/registry/endpointslices.discovery.k8s.io/{namespace}/");
    let mut addresses = Vec::new();
    for entry in call.server.store.snapshot().range(&prefix, None) {
        let Ok(slice) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        if slice.text(&["metadata", "labels", "kubernetes.io/service-name"]) != name.name {
            continue;
        }
        let port = items(&slice, "/ports").iter().find(|p| p.text(&["name"]) == wanted.text(&["name"]));
        let Some(port) = port.and_then(|p| p.get("port")?.as_u64()).and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for endpoint in items(&slice, "/endpoints") {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let address = items(endpoint, "/addresses").first().and_then(Value::as_str);
            if let Some(address) = address.filter(|_| ready) {
                addresses.push((address.to_owned(), port));
            }
        }
    }
    let chosen = addresses.get(rand::random_range(0..addresses.len().max(1)));
    let (address, port) =
        chosen.ok_or_else(|| unavailable(format!("no endpoints available for service {:?}", name.name)))?;
    Ok(SocketAddr::new(proxyable(address)?, *port))
}

async fn send(to: SocketAddr, tls: bool, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
    let failed = |why: String| {
        let why = format!("error trying to reach service: dial tcp {to}: {why}");
        let mut status = Status::new(Reason::ServiceUnavailable, why);
        status.code = 503;
        status
    };
    let host = HeaderValue::from_str(&to.to_string()).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
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
    fn names_may_say_more() {
        let name = |tls, name, port| Some(Name { tls, name, port });
        assert_eq!(Name::parse("a"), name(false, "a", ""));
        assert_eq!(Name::parse("a:80"), name(false, "a", "80"));
        assert_eq!(Name::parse("https:a:web"), name(true, "a", "web"));
        assert_eq!(Name::parse("https:a:"), name(true, "a", ""));
        assert_eq!(Name::parse("ftp:a:1"), None);
        assert_eq!(Name::parse(":80"), None);
    }

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
        let passed = outgoing(request(&format!("one, {token}YWJj, two")), "/y").unwrap();
        assert_eq!(passed.headers()["sec-websocket-protocol"], "one, two");
        assert_eq!(passed.headers()["cookie"], "a=b");
        assert!(!passed.headers().contains_key("authorization") && !passed.headers().contains_key("impersonate-user"));
        let passed = outgoing(request(&format!("{token}YWJj")), "/y").unwrap();
        assert!(!passed.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn only_addresses_of_pods() {
        assert!(proxyable("10.1.0.5").is_ok());
        for bad in ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "", "::ffff:127.0.0.1", "::ffff:169.254.169.254"]
        {
            assert!(proxyable(bad).is_err(), "{bad}");
        }
    }
}
