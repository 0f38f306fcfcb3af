//! `deletecollection`: everything that the selectors match.

use super::delete;
use crate::body::Body;
use crate::call::list_prefix;
use crate::negotiate::Output;
use crate::options::{DeleteOptions, Filter, ListOptions};
use crate::{Call, object};
use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use mini_api::{Meta, Status};

/// Deletions under way at once: the store commits them together.
const AT_ONCE: usize = 16;

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = DeleteOptions::parse(call, &body)?;
    let list = ListOptions::parse(call)?;
    let filter = Filter::parse(call)?;
    let snapshot = call.server.store.snapshot();
    let prefix = list_prefix(&call.resource, &call.info.namespace);
    let names = snapshot.range(&prefix, None).filter_map(|entry| match object::read(&call.resource, &entry) {
        Ok(value) => filter.matches(&value).then(|| Ok(value.name().to_owned())),
        Err(status) => Some(Err(status)),
    });
    let options = &options;
    let mut deletions = futures::stream::iter(names)
        .map(|name| async move { delete::object(call, &name?, options).await })
        .buffered(if list.limit > 0 { 1 } else { AT_ONCE });
    let mut deleted = Vec::new();
    while let Some(done) = deletions.next().await {
        match done {
            Ok(done) => deleted.push(done.bytes),
            // Gone meanwhile: as good.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
        if list.limit > 0 && deleted.len() >= list.limit {
            break;
        }
    }
    drop(deletions);
    super::list::answer(call, output, &snapshot.revision().to_string(), None, None, deleted)
}
