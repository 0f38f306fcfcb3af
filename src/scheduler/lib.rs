//! The scheduler: gives each waiting pod a node.
//!
//! It knows the API through `mini-client` alone. Invariant: nothing polls; a pod that fits nowhere waits for a change
//! of pods, nodes or claims, and what was decided counts at once, before the server tells of it.

mod bind;
mod claims;
mod cluster;
mod filter;
mod preempt;
mod score;
mod selection;
mod waiting;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use mini_client::{Cache, Caches, CancellationToken, Change, Client, Recorder};
use mini_telemetry::Component;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use bind::{Binder, Bound, Promise};
use claims::Claims;
use claims::PodVolumes;
use cluster::{Cluster, News};
use preempt::{Nominated, Why};
use waiting::{Key, Line, Waiting};

/// Pods that name another scheduler are left alone.
const NAME: &str = "default-scheduler";

/// Starts the scheduler. The task ends when `cancel` does.
#[must_use]
pub fn spawn(client: Client, caches: Caches, component: Component, cancel: CancellationToken) -> JoinHandle<()> {
    component.waiting("for the caches to fill");
    tokio::spawn(async move {
        let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
        let (claims, namespaces) = (Claims::new(&caches), caches.of::<Namespace>());
        let budgets = caches.of::<PodDisruptionBudget>();
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = async { tokio::join!(
                pods.synced(), nodes.synced(), claims.synced(), namespaces.synced(), budgets.synced()) } => {}
        }
        component.ready();
        let recorder = Recorder::new(client.clone(), NAME, "");
        let (sender, outcomes) = mpsc::unbounded_channel();
        let scheduler = Scheduler {
            binder: Binder { client, recorder, outcomes: sender },
            cluster: Cluster::default(),
            waiting: Waiting::default(),
            line: Line::default(),
            nominated: Nominated::default(),
            pods,
            nodes,
            claims,
            namespaces,
            budgets,
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
    line: Line,
    nominated: Nominated,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    claims: Claims,
    namespaces: Cache<Namespace>,
    budgets: Cache<PodDisruptionBudget>,
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
                    let pod = self.pods.get(&key.namespace, &key.name);
                    self.line.push(key, pod.map_or(0, |pod| selection::priority(&pod)));
                }
                () = std::future::ready(()), if !self.line.is_empty() => {
                    if let Some(key) = self.line.pop() {
                        self.schedule(&key);
                        queue.done(&key);
                    }
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
                self.nominated.forget(pod);
                if self.cluster.remove_pod(pod) {
                    self.waiting.retry_all();
                }
            }
            _ if selection::is_finished(pod) => {
                self.waiting.forget(&key);
                self.nominated.forget(pod);
                if self.cluster.remove_pod(pod) {
                    self.waiting.retry_all();
                }
            }
            _ if selection::node(pod).is_some() => {
                self.waiting.forget(&key);
                self.nominated.forget(pod);
                match self.cluster.place(pod) {
                    News::None => {}
                    News::Placed => self.retry_those(selection::has_affinity),
                    News::Changed => self.waiting.retry_all(),
                }
            }
            _ if selection::is_ours(pod) => {
                self.nominated.note(pod);
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
                let why = format!(
                    "0/{count} nodes are available: {why}. preemption: 0/{count} nodes are available: \
                     {count} Preemption is not helpful for scheduling."
                );
                self.binder.tell_unschedulable(&pod, &why, Promise::None);
                return self.waiting.park(key.clone());
            }
        };
        let names = match self.feasible(&pod, &volumes) {
            Ok(names) => names,
            Err(why) => return self.give_up(key, &pod, &volumes, &why),
        };
        let nodes: Vec<_> = names.iter().filter_map(|name| self.cluster.node(name)).collect();
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

impl Scheduler {
    /// The nodes that can take a pod, with the pods there that they are promised to and without them.
    fn feasible(&mut self, pod: &Pod, volumes: &PodVolumes) -> Result<Vec<String>, String> {
        let promised = self.nominated.stand_in(pod, &mut self.cluster);
        let found = filter::feasible(pod, volumes, &self.cluster, &self.namespaces);
        let mut found: Result<Vec<_>, _> =
            found.map(|nodes| nodes.into_iter().map(|state| state.name().to_owned()).collect());
        for other in &promised {
            self.cluster.remove_pod(other);
        }
        if let (Ok(names), false) = (&mut found, promised.is_empty()) {
            // Those promised may never come, and must not be what makes the pod fit.
            names.retain(|name| filter::fits_on(pod, volumes, &self.cluster, &self.namespaces, name));
            if names.is_empty() {
                let alone = filter::feasible(pod, volumes, &self.cluster, &self.namespaces);
                return Err(alone.err().unwrap_or_else(|| "no node fits with the pods that are to come".to_owned()));
            }
        }
        found
    }

    /// The pod fits nowhere: others go for it, or it waits.
    fn give_up(&mut self, key: &Key, pod: &Arc<Pod>, volumes: &PodVolumes, why: &str) {
        if self.cluster.nodes().next().is_none() {
            self.binder.tell_unschedulable(pod, why, Promise::None);
            return self.waiting.park(key.clone());
        }
        match self.preempt(pod, volumes) {
            Ok(choice) => {
                let displaced = self.nominated.displaced(pod, &choice.node);
                displaced.iter().for_each(|other| self.nominated.forget(other));
                self.nominated.promise(pod, &choice.node);
                self.binder.tell_unschedulable(pod, why, Promise::Node(&choice.node));
                self.binder.preempt(pod, &choice.node, choice.victims, displaced);
            }
            Err(no) => {
                let promise = if matches!(no, Why::Nodes(_)) { Promise::None } else { Promise::Keep };
                if matches!(promise, Promise::None) {
                    self.nominated.forget(pod);
                }
                self.binder.tell_unschedulable(pod, &format!("{why} {}", no.tell()), promise);
            }
        }
        self.waiting.park(key.clone());
    }
}

#[cfg(test)]
mod tests;
