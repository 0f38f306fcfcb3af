//! The pipeline: who, what, may they, then the verb. Each filter is one step of [`serve_as`], in upstream's order.

use crate::authn::impersonation::impersonate;
use crate::authz::{Attributes, MASTERS};
use crate::body::{self, Body};
use crate::call::{Notices, Query};
use crate::listener::Peer;
use crate::metrics::{self, Labels};
use crate::{ApiServer, Call, RequestInfo, UserInfo, discovery, health, negotiate, openapi, stream, tokens, verbs};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use mini_api::{FieldSelector, Reason, Status};
use mini_resources::Resource;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a request that is not long-running may take, once its body is here; and how long that may take.
const TIMEOUT: Duration = Duration::from_secs(60);

const READING: usize = 400;
const MUTATING: usize = 200;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Wire,
    /// A component of this process.
    Inside,
}

/// Requests in flight: upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`. Components of this
/// process have their own, so that clients cannot keep the node itself from working.
pub(crate) struct Limits {
    wire: Permits,
    inside: Permits,
}

struct Permits {
    reading: Semaphore,
    mutating: Semaphore,
}

impl Permits {
    fn new() -> Self {
        Self { reading: Semaphore::new(READING), mutating: Semaphore::new(MUTATING) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { wire: Permits::new(), inside: Permits::new() }
    }
}

impl Limits {
    /// Requests in flight: reading, mutating.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let taken = |most: usize, of: fn(&Permits) -> &Semaphore| {
            [&self.wire, &self.inside].into_iter().map(|permits| most - of(permits).available_permits()).sum::<usize>()
        };
        (taken(READING, |permits| &permits.reading), taken(MUTATING, |permits| &permits.mutating))
    }

    fn enter(
        &self,
        origin: Origin,
        info: &RequestInfo,
        user: &UserInfo,
    ) -> Result<Option<SemaphorePermit<'_>>, Status> {
        if info.long_running() {
            return Ok(None);
        }
        let permits = if origin == Origin::Wire { &self.wire } else { &self.inside };
        let reading = matches!(info.verb.as_str(), "get" | "list");
        let limit = if reading { &permits.reading } else { &permits.mutating };
        match limit.try_acquire() {
            Ok(permit) => Ok(Some(permit)),
            // Whoever is to mend an overloaded server must get in.
            Err(_) if user.is_in(MASTERS) => Ok(None),
            Err(_) => {
                let why = "too many requests, please try again later";
                let mut status = Status::new(Reason::TooManyRequests, why);
                status.retry_after_seconds = Some(1);
                Err(status)
            }
        }
    }
}

/// A request from the wire: authenticates it and passes it on.
pub async fn serve(server: Arc<ApiServer>, peer: Peer, mut request: Request<Body>) -> Response<Body> {
    match server.authn.authenticate(request.headers(), peer.certificates.as_deref()).await {
        Ok(user) => {
            let user = user.unwrap_or_else(UserInfo::anonymous);
            let user = match impersonate(&server.authz, &user, request.headers()) {
                Ok(other) => Arc::new(other.unwrap_or(user)),
                Err(status) => return body::failure(&status),
            };
            // Proxies tell the backend.
            request.extensions_mut().insert(peer.address);
            serve_as(server, user, Origin::Wire, request).await
        }
        Err(status) => body::failure(&status),
    }
}

/// A request of a known user. Components of this process enter here.
pub(crate) async fn serve_as(
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
    origin: Origin,
    request: Request<Body>,
) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let line = tracing::enabled!(tracing::Level::DEBUG).then(|| (user.clone(), request.uri().to_string()));
    let mut labels = Labels::of(&server.registry.current(), &info);
    let accept = request.headers().get(http::header::ACCEPT).cloned();
    let response = filtered(&server, user, origin, info, query, request).await;
    let response = response.unwrap_or_else(|status| negotiate::failure(accept, &status));
    labels.code = response.status().as_u16();
    if let Some((user, uri)) = line {
        tracing::debug!(verb = labels.verb, uri, user = user.name, code = labels.code, took = ?started.elapsed(), "request");
    }
    server.metrics.count(labels, started.elapsed());
    response
}

async fn filtered(
    server: &Arc<ApiServer>,
    user: Arc<UserInfo>,
    origin: Origin,
    info: RequestInfo,
    query: Query,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    // Audit, once there is a sink, stands here: it sees the user and what is asked, allowed or not.
    authorize(server, &user, &info, &query)?;
    if !info.resource_request {
        let _permit = server.limits.enter(origin, &info, &user)?;
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
    let body = match call.info.verb.as_str() {
        "get" | "list" | "watch" => Bytes::new(),
        _ => in_time(negotiate::read_body(body)).await?,
    };
    let _permit = server.limits.enter(origin, &call.info, &call.user)?;
    if call.info.long_running() {
        return verbs::dispatch(call, body).await;
    }
    in_time(verbs::dispatch(call, body)).await
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
        "/metrics" => return Ok(metrics::serve(server)),
        _ => {}
    }
    if let Some(response) = health::serve(server, path, query).or_else(|| tokens::discovery(server, path)) {
        return Ok(response);
    }
    discovery::serve(server, path, headers)
        .or_else(|| openapi::serve(server, path, query, headers))
        .unwrap_or_else(|| Err(no_such_path()))
}

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
    let others = ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];
    paths.extend(others.map(str::to_owned));
    paths.sort();
    body::json(StatusCode::OK, &serde_json::json!({ "paths": paths }))
}

fn authorize(server: &ApiServer, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), Status> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_take_what_the_node_works_with() {
        let limits = Limits::default();
        let info = |method: Method| RequestInfo::parse(&method, "/api/v1/namespaces/a/pods/b", &Query::default());
        let (user, admin) = (UserInfo::new("u", &[]), UserInfo::new("a", &[MASTERS]));
        let put = info(Method::PUT);
        let taken: Vec<_> = (0..MUTATING).map(|_| limits.enter(Origin::Wire, &put, &user).unwrap()).collect();
        let refused = limits.enter(Origin::Wire, &put, &user).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds), (429, Some(1)));
        assert!(limits.enter(Origin::Wire, &put, &admin).unwrap().is_none());
        assert!(limits.enter(Origin::Inside, &put, &user).unwrap().is_some());
        assert!(limits.enter(Origin::Wire, &info(Method::GET), &user).unwrap().is_some());
        assert_eq!(limits.in_flight(), (0, MUTATING));
        drop(taken);
        assert!(limits.enter(Origin::Wire, &put, &user).unwrap().is_some());
    }
}
