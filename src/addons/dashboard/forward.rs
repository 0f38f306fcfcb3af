//! Calls of the page, passed on to the Kubernetes API with the user's token and nothing else.
//!
//! The token comes in a header of its own: the API server's service proxy keeps `Authorization` to itself, and a header
//! that only our page's script can set (there is no cookie) leaves other sites no request to forge.

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mini_api::{Reason, Status};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

const TOKEN: HeaderName = HeaderName::from_static("x-dashboard-token");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const PREFIXES: [&str; 4] = ["/api", "/apis", "/openapi", "/version"];
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// What of a request's headers passes. No `Impersonate-…`, no `Upgrade`, no cookie of a neighbour on the same host.
const ASKED: [HeaderName; 5] =
    [header::ACCEPT, header::ACCEPT_ENCODING, header::CONTENT_TYPE, header::IF_NONE_MATCH, header::USER_AGENT];
/// And of an answer's: no `WWW-Authenticate`, at which browsers open a window of their own.
const ANSWERED: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::ETAG,
    header::RETRY_AFTER,
    header::VARY,
    header::WARNING,
];
/// The API server's own limit is the same.
const MAX_BODY: usize = 3 * 1024 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

/// The Kubernetes API.
pub(super) struct Api {
    authority: Authority,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Api {
    pub(super) fn new(address: SocketAddr, ca: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read the API server's authority from {}", ca.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(unreadable)? {
            roots.add(certificate.with_context(unreadable)?).with_context(unreadable)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(4)
            .build(connector);
        Ok(Self { authority: address.to_string().parse()?, client })
    }

    /// True if the path is one of the API's.
    pub(super) fn serves(path: &str) -> bool {
        PREFIXES
            .iter()
            .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Answers with what the API answers. Bodies flow in both directions as they come.
    pub(super) async fn forward(&self, request: Request<Incoming>) -> Response<Body> {
        let request = match outgoing(request.map(|body| body.map_err(Into::into).boxed_unsync()), &self.authority) {
            Ok(request) => request,
            Err(status) => return refusal(&status),
        };
        match self.client.request(request).await {
            Ok(answer) => incoming(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) if is_too_long(&error) => refusal(&too_long()),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the Kubernetes API cannot be reached");
                let why = format!("the Kubernetes API cannot be reached: {}", chain(&error));
                refusal(&Status::new(Reason::ServiceUnavailable, why))
            }
        }
    }
}

fn outgoing(request: Request<Body>, authority: &Authority) -> Result<Request<Body>, Status> {
    let (asked, body) = request.into_parts();
    if !METHODS.contains(&asked.method) {
        return Err(Status::new(Reason::MethodNotAllowed, "the dashboard does not pass this method on"));
    }
    // Browsers say who makes a request. Without the token it could do nothing anyway.
    let site = asked.headers.get(FETCH_SITE).map_or(&b"same-origin"[..], HeaderValue::as_bytes);
    if site != b"same-origin" && site != b"none" {
        return Err(Status::new(Reason::Forbidden, "requests come from the dashboard's own page only"));
    }
    let length = asked.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(too_long());
    }
    let path = asked.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut uri = http::uri::Parts::default();
    (uri.scheme, uri.authority, uri.path_and_query) = (Some(Scheme::HTTPS), Some(authority.clone()), Some(path));
    let mut headers = passing(&asked.headers, &ASKED);
    headers.insert(header::AUTHORIZATION, bearer(&asked.headers)?);
    let mut request = Request::new(Limited::new(body, MAX_BODY).boxed_unsync());
    *request.method_mut() = asked.method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|e| Status::bad_request(e.to_string()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The user's token, as the API wants it.
fn bearer(headers: &HeaderMap) -> Result<HeaderValue, Status> {
    let token = headers.get(TOKEN).and_then(|v| v.to_str().ok()).map(str::trim).filter(|token| !token.is_empty());
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.ok_or_else(Status::unauthorized)?))
        .map_err(|_| Status::unauthorized())?;
    value.set_sensitive(true);
    Ok(value)
}

fn incoming(answer: Response<Body>) -> Response<Body> {
    let (answered, body) = answer.into_parts();
    let mut response = Response::new(body);
    *response.status_mut() = answered.status;
    *response.headers_mut() = passing(&answered.headers, &ANSWERED);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn passing(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    headers.iter().filter(|(name, _)| names.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An answer of our own in the API's form, so that the page knows one form of errors.
fn refusal(status: &Status) -> Response<Body> {
    let mut response = Response::new(full(serde_json::to_vec(&status.to_value()).unwrap_or_default().into()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn too_long() -> Status {
    Status::new(Reason::RequestEntityTooLarge, format!("limit is {MAX_BODY}"))
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<LengthLimitError>())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Result<Request<Body>, Status> {
        let mut request = Request::new(full(Bytes::new()));
        *request.uri_mut() = Uri::from_static("/api/v1/pods?watch=1");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        outgoing(request, &Authority::from_static("192.0.2.1:443"))
    }

    #[test]
    fn only_what_is_wanted_passes() {
        let passed = request(&[
            ("x-dashboard-token", " abc "),
            ("accept", "application/json"),
            ("authorization", "Bearer other"),
            ("impersonate-user", "root"),
            ("cookie", "a=b"),
            ("upgrade", "websocket"),
        ]);
        let passed = passed.unwrap();
        assert_eq!(passed.uri(), "https://192.0.2.1:443/api/v1/pods?watch=1");
        assert_eq!(passed.headers()[header::AUTHORIZATION], "Bearer abc");
        assert!(passed.headers()[header::AUTHORIZATION].is_sensitive());
        assert_eq!(passed.headers().len(), 2);
    }

    #[test]
    fn who_has_no_token_gets_nowhere() {
        assert_eq!(request(&[("authorization", "Bearer abc"), ("cookie", "token=abc")]).unwrap_err().code, 401);
        assert_eq!(request(&[("x-dashboard-token", " ")]).unwrap_err().code, 401);
    }

    #[test]
    fn other_sites_and_long_bodies_are_refused() {
        let token = ("x-dashboard-token", "abc");
        assert_eq!(request(&[token, ("sec-fetch-site", "cross-site")]).unwrap_err().code, 403);
        assert_eq!(request(&[token, ("sec-fetch-site", "same-site")]).unwrap_err().code, 403);
        assert!(request(&[token, ("sec-fetch-site", "same-origin")]).is_ok());
        assert_eq!(request(&[token, ("content-length", "3145729")]).unwrap_err().code, 413);
    }

    #[test]
    fn answers_leave_their_challenge_behind() {
        let mut answer = Response::new(full(Bytes::new()));
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        answer.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_static("a=b"));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let names: Vec<_> = incoming(answer).headers().keys().cloned().collect();
        assert_eq!(names, [header::CONTENT_TYPE, header::CACHE_CONTROL]);
    }

    #[test]
    fn the_apis_paths() {
        for path in ["/api", "/api/v1/pods", "/apis/apps/v1", "/openapi/v3", "/version"] {
            assert!(Api::serves(path), "{path}");
        }
        for path in ["/", "/apix", "/metrics", "/healthz", "//api", "/app.js"] {
            assert!(!Api::serves(path), "{path}");
        }
    }
}
