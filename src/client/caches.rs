//! One shared cache per kind, started when first asked for.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Kind, Scope};

/// The caches that components share. Clones share them too.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    cancel: CancellationToken,
    started: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl Caches {
    #[must_use]
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, started: Arc::default() }
    }

    /// The cache of all objects of a kind.
    #[must_use]
    pub fn of<K: Kind + Resource<DynamicType = ()>>(&self) -> Cache<K> {
        let mut started = self.started.lock();
        if let Some(cache) = started.get(&TypeId::of::<K>()).and_then(|any| any.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let cache = Cache::spawn(&self.client, Scope::default(), self.cancel.clone());
        started.insert(TypeId::of::<K>(), Box::new(cache.clone()));
        cache
    }

    /// A cache of some objects of a kind, not shared.
    #[must_use]
    pub fn scoped<K: Kind + Resource<DynamicType = ()>>(&self, scope: Scope) -> Cache<K> {
        Cache::spawn(&self.client, scope, self.cancel.clone())
    }
}
