//! DaemonSet: one pod on each node that it fits.
//!
//! Pods are made for their node by a node affinity and go through the scheduler like all others. A changed template
//! reaches them by deletion: the next reconcile makes the node's new pod.

mod nodes;
mod rolling;
mod status;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::Selector;
use mini_client::{Cache, Caches, Change, Client, EventType, Recorder, reference};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::driver::{Error, Key, Outcome, Source, Writes};
use crate::owner;
use crate::pod_control::{PodControl, pod_of};
use crate::pods;
use crate::revisions::{History, POD_LABEL, Revisions};

/// Pods created or deleted by one reconcile.
const BURST: usize = 250;
/// How long a node's failed pod stays, doubled by each further one.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(900);

pub(crate) struct Controller {
    client: Client,
    sets: Cache<DaemonSet>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    revisions: Revisions,
    control: PodControl,
    /// Of each set's uid and node: when a failed pod was last deleted, and how long the next one stays.
    failures: Mutex<HashMap<(String, String), (Instant, Duration)>>,
}

/// A DaemonSet in the middle of a reconcile.
struct Round<'a> {
    set: &'a DaemonSet,
    /// Of the present template.
    hash: String,
    nodes: Vec<Arc<Node>>,
    /// The pods on or for each node, oldest first.
    pods: BTreeMap<String, Vec<Arc<Pod>>>,
    now: Timestamp,
}

/// What a reconcile is to do.
#[derive(Default)]
struct Plan {
    create: Vec<String>,
    delete: Vec<Arc<Pod>>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        Self {
            client: client.clone(),
            sets: caches.of(),
            pods: caches.of(),
            nodes: caches.of(),
            revisions: Revisions::new(client, caches, POD_LABEL),
            control: PodControl::new(client, caches, recorder),
            failures: Mutex::default(),
        }
    }

    async fn carry_out(&self, round: &Round<'_>, mut plan: Plan, writes: &mut Writes) -> Result<(), Error> {
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
        let made = plan.create.iter().map(|node| round.pod(node)).collect();
        let created = self.control.create(round.set, made, writes).await;
        self.control.delete(round.set, &plan.delete, writes).await?;
        created.map(drop)
    }

    /// Leaves one revision of the present template: pods of equal ones become the one's.
    async fn join_revisions(
        &self,
        set: &DaemonSet,
        history: &mut History,
        pods: &mut [Arc<Pod>],
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let update = history.update.clone();
        let is_double =
            |other: &ControllerRevision| other.metadata.uid != update.metadata.uid && other.data.0 == update.data.0;
        let doubles: Vec<_> = history.all.extract_if(.., |revision| is_double(revision)).collect();
        let hash = self.revisions.hash_of(&update);
        for double in doubles {
            let old = self.revisions.hash_of(&double);
            for pod in pods.iter_mut().filter(|pod| hash_of(pod) == Some(old) && old != hash) {
                let meta = json!({"uid": pod.metadata.uid, "labels": {POD_LABEL: hash}});
                let (patch, name) = (Patch::Merge(json!({"metadata": meta})), pod.metadata.name.as_deref());
                let (api, params) = (self.control.api(set), PatchParams::default());
                let written = api.patch(name.unwrap_or_default(), &params, &patch).await?;
                writes.wrote(&self.pods, &written);
                *pod = Arc::new(written);
            }
            self.revisions.delete(set, &double, writes).await?;
        }
        Ok(())
    }

    /// How much longer a node's failed pod stays; zero once it may go, which is then counted.
    fn hold(&self, set: &DaemonSet, node: &str) -> Duration {
        let key = (set.metadata.uid.clone().unwrap_or_default(), node.to_owned());
        let mut failures = self.failures.lock();
        failures.retain(|_, (last, wait)| last.elapsed() < 2 * (*wait).max(FIRST));
        let Some((last, wait)) = failures.get_mut(&key) else {
            failures.insert(key, (Instant::now(), FIRST));
            return Duration::ZERO;
        };
        let left = wait.saturating_sub(last.elapsed());
        if left.is_zero() {
            (*last, *wait) = (Instant::now(), (*wait * 2).min(LONGEST));
        }
        left
    }
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    let selector = Selector::try_from(set.spec.selector.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

/// The revision a pod is of.
fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(POD_LABEL).map(String::as_str)
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or_default()
}

impl Round<'_> {
    fn is_updated(&self, pod: &Pod) -> bool {
        hash_of(pod) == Some(self.hash.as_str())
    }

    fn is_available(&self, pod: &Pod, again: &mut Option<Duration>) -> bool {
        pods::availability(pod, min_ready(self.set), self.now).note(again)
    }

    /// The pod for a node.
    fn pod(&self, node: &str) -> Pod {
        let mut pod = pod_of(self.set, &self.set.spec.template);
        pod.metadata.labels.get_or_insert_default().insert(POD_LABEL.to_owned(), self.hash.clone());
        if let Some(spec) = &mut pod.spec {
            nodes::aim(spec, node);
        }
        pod
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn sources(&self) -> Vec<Source> {
        let pods = owner::claimable(&self.pods, &self.sets, selector);
        let sets = self.sets.clone();
        let nodes = Source::of(&self.nodes, move |change| {
            // Heartbeats change nothing here.
            let same = matches!(change, Change::Updated { old, new }
                if old.metadata.labels == new.metadata.labels && old.spec == new.spec);
            if same { Vec::new() } else { sets.list().iter().map(|set| Key::of(set.as_ref())).collect() }
        });
        let revisions = owner::controlled::<DaemonSet, _>(&self.revisions.cache);
        vec![Source::own(&self.sets), pods, nodes, revisions]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let Some(selector) = selector(&set) else {
            let said = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control.recorder.event(&reference(set.as_ref()), EventType::Warning, "SelectingAll", said);
            return Ok(None);
        };
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let mut history =
            self.revisions.history(set.as_ref(), &selector, &set.spec.template, &mut collisions, writes).await?;
        let pods = self.pods.list_in(&key.namespace);
        let mut pods = owner::claim(&self.client, set.as_ref(), &selector, pods, &self.pods, writes).await?;
        self.join_revisions(&set, &mut history, &mut pods, writes).await?;
        let round = Round {
            set: &set,
            hash: self.revisions.hash_of(&history.update).to_owned(),
            nodes: self.nodes.list(),
            pods: nodes::by_node(&pods),
            now: Timestamp::now(),
        };
        let mut again = None;
        let mut plan = self.place(&round, &mut again);
        let settled = plan.create.is_empty() && plan.delete.is_empty();
        if settled && rolling::is_rolling(&set) {
            plan = round.roll(&mut again);
        }
        let done = self.carry_out(&round, plan, writes).await;
        let told = self.write_status(&round, collisions, &mut again, writes).await;
        done?;
        told?;
        let in_use = |revision: &_| {
            let hash = self.revisions.hash_of(revision);
            hash == round.hash || pods.iter().any(|pod| hash_of(pod) == Some(hash))
        };
        self.revisions.truncate(set.as_ref(), &history.all, in_use, set.spec.revision_history_limit, writes).await?;
        Ok(again)
    }
}

#[cfg(test)]
mod tests;
