//! Events of components, written in the background.
//!
//! The first (object, type, reason, message) creates an Event; repeats raise its `count` and `lastTimestamp`.
//! Invariant: recording never blocks its caller and never floods the API: each object has a budget.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events waiting to be written; more are dropped.
const WAITING: usize = 1024;
/// Distinct events whose repeats are still recognised.
const REMEMBERED: usize = 2048;
/// An object may cause this many writes at once, then one per `REFILL` (upstream's spam filter).
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        })
    }
}

/// The reference that an object's events carry.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// One component's voice. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
}

#[derive(Clone, Debug)]
struct Note {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    subject: Subject,
    field_path: Option<String>,
    kind: EventType,
    reason: String,
    message: String,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Subject {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

impl Recorder {
    /// `component` becomes the event's source, `host` the node it came from (may be empty).
    #[must_use]
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = Writer {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            written: HashMap::new(),
            order: VecDeque::new(),
            budgets: HashMap::new(),
        };
        tokio::spawn(writer.run(receiver));
        Self { sender }
    }

    /// Records an event. Never blocks; drops it when too many wait.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let note = Note {
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.sender.try_send(note).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting");
        }
    }
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    written: HashMap<Key, (String, i32)>,
    order: VecDeque<Key>,
    budgets: HashMap<Subject, (f64, Instant)>,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            let subject = Subject {
                kind: note.object.kind.clone(),
                namespace: note.object.namespace.clone(),
                name: note.object.name.clone(),
                uid: note.object.uid.clone(),
            };
            if !self.afford(&subject) {
                continue;
            }
            let key = Key {
                subject,
                field_path: note.object.field_path.clone(),
                kind: note.kind,
                reason: note.reason.clone(),
                message: note.message.clone(),
            };
            if let Err(error) = self.write(key, &note).await {
                tracing::debug!(reason = note.reason, %error, "event not written");
            }
        }
    }

    /// Takes one write from the object's budget.
    fn afford(&mut self, subject: &Subject) -> bool {
        let now = Instant::now();
        if self.budgets.len() > REMEMBERED {
            self.budgets.retain(|_, (_, at)| now.duration_since(*at) < REFILL);
        }
        let (tokens, at) = self.budgets.entry(subject.clone()).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    async fn write(&mut self, key: Key, note: &Note) -> Result<(), kube::Error> {
        // Events of cluster-scoped objects live in `default`.
        let namespace = note.object.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some((name, count)) = self.written.get_mut(&key) {
            *count = count.saturating_add(1);
            let patch = json!({"count": *count, "lastTimestamp": Time(note.at), "message": note.message});
            match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                // Expired or deleted meanwhile: say it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => return result.map(|_| ()),
            }
        }
        let event = self.build(namespace, note);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        if self.written.insert(key.clone(), (name, 1)).is_none() {
            self.order.push_back(key);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.written.remove(&oldest);
            }
        }
        Ok(())
    }

    fn build(&self, namespace: &str, note: &Note) -> Event {
        let name = format!("{}.{:x}", note.object.name.as_deref().unwrap_or_default(), note.at.as_nanosecond());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
            involved_object: note.object.clone(),
            type_: Some(note.kind.to_string()),
            reason: Some(note.reason.clone()),
            message: Some(note.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(note.at)),
            last_timestamp: Some(Time(note.at)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|h| !h.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;

    fn pod() -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some("a".into()),
            name: Some("web".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        }
    }

    #[tokio::test]
    async fn repeats_raise_the_count_of_one_event() {
        let api = FakeApi::default();
        let recorder = Recorder::new(api.client(), "kubelet", "node-1");
        for _ in 0..3 {
            recorder.event(&pod(), EventType::Warning, "BackOff", "again");
        }
        recorder.event(&pod(), EventType::Normal, "Started", "once");
        api.until("events", |events| events.len() == 2 && events.iter().any(|e| e["count"] == 3)).await;
        let repeated = api.list("events").into_iter().find(|e| e["count"] == 3).unwrap();
        assert!(repeated["metadata"]["name"].as_str().unwrap().starts_with("web."));
        assert_eq!(repeated["source"]["component"], "kubelet");
        assert_eq!(repeated["involvedObject"]["name"], "web");
    }

    #[tokio::test]
    async fn one_object_cannot_flood_the_server() {
        let api = FakeApi::default();
        let recorder = Recorder::new(api.client(), "kubelet", "");
        for n in 0..40 {
            recorder.event(&pod(), EventType::Warning, "Failed", format!("number {n}"));
        }
        let mut other = pod();
        other.uid = Some("v".into());
        recorder.event(&other, EventType::Normal, "Started", "last");
        api.until("events", |events| events.iter().any(|e| e["message"] == "last")).await;
        assert_eq!(api.list("events").len(), 26);
    }
}
