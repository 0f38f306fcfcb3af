//! The one mechanism under all controllers: changes become keys, keys are reconciled.
//!
//! Invariants: a key is reconciled by one worker at a time; after a write, not again before the caches have seen that
//! write; a panic costs the one reconcile it happened in. Nothing polls: beside changes there is only a slow resync.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use mini_client::cache::Kind;
use mini_client::{Cache, CancellationToken, Change, Queue};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Keys of one controller in work at once.
const WORKERS: usize = 8;
/// All keys are reconciled this often, whatever happens.
const RESYNC: Duration = Duration::from_secs(600);
/// How long to wait for a cache to show a write before going on without it.
const CATCH_UP: Duration = Duration::from_secs(10);

const POD: &str = "pod/";

/// Panics caught since the start, of all controllers.
pub(crate) static PANICS: AtomicU64 = AtomicU64::new(0);

/// What a reconcile is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// `""` for cluster-scoped kinds.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }

    /// A pod's key in the queue of a controller whose keys are of another kind: no object's name has a slash.
    pub(crate) fn of_pod(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let name = format!("{POD}{}", meta.name.as_deref().unwrap_or_default());
        Self::new(meta.namespace.clone().unwrap_or_default(), name)
    }

    /// The name of the pod that this key is about.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.name.strip_prefix(POD)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Why a reconcile must be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", message(.0))]
    Api(#[from] kube::Error),
    #[error("{0}")]
    NotYet(String),
}

impl Error {
    /// Somebody else wrote first, or the object is gone: reading again will tell.
    fn is_race(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if matches!(status.code, 404 | 409))
    }
}

/// The server's own words where there are any.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Turns "not found" into `None`.
pub(crate) fn optional<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code(&error) == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// When to come back without being asked; `None`: on the next change.
pub(crate) type Outcome = Result<Option<Duration>, Error>;

pub(crate) trait Controller: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn sources(&self) -> Vec<Source>;
    fn reconcile(&self, key: &Key, writes: &mut Writes) -> impl Future<Output = Outcome> + Send;
}

/// A cache, and which keys each of its changes concerns.
pub(crate) struct Source {
    synced: BoxFuture<'static, ()>,
    run: Box<dyn FnOnce(Queue<Key>) -> BoxFuture<'static, ()> + Send>,
}

impl Source {
    pub(crate) fn of<K: Kind>(cache: &Cache<K>, keys: impl Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static) -> Self {
        let (waiting, cache) = (cache.clone(), cache.clone());
        Self {
            synced: async move { waiting.synced().await }.boxed(),
            run: Box::new(move |queue| feed(cache, keys, queue).boxed()),
        }
    }

    /// The changed object's own key.
    pub(crate) fn own<K: Kind>(cache: &Cache<K>) -> Self {
        Self::of(cache, |change| vec![Key::of(change.object().as_ref())])
    }

    /// The keys of the changed object as it is and as it was.
    pub(crate) fn both<K: Kind>(cache: &Cache<K>, keys: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static) -> Self {
        Self::of(cache, move |change| change.states().flat_map(|object| keys(object)).collect())
    }
}

async fn feed<K: Kind>(cache: Cache<K>, keys: impl Fn(&Change<K>) -> Vec<Key> + Send, queue: Queue<Key>) {
    let put = |change: &Change<K>| match std::panic::catch_unwind(AssertUnwindSafe(|| keys(change))) {
        Ok(keys) => keys.into_iter().for_each(|key| queue.add(key)),
        Err(_) => panicked("a mapping"),
    };
    let mut subscription = cache.subscribe();
    let mut resync = interval_at(Instant::now() + RESYNC, RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = subscription.next() => match change {
                Some(change) => put(&change),
                None => return,
            },
            _ = resync.tick() => cache.list().into_iter().for_each(|object| put(&Change::Added(object))),
        }
    }
}

fn panicked(what: &str) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    tracing::error!("{what} panicked; going on without it");
}

/// What a reconcile wrote, so that its key can rest until the caches show it.
#[derive(Default)]
pub(crate) struct Writes {
    /// The latest write to each cache, by the cache.
    written: HashMap<usize, (u64, BoxFuture<'static, ()>)>,
    others: Vec<BoxFuture<'static, ()>>,
}

impl Writes {
    /// An object was created or changed; `object` is the server's answer.
    pub(crate) fn wrote<K: Kind>(&mut self, cache: &Cache<K>, object: &K) {
        let revision: Option<u64> = object.meta().resource_version.as_deref().and_then(|rv| rv.parse().ok());
        let Some(revision) = revision else { return };
        // A cache that has come to the last of many writes has all: one wait instead of a thousand that wake each time.
        if self.written.get(&cache.id()).is_none_or(|(before, _)| *before < revision) {
            let waiting = cache.clone();
            let seen = async move { waiting.reached(revision).await }.boxed();
            self.written.insert(cache.id(), (revision, seen));
        }
    }

    /// An object was deleted; `object` is its state before.
    pub(crate) fn deleted<K: Kind>(&mut self, cache: &Cache<K>, object: &K) {
        self.all_deleted(cache, std::iter::once(object));
    }

    /// Objects were deleted; these are their states before.
    pub(crate) fn all_deleted<'a, K: Kind>(&mut self, cache: &Cache<K>, objects: impl IntoIterator<Item = &'a K>) {
        let left: Vec<_> = objects.into_iter().map(|object| (Key::of(object), object.meta().uid.clone())).collect();
        let left = parking_lot::Mutex::new(left);
        let cache = cache.clone();
        let seen = async move {
            let leaving = |cache: &Cache<K>, (key, uid): &(Key, Option<String>)| {
                let found = cache.get(&key.namespace, &key.name);
                found.is_none_or(|found| found.meta().uid != *uid || found.meta().deletion_timestamp.is_some())
            };
            let all_leaving = |cache: &Cache<K>| {
                let mut left = left.lock();
                while left.last().is_some_and(|last| leaving(cache, last)) {
                    left.pop();
                }
                left.is_empty()
            };
            cache.until(all_leaving).await;
        };
        self.others.push(seen.boxed());
    }

    /// Something was done that the cache will show by `holds`.
    pub(crate) fn until<K: Kind>(
        &mut self,
        cache: &Cache<K>,
        holds: impl Fn(&Cache<K>) -> bool + Send + Sync + 'static,
    ) {
        let cache = cache.clone();
        self.others.push(async move { cache.until(holds).await }.boxed());
    }

    async fn seen(self, name: &str, key: &Key) {
        let all: Vec<_> = self.written.into_values().map(|(_, seen)| seen).chain(self.others).collect();
        if !all.is_empty() && timeout(CATCH_UP, futures::future::join_all(all)).await.is_err() {
            tracing::warn!(controller = name, %key, "the caches are behind; going on");
        }
    }
}

/// One controller: a future that resolves when its caches are full, and one that runs until `cancel`.
pub(crate) fn run<C: Controller>(
    controller: C,
    cancel: CancellationToken,
) -> (BoxFuture<'static, ()>, BoxFuture<'static, ()>) {
    let queue = Queue::<Key>::new();
    let (mut synced, mut feeds) = (Vec::new(), Vec::new());
    for source in controller.sources() {
        synced.push(source.synced);
        feeds.push((source.run)(queue.clone()));
    }
    let full = futures::future::join_all(synced).map(|_| ()).boxed().shared();
    let ready = full.clone();
    let run = async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = async {
                ready.await;
                tokio::join!(futures::future::join_all(feeds), work(Arc::new(controller), queue));
            } => {}
        }
    };
    (full.boxed(), run.boxed())
}

async fn work<C: Controller>(controller: Arc<C>, queue: Queue<Key>) {
    let workers = Arc::new(Semaphore::new(WORKERS));
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok(permit) = workers.clone().acquire_owned().await {
        let Some(key) = queue.next().await else { return };
        while tasks.try_join_next().is_some() {}
        let (controller, queue) = (controller.clone(), queue.clone());
        tasks.spawn(async move {
            one(controller.as_ref(), &queue, &key).await;
            queue.done(&key);
            drop(permit);
        });
    }
}

async fn one<C: Controller>(controller: &C, queue: &Queue<Key>, key: &Key) {
    let mut writes = Writes::default();
    let outcome = AssertUnwindSafe(controller.reconcile(key, &mut writes)).catch_unwind().await;
    // Also after a failure: part of the work may be written.
    writes.seen(controller.name(), key).await;
    match outcome {
        Ok(Ok(again)) => {
            queue.forget(key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
        }
        Ok(Err(error)) => {
            if error.is_race() || queue.retries(key) < 3 {
                tracing::debug!(controller = controller.name(), %key, %error, "to be tried again");
            } else {
                tracing::warn!(controller = controller.name(), %key, %error, "keeps failing");
            }
            queue.retry(key.clone());
        }
        Err(_) => {
            panicked(controller.name());
            queue.retry(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::fake::Running;

    /// Counts its runs; panics on the first ones.
    struct Clumsy {
        maps: Cache<ConfigMap>,
        runs: Arc<AtomicUsize>,
        panics: usize,
    }

    impl Controller for Clumsy {
        fn name(&self) -> &'static str {
            "clumsy"
        }

        fn sources(&self) -> Vec<Source> {
            vec![Source::own(&self.maps)]
        }

        async fn reconcile(&self, _: &Key, _: &mut Writes) -> Outcome {
            assert!(self.runs.fetch_add(1, Ordering::SeqCst) >= self.panics, "on purpose");
            Ok(None)
        }
    }

    // The clock goes on only when nothing is left to do.
    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_one_run_and_an_idle_controller_does_nothing() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "a"}});
        let running = Running::new(&[map]);
        let runs = Arc::new(AtomicUsize::new(0));
        running.start(Clumsy { maps: running.caches.of(), runs: runs.clone(), panics: 2 });
        tokio::time::sleep(RESYNC / 2).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
