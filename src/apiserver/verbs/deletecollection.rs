//! `deletecollection`: everything that the selectors match, one after the other.

use super::delete;
use crate::body::Body;
use crate::call::list_prefix;
use crate::negotiate::Output;
use crate::options::{DeleteOptions, Filter, ListOptions};
use crate::{Call, object};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{Meta, Status};

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = DeleteOptions::parse(call, &body)?;
    let list = ListOptions::parse(call, false)?;
    let filter = Filter::parse(call)?;
    let snapshot = call.server.store.snapshot();
    let prefix = list_prefix(&call.resource, &call.info.namespace);
    let mut deleted = Vec::new();
    for entry in snapshot.range(&prefix, None) {
        let value = object::read(&call.resource, &entry)?;
        if !filter.matches(&value) {
            continue;
        }
        match delete::object(call, value.name(), &options).await {
            Ok(done) => deleted.push(done.bytes),
            // Gone meanwhile: as good.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
        if list.limit > 0 && deleted.len() >= list.limit {
            break;
        }
    }
    let answer = super::list::envelope(&call.resource, &snapshot.revision().to_string(), None, None, &deleted);
    output.respond(StatusCode::OK, answer)
}
