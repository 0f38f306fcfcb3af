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

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use mini_client::{Cache, Caches, CancellationToken, Change, Client, Recorder};
use mini_telemetry::Component;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use bind::{Binder, Bound};
use claims::Claims;
use cluster::{Cluster, News};
use waiting::{Key, Waiting};

/// Pods that name another scheduler are left alone.
const NAME: &str = "default-scheduler";

/// Starts the scheduler. The task ends when `cancel` does.
#[must_use]
pub fn spawn(client: Client, caches: Caches, component: Component, cancel: CancellationToken) -> JoinHandle<()> {
    component.waiting("for the caches to fill");
    tokio::spawn(async move {
        let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
        let (claims, namespaces) = (Claims::new(&caches), caches.of::<Namespace>());
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
    claims: Claims,
    namespaces: Cache<Namespace>,
}

impl Scheduler {
    async fn run(mut self, mut outcomes: mpsc::UnboundedReceiver<Bound>) {
        let (mut pods, mut nodes) = (self.pods.subscribe(), self.nodes.subscribe());
        let (mut claims, mut volumes, mut classes) =
            (self.claims.claims.subscribe(), self.claims.volumes.subscribe(), self.claims.classes.subscribe());
        let queue = self.waiting.queue.clone();
        loop {
            // What is known comes before what is to be decided.
            tokio::select! {
                biased;
                Some(change) = nodes.next() => self.node_changed(&change),
                Some(change) = pods.next() => self.pod_changed(&change),
                Some(_) = claims.next() => self.retry_for_volumes(),
                Some(_) = volumes.next() => self.retry_for_volumes(),
                Some(_) = classes.next() => self.retry_for_volumes(),
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
                match self.cluster.place(pod) {
                    News::None => {}
                    News::Placed => self.retry_those(selection::has_affinity),
                    News::Changed => self.waiting.retry_all(),
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

    /// The waiting pods that `may_fit` picks are tried again.
    fn retry_those(&mut self, may_fit: impl Fn(&Pod) -> bool) {
        let pods = &self.pods;
        self.waiting.retry_those(|key| pods.get(&key.namespace, &key.name).is_some_and(|waiting| may_fit(&waiting)));
    }

    fn retry_for_volumes(&mut self) {
        self.retry_those(claims::uses_claims);
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
        let volumes = match self.claims.of(&pod) {
            Ok(volumes) => volumes,
            Err(why) => {
                let count = self.cluster.nodes().count();
                self.binder.tell_unschedulable(&pod, &format!("0/{count} nodes are available: {why}."));
                return self.waiting.park(key.clone());
            }
        };
        let nodes = match filter::feasible(&pod, &volumes, &self.cluster, &self.namespaces) {
            Ok(nodes) => nodes,
            Err(why) => {
                self.binder.tell_unschedulable(&pod, &why);
                return self.waiting.park(key.clone());
            }
        };
        let Some(node) = score::best(&pod, &nodes, &self.cluster, &self.namespaces) else { return };
        let chosen = nodes.iter().find(|state| state.name() == node);
        let choices = chosen.and_then(|state| volumes.choose(state).ok()).unwrap_or_default();
        if choices.is_empty() {
            self.cluster.assume(&pod, &node);
            self.binder.bind(pod, node);
        } else {
            self.binder.prepare_volumes(pod, choices);
            self.waiting.rest(key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
