//! An API server small enough for unit tests: JSON objects in a map, with watches, patches and finalizers.
//!
//! It knows no defaults, no validation and no access rules; what it does know (generations, graceful deletion of
//! pods, finalizers, status apart from spec, preconditions) is what reconcilers lean on.

mod kinds;
mod patch;
mod route;
mod store;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_stream_of::receive;

use store::Store;

type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// The fake server. Clones share its objects.
#[derive(Clone, Default)]
pub struct FakeApi {
    store: Arc<Mutex<Store>>,
}

/// One request the server answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: String,
    /// Path and query.
    pub uri: String,
    pub body: Value,
}

impl FakeApi {
    /// A client of this server.
    #[must_use]
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Client::new(service, "default")
    }

    /// Creates or replaces an object as it is, with a new revision, and a uid and creation time where it has none.
    pub fn put(&self, object: &Value) -> u64 {
        self.store.lock().put(object.clone())
    }

    /// Removes an object at once.
    pub fn remove(&self, _api_version: &str, plural: &str, namespace: &str, name: &str) -> u64 {
        self.store.lock().remove(plural, namespace, name)
    }

    /// All objects of a plural.
    #[must_use]
    pub fn list(&self, plural: &str) -> Vec<Value> {
        self.store.lock().all(plural, None)
    }

    #[must_use]
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.lock().get(plural, namespace, name)
    }

    /// Changes a stored object in place, as another writer would.
    pub fn edit(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> u64 {
        let mut store = self.store.lock();
        let Some(mut object) = store.get(plural, namespace, name) else { return 0 };
        change(&mut object);
        store.put(object)
    }

    /// Waits until the objects of a plural are as wished; panics after five seconds.
    pub async fn until(&self, plural: &str, mut wished: impl FnMut(&[Value]) -> bool) {
        for _ in 0..1000 {
            if wished(&self.list(plural)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not as wished after 5 s: {plural} {:#?}", self.list(plural));
    }

    /// Ends all watches; those that resume are refused with this code, once each.
    pub fn break_watches(&self, code: u16) {
        self.store.lock().break_watches(code);
    }

    /// Answers the next creations of a plural with this code and message.
    pub fn refuse_creations(&self, plural: &str, times: usize, code: u16, message: &str) {
        self.store.lock().refuse(plural, times, code, message);
    }

    /// Answers the next requests of this method about one object of a plural with this code and message.
    pub fn refuse(&self, method: &str, plural: &str, times: usize, code: u16, message: &str) {
        self.store.lock().refuse(&format!("{method} {plural}"), times, code, message);
    }

    /// Answers every list of a plural with this code, from now on.
    pub fn refuse_lists(&self, plural: &str, code: u16) {
        self.store.lock().refuse_lists(plural, code);
    }

    /// The writes (everything but GET) answered so far.
    #[must_use]
    pub fn writes(&self) -> Vec<Call> {
        self.store.lock().calls.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Result<Reply, std::io::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        let uri = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let content = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let answer = {
            let mut store = self.store.lock();
            if parts.method != http::Method::GET {
                store.calls.push(Call { method: parts.method.to_string(), uri: uri.clone(), body: body.clone() });
            }
            route::answer(&mut store, parts.method.as_str(), &uri, content, body)
        };
        // Lets other tasks run between a request and its answer, as a network would.
        tokio::task::yield_now().await;
        Ok(match answer {
            route::Answer::Object(code, value) => {
                let body = Full::new(Bytes::from(serde_json::to_vec(&value)?)).map_err(|never| match never {});
                let mut reply = Response::new(body.boxed_unsync());
                *reply.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
                reply
            }
            route::Answer::Watch(receiver) => {
                let frames = receive(receiver).map(|line| Ok(Frame::data(Bytes::from(line))));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
        })
    }
}

mod tokio_stream_of {
    use futures::Stream;
    use tokio::sync::mpsc;

    /// A channel as a stream.
    pub(super) fn receive<T>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> {
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }
}
