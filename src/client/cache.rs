//! A local copy of one kind, kept current by a reflector, with subscriptions to its changes.
//!
//! Objects are shared (`Arc`) and never carry `managedFields`. Invariant: a subscriber sees, in order, exactly the
//! changes that turn the contents it started with into the present ones.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use kube::api::ApiResource;
use kube::{Client, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::reflector::{Sink, follow};

/// What a cache may hold: any kind kube can read.
pub trait Kind: Resource + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}
impl<K: Resource + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Kind for K {}

/// Which objects of a kind a cache holds; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub namespace: Option<String>,
    /// A label selector as in `?labelSelector=`.
    pub labels: Option<String>,
    /// A field selector as in `?fieldSelector=`.
    pub fields: Option<String>,
}

/// One change of a cache's contents. `Deleted` carries the last state known.
#[derive(Debug)]
pub enum Change<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(object.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Deleted(object) => Self::Deleted(object.clone()),
        }
    }
}

impl<K> Change<K> {
    /// The object after the change; for a deletion, its last state.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted(object) => object,
        }
    }

    /// The object after the change and, where it is an update, before it.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        std::iter::once(self.object()).chain(self.old())
    }

    /// The object before an update.
    #[must_use]
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { old, .. } => Some(old),
            _ => None,
        }
    }
}

/// How far a cache has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    synced: bool,
    revision: u64,
}

type Objects<K> = BTreeMap<String, BTreeMap<String, Arc<K>>>;

pub(crate) struct Contents<K> {
    objects: RwLock<State<K>>,
    progress: watch::Sender<Progress>,
}

struct State<K> {
    objects: Objects<K>,
    subscribers: Vec<mpsc::UnboundedSender<Change<K>>>,
}

/// A shared, current copy of one kind. Clones share it.
pub struct Cache<K> {
    contents: Arc<Contents<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { contents: self.contents.clone() }
    }
}

impl<K: Kind> Cache<K> {
    /// Starts a cache of a kind known at compile time; it stops when `cancel` does.
    #[must_use]
    pub fn spawn(client: &Client, scope: Scope, cancel: CancellationToken) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let url = K::url_path(&(), scope.namespace.as_deref());
        Self::start(client, url, scope, cancel)
    }

    /// Starts a cache of a kind known at run time.
    #[must_use]
    pub fn spawn_dynamic(client: &Client, kind: &ApiResource, scope: Scope, cancel: CancellationToken) -> Self
    where
        K: Resource<DynamicType = ApiResource>,
    {
        let url = K::url_path(kind, scope.namespace.as_deref());
        Self::start(client, url, scope, cancel)
    }

    fn start(client: &Client, url: String, scope: Scope, cancel: CancellationToken) -> Self {
        let cache = Self::detached();
        tokio::spawn(follow(client.clone(), url, scope, cache.contents.clone(), cancel));
        cache
    }

    fn detached() -> Self {
        let state = State { objects: BTreeMap::new(), subscribers: Vec::new() };
        let contents = Contents { objects: RwLock::new(state), progress: watch::Sender::new(Progress::default()) };
        Self { contents: Arc::new(contents) }
    }

    /// The same for all clones of a cache, and for no other one.
    #[must_use]
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.contents) as usize
    }

    /// Resolves once the first full list is in.
    pub async fn synced(&self) {
        let mut progress = self.contents.progress.subscribe();
        // An error means that the reflector is gone, which only happens at shutdown.
        let _ = progress.wait_for(|p| p.synced).await;
    }

    /// True once the first full list is in.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.contents.progress.borrow().synced
    }

    /// Resolves once the cache holds everything up to `revision`. Meant for the revision of a write to this very
    /// kind: other kinds' revisions are reached only when the server sends a bookmark.
    pub async fn reached(&self, revision: u64) {
        let mut progress = self.contents.progress.subscribe();
        let _ = progress.wait_for(|p| p.synced && p.revision >= revision).await;
    }

    /// Resolves once `holds` does; it is asked again after each change.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut progress = self.contents.progress.subscribe();
        while !holds(self) {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// The newest revision seen.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.contents.progress.borrow().revision
    }

    /// One object; `namespace` is `""` for cluster-scoped kinds.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.contents.objects.read().objects.get(namespace)?.get(name).cloned()
    }

    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.contents.objects.read().objects.values().flat_map(|names| names.values().cloned()).collect()
    }

    #[must_use]
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.contents.objects.read().objects.get(namespace).into_iter().flat_map(|n| n.values().cloned()).collect()
    }

    /// How many objects the cache holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.contents.objects.read().objects.values().map(BTreeMap::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All changes from now on, starting with the present contents as `Added`.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<K> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.contents.objects.write();
        for object in state.objects.values().flat_map(BTreeMap::values) {
            let _ = sender.send(Change::Added(object.clone()));
        }
        state.subscribers.push(sender);
        Subscription { receiver }
    }
}

/// The changes of a cache, in order.
#[derive(Debug)]
pub struct Subscription<K> {
    receiver: mpsc::UnboundedReceiver<Change<K>>,
}

impl<K> Subscription<K> {
    /// The next change; `None` once the cache is gone.
    pub async fn next(&mut self) -> Option<Change<K>> {
        self.receiver.recv().await
    }

    /// A change that is already there.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.receiver.try_recv().ok()
    }
}

impl<K: Kind> Sink<K> for Contents<K> {
    fn replace(&self, listed: Vec<K>, revision: u64) {
        let mut fresh: Objects<K> = BTreeMap::new();
        let mut newest = revision;
        for object in listed {
            newest = newest.max(revision_of(&object));
            let (namespace, name) = key_of(&object);
            fresh.entry(namespace).or_default().insert(name, Arc::new(object));
        }
        let mut state = self.objects.write();
        let mut changes = Vec::new();
        for (namespace, names) in &mut fresh {
            let before = state.objects.get(namespace);
            for (name, new) in names {
                match before.and_then(|names| names.get(name)) {
                    None => changes.push(Change::Added(new.clone())),
                    Some(old) if old.meta().uid != new.meta().uid => {
                        changes.push(Change::Deleted(old.clone()));
                        changes.push(Change::Added(new.clone()));
                    }
                    Some(old) if old.meta().resource_version == new.meta().resource_version => *new = old.clone(),
                    Some(old) => changes.push(Change::Updated { old: old.clone(), new: new.clone() }),
                }
            }
        }
        for (namespace, names) in &state.objects {
            let after = fresh.get(namespace);
            for (name, old) in names {
                if after.is_none_or(|names| !names.contains_key(name)) {
                    changes.push(Change::Deleted(old.clone()));
                }
            }
        }
        state.objects = fresh;
        for change in changes {
            state.publish(&change);
        }
        drop(state);
        self.note(newest, true);
    }

    fn apply(&self, object: K) {
        let revision = revision_of(&object);
        let (namespace, name) = key_of(&object);
        let new = Arc::new(object);
        let mut state = self.objects.write();
        let names = state.objects.entry(namespace).or_default();
        let change = match names.insert(name, new.clone()) {
            None => vec![Change::Added(new)],
            // The deletion in between was missed; whoever counts objects must still hear of it.
            Some(old) if old.meta().uid != new.meta().uid => vec![Change::Deleted(old), Change::Added(new)],
            Some(old) => vec![Change::Updated { old, new }],
        };
        for change in &change {
            state.publish(change);
        }
        drop(state);
        self.note(revision, false);
    }

    fn delete(&self, object: K) {
        let revision = revision_of(&object);
        let (namespace, name) = key_of(&object);
        let mut state = self.objects.write();
        if let Some(names) = state.objects.get_mut(&namespace)
            && names.remove(&name).is_some()
        {
            if names.is_empty() {
                state.objects.remove(&namespace);
            }
            state.publish(&Change::Deleted(Arc::new(object)));
        }
        drop(state);
        self.note(revision, false);
    }

    fn advance(&self, revision: u64) {
        self.note(revision, false);
    }
}

impl<K> Contents<K> {
    /// Everything up to `revision` is in.
    fn note(&self, revision: u64, synced: bool) {
        self.progress.send_modify(|progress| {
            progress.synced |= synced;
            progress.revision = progress.revision.max(revision);
        });
    }
}

impl<K> State<K> {
    fn publish(&mut self, change: &Change<K>) {
        self.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }
}

fn key_of<K: Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

pub(crate) fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|rv| rv.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::testing::FakeApi;

    fn map(name: &str, revision: u64, value: &str) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name, "uid": format!("u-{name}"),
            "resourceVersion": revision.to_string()}, "data": {"k": value}}))
        .unwrap()
    }

    fn drain(subscription: &mut Subscription<ConfigMap>) -> Vec<String> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|change| {
                let name = change.object().metadata.name.clone().unwrap_or_default();
                match change {
                    Change::Added(_) => format!("+{name}"),
                    Change::Updated { .. } => format!("~{name}"),
                    Change::Deleted(_) => format!("-{name}"),
                }
            })
            .collect()
    }

    #[test]
    fn a_relist_tells_subscribers_what_was_missed() {
        let cache = Cache::<ConfigMap>::detached();
        cache.contents.replace(vec![map("gone", 1, "x"), map("same", 2, "x"), map("changed", 3, "x")], 3);
        let mut subscription = cache.subscribe();
        assert_eq!(drain(&mut subscription), ["+changed", "+gone", "+same"]);
        cache.contents.replace(vec![map("same", 2, "x"), map("changed", 5, "y"), map("new", 6, "x")], 7);
        assert_eq!(drain(&mut subscription), ["~changed", "+new", "-gone"]);
        assert_eq!(cache.revision(), 7);
        assert!(cache.get("a", "gone").is_none());
    }

    #[test]
    fn a_deletion_missed_between_two_objects_of_one_name_is_told() {
        let cache = Cache::<ConfigMap>::detached();
        cache.contents.replace(vec![map("a", 1, "x")], 1);
        let mut subscription = cache.subscribe();
        drain(&mut subscription);
        let mut next = map("a", 4, "x");
        next.metadata.uid = Some("another".to_owned());
        cache.contents.apply(next);
        assert_eq!(drain(&mut subscription), ["-a", "+a"]);
    }

    #[tokio::test]
    async fn reached_waits_for_the_revision() {
        let cache = Cache::<ConfigMap>::detached();
        cache.contents.replace(vec![], 4);
        assert!(timeout(Duration::from_millis(20), cache.reached(5)).await.is_err());
        cache.contents.apply(map("a", 5, "x"));
        timeout(Duration::from_millis(200), cache.reached(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_cache_follows_the_server_and_drops_managed_fields() {
        let api = FakeApi::default();
        api.put(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "a", "name": "one",
            "managedFields": [{"manager": "kubectl"}]}}));
        let cancel = CancellationToken::new();
        let cache = Cache::<ConfigMap>::spawn(&api.client(), Scope::default(), cancel.clone());
        timeout(Duration::from_secs(5), cache.synced()).await.unwrap();
        assert!(cache.get("a", "one").unwrap().metadata.managed_fields.is_none());
        let revision =
            api.put(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "b", "name": "two"}}));
        timeout(Duration::from_secs(5), cache.reached(revision)).await.unwrap();
        assert_eq!(cache.list_in("b").len(), 1);
        let revision = api.remove("v1", "configmaps", "a", "one");
        timeout(Duration::from_secs(5), cache.reached(revision)).await.unwrap();
        assert_eq!(cache.len(), 1);
        cancel.cancel();
    }

    #[tokio::test]
    async fn a_cache_goes_on_without_what_it_cannot_read() {
        let api = FakeApi::default();
        let put = |name: &str, data: serde_json::Value| {
            api.put(&json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                            "metadata": {"namespace": "a", "name": name}}))
        };
        put("odd", json!(["no map"]));
        put("one", json!({}));
        let cancel = CancellationToken::new();
        let cache = Cache::<ConfigMap>::spawn(&api.client(), Scope::default(), cancel.clone());
        timeout(Duration::from_secs(5), cache.synced()).await.unwrap();
        assert!(cache.get("a", "odd").is_none() && cache.get("a", "one").is_some());
        let revision = put("odd", json!(["still none"]));
        timeout(Duration::from_secs(5), cache.reached(revision)).await.unwrap();
        let revision = put("two", json!({}));
        timeout(Duration::from_secs(5), cache.reached(revision)).await.unwrap();
        assert_eq!(cache.len(), 2);
        cancel.cancel();
    }

    #[tokio::test]
    async fn a_cache_lists_again_when_its_revision_is_too_old() {
        let api = FakeApi::default();
        let cancel = CancellationToken::new();
        let cache = Cache::<ConfigMap>::spawn(&api.client(), Scope::default(), cancel.clone());
        cache.synced().await;
        api.break_watches(410);
        let revision =
            api.put(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "b", "name": "two"}}));
        timeout(Duration::from_secs(5), cache.reached(revision)).await.unwrap();
        assert_eq!(cache.len(), 1);
        cancel.cancel();
    }
}
