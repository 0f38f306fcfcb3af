//! Keeps the index true: follows Namespaces, Services and EndpointSlices straight into it.
//!
//! Reflectors feed the index itself and not a cache beside it: each object is held once, as the few facts that names
//! need. While the API is away the index stays as it is.

use super::facts::{Service, Slice};
use super::index::{Index, Key};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use mini_client::cache::Kind;
use mini_client::{CancellationToken, Client, Scope, Sink, follow};
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

/// A kind that names come from.
trait Source: Kind + Resource<DynamicType = ()> {
    /// Its place among the kinds that must be listed before names are told.
    const BIT: u8;
    fn known(index: &Index) -> Vec<Key>;
    fn set(index: &mut Index, key: &Key, object: Option<&Self>);
}

impl Source for core::Namespace {
    const BIT: u8 = 1;
    fn known(index: &Index) -> Vec<Key> {
        index.namespaces().collect()
    }
    fn set(index: &mut Index, (_, name): &Key, object: Option<&Self>) {
        index.set_namespace(name, object.is_some());
    }
}

impl Source for core::Service {
    const BIT: u8 = 2;
    fn known(index: &Index) -> Vec<Key> {
        index.services().collect()
    }
    fn set(index: &mut Index, key: &Key, object: Option<&Self>) {
        index.set_service(key, object.map(Service::of));
    }
}

impl Source for EndpointSlice {
    const BIT: u8 = 4;
    fn known(index: &Index) -> Vec<Key> {
        index.slices().collect()
    }
    fn set(index: &mut Index, key: &Key, object: Option<&Self>) {
        index.set_slice(key, object.and_then(Slice::of));
    }
}

const ALL: u8 = core::Namespace::BIT | core::Service::BIT | EndpointSlice::BIT;

/// The index, shared between those who change it and those who ask it.
#[derive(Default)]
pub(super) struct Shared {
    index: RwLock<Index>,
    /// One bit for each kind.
    listed: watch::Sender<u8>,
}

impl Shared {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    /// True once all kinds were listed. Before, a name that is not found may yet exist.
    pub(super) fn is_complete(&self) -> bool {
        *self.listed.borrow() == ALL
    }

    /// Resolves once all kinds were listed.
    pub(super) async fn completed(&self) {
        // It only fails without a sender, and that is here.
        let _ = self.listed.subscribe().wait_for(|listed| *listed == ALL).await;
    }

    /// Follows the API until `cancel`.
    pub(super) fn follow(self: &Arc<Self>, client: &Client, cancel: &CancellationToken) {
        self.follow_kind::<core::Namespace>(client, cancel);
        self.follow_kind::<core::Service>(client, cancel);
        self.follow_kind::<EndpointSlice>(client, cancel);
    }

    fn follow_kind<K: Source>(self: &Arc<Self>, client: &Client, cancel: &CancellationToken) {
        let sink = Arc::new(Feed(self.clone()));
        let url = K::url_path(&(), None);
        tokio::spawn(follow::<K, _>(client.clone(), url, Scope::default(), sink, cancel.clone()));
    }

    /// An index whose contents are all there is.
    #[cfg(test)]
    pub(super) fn complete(index: Index) -> Arc<Self> {
        Arc::new(Self { index: RwLock::new(index), listed: watch::Sender::new(ALL) })
    }
}

/// What reflectors write to.
struct Feed(Arc<Shared>);

impl<K: Source> Sink<K> for Feed {
    fn replace(&self, listed: Vec<K>, _revision: u64) {
        let mut index = self.0.index.write();
        let present: HashSet<Key> = listed.iter().map(key).collect();
        for gone in K::known(&index).iter().filter(|known| !present.contains(*known)) {
            K::set(&mut index, gone, None);
        }
        for object in &listed {
            K::set(&mut index, &key(object), Some(object));
        }
        drop(index);
        self.0.listed.send_modify(|listed| *listed |= K::BIT);
    }

    fn apply(&self, object: K) {
        K::set(&mut self.0.index.write(), &key(&object), Some(&object));
    }

    fn delete(&self, object: K) {
        K::set(&mut self.0.index.write(), &key(&object), None);
    }

    fn advance(&self, _revision: u64) {}
}

fn key<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_client::testing::FakeApi;
    use serde_json::json;
    use std::time::Duration;

    async fn until(what: &str, met: impl Fn() -> bool) {
        for _ in 0..1000 {
            if met() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("in vain: {what}");
    }

    #[tokio::test]
    async fn the_index_follows_the_api_and_outlives_its_absence() {
        let api = FakeApi::default();
        let service = |name: &str, ip: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": name},
                "spec": {"clusterIPs": [ip], "ports": [{"port": 80}]}})
        };
        api.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
        api.put(&service("one", "10.0.0.1"));
        api.put(&service("two", "10.0.0.2"));
        let shared = Arc::new(Shared::default());
        assert!(!shared.is_complete());
        let cancel = CancellationToken::new();
        shared.follow(&api.client(), &cancel);
        until("the lists", || shared.is_complete()).await;
        assert!(shared.read().has_namespace("a"));
        assert!(shared.read().names("a", "one").is_some());

        // A change, then one that happens while no watch can be had.
        api.put(&service("three", "10.0.0.3"));
        until("a new service", || shared.read().names("a", "three").is_some()).await;
        api.break_watches(410);
        api.remove("v1", "services", "a", "two");
        api.put(&service("one", "10.0.0.9"));
        until("the missed deletion", || shared.read().names("a", "two").is_none()).await;
        let moved = "10.0.0.9".parse().unwrap();
        until("the missed change", || shared.read().pointers(moved).is_some()).await;
        assert!(shared.read().pointers("10.0.0.1".parse().unwrap()).is_none());
        cancel.cancel();
    }
}
