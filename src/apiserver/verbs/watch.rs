//! `watch`: every change after a revision, as the store publishes it. An event is a prefix, the stored bytes, a suffix.

use super::list::await_revision;
use crate::body::{Body, BoxError};
use crate::call::list_prefix;
use crate::negotiate::{Include, Output, Shape};
use crate::options::{Filter, ListOptions};
use crate::registry::Following;
use crate::{Call, object, table};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mini_api::{Status, Value};
use mini_resources::{Resource, protobuf};
use mini_store::{Entry, Error, Event, EventKind, WatchItem, Watcher};
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
        Shape::Metadata => output.as_protobuf("meta.k8s.io/v1", "PartialObjectMetadata")?,
        _ => output.as_protobuf(&call.resource.api_version(), &call.resource.kind)?,
    };
    if output.yaml {
        return Err(crate::negotiate::not_acceptable());
    }
    let options = ListOptions::parse(call, true)?;
    let filter = Filter::parse(call)?;
    let store = &call.server.store;
    let mut prefix = list_prefix(&call.resource, &call.info.namespace);
    // One object's watch hears nothing of the others.
    if let (Some(name), true) = (filter.name(), !call.resource.namespaced || !call.info.namespace.is_empty()) {
        prefix.push_str(name);
    }
    let from = options.revision.unwrap_or(0);
    let form = Form { resource: call.resource.clone(), filter, output, columns_sent: false };
    if from > 0 {
        await_revision(call, from).await?;
    }
    // The initial events are those of a snapshot; the watch goes on behind it.
    let wants_initial = options.send_initial_events || (from == 0 && call.query.get("sendInitialEvents").is_none());
    let (initial, after) = if wants_initial {
        let snapshot = store.snapshot();
        let entries = snapshot.range(&prefix, None).collect::<VecDeque<_>>();
        (entries, snapshot.revision())
    } else {
        (VecDeque::new(), if from == 0 { store.revision() } else { from })
    };
    let mut frames = VecDeque::new();
    let watcher = match store.watch(&prefix, after) {
        Ok(watcher) => Some(watcher),
        Err(Error::Compacted { requested, oldest }) => {
            let status = Status::expired(format!("too old resource version: {requested} ({oldest})"));
            frames.push_back(form.error(&status));
            None
        }
        Err(error) => return Err(super::create::store_failed(&error)),
    };
    let now = Instant::now();
    let seconds = options.timeout_seconds.unwrap_or_else(|| rand::rng().random_range(1800..3600)).min(LONGEST);
    let stream = Stream {
        form,
        initial,
        end_of_initial: options.send_initial_events.then_some(after),
        frames,
        watcher,
        exact_prefix: prefix,
        bookmarks: options.bookmarks,
        reached: after,
        told: after,
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
    let content_type = match (output.protobuf, output.shape) {
        (true, _) => "application/vnd.kubernetes.protobuf;stream=watch",
        (false, Shape::Object) => "application/json",
        (false, _) => "application/json;stream=watch",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
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
    /// Everything up to here has been looked at.
    reached: u64,
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
                item = watcher.next() => match item {
                    Some(WatchItem::Event(event)) => {
                        self.reached = event.entry.revision;
                        if let Some(frame) = self.event(&event) {
                            self.told = self.reached;
                            return Some(frame);
                        }
                    }
                    Some(WatchItem::Progress(revision)) => self.reached = self.reached.max(revision),
                    None => self.watcher = None,
                },
                () = tokio::time::sleep_until(bookmark.min(self.deadline)) => {
                    if Instant::now() >= self.deadline {
                        self.watcher = None;
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    if self.bookmarks && self.reached > self.told {
                        self.told = self.reached;
                        return Some(self.form.bookmark(self.reached, false));
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
            match self.form.initial(&entry) {
                Ok(Some(frame)) => piece.put_slice(&frame),
                Ok(None) => {}
                Err(status) => piece.put_slice(&self.form.error(&status)),
            }
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// A watch of one name has a key as its prefix, which longer names start with too.
    fn concerns(&self, entry: &Entry) -> bool {
        self.exact_prefix.ends_with('/') || *entry.key == *self.exact_prefix
    }

    fn event(&mut self, event: &Arc<Event>) -> Option<Bytes> {
        if !self.concerns(&event.entry) {
            return None;
        }
        self.form.event(event).unwrap_or_else(|status| {
            self.watcher = None;
            Some(self.form.error(&status))
        })
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
    fn initial(&mut self, entry: &Entry) -> Result<Option<Bytes>, Status> {
        if !self.filter.is_everything() && !self.filter.matches(&object::read(&self.resource, entry)?) {
            return Ok(None);
        }
        self.frame("ADDED", &object::bytes(&self.resource, entry)?).map(Some)
    }

    /// The event as this watch sees it: leaving the selection is a deletion, entering it an addition.
    fn event(&mut self, event: &Event) -> Result<Option<Bytes>, Status> {
        let deleted = event.kind == EventKind::Delete;
        let is_in = |form: &Self, entry: &Entry| -> Result<bool, Status> {
            Ok(form.filter.is_everything() || form.filter.matches(&object::read(&form.resource, entry)?))
        };
        let now = !deleted && is_in(self, &event.entry)?;
        let before = match &event.prev {
            Some(prev) => is_in(self, prev)?,
            None => false,
        };
        let kind = match (before, now) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return Ok(None),
        };
        let bytes = if kind == "DELETED" && !deleted {
            // It left the selection: the client gets its state from before, at the revision at which it left.
            let prev = event.prev.as_ref().unwrap_or(&event.entry);
            let value = object::read(&self.resource, prev)?;
            object::Template::new(&value).at(&event.entry.revision.to_string())
        } else {
            object::bytes(&self.resource, &event.entry)?
        };
        self.frame(kind, &bytes).map(Some)
    }

    fn frame(&mut self, kind: &str, object: &Bytes) -> Result<Bytes, Status> {
        let shaped = match self.output.shape {
            Shape::Object => object.clone(),
            Shape::Metadata => table::metadata_only(object)?,
            Shape::Table => {
                let value: Value = serde_json::from_slice(object).map_err(Status::internal)?;
                let row = table::row(&self.resource, self.output.include, &value, object)?;
                let columns = (!std::mem::replace(&mut self.columns_sent, true)).then_some(&*self.resource.columns);
                let version = value.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                table::table(columns, &json!({"resourceVersion": version}), &[row])
            }
        };
        Ok(self.enclose(kind, &shaped))
    }

    /// A bookmark: an object of the kind with nothing but a revision.
    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let mut object =
            json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
        match self.output.shape {
            Shape::Object => {}
            Shape::Metadata => {
                object["kind"] = "PartialObjectMetadata".into();
                object["apiVersion"] = "meta.k8s.io/v1".into();
            }
            Shape::Table => {
                let mut row = json!({"cells": self.resource.columns.iter().map(|_| "").collect::<Vec<_>>()});
                if self.output.include != Include::None {
                    row["object"] = object;
                }
                let metadata = json!({"resourceVersion": revision.to_string()});
                return self.enclose("BOOKMARK", &table::table(None, &metadata, &[row.to_string()]));
            }
        }
        self.enclose("BOOKMARK", &Bytes::from(object.to_string()))
    }

    fn enclose(&self, kind: &str, object: &Bytes) -> Bytes {
        if !self.output.protobuf {
            return enclose(kind, object);
        }
        let value = serde_json::from_slice(object).map_err(|e| e.to_string());
        let frame = value.and_then(|value| protobuf::watch_frame(kind, &value)).or_else(|why| {
            let status = Status::internal(why);
            protobuf::watch_frame("ERROR", &status.to_value())
        });
        frame.map(Bytes::from).unwrap_or_default()
    }

    fn error(&self, status: &Status) -> Bytes {
        self.enclose("ERROR", &Bytes::from(status.to_value().to_string()))
    }
}

fn enclose(kind: &str, object: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}
