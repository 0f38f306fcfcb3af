//! The loop behind a cache: list, watch from there, resume by revision, list again when the revision is too old.
//!
//! Our own rather than `kube::runtime::watcher`, which keeps bookmarks and the list's revision to itself: without
//! them a cache cannot say how far it has come.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncBufRead, AsyncBufReadExt};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use mini_api::text;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::{Kind, Scope, revision_of};

/// Takes what a reflector learns. Called in order, from one task; must not block.
pub trait Sink<K>: Send + Sync + 'static {
    /// A full list as of `revision`: whatever it lacks was deleted meanwhile.
    fn replace(&self, listed: Vec<K>, revision: u64);
    /// An object is there, in this state.
    fn apply(&self, object: K);
    /// An object is gone; this was its last state.
    fn delete(&self, object: K);
    /// Nothing else happened up to `revision`.
    fn advance(&self, revision: u64);
}

/// The server ends a watch after this many seconds; a connection silent for longer is dead.
const WATCH_SECONDS: u32 = 290;
const PAGE: u32 = 500;
/// A watch that held this long was not refused.
const WORKED: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LAST_DELAY: Duration = Duration::from_secs(10);

/// Why a watch ended.
enum End {
    /// Resume from the revision reached.
    Resume,
    /// The revision is no longer in the server's history.
    TooOld,
}

/// Follows the objects at `url` (such as `/api/v1/pods`) until `cancel`.
pub async fn follow<K: Kind, S: Sink<K>>(
    client: Client,
    url: String,
    scope: Scope,
    sink: Arc<S>,
    cancel: CancellationToken,
) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = forever(client, url, scope, sink) => {}
    }
}

async fn forever<K: Kind, S: Sink<K>>(client: Client, url: String, scope: Scope, sink: Arc<S>) {
    let mut delay = FIRST_DELAY;
    loop {
        let mut revision = match list(&client, &url, &scope, sink.as_ref()).await {
            Ok(revision) => revision,
            Err(error) => {
                tracing::debug!(%url, %error, "list failed");
                pause(&mut delay).await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            match watch(&client, &url, &scope, sink.as_ref(), &mut revision).await {
                Ok(End::TooOld) => break,
                // The server ended a watch that worked: an idle kind's ends without an event.
                Ok(End::Resume) if began.elapsed() >= WORKED => delay = FIRST_DELAY,
                Ok(End::Resume) => pause(&mut delay).await,
                Err(error) => {
                    tracing::debug!(%url, %error, "watch failed");
                    pause(&mut delay).await;
                }
            }
        }
    }
}

/// Waits, twice as long as the last time.
async fn pause(delay: &mut Duration) {
    sleep(*delay).await;
    *delay = (*delay * 2).min(LAST_DELAY);
}

async fn list<K: Kind, S: Sink<K>>(client: &Client, url: &str, scope: &Scope, sink: &S) -> Result<String, kube::Error> {
    let mut params = ListParams {
        label_selector: scope.labels.clone(),
        field_selector: scope.fields.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    let mut objects = Vec::new();
    loop {
        let request = Request::new(url).list(&params).map_err(kube::Error::BuildRequest)?;
        let page = client.request_text(request).await?;
        let Page { metadata, items } = serde_json::from_str(&page).map_err(kube::Error::SerdeError)?;
        let items = items.unwrap_or_default().into_iter();
        objects.extend(items.filter_map(|item| readable::<K>(url, item.get().as_bytes()).ok()));
        params.continue_token = metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            sink.replace(objects, metadata.resource_version.parse().unwrap_or_default());
            return Ok(metadata.resource_version);
        }
    }
}

async fn watch<K: Kind, S: Sink<K>>(
    client: &Client,
    url: &str,
    scope: &Scope,
    sink: &S,
    revision: &mut String,
) -> Result<End, kube::Error> {
    let params = WatchParams {
        label_selector: scope.labels.clone(),
        field_selector: scope.fields.clone(),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        send_initial_events: false,
    };
    let request = Request::new(url).watch(&params, revision).map_err(kube::Error::BuildRequest)?;
    let mut events = match client.request_stream(request).await {
        Err(kube::Error::Api(status)) if status.code == 410 => return Ok(End::TooOld),
        stream => Events { stream: Box::pin(stream?), line: Vec::new() },
    };
    let silence = Duration::from_secs(u64::from(WATCH_SECONDS) + 10);
    while let Ok(Some(event)) = timeout(silence, events.next()).await {
        match event? {
            Event { kind: kind @ ("ADDED" | "MODIFIED" | "DELETED"), object } => match readable::<K>(url, object) {
                Ok(object) => {
                    *revision = revision_of(&object).to_string();
                    if kind == "DELETED" { sink.delete(object) } else { sink.apply(object) }
                }
                // Asking again would bring the same again.
                Err(meta) => {
                    *revision = meta?.resource_version;
                    sink.advance(revision.parse().unwrap_or_default());
                }
            },
            Event { kind: "BOOKMARK", object } => {
                *revision = decode::<Bare>(object)?.metadata.resource_version;
                sink.advance(revision.parse().unwrap_or_default());
            }
            Event { object, .. } => {
                let status = decode::<Status>(object)?;
                return if status.code == 410 { Ok(End::TooOld) } else { Err(kube::Error::Api(status.boxed())) };
            }
        }
    }
    Ok(End::Resume)
}

/// The lines of a watch.
///
/// `kube` reads them into an enum tagged from within, which serde first copies as a whole, by code of its own for each
/// type: a MiB of it. Here the object stays text until its type is known.
struct Events {
    stream: Pin<Box<dyn AsyncBufRead + Send>>,
    line: Vec<u8>,
}

struct Event<'a> {
    kind: &'a str,
    object: &'a [u8],
}

impl<'a> Event<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, kube::Error> {
        // As the API server writes it, which saves a look at all of it; whether the object is one its decoder finds out.
        let rest = line.strip_prefix(b"{\"type\":\"").and_then(|rest| rest.strip_suffix(b"}\n"));
        let parts = rest.and_then(|rest| rest.split_at_checked(rest.iter().position(|b| *b == b'"')?));
        if let Some((kind, rest)) = parts
            && let (Ok(kind), Some(object)) = (str::from_utf8(kind), rest.strip_prefix(b"\",\"object\":"))
        {
            return Ok(Self { kind, object });
        }
        #[derive(Deserialize)]
        struct Any<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Any { kind, object } = serde_json::from_slice(line).map_err(kube::Error::SerdeError)?;
        Ok(Self { kind, object: object.get().as_bytes() })
    }
}

/// A part of a list, whose objects are text until each is read.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: BareMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// What a bookmark has, and every object.
#[derive(Deserialize)]
struct Bare {
    metadata: BareMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BareMeta {
    name: String,
    namespace: String,
    resource_version: String,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

impl Events {
    /// `None` is the end, be it that the server's time was up or that the connection broke.
    async fn next(&mut self) -> Option<Result<Event<'_>, kube::Error>> {
        self.line.clear();
        match self.stream.read_until(b'\n', &mut self.line).await {
            Ok(_) if self.line.ends_with(b"\n") => Some(Event::parse(&self.line)),
            _ => None,
        }
    }
}

fn decode<T: DeserializeOwned>(object: &[u8]) -> Result<T, kube::Error> {
    serde_json::from_slice(object).map_err(kube::Error::SerdeError)
}

/// An object, or where one that cannot be read stands; whoever follows goes on without it.
fn readable<K: Kind>(url: &str, object: &[u8]) -> Result<K, Result<BareMeta, kube::Error>> {
    // Reading the owners of fields only to drop them takes as long as reading all the rest.
    let object = &*text::without(object, text::MANAGED_FIELDS);
    decode::<K>(object).map(slim).map_err(|error| {
        let meta = decode::<Bare>(object).map(|bare| bare.metadata);
        if let Ok(BareMeta { namespace, name, .. }) = &meta {
            tracing::warn!(%url, %namespace, %name, %error, "an object cannot be read; it is left out");
        }
        meta
    })
}

/// Drops what no component reads and every object carries.
fn slim<K: Kind>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
