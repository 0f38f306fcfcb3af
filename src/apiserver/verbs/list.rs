//! `list`: a snapshot at one revision, whole or in chunks. The answer is the stored bytes, one after the other.

use crate::body::{Body, BoxError};
use crate::call::list_prefix;
use crate::negotiate::{Output, Shape};
use crate::options::{Filter, ListOptions, parse_revision, too_large};
use crate::{Call, object, table};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use mini_api::{Reason, Status, Value};
use mini_resources::Resource;
use mini_store::{Entry, Error, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// How long a list waits for a revision that is still to come.
const WAIT: Duration = Duration::from_secs(3);
/// Lists over this go out in pieces instead of being copied together first.
const PIECE: usize = 256 * 1024;

const TOO_OLD: &str = "The resourceVersion for the provided list is too old.";
const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

pub(super) async fn run(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = ListOptions::parse(call)?;
    let filter = Filter::parse(call)?;
    let prefix = list_prefix(&call.resource, &call.info.namespace);
    let (snapshot, after) = at(call, &options, &prefix).await?;
    let page = page(call, &snapshot, &prefix, after.as_deref(), &filter, options.limit)?;
    let revision = snapshot.revision().to_string();
    let token = page.next.as_ref().map(|start| {
        Continue {
            v: VERSION.to_owned(),
            rv: i64::try_from(snapshot.revision()).unwrap_or(i64::MAX),
            start: start.clone(),
        }
        .encode()
    });
    let remaining = page
        .next
        .as_ref()
        .filter(|_| filter.is_everything())
        .map(|start| snapshot.count(&prefix, Some(&format!("{prefix}{start}"))));
    answer(call, output, &revision, token.as_deref(), remaining, page.items)
}

/// Answers with objects in the form the client wants.
pub(super) fn answer(
    call: &Call,
    output: Output,
    revision: &str,
    token: Option<&str>,
    remaining: Option<usize>,
    items: Vec<Bytes>,
) -> Result<Response<Body>, Status> {
    match output.shape {
        Shape::Object => respond(call, output, revision, token, remaining, items),
        Shape::Metadata => {
            let kind = table::go_type(&call.resource, "List");
            let why = format!("you requested PartialObjectMetadata, but the requested object is a list ({kind})");
            Err(Status::new(Reason::NotAcceptable, why))
        }
        Shape::MetadataList => {
            let items = items.iter().map(|item| table::metadata_only(output, item)).collect::<Result<Vec<_>, _>>()?;
            let list = named("PartialObjectMetadataList", output.version, revision, token, remaining, &items);
            output.respond(StatusCode::OK, list)
        }
        Shape::Table => {
            let mut rows = Vec::with_capacity(items.len());
            for bytes in &items {
                let value: Value = serde_json::from_slice(bytes).map_err(Status::internal)?;
                rows.push((call.resource.rank(&value), table::row(&call.resource, output, &value, bytes)?));
            }
            rows.sort_by_key(|(rank, _)| *rank);
            let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
            let metadata = metadata(revision, token, remaining);
            let table = table::table(output, Some(&call.resource.columns), &metadata, &rows);
            output.respond(StatusCode::OK, table)
        }
    }
}

/// The snapshot to list and, for a later chunk, the key behind which it goes on.
async fn at(call: &Call, options: &ListOptions, prefix: &str) -> Result<(Snapshot, Option<String>), Status> {
    let store = &call.server.store;
    if let Some(token) = &options.continue_token {
        let token = Continue::decode(token)?;
        if !matches!(options.version.as_str(), "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let after = Some(format!("{prefix}{}", token.start));
        let Ok(revision) = u64::try_from(token.rv) else { return Ok((store.snapshot(), after)) };
        return match store.snapshot_at(revision) {
            Ok(snapshot) => Ok((snapshot, after)),
            Err(Error::Compacted { .. } | Error::Future { .. }) => {
                let mut status = Status::expired(CONTINUE_TOO_OLD);
                status.continue_token = Some(Continue { rv: -1, ..token }.encode());
                Err(status)
            }
            Err(error) => Err(super::create::store_failed(&error)),
        };
    }
    let revision = parse_revision(&options.version);
    let revision = revision.map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
    await_revision(call, revision).await?;
    if !options.exact {
        return Ok((store.snapshot(), None));
    }
    match store.snapshot_at(revision) {
        Ok(snapshot) => Ok((snapshot, None)),
        Err(Error::Compacted { .. }) => Err(Status::expired(TOO_OLD)),
        Err(error) => Err(super::create::store_failed(&error)),
    }
}

/// Waits a moment for a revision that this server has not reached.
pub(super) async fn await_revision(call: &Call, revision: u64) -> Result<(), Status> {
    let deadline = tokio::time::Instant::now() + WAIT;
    while call.server.store.revision() < revision {
        if tokio::time::Instant::now() >= deadline {
            return Err(too_large(revision, call.server.store.revision()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

struct Page {
    items: Vec<Bytes>,
    /// Where the next chunk starts: the last key of this one without the prefix.
    next: Option<String>,
}

fn page(
    call: &Call,
    snapshot: &Snapshot,
    prefix: &str,
    after: Option<&str>,
    filter: &Filter,
    limit: usize,
) -> Result<Page, Status> {
    let resource = &*call.resource;
    // A name pins one key, if the namespace is known: no need to look at the others.
    if let (Some(name), true) = (filter.name(), !resource.namespaced || !call.info.namespace.is_empty()) {
        let entry = snapshot.get(&format!("{prefix}{name}"));
        let entry = entry.filter(|entry| after.is_none_or(|after| &*entry.key > after));
        let items = entry.into_iter().filter_map(|entry| selected(resource, filter, &entry).transpose());
        return Ok(Page { items: items.collect::<Result<_, _>>()?, next: None });
    }
    let mut items = Vec::new();
    let mut last: Option<Entry> = None;
    for entry in snapshot.range(prefix, after) {
        if let Some(last) = last.as_ref().filter(|_| limit > 0 && items.len() >= limit) {
            let next = last.key.get(prefix.len()..).unwrap_or_default().to_owned();
            return Ok(Page { items, next: Some(next) });
        }
        if let Some(bytes) = selected(resource, filter, &entry)? {
            items.push(bytes);
        }
        last = Some(entry);
    }
    Ok(Page { items, next: None })
}

/// The bytes of an entry that the filter lets through.
fn selected(resource: &Resource, filter: &Filter, entry: &Entry) -> Result<Option<Bytes>, Status> {
    filter.selects(entry)?.then(|| object::bytes(resource, entry)).transpose()
}

fn metadata(revision: &str, token: Option<&str>, remaining: Option<usize>) -> Value {
    // What is not stored has no revision.
    let mut metadata = if revision.is_empty() { json!({}) } else { json!({"resourceVersion": revision}) };
    if let Some(token) = token {
        metadata["continue"] = token.into();
    }
    if let Some(remaining) = remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn opening(kind: &str, api_version: &str, revision: &str, token: Option<&str>, remaining: Option<usize>) -> String {
    let metadata = metadata(revision, token, remaining);
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[")
}

fn named(
    kind: &str,
    api_version: &str,
    revision: &str,
    token: Option<&str>,
    remaining: Option<usize>,
    items: &[Bytes],
) -> Bytes {
    let opening = opening(kind, api_version, revision, token, remaining);
    let mut out = BytesMut::with_capacity(opening.len() + items.iter().map(|i| i.len() + 1).sum::<usize>() + 2);
    out.put_slice(opening.as_bytes());
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item);
    }
    out.put_slice(b"]}");
    out.freeze()
}

/// Small lists are copied together; large ones go out in pieces made as the client takes them.
fn respond(
    call: &Call,
    output: Output,
    revision: &str,
    token: Option<&str>,
    remaining: Option<usize>,
    items: Vec<Bytes>,
) -> Result<Response<Body>, Status> {
    let total: usize = items.iter().map(|i| i.len() + 1).sum();
    let (kind, api_version) = (call.resource.list_kind(), call.resource.api_version());
    if total <= PIECE || !output.plain(total) {
        let list = named(&kind, &api_version, revision, token, remaining, &items);
        return output.respond(StatusCode::OK, list);
    }
    let mut piece = BytesMut::from(opening(&kind, &api_version, revision, token, remaining).as_bytes());
    let mut items = items.into_iter().enumerate();
    let mut done = false;
    let pieces = std::iter::from_fn(move || {
        if done {
            return None;
        }
        while piece.len() < PIECE {
            let Some((i, item)) = items.next() else {
                piece.put_slice(b"]}");
                done = true;
                break;
            };
            if i > 0 {
                piece.put_u8(b',');
            }
            piece.put_slice(&item);
        }
        Some(Ok::<_, BoxError>(http_body::Frame::data(piece.split().freeze())))
    });
    let mut response = Response::new(StreamBody::new(futures::stream::iter(pieces)).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

const VERSION: &str = "meta.k8s.io/v1";

/// What a continue token says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Continue {
    v: String,
    /// The revision of the first chunk; -1: whatever is newest.
    rv: i64,
    /// The last key that was sent, below the prefix.
    start: String,
}

/// As Go's decoder has it: without padding, and what the last letter says too much is not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

impl Continue {
    fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let broken =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = BASE64.decode(token).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => token.len().saturating_sub(1),
            };
            broken(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| broken(&e.to_string()))?;
        if token.v != VERSION {
            return Err(broken(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(broken(&format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        if token.start.is_empty() {
            return Err(broken(&format!("encoded start key empty (version {VERSION})")));
        }
        // Tokens are the clients' to make up: a key must not lead out of what is listed.
        let key = token.start.strip_prefix('/').unwrap_or(&token.start);
        if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(broken(&token.start));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_from_rubbish_in_upstreams_words() {
        let token = Continue { v: VERSION.to_owned(), rv: 7, start: "default/a".to_owned() };
        assert_eq!(Continue::decode(&token.encode()).unwrap().start, "default/a");
        let decoded = |json: &str| Continue::decode(&BASE64.encode(json)).unwrap_err().message;
        let start = "invalid continue token: continue key is not valid: ";
        for (json, why) in [
            (
                r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a"}"#,
                "server does not recognize this encoded version meta.k8s.io/v2",
            ),
            (
                r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#,
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#, "encoded start key empty (version meta.k8s.io/v1)"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}"#, "../secrets/a"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a//b"}"#, "a//b"),
        ] {
            assert_eq!(decoded(json), format!("{start}{why}"), "{json}");
        }
        for (token, at) in [("!", 0), ("abcd=", 4), ("abcde", 4), ("ab+d", 2)] {
            let status = Continue::decode(token).unwrap_err();
            let message = format!("{start}illegal base64 data at input byte {at}");
            assert_eq!((status.code, status.message), (400, message), "{token}");
        }
        assert!(decoded("[").starts_with(start));
    }

    #[test]
    fn any_token_is_answered() {
        let token = Continue { v: VERSION.to_owned(), rv: 7, start: "default/a".to_owned() }.encode();
        mini_fuzz::run(
            &[token.as_bytes(), br#"{"v":"meta.k8s.io/v1","rv":-1,"start":"b"}"#],
            &["rv", "-1", "\u{0}", "="],
            |input| {
                // Both as it came and as it would be inside.
                [BASE64.encode(input), String::from_utf8_lossy(input).into_owned()].map(|token| {
                    let read = Continue::decode(&token);
                    if let Ok(read) = &read {
                        let again = Continue::decode(&read.encode()).map(|token| (token.rv, token.start)).ok();
                        assert_eq!(again, Some((read.rv, read.start.clone())));
                    }
                    mini_fuzz::outcome(&read.map_err(|status| status.message))
                })
            },
        );
    }
}
