//! `/openapi/v2` and `/openapi/v3`: the documents of the resources room, made when first asked for and kept compressed.

use crate::ApiServer;
use crate::body::{self, Body};
use crate::negotiate;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use mini_api::{Reason, Status};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// Documents by path. Large ones are kept compressed: most clients take them so.
#[derive(Default)]
pub(crate) struct Documents(Mutex<BTreeMap<String, Arc<Document>>>);

struct Document {
    gzip: Bytes,
    etag: String,
}

impl Document {
    fn new(json: &[u8]) -> Result<Self, Status> {
        let etag = hex::encode_upper(Sha256::digest(json));
        Ok(Self { gzip: negotiate::gzip(json)?, etag })
    }
}

/// Answers a path below `/openapi`; None if it is none.
pub(crate) fn serve(server: &ApiServer, path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, Status>> {
    let path = path.trim_end_matches('/');
    if !matches!(path, "/openapi/v2" | "/openapi/v3") && !path.starts_with("/openapi/v3/") {
        return None;
    }
    Some(document(server, path).and_then(|document| match document {
        Some(document) => answer(&document, path, headers),
        None => Err(crate::handler::no_such_path()),
    }))
}

fn document(server: &ApiServer, path: &str) -> Result<Option<Arc<Document>>, Status> {
    if let Some(document) = server.documents.0.lock().get(path) {
        return Ok(Some(document.clone()));
    }
    let registry = &server.registry;
    let value = match path.trim_start_matches("/openapi/").split('/').collect::<Vec<_>>().as_slice() {
        ["v2"] => Some(openapi::v2(registry)),
        ["v3"] => Some(openapi::v3_index(registry)),
        ["v3", "api", version] => openapi::v3(registry, "", version),
        ["v3", "apis", group, version] => openapi::v3(registry, group, version),
        _ => None,
    };
    let Some(value) = value else { return Ok(None) };
    let json = serde_json::to_vec(&value).map_err(Status::internal)?;
    let document = Arc::new(Document::new(&json)?);
    server.documents.0.lock().insert(path.to_owned(), document.clone());
    Ok(Some(document))
}

fn answer(document: &Document, path: &str, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let accept = text(header::ACCEPT);
    let json = accept.is_empty()
        || negotiate::clauses(accept).iter().any(|c| matches!(c.media, "application/json" | "*/*" | "application/*"));
    if !json {
        return Err(Status::new(Reason::NotAcceptable, format!("{path} is served as application/json only")));
    }
    let etag = format!("\"{}\"", document.etag);
    let mut response = if text(header::IF_NONE_MATCH).contains(&etag) {
        let mut response = Response::new(body::full(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if text(header::ACCEPT_ENCODING).contains("gzip") {
        let mut response = body::json_bytes(StatusCode::OK, document.gzip.clone());
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&*document.gzip).read_to_end(&mut json).map_err(Status::internal)?;
        body::json_bytes(StatusCode::OK, json)
    };
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    Ok(response)
}

/// Stands in until the resources room makes the documents.
mod openapi {
    use mini_resources::Registry;
    use serde_json::{Value, json};

    pub(super) fn v2(_: &Registry) -> Value {
        json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": {}, "definitions": {}})
    }

    pub(super) fn v3_index(_: &Registry) -> Value {
        json!({"paths": {}})
    }

    pub(super) fn v3(_: &Registry, _: &str, _: &str) -> Option<Value> {
        None
    }
}
