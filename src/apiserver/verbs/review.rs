//! `create` of what is answered and never stored: reviews, and tokens of service accounts.

use super::get;
use crate::body::Body;
use crate::negotiate::{self, Output};
use crate::options::WriteOptions;
use crate::{Call, decode, reviews, tokens};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{Meta, Status, Value};

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::without_tables(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let resource = &*call.resource;
    let (mut object, warnings) = decode::object(call, resource, &body, options.fields)?;
    decode::settle_namespace(call, resource.namespaced, &mut object)?;
    resource.default(&mut object);
    let errors = resource.validate(&object);
    // Reviews need no name; everything else that is wrong with them is.
    let errors: Vec<_> = errors.into_iter().filter(|e| !e.path.as_str().starts_with("metadata")).collect();
    if !errors.is_empty() {
        return Err(super::invalid(resource, object.name(), &errors));
    }
    let answer = reviews::create(call, object).await?;
    let mut response = get::answer(call, output, StatusCode::CREATED, &Bytes::from(answer.to_string()))?;
    super::warn(&mut response, &warnings);
    Ok(response)
}

/// `POST serviceaccounts/x/token`.
pub(super) async fn token(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::without_tables(&call.headers, &call.query)?;
    let request: Value = negotiate::parse(negotiate::media(&call.headers)?, &body)?;
    if !request.is_object() || !matches!(request.text(&["kind"]), "" | "TokenRequest") {
        return Err(Status::bad_request("the body is no TokenRequest"));
    }
    let answer = tokens::create(call, request).await?;
    output.respond(StatusCode::CREATED, Bytes::from(answer.to_string()))
}
