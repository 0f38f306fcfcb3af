//! The pipeline: who, what, may they, then the verb. Each filter is one step of [`serve_as`], in upstream's order.

use crate::audit::Record;
use crate::authn::impersonation::impersonate;
use crate::authz::Attributes;
use crate::body::{self, Body};
use crate::call::{Notices, Query};
use crate::flow::bodies::Charge;
use crate::flow::{Flow, Refusal, Seat};
use crate::listener::Peer;
use crate::metrics::{self, Labels, Running};
use crate::{ApiServer, Call, RequestInfo, UserInfo, discovery, health, negotiate, openapi, stream, tokens, verbs};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use mini_api::{FieldSelector, Reason, Status};
use mini_resources::Resource;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a request that is not long-running may take, once its body is here; and how long that may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Upstream's `Audit-ID`.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Wire,
    /// A component of this process.
    Inside,
}

/// A request from the wire: authenticates it and passes it on.
pub async fn serve(server: Arc<ApiServer>, peer: Peer, request: Request<Body>) -> Response<Body> {
    let id = audit_id(&request);
    let mut response = authenticated(server, peer, request, &id).await;
    let headers = response.headers_mut();
    headers.entry(AUDIT_ID).or_insert(id);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// The name of a request, by which its client can find it in the audit log: the one it has given itself, or a new one.
fn audit_id(request: &Request<Body>) -> HeaderValue {
    request.headers().get(AUDIT_ID).filter(|id| !id.is_empty()).cloned().unwrap_or_else(|| {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
    })
}

async fn authenticated(
    server: Arc<ApiServer>,
    peer: Peer,
    mut request: Request<Body>,
    id: &HeaderValue,
) -> Response<Body> {
    let address = peer.address.ip();
    let user = match server.authn.authenticate(request.headers(), peer.certificates.as_deref()).await {
        Ok(user) => user.unwrap_or_else(UserInfo::anonymous),
        Err(status) => {
            let record = record(&server, &request, &UserInfo::default(), id, address);
            if let Some(record) = record {
                record.refused(request.headers(), peer.certificates.is_some()).await;
            }
            return body::failure(&status);
        }
    };
    let mut record = record(&server, &request, &user, id, address);
    if let Some(record) = &mut record {
        record.received().await;
    }
    let user = match impersonate(&server.authz, &user, request.headers()) {
        Ok(None) => user,
        Ok(Some(other)) => {
            record.iter_mut().for_each(|record| record.impersonated(&other));
            other
        }
        Err(status) => {
            return match record {
                Some(record) => record.answer(body::failure(&status), false).await,
                None => body::failure(&status),
            };
        }
    };
    // Proxies tell the backend.
    request.extensions_mut().insert(peer.address);
    serve_as(server, Arc::new(user), Origin::Wire, request, record).await
}

/// A request of a component of this process.
pub(crate) async fn serve_inside(
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
    request: Request<Body>,
) -> Response<Body> {
    let mut record = match &server.audit {
        None => None,
        Some(_) => record(&server, &request, &user, &audit_id(&request), Ipv4Addr::LOCALHOST.into()),
    };
    if let Some(record) = &mut record {
        record.received().await;
    }
    serve_as(server, user, Origin::Inside, request, record).await
}

/// Begins the record of a request, if there is an audit log and it wants one.
fn record(
    server: &Arc<ApiServer>,
    request: &Request<Body>,
    user: &UserInfo,
    id: &HeaderValue,
    peer: IpAddr,
) -> Option<Record> {
    server.audit.as_ref()?;
    Record::begin(server, request, &parse(request).0, user, id, peer)
}

fn parse(request: &Request<Body>) -> (RequestInfo, Query) {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    (RequestInfo::parse(request.method(), request.uri().path(), &query), query)
}

/// A request of a known user.
async fn serve_as(
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
    origin: Origin,
    mut request: Request<Body>,
    mut record: Option<Record>,
) -> Response<Body> {
    let started = Instant::now();
    let (info, query) = parse(&request);
    if record.as_ref().is_some_and(Record::wants_plain_answer) {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let line = tracing::enabled!(tracing::Level::DEBUG).then(|| (user.clone(), request.uri().to_string()));
    let labels = Labels::of(&server.registry.current(), &info, &query, request.headers());
    let long_running = info.long_running();
    let method = (origin == Origin::Inside).then(|| request.method().clone());
    let accept = request.headers().get(http::header::ACCEPT).cloned();
    let flow = server.flow.classify(&user, &info);
    let response = filtered(&server, user, origin, (info, query), request, flow.as_ref(), record.as_mut()).await;
    let mut response = response.unwrap_or_else(|status| negotiate::failure(accept, &status));
    let code = response.status().as_u16();
    if let Some((user, uri)) = line {
        tracing::debug!(verb = labels.verb, uri, user = user.name, code, took = ?started.elapsed(), "request");
    }
    match (method, &flow) {
        (Some(method), _) => server.metrics.count_inside(&method, code),
        (None, Some(flow)) => flow.write(response.headers_mut()),
        (None, None) => {}
    }
    if let Some(record) = record {
        response = record.answer(response, long_running).await;
    }
    if long_running {
        let running = Running::new(&server, &labels);
        response = response.map(|body| body::holding(body, running));
    }
    let bytes = http_body::Body::size_hint(response.body()).exact();
    server.metrics.count(labels, code, started.elapsed(), bytes);
    response
}

async fn filtered(
    server: &Arc<ApiServer>,
    user: Arc<UserInfo>,
    origin: Origin,
    (info, query): (RequestInfo, Query),
    mut request: Request<Body>,
    flow: Option<&Flow>,
    mut record: Option<&mut Record>,
) -> Result<Response<Body>, Status> {
    authorize(server, &user, &info, &query, record.as_deref_mut())?;
    if !info.resource_request {
        let Ok(_seat) = seat(server, flow, &info, origin).await else { return Ok(too_many_requests()) };
        return other_path(server, &info, &query, &request);
    }
    let resource = resolve(server, &info)?;
    let headers = request.headers().clone();
    let inside = origin == Origin::Inside;
    let call =
        Call { server: server.clone(), user, info, resource, query, headers, inside, notices: Notices::default() };
    if stream::is_stream(&call.info.subresource) {
        return stream::serve(&call, request).await;
    }
    // A client that is slow to say what it wants must not keep others waiting.
    let body = std::mem::replace(request.body_mut(), body::full(""));
    let mut charge = Charge::new(&server.bodies, &call.user.name);
    let body = match call.info.verb.as_str() {
        "get" | "list" | "watch" => Bytes::new(),
        _ => in_time(negotiate::read_body(body, &mut charge)).await?,
    };
    if let Some(record) = record {
        record.request_body(&call.headers, &call.info, &body);
    }
    let Ok(_seat) = seat(server, flow, &call.info, origin).await else { return Ok(too_many_requests()) };
    if call.info.long_running() {
        return verbs::dispatch(call, body).await;
    }
    in_time(verbs::dispatch(call, body)).await
}

async fn seat(
    server: &ApiServer,
    flow: Option<&Flow>,
    info: &RequestInfo,
    origin: Origin,
) -> Result<Option<Seat>, Refusal> {
    let Some(flow) = flow else { return Ok(None) };
    let mutating = !matches!(info.verb.as_str(), "get" | "list" | "watch" | "head");
    server.flow.enter(flow, mutating, origin == Origin::Inside).await.map(Some)
}

/// Not a Status, as upstream: client-go tries again by code and header.
fn too_many_requests() -> Response<Body> {
    let why = "Too many requests, please try again later.";
    let mut response = health::error(StatusCode::TOO_MANY_REQUESTS, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn in_time<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| {
        let message = "request did not complete within the allotted timeout";
        Err(Status::new(Reason::Timeout, format!("Timeout: {message}")))
    })
}

/// The row of the table that the path leads to.
///
/// # Errors
/// 404 for a path that leads nowhere, or further than there is anything.
fn resolve(server: &ApiServer, info: &RequestInfo) -> Result<Arc<Resource>, Status> {
    let resource = server.registry.get(&info.group, &info.version, &info.resource);
    let resource = resource.filter(|row| server.serves(row)).ok_or_else(no_such_path)?;
    // The path's namespace is what was authorized; an object outside of it must not be reached through it.
    let own = info.group.is_empty() && info.resource == "namespaces" && info.name == info.namespace;
    let outside = !resource.namespaced && !info.namespace.is_empty() && !own;
    // Only a proxy has paths of its own.
    let beyond = !info.rest.is_empty() && info.subresource != "proxy";
    if outside || beyond { Err(no_such_path()) } else { Ok(resource) }
}

/// What is no API object: discovery, documents, health.
fn other_path(
    server: &ApiServer,
    info: &RequestInfo,
    query: &Query,
    request: &Request<Body>,
) -> Result<Response<Body>, Status> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(verbs::method_not_allowed());
    }
    let (path, headers) = (info.path.as_str(), request.headers());
    match path {
        "/" => return Ok(paths(server)),
        "/version" | "/version/" => return Ok(health::version()),
        _ => {}
    }
    let response = health::serve(server, path, query).or_else(|| metrics::serve(server, path));
    if let Some(response) = response.or_else(|| tokens::discovery(server, path)) {
        return Ok(response);
    }
    discovery::serve(server, path, headers)
        .or_else(|| openapi::serve(server, path, query, headers))
        .unwrap_or_else(|| Err(no_such_path()))
}

/// What there is beside the API.
const OTHERS: [&str; 10] = [
    "/.well-known/openid-configuration",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// `/`: the paths there are.
fn paths(server: &ApiServer) -> Response<Body> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for group in server.served().groups() {
        if group.name.is_empty() {
            paths.extend(group.versions.iter().map(|v| format!("/api/{v}")));
        } else {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.name)));
        }
    }
    paths.extend(OTHERS.map(str::to_owned));
    paths.sort();
    body::json(StatusCode::OK, &serde_json::json!({ "paths": paths }))
}

fn authorize(
    server: &ApiServer,
    user: &UserInfo,
    info: &RequestInfo,
    query: &Query,
    record: Option<&mut Record>,
) -> Result<(), Status> {
    let narrowed = info.resource_request && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let fields = query.get("fieldSelector").filter(|_| narrowed).and_then(|text| FieldSelector::parse(text).ok());
    let attributes = Attributes {
        user,
        verb: &info.verb,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
        fields: fields.as_ref(),
        resource_request: info.resource_request,
    };
    if let Some(record) = record {
        let (allowed, reason) = server.authz.explain(&attributes);
        record.authorized(allowed, reason);
    }
    server.authz.require(&attributes)
}

/// Whether the user may do `verb` too to what the path names: what some requests do is more than their method says.
///
/// # Errors
/// 403 if they may not.
pub(crate) fn authorize_also(call: &Call, verb: &str) -> Result<(), Status> {
    let info = &call.info;
    let attributes = Attributes {
        version: &info.version,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        ..Attributes::resource(&call.user, verb, &info.group, &info.resource)
    };
    call.server.authz.require(&attributes)
}

/// 404 for a path that leads nowhere.
#[must_use]
pub fn no_such_path() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}
