//! `get`: one object, at the newest revision, which is no older than the one asked for.

use super::list::await_revision;
use crate::body::Body;
use crate::negotiate::Output;
use crate::options::{no_revision, parse_revision};
use crate::{Call, object, table};
use http::{Response, StatusCode};
use mini_api::Status;

pub(super) async fn run(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let revision = parse_revision(call.query.text("resourceVersion")).map_err(no_revision)?;
    await_revision(call, revision).await?;
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
