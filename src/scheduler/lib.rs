//! The scheduler: gives each waiting pod a node.
//!
//! It knows the API through `mini-client` alone. Invariant: nothing polls; a pod that fits nowhere waits for a change
//! of pods, nodes or claims, and what was decided counts at once, before the server tells of it.

mod bind;
mod claims;
mod cluster;
mod filter;
mod resources;
mod score;
mod selection;
mod waiting;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim, Pod};
use mini_client::{Cache, Caches, CancellationToken, Change, Client, Recorder};
use mini_telemetry::Component;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use bind::{Binder, Bound};
use cluster::Cluster;
use waiting::{Key, Waiting};

/// Pods that name another scheduler are left alone.
const NAME: &str = "default-scheduler";

/// Starts the scheduler. The task ends when `cancel` does.
#[must_use]
pub fn spawn(client: Client, caches: Caches, component: Component, cancel: CancellationToken) -> JoinHandle<()> {
    component.waiting("for the caches to fill");
    tokio::spawn(async move {
        let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
        let (claims, namespaces) = (caches.of::<PersistentVolumeClaim>(), caches.of::<Namespace>());
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = async { tokio::join!(pods.synced(), nodes.synced(), claims.synced(), namespaces.synced()) } => {}
        }
        component.ready();
        let recorder = Recorder::new(client.clone(), NAME, "");
        let (sender, outcomes) = mpsc::unbounded_channel();
        let scheduler = Scheduler {
            binder: Binder { client, recorder, outcomes: sender },
            cluster: Cluster::default(),
            waiting: Waiting::default(),
            pods,
            nodes,
            claims,
            namespaces,
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = scheduler.run(outcomes) => {}
        }
    })
}

struct Scheduler {
    binder: Binder,
    cluster: Cluster,
    waiting: Waiting,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    claims: Cache<PersistentVolumeClaim>,
    namespaces: Cache<Namespace>,
}

impl Scheduler {
    async fn run(mut self, mut outcomes: mpsc::UnboundedReceiver<Bound>) {
        let (mut pods, mut nodes, mut claims) =
            (self.pods.subscribe(), self.nodes.subscribe(), self.claims.subscribe());
        let queue = self.waiting.queue.clone();
        loop {
            // What is known comes before what is to be decided.
            tokio::select! {
                biased;
                Some(change) = nodes.next() => self.node_changed(&change),
                Some(change) = pods.next() => self.pod_changed(&change),
                Some(_) = claims.next() => self.waiting.retry_all(),
                Some(bound) = outcomes.recv() => self.bound(bound),
                Some(key) = queue.next() => {
                    self.schedule(&key);
                    queue.done(&key);
                }
                else => return,
            }
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let key = Key::of(pod);
        match change {
            Change::Deleted(_) => {
                self.waiting.forget(&key);
                if self.cluster.remove_pod(pod) {
                    self.waiting.retry_all();
                }
            }
            _ if selection::is_finished(pod) => {
                self.waiting.forget(&key);
                if self.cluster.remove_pod(pod) {
                    self.waiting.retry_all();
                }
            }
            _ if selection::node(pod).is_some() => {
                self.waiting.forget(&key);
                if self.cluster.place(pod) {
                    // Only affinity can have waited for this one.
                    let pods = &self.pods;
                    self.waiting.retry_those(|key| {
                        pods.get(&key.namespace, &key.name).is_some_and(|waiting| selection::has_affinity(&waiting))
                    });
                }
            }
            _ if selection::is_ours(pod) => {
                if selection::is_gated(pod) {
                    self.binder.tell_gated(pod);
                } else if change.old().is_none_or(|old| selection::concerns(old, pod)) {
                    self.waiting.add(key);
                }
            }
            _ => self.waiting.forget(&key),
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let helps = match change {
            Change::Deleted(node) => {
                self.cluster.remove_node(node);
                false
            }
            _ => self.cluster.set_node(change.object()),
        };
        if helps {
            self.waiting.retry_all();
        }
    }

    fn bound(&mut self, bound: Bound) {
        match bound {
            Bound::Done(pod) => self.waiting.forget(&Key::of(&pod)),
            Bound::Failed(pod) => {
                // The watch may have told of the pod meanwhile; then the server's word counts.
                let key = Key::of(&pod);
                self.cluster.forget_assumed(&pod);
                if self.current(&key).is_some() {
                    self.waiting.retry(key);
                }
            }
        }
    }

    /// The pod of a key, if it still waits for us.
    fn current(&self, key: &Key) -> Option<Arc<Pod>> {
        let pod = self.pods.get(&key.namespace, &key.name)?;
        let waits = selection::is_ours(&pod)
            && selection::node(&pod).is_none()
            && !selection::is_finished(&pod)
            && !selection::is_gated(&pod)
            && !self.cluster.knows(&pod);
        waits.then_some(pod)
    }

    fn schedule(&mut self, key: &Key) {
        let Some(pod) = self.current(key) else { return };
        if let Err(why) = claims::check(&pod, &self.claims) {
            self.binder.tell_unschedulable(&pod, &why);
            return self.waiting.park(key.clone());
        }
        match filter::feasible(&pod, &self.cluster, &self.namespaces) {
            Ok(nodes) => {
                let Some(node) = score::best(&pod, &nodes, &self.cluster, &self.namespaces) else { return };
                self.cluster.assume(&pod, &node);
                self.binder.bind(pod, node);
            }
            Err(why) => {
                self.binder.tell_unschedulable(&pod, &why);
                self.waiting.park(key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
