//! The fake server's objects, their history and their watchers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Call;
use super::kinds;

type Key = (String, String, String);

struct Happening {
    revision: u64,
    kind: &'static str,
    plural: String,
    object: Value,
}

struct Watcher {
    plural: String,
    namespace: Option<String>,
    query: Vec<(String, String)>,
    sender: mpsc::UnboundedSender<String>,
}

#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Happening>,
    watchers: Vec<Watcher>,
    refusals: Vec<(String, usize, u16, String)>,
    unlisted: BTreeMap<String, u16>,
    broken: Option<u16>,
    uids: u64,
    pub(super) revision: u64,
    pub(super) calls: Vec<Call>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Store {
    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects.get(&(plural.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn all(&self, plural: &str, namespace: Option<&str>) -> Vec<Value> {
        self.objects
            .iter()
            .filter(|((p, n, _), _)| p == plural && namespace.is_none_or(|namespace| n == namespace))
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn put(&mut self, mut object: Value) -> u64 {
        let plural = kinds::by_kind(&text(&object["kind"])).map_or("unknown", |row| row.plural).to_owned();
        let key = (plural.clone(), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        self.revision += 1;
        let meta = &mut object["metadata"];
        if meta["uid"].is_null() {
            self.uids += 1;
            meta["uid"] = json!(format!("uid-{}", self.uids));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!(now());
        }
        meta["resourceVersion"] = json!(self.revision.to_string());
        let kind = if self.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.happened(kind, plural, object);
        self.revision
    }

    pub(super) fn remove(&mut self, plural: &str, namespace: &str, name: &str) -> u64 {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        if let Some(mut object) = self.objects.remove(&key) {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            self.happened("DELETED", plural.to_owned(), object);
        }
        self.revision
    }

    fn happened(&mut self, kind: &'static str, plural: String, object: Value) {
        let happening = Happening { revision: self.revision, kind, plural, object };
        self.watchers.retain(|watcher| watcher.tell(&happening));
        self.history.push(happening);
    }

    pub(super) fn watch(
        &mut self,
        plural: &str,
        namespace: Option<&str>,
        query: Vec<(String, String)>,
        after: u64,
    ) -> Result<mpsc::UnboundedReceiver<String>, u16> {
        if let Some(code) = self.broken.take() {
            return Err(code);
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let watcher = Watcher { plural: plural.to_owned(), namespace: namespace.map(str::to_owned), query, sender };
        for happening in self.history.iter().filter(|h| h.revision > after) {
            watcher.tell(happening);
        }
        self.watchers.push(watcher);
        Ok(receiver)
    }

    pub(super) fn break_watches(&mut self, code: u16) {
        self.watchers.clear();
        self.broken = Some(code);
    }

    pub(super) fn refuse(&mut self, plural: &str, times: usize, code: u16, message: &str) {
        self.refusals.push((plural.to_owned(), times, code, message.to_owned()));
    }

    pub(super) fn refuse_lists(&mut self, plural: &str, code: u16) {
        self.unlisted.insert(plural.to_owned(), code);
    }

    pub(super) fn list_refusal(&self, plural: &str) -> Option<u16> {
        self.unlisted.get(plural).copied()
    }

    pub(super) fn refusal(&mut self, plural: &str) -> Option<(u16, String)> {
        let (_, times, code, message) = self.refusals.iter_mut().find(|(p, times, ..)| p == plural && *times > 0)?;
        *times -= 1;
        Some((*code, message.clone()))
    }
}

impl Watcher {
    fn tell(&self, happening: &Happening) -> bool {
        let object = &happening.object;
        let here = self.namespace.as_ref().is_none_or(|n| object["metadata"]["namespace"] == n.as_str());
        if happening.plural != self.plural || !here || !selected(object, &self.query) {
            return !self.sender.is_closed();
        }
        self.sender.send(format!("{}\n", json!({"type": happening.kind, "object": object}))).is_ok()
    }
}

/// Equality selectors only.
pub(super) fn selected(object: &Value, query: &[(String, String)]) -> bool {
    query.iter().all(|(name, selector)| {
        selector.split(',').filter_map(|term| term.split_once('=')).all(|(path, wanted)| {
            let path = path.trim_end_matches('=');
            let found = match name.as_str() {
                "labelSelector" => &object["metadata"]["labels"][path],
                "fieldSelector" => path.split('.').fold(object, |value, part| &value[part]),
                _ => return true,
            };
            found.as_str().unwrap_or_default() == wanted.trim_start_matches('=')
        })
    })
}

pub(super) fn now() -> String {
    let now = k8s_openapi::jiff::Timestamp::now();
    k8s_openapi::jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", now).unwrap_or_default()
}
