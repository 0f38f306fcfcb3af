//! `get`: one object, at the newest revision.

use crate::body::Body;
use crate::negotiate::Output;
use crate::options::parse_revision;
use crate::{Call, object, table};
use http::{Response, StatusCode};
use mini_api::Status;

pub(super) fn run(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let newest = call.server.store.revision();
    if let Some(revision) = parse_revision(call.query.text("resourceVersion"))?.filter(|r| *r > newest) {
        return Err(crate::options::too_large(revision, newest));
    }
    let entry = call.server.store.snapshot().get(&call.key(&call.info.name)).ok_or_else(|| call.not_found())?;
    answer(call, output, StatusCode::OK, &object::bytes(&call.resource, &entry)?)
}

/// Answers with one object in the form the client wants.
pub(crate) fn answer(
    call: &Call,
    output: Output,
    code: StatusCode,
    object: &bytes::Bytes,
) -> Result<Response<Body>, Status> {
    output.respond(code, table::shape(&call.resource, output, object)?)
}
