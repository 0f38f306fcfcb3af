//! `/openapi/v2` and `/openapi/v3`: the documents of the resources room, made when first asked for and kept compressed.

use crate::ApiServer;
use crate::body::{self, Body};
use crate::call::Query;
use crate::negotiate;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use mini_api::{Reason, Status};
use mini_resources::openapi;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// Documents by path, form and number of rows (some are optional), compressed: that is how most clients take them.
#[derive(Default)]
pub(crate) struct Documents(Mutex<BTreeMap<(String, Form, usize), Arc<Document>>>);

impl Documents {
    /// Forgets all documents, once other kinds are served.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

struct Document {
    gzip: Bytes,
    etag: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Json,
    Protobuf,
}

/// Answers a path below `/openapi`; None if it is none.
pub(crate) fn serve(
    server: &ApiServer,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Result<Response<Body>, Status>> {
    let path = path.trim_end_matches('/');
    if !matches!(path, "/openapi/v2" | "/openapi/v3") && !path.starts_with("/openapi/v3/") {
        return None;
    }
    Some(answer(server, path, query, headers))
}

/// The form to answer in; protobuf exists for v2 only.
fn form(path: &str, headers: &HeaderMap) -> Result<Form, Status> {
    let accept = text(headers, header::ACCEPT);
    if accept.is_empty() {
        return Ok(Form::Json);
    }
    for clause in negotiate::clauses(accept) {
        if path == "/openapi/v2" && openapi::V2_PROTOBUF.contains(&clause.media) {
            return Ok(Form::Protobuf);
        }
        if matches!(clause.media, "application/json" | "*/*" | "application/*") {
            return Ok(Form::Json);
        }
    }
    Err(Status::new(Reason::NotAcceptable, format!("{path} is not served in any of the accepted media types")))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn document(server: &ApiServer, path: &str, form: Form) -> Result<Arc<Document>, Status> {
    let current = server.registry.current();
    let registry = &server.served();
    let key = (path.to_owned(), form, registry.iter().count());
    if let Some(document) = server.documents.0.lock().get(&key) {
        return Ok(document.clone());
    }
    let bytes = match path.trim_start_matches("/openapi/").split('/').collect::<Vec<_>>().as_slice() {
        ["v2"] if form == Form::Protobuf => Some(openapi::v2_protobuf(registry)),
        ["v2"] => Some(openapi::v2(registry)),
        ["v3"] => Some(openapi::v3_index(registry).to_string().into_bytes()),
        ["v3", "api", version] => openapi::v3(registry, "", version),
        ["v3", "apis", group, version] => openapi::v3(registry, group, version),
        _ => None,
    };
    let bytes = bytes.ok_or_else(crate::handler::no_such_path)?;
    let etag = hex::encode_upper(Sha256::digest(&bytes));
    let document = Arc::new(Document { gzip: negotiate::gzip(&bytes)?, etag });
    let mut documents = server.documents.0.lock();
    // Made of a table that is no longer served, it is good for this answer only.
    if Arc::ptr_eq(&current, &server.registry.current()) {
        documents.insert(key, document.clone());
    }
    drop(documents);
    Ok(document)
}

fn answer(server: &ApiServer, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let form = form(path, headers)?;
    let document = document(server, path, form)?;
    let content_type = match form {
        Form::Json => "application/json",
        Form::Protobuf => openapi::V2_PROTOBUF[0],
    };
    let etag = format!("\"{}\"", document.etag);
    let mut response = if text(headers, header::IF_NONE_MATCH).contains(&etag) {
        let mut response = Response::new(body::full(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if text(headers, header::ACCEPT_ENCODING).contains("gzip") {
        let mut response = body::response(StatusCode::OK, content_type, document.gzip.clone());
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*document.gzip).read_to_end(&mut plain).map_err(Status::internal)?;
        body::response(StatusCode::OK, content_type, plain)
    };
    let out = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, value);
    }
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if query.get("hash").is_some() {
        // The index names each document with its hash: what has this address never changes.
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(response)
}
