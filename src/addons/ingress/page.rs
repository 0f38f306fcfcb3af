//! What the controller itself answers.

use super::proxy::Body;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};

/// A small page with a status and a sentence.
pub(super) fn page(status: StatusCode, sentence: &'static str) -> Response<Body> {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let html = format!(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body><h1>{title}</h1>\n\
         <p>{sentence}</p>\n<hr><p>mini ingress</p></body></html>\n"
    );
    let mut response = Response::new(Either::Left(Full::from(html)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

pub(super) fn not_found() -> Response<Body> {
    page(StatusCode::NOT_FOUND, "No Ingress serves this host and path.")
}

pub(super) fn bad_request(sentence: &'static str) -> Response<Body> {
    page(StatusCode::BAD_REQUEST, sentence)
}

pub(super) fn no_endpoints() -> Response<Body> {
    page(StatusCode::SERVICE_UNAVAILABLE, "The Service behind this address has no endpoint that is ready.")
}

/// Sends the client to the same address by HTTPS, with the same method and body.
pub(super) fn redirect(location: &str) -> Response<Body> {
    let mut response = page(StatusCode::PERMANENT_REDIRECT, "This address is served by HTTPS.");
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
