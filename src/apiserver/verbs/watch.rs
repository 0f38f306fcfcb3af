//! `watch`: every change after a revision, as the store publishes it. An event is a prefix, the stored bytes, a suffix.

use super::list::await_revision;
use crate::body::{Body, BoxError};
use crate::call::list_prefix;
use crate::negotiate::{Include, Output, Shape};
use crate::options::{Filter, ListOptions, no_revision, parse_revision};
use crate::registry::Following;
use crate::{Call, object, table};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mini_api::{Status, Value};
use mini_resources::{Resource, protobuf};
use mini_store::{Entry, Error, Event, EventKind, Watcher};
use rand::Rng;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a client that allows bookmarks gets one, if anything happened.
const BOOKMARK: Duration = Duration::from_secs(60);
/// Seconds that a watch may last; more cannot be added to every clock.
const LONGEST: u64 = 7 * 24 * 3600;
/// A piece of the initial events.
const PIECE: usize = 64 * 1024;

pub(super) async fn run(call: &Call) -> Result<Response<Body>, Status> {
    let mut output = Output::negotiate(&call.headers, &call.query)?;
    output.protobuf = match output.shape {
        Shape::Metadata => output.as_protobuf(output.version, "PartialObjectMetadata")?,
        _ => output.as_protobuf(&call.resource.api_version(), &call.resource.kind)?,
    };
    if output.yaml {
        return Err(crate::negotiate::not_streamable());
    }
    let options = ListOptions::parse(call)?;
    let filter = Filter::parse(call)?;
    let from = parse_revision(&options.version).map_err(no_revision)?;
    let mut prefix = list_prefix(&call.resource, &call.info.namespace);
    // One object's watch hears nothing of the others.
    if let (Some(name), true) = (filter.name(), !call.resource.namespaced || !call.info.namespace.is_empty()) {
        prefix.push_str(name);
    }
    let form = Form { resource: call.resource.clone(), filter, output, columns_sent: false };
    // From here on what goes wrong is an event, as upstream has it.
    let (start, frames) = match start(call, &options, from, &prefix).await {
        Ok(start) => (start, VecDeque::new()),
        Err(status) => (Start::default(), VecDeque::from([form.error(&status)])),
    };
    let now = Instant::now();
    let seconds = options.timeout_seconds.unwrap_or_else(|| rand::rng().random_range(1800..3600)).min(LONGEST);
    let stream = Stream {
        form,
        initial: start.initial,
        end_of_initial: (options.initial_end && start.watcher.is_some()).then_some(start.after),
        frames,
        watcher: start.watcher,
        exact_prefix: prefix,
        bookmarks: options.bookmarks,
        told: start.after,
        next_bookmark: now + BOOKMARK,
        deadline: now + Duration::from_secs(seconds),
        draining: call.server.draining.clone(),
        served: call.server.registry.follow(),
    };
    let stream = futures::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), stream))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let content_type =
        if output.protobuf { "application/vnd.kubernetes.protobuf;stream=watch" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// Where a watch begins.
#[derive(Default)]
struct Start {
    /// What is there at `after`, where that is to be sent.
    initial: VecDeque<Entry>,
    after: u64,
    watcher: Option<Watcher>,
}

async fn start(call: &Call, options: &ListOptions, from: u64, prefix: &str) -> Result<Start, Status> {
    let store = &call.server.store;
    let waited = await_revision(call, from).await;
    let (initial, after) = if options.initial_events {
        waited?;
        let snapshot = store.snapshot();
        (snapshot.range(prefix, None).collect(), snapshot.revision())
    } else {
        (VecDeque::new(), if from == 0 { store.revision() } else { from })
    };
    let watcher = store.watch(prefix, after).map_err(|error| match error {
        Error::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        // Upstream would wait for it. Here it is from another life, before a backup was put back: the client must list.
        Error::Future { requested, newest } => {
            Status::expired(format!("resource version {requested} was never given out, the newest is {newest}"))
        }
        error => super::create::store_failed(&error),
    })?;
    Ok(Start { initial, after, watcher: Some(watcher) })
}

struct Stream {
    form: Form,
    initial: VecDeque<Entry>,
    /// The revision of the bookmark that ends the initial events, until it is sent.
    end_of_initial: Option<u64>,
    frames: VecDeque<Bytes>,
    watcher: Option<Watcher>,
    exact_prefix: String,
    bookmarks: bool,
    /// The newest revision that the client knows of.
    told: u64,
    next_bookmark: Instant,
    deadline: Instant,
    draining: CancellationToken,
    served: Following,
}

impl Stream {
    /// The next piece of the body; None ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.initial_piece() {
            return Some(piece);
        }
        if let Some(revision) = self.end_of_initial.take() {
            return Some(self.form.bookmark(revision, true));
        }
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let watcher = self.watcher.as_mut()?;
            let bookmark = if self.bookmarks { self.next_bookmark } else { self.deadline };
            tokio::select! {
                // What has happened goes out before the watch ends.
                biased;
                () = self.draining.cancelled() => self.watcher = None,
                event = watcher.next() => match event {
                    Some(event) => {
                        if let Some(piece) = self.piece(&event) {
                            return Some(piece);
                        }
                    }
                    None => self.watcher = None,
                },
                () = tokio::time::sleep_until(bookmark.min(self.deadline)) => {
                    let reached = watcher.caught_up().filter(|reached| self.bookmarks && *reached > self.told);
                    if Instant::now() >= self.deadline {
                        self.watcher = None;
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    if let Some(reached) = reached {
                        self.told = reached;
                        return Some(self.form.bookmark(reached, false));
                    }
                }
                () = self.served.gone(&self.form.resource) => self.watcher = None,
            }
        }
    }

    /// Some initial events; None if the filter lets none of the rest through.
    fn initial_piece(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE {
            let Some(entry) = self.initial.pop_front() else { break };
            if !self.concerns(&entry) {
                continue;
            }
            if let Err(status) = self.form.initial(&entry, &mut piece) {
                piece.put_slice(&self.form.error(&status));
            }
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// This event and those that came with it; None if the filter lets none of them through.
    fn piece(&mut self, event: &Event) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        self.event(event, &mut piece);
        while piece.len() < PIECE
            && let Some(event) = self.watcher.as_mut().and_then(Watcher::found)
        {
            self.event(&event, &mut piece);
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// A watch of one name has a key as its prefix, which longer names start with too.
    fn concerns(&self, entry: &Entry) -> bool {
        self.exact_prefix.ends_with('/') || *entry.key == *self.exact_prefix
    }

    fn event(&mut self, event: &Event, out: &mut BytesMut) {
        if !self.concerns(&event.entry) {
            return;
        }
        let before = out.len();
        if let Err(status) = self.form.event(event, out) {
            self.watcher = None;
            out.put_slice(&self.form.error(&status));
        }
        if out.len() > before {
            self.told = event.entry.revision;
        }
    }
}

/// How this watch writes events.
struct Form {
    resource: Arc<Resource>,
    filter: Filter,
    output: Output,
    /// The columns of a Table go with the first event only.
    columns_sent: bool,
}

impl Form {
    fn initial(&mut self, entry: &Entry, out: &mut BytesMut) -> Result<(), Status> {
        if !self.filter.selects(entry)? {
            return Ok(());
        }
        self.frame("ADDED", &object::bytes(&self.resource, entry)?, self.output, out)
    }

    /// The event as this watch sees it: leaving the selection is a deletion, entering it an addition.
    fn event(&mut self, event: &Event, out: &mut BytesMut) -> Result<(), Status> {
        let deleted = event.kind == EventKind::Delete;
        let now = !deleted && self.filter.selects(&event.entry)?;
        let before = event.prev.as_ref().map_or(Ok(false), |prev| self.filter.selects(prev))?;
        let kind = match (before, now) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return Ok(()),
        };
        let bytes = if kind == "DELETED" && !deleted {
            // It left the selection: the client gets its state from before, at the revision at which it left.
            let prev = event.prev.as_ref().unwrap_or(&event.entry);
            let value = object::read(&self.resource, prev)?;
            object::Template::new(&value).at(&event.entry.revision.to_string())
        } else {
            object::bytes(&self.resource, &event.entry)?
        };
        self.frame(kind, &bytes, self.output, out)
    }

    fn frame(&mut self, kind: &str, object: &Bytes, output: Output, out: &mut BytesMut) -> Result<(), Status> {
        let shaped = match output.shape {
            // An event's object is no list: upstream leaves it as it is.
            Shape::Object | Shape::MetadataList => object.clone(),
            Shape::Metadata => table::metadata_only(output, object)?,
            Shape::Table => {
                let value: Value = serde_json::from_slice(object).map_err(Status::internal)?;
                let row = table::row(&self.resource, output, &value, object)?;
                let columns = (!std::mem::replace(&mut self.columns_sent, true)).then_some(&*self.resource.columns);
                let version = value.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                table::table(output, columns, &json!({"resourceVersion": version}), &[row])
            }
        };
        self.enclose(kind, &shaped, out);
        Ok(())
    }

    /// A bookmark: an object of the kind with nothing but a revision.
    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        let mut output = self.output;
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            // Whoever asked for it must find the annotation.
            if output.include == Include::None {
                output.include = Include::Metadata;
            }
        }
        let object =
            json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
        let mut out = BytesMut::new();
        match self.frame("BOOKMARK", &Bytes::from(object.to_string()), output, &mut out) {
            Ok(()) => out.freeze(),
            Err(status) => self.error(&status),
        }
    }

    fn enclose(&self, kind: &str, object: &Bytes, out: &mut BytesMut) {
        if !self.output.protobuf {
            out.reserve(object.len() + kind.len() + 24);
            for part in [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", object, b"}\n"] {
                out.put_slice(part);
            }
            return;
        }
        let value = serde_json::from_slice(object).map_err(|e| e.to_string());
        let frame = value.and_then(|value| protobuf::watch_frame(kind, &value)).or_else(|why| {
            let status = Status::internal(why);
            protobuf::watch_frame("ERROR", &status.to_value())
        });
        out.put_slice(&frame.unwrap_or_default());
    }

    fn enclosed(&self, kind: &str, object: &Bytes) -> Bytes {
        let mut out = BytesMut::new();
        self.enclose(kind, object, &mut out);
        out.freeze()
    }

    fn error(&self, status: &Status) -> Bytes {
        self.enclosed("ERROR", &Bytes::from(status.to_value().to_string()))
    }
}
