//! The pods of the node: one worker each, fed by a channel of wanted pods.

use crate::cluster::Cluster;
use crate::images::pull::Puller;
use crate::metrics::probes::Probes;
use crate::pod::observed;
use crate::pod::worker::{End, Order, Worker};
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::{Config, admission, dns, events, labels, pod, resources};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often everything is compared with containerd, whatever events said.
const RELIST: Duration = Duration::from_secs(60);
/// When something that failed without a back-off of its own is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How many workers read from containerd at once.
const READS: usize = 8;
/// A worker that panicked begins again after this long at first.
const PANIC_PAUSE: Duration = Duration::from_secs(1);
const PANIC_PAUSE_MAX: Duration = Duration::from_secs(60);

/// One change of the set of pods this node shall run.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A pod, new or changed.
    Pod(Arc<Pod>),
    /// The object is gone.
    Gone(Arc<Pod>),
    /// All pods that exist have been sent: whatever else containerd has is nobody's.
    Complete,
    /// A ConfigMap or Secret that the pod of this UID uses has changed.
    Touched(String),
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) runtime: Runtime,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) puller: Puller,
    pub(crate) directory: Directory,
    pub(crate) node_memory: i64,
    pub(crate) reads: Semaphore,
    pub(crate) stats: Stats,
    pub(crate) probes: Probes,
    panics: AtomicU64,
}

impl Shared {
    pub(crate) fn event(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &str, message: String) {
        self.cluster.event(pod::reference(pod, container), warning, reason, message);
    }

    pub(crate) fn retry_at(&self) -> Instant {
        Instant::now() + RETRY
    }
}

/// Which worker a container or sandbox belongs to.
#[derive(Default)]
pub(crate) struct Directory {
    by_id: Mutex<HashMap<String, Arc<Wake>>>,
}

impl Directory {
    pub(crate) fn put(&self, id: &str, wake: &Arc<Wake>) {
        self.by_id.lock().insert(id.to_owned(), Arc::clone(wake));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.by_id.lock().remove(id);
    }

    pub(crate) fn ended(&self, id: &str) {
        if let Some(wake) = self.by_id.lock().get(id) {
            wake.change(|w| w.ended.push(id.to_owned()));
        }
    }

    pub(crate) fn relist_all(&self) {
        for wake in self.by_id.lock().values() {
            wake.change(|w| w.relist = true);
        }
    }
}

/// Why a worker was woken.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    pub(crate) relist: bool,
    /// A ConfigMap or Secret changed.
    pub(crate) references: bool,
    /// Containers whose end was announced.
    pub(crate) ended: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Wake {
    why: Mutex<Woken>,
    notify: Notify,
}

impl Wake {
    fn change(&self, note: impl FnOnce(&mut Woken)) {
        note(&mut self.why.lock());
        self.notify.notify_one();
    }

    pub(crate) fn now(&self) {
        self.notify.notify_one();
    }

    pub(crate) fn take(&self) -> Woken {
        std::mem::take(&mut *self.why.lock())
    }

    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

struct Handle {
    orders: watch::Sender<Order>,
    wake: Arc<Wake>,
}

/// The running node agent. Clones share it.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    workers: Mutex<HashMap<String, Handle>>,
    /// Pods of which containerd had something when we started.
    adopted: HashSet<String>,
    tasks: TaskTracker,
    draining: Mutex<bool>,
    /// Held by the one task that compares everything with containerd.
    tending: Arc<tokio::sync::Mutex<()>>,
}

impl Agent {
    /// Looks at what containerd has, then runs the pods that come through `wanted` until `cancel`; containers stay.
    ///
    /// # Errors
    /// When containerd cannot be read.
    pub async fn spawn(
        config: Config,
        runtime: Runtime,
        cluster: Arc<dyn Cluster>,
        mut wanted: mpsc::UnboundedReceiver<Wanted>,
        cancel: CancellationToken,
    ) -> Result<Self, tonic::Status> {
        let adopted = observed::uids(&runtime).await?.into_keys().collect();
        let shared = Arc::new(Shared {
            config,
            runtime,
            cluster,
            puller: Puller::default(),
            directory: Directory::default(),
            node_memory: resources::machine_memory(),
            reads: Semaphore::new(READS),
            stats: Stats::default(),
            probes: Probes::default(),
            panics: AtomicU64::new(0),
        });
        let agent = Self {
            inner: Arc::new(Inner {
                shared: Arc::clone(&shared),
                workers: Mutex::default(),
                adopted,
                tasks: TaskTracker::new(),
                draining: Mutex::new(false),
                tending: Arc::default(),
            }),
        };
        tokio::spawn(events::follow(Arc::clone(&shared), cancel.clone()));
        let driver = agent.clone();
        tokio::spawn(async move {
            let mut relist = tokio::time::interval_at((Instant::now() + RELIST).into(), RELIST);
            let mut complete = false;
            loop {
                tokio::select! {
                    () = cancel.cancelled() => break,
                    next = wanted.recv() => match next {
                        Some(Wanted::Complete) => {
                            if !complete {
                                tokio::spawn(dns::follow(driver.clone(), cancel.clone()));
                            }
                            complete = true;
                            driver.tend(false, true);
                        }
                        Some(change) => driver.apply(change),
                        None => break,
                    },
                    _ = relist.tick() => driver.tend(true, complete),
                }
            }
            // Dropping the senders ends the workers; their containers run on.
            if !*driver.inner.draining.lock() {
                driver.inner.workers.lock().clear();
            }
        });
        Ok(agent)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.inner.shared)
    }

    /// The pods that have a worker.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.inner.workers.lock().values().map(|h| Arc::clone(&h.orders.borrow().pod)).collect()
    }

    /// The pod of a name. The one before it may still be ending: without a `uid` the youngest counts.
    pub(crate) fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        let workers = self.inner.workers.lock();
        let orders = workers.values().map(|handle| handle.orders.borrow().clone()).filter(|order| {
            pod::namespace(&order.pod) == namespace
                && pod::name(&order.pod) == name
                && uid.is_none_or(|uid| pod::uid(&order.pod) == uid)
        });
        let age = |order: &Order| (!order.ends(), order.pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
        orders.max_by_key(age).map(|order| order.pod)
    }

    fn apply(&self, change: Wanted) {
        let inner = &self.inner;
        if *inner.draining.lock() {
            return;
        }
        let mut workers = inner.workers.lock();
        match change {
            Wanted::Pod(pod) => {
                let uid = pod::uid(&pod).to_owned();
                if let Some(handle) = workers.get(&uid) {
                    handle.orders.send_replace(Order { pod, end: None });
                    return;
                }
                let (orders, receiver) = watch::channel(Order { pod, end: None });
                let wake = Arc::new(Wake::default());
                let adopted = inner.adopted.contains(&uid);
                let refused = if adopted { None } else { self.refuse(&receiver.borrow().pod, &workers) };
                workers.insert(uid.clone(), Handle { orders, wake: Arc::clone(&wake) });
                let agent = self.clone();
                inner.tasks.spawn(async move {
                    agent.work(receiver, wake, adopted, refused).await;
                    agent.ended(&uid);
                });
            }
            Wanted::Gone(pod) => {
                if let Some(handle) = workers.get(pod::uid(&pod)) {
                    handle.orders.send_replace(Order { pod, end: Some(End::Gone) });
                }
            }
            Wanted::Touched(uid) => {
                if let Some(handle) = workers.get(&uid) {
                    handle.wake.change(|w| w.references = true);
                }
            }
            Wanted::Complete => {}
        }
    }

    /// Why a new pod cannot run here; told as an event.
    fn refuse(&self, new: &Pod, workers: &HashMap<String, Handle>) -> Option<(String, String)> {
        let shared = &self.inner.shared;
        if pod::is_finished(new) || new.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let others: Vec<Arc<Pod>> = workers
            .values()
            .map(|handle| Arc::clone(&handle.orders.borrow().pod))
            .filter(|other| !pod::is_finished(other))
            .collect();
        let refusal = admission::refuse(new, &others, shared.cluster.node().as_deref(), shared.config.max_pods)?;
        shared.event(new, None, true, &refusal.reason, refusal.message.clone());
        Some((refusal.reason, format!("Pod was rejected: {}", refusal.message)))
    }

    /// Runs a pod's worker; one that panics begins anew from what containerd has.
    async fn work(
        &self,
        orders: watch::Receiver<Order>,
        wake: Arc<Wake>,
        mut adopted: bool,
        refused: Option<(String, String)>,
    ) {
        let mut pause = PANIC_PAUSE;
        loop {
            let shared = Arc::clone(&self.inner.shared);
            let worker = Worker::new(shared, orders.clone(), Arc::clone(&wake), adopted, refused.clone());
            if AssertUnwindSafe(worker.run()).catch_unwind().await.is_ok() {
                return;
            }
            let panics = self.inner.shared.panics.fetch_add(1, Ordering::Relaxed) + 1;
            let pod = pod::full_name(&orders.borrow().pod);
            tracing::error!(pod, panics, ?pause, "the worker of a pod panicked; it begins anew");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PANIC_PAUSE_MAX);
            adopted = true;
        }
    }

    /// A worker whose pod is gone leaves; one that ended because we stop keeps nothing either.
    fn ended(&self, uid: &str) {
        self.inner.workers.lock().remove(uid);
    }

    /// Compares everything with containerd, beside the driver's loop and once at a time.
    fn tend(&self, relist: bool, complete: bool) {
        let Ok(turn) = Arc::clone(&self.inner.tending).try_lock_owned() else { return };
        let agent = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            if relist {
                agent.relist().await;
            }
            if complete {
                agent.remove_orphans().await;
            }
        });
    }

    /// One list of everything, for the workers of whom there is something.
    async fn relist(&self) {
        let Ok(found) = observed::uids(&self.inner.shared.runtime).await else { return };
        for (uid, handle) in self.inner.workers.lock().iter() {
            if found.contains_key(uid) {
                handle.wake.change(|w| w.relist = true);
            }
        }
        crate::logs::rotate_all(&self.inner.shared).await;
    }

    /// Ends and removes what belongs to pods that no longer exist.
    async fn remove_orphans(&self) {
        let shared = &self.inner.shared;
        // A pod that comes meanwhile is known by the time it has anything.
        let folders: Vec<_> =
            std::fs::read_dir(shared.config.root_dir.join("pods")).into_iter().flatten().flatten().collect();
        let Ok(found) = observed::uids(&shared.runtime).await else { return };
        let known: HashSet<String> = self.inner.workers.lock().keys().cloned().collect();
        for (uid, sandboxes) in found.into_iter().filter(|(uid, _)| !known.contains(uid)) {
            tracing::info!(uid, "removing a pod that no longer exists");
            for id in sandboxes {
                let _ = shared.runtime.stop_sandbox(&id).await;
                let _ = shared.runtime.remove_sandbox(&id).await;
            }
            let _ = crate::volumes::tear_down::remove(&shared.config.root_dir.join("pods").join(&uid)).await;
        }
        for folder in folders.into_iter().filter(|f| !known.contains(&*f.file_name().to_string_lossy())) {
            if let Err(error) = crate::volumes::tear_down::remove(&folder.path()).await {
                tracing::warn!(%error, "a folder of a pod that no longer exists stays");
            }
        }
    }

    /// Ends every pod on this machine, each with its own grace but at most `most` seconds; their objects stay in the API.
    pub async fn stop_all_pods(&self, most: i64) {
        *self.inner.draining.lock() = true;
        for handle in self.inner.workers.lock().values() {
            handle.orders.send_modify(|order| order.end = Some(End::Drain(most)));
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        // What has no worker: pods of which we never heard again.
        let shared = &self.inner.shared;
        for sandbox in shared.runtime.sandboxes(HashMap::new()).await.unwrap_or_default() {
            if sandbox.state == i32::from(k8s_cri::v1::PodSandboxState::SandboxReady)
                && sandbox.labels.contains_key(labels::POD_UID)
            {
                let _ = shared.runtime.stop_sandbox(&sandbox.id).await;
            }
        }
    }
}
