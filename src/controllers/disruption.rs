//! PodDisruptionBudgets: how many of its pods each lets go now.
//!
//! The server takes from that number when a pod is evicted, and notes the pod, which counts as gone from then on.

mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Selector;
use mini_client::{Cache, Caches, Change, Client, EventType, Recorder, reference};
use serde_json::json;

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::owner::matches;
use crate::pods::{self, scaled};
use crate::write;

/// How long an evicted pod may still be there before it counts again.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

pub(crate) struct Controller {
    client: Client,
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    owners: Owners,
    recorder: Recorder,
}

/// Those whose size tells how many pods there should be.
struct Owners {
    client: Client,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    stateful: Cache<StatefulSet>,
    replication: Cache<ReplicationController>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        let owners = Owners {
            client: client.clone(),
            deployments: caches.of(),
            sets: caches.of(),
            stateful: caches.of(),
            replication: caches.of(),
        };
        Self { client: client.clone(), budgets: caches.of(), pods: caches.of(), owners, recorder }
    }
}

/// An empty selector is about all pods, none about no pod.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::try_from(budget.spec.as_ref()?.selector.clone()?).ok()
}

/// How long a pod that is to be evicted may still be there before that is taken back. What the kubelet ends may take
/// any time.
fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let condition = pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == pods::DISRUPTION)?;
    let open = condition.status == "True" && condition.reason.as_deref() != Some("TerminationByKubelet");
    if !open || pods::is_finished(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let left = condition.last_transition_time.as_ref().map(|since| PATIENCE - now.duration_since(since.0));
    Some(left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default())
}

/// What a pod's change means for budgets: its labels, readiness and end.
fn concerns(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.metadata.owner_references != new.metadata.owner_references
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::phase(old) != pods::phase(new)
}

/// How many pods there should be and how many must be healthy.
struct Wish {
    expected: i32,
    healthy: i32,
}

impl Controller {
    async fn wish(&self, budget: &PodDisruptionBudget, selected: &[Arc<Pod>]) -> Result<Wish, String> {
        let spec = budget.spec.as_ref();
        let (least, most) = spec.map_or((None, None), |s| (s.min_available.as_ref(), s.max_unavailable.as_ref()));
        match (least, most) {
            (_, Some(most)) => {
                let expected = self.owners.scale(selected).await?;
                Ok(Wish { expected, healthy: (expected - scaled(Some(most), expected, true)).max(0) })
            }
            (Some(IntOrString::Int(least)), None) => {
                Ok(Wish { expected: i32::try_from(selected.len()).unwrap_or(i32::MAX), healthy: *least })
            }
            (Some(least), None) => {
                let expected = self.owners.scale(selected).await?;
                Ok(Wish { expected, healthy: scaled(Some(least), expected, true) })
            }
            (None, None) => Ok(Wish { expected: i32::try_from(selected.len()).unwrap_or(i32::MAX), healthy: 0 }),
        }
    }

    /// Takes back that a pod is to be evicted, once that is stale.
    async fn refresh(&self, namespace: &str, name: &str, writes: &mut Writes) -> Outcome {
        let Some(pod) = self.pods.get(namespace, name) else { return Ok(None) };
        let now = Timestamp::now();
        match stale_in(&pod, now) {
            Some(left) if left.is_zero() => {
                let condition = json!({"type": pods::DISRUPTION, "status": "False", "reason": null, "message": null,
                    "lastTransitionTime": Time(now)});
                let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version});
                let patch = Patch::Strategic(json!({"metadata": meta, "status": {"conditions": [condition]}}));
                let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                let written = optional(api.patch_status(name, &PatchParams::default(), &patch).await)?;
                written.iter().for_each(|written| writes.wrote(&self.pods, written));
                Ok(None)
            }
            left => Ok(left),
        }
    }

    /// Evicted pods that are still there; the others are told of and forgotten.
    fn disrupted(
        &self,
        budget: &PodDisruptionBudget,
        selected: &[Arc<Pod>],
        now: Timestamp,
        again: &mut Option<Duration>,
    ) -> BTreeMap<String, Time> {
        let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
        let mut kept = BTreeMap::new();
        for (name, at) in noted {
            let pod = selected.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name));
            let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else { continue };
            let left = PATIENCE - now.duration_since(at.0);
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => {
                    *again = Some(again.map_or(left, |soonest| soonest.min(left)));
                    kept.insert(name, at);
                }
                _ => {
                    let meta = &budget.metadata;
                    let (namespace, budget) = (meta.namespace.as_deref(), meta.name.as_deref());
                    let (namespace, budget) = (namespace.unwrap_or_default(), budget.unwrap_or_default());
                    let said = format!("Pod was expected by PDB {namespace}/{budget} to be deleted but it wasn't");
                    self.recorder.event(&reference(pod.as_ref()), EventType::Warning, "NotDeleted", said);
                }
            }
        }
        kept
    }
}

/// Sets the one condition; its time moves with its status.
fn allow(status: &mut PodDisruptionBudgetStatus, allowed: bool, reason: &str, message: &str, generation: Option<i64>) {
    let value = if allowed { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().position(|condition| condition.type_ == ALLOWED).map(|at| conditions.remove(at));
    let since = before.filter(|before| before.status == value).map(|before| before.last_transition_time);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(Timestamp::now())),
    });
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn sources(&self) -> Vec<Source> {
        let budgets = self.budgets.clone();
        let of_pod = move |pod: &Pod| -> Vec<Key> {
            let budgets = budgets.list_in(pod.metadata.namespace.as_deref().unwrap_or_default());
            let about =
                |budget: &Arc<PodDisruptionBudget>| selector(budget).is_some_and(|s| matches(&s, &pod.metadata));
            budgets.iter().filter(|budget| about(budget)).map(|budget| Key::of(budget.as_ref())).collect()
        };
        let pods = Source::of(&self.pods, move |change| {
            if let Change::Updated { old, new } = change
                && !concerns(old, new)
            {
                return Vec::new();
            }
            change.states().flat_map(|pod| of_pod(pod)).collect()
        });
        let disrupted = Source::of(&self.pods, |change| {
            let marked = change.object().status.iter().flat_map(|status| status.conditions.iter().flatten());
            let marked = marked.into_iter().any(|c| c.type_ == pods::DISRUPTION && c.status == "True");
            if marked { vec![Key::of_pod(change.object())] } else { Vec::new() }
        });
        let mut sources = vec![Source::own(&self.budgets), pods, disrupted];
        sources.extend(self.owners.sources(&self.budgets));
        sources
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        if let Some(pod) = key.pod() {
            return self.refresh(&key.namespace, pod, writes).await;
        }
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(None) };
        let mut selected = self.pods.list_in(&key.namespace);
        let selector = selector(&budget);
        selected.retain(|pod| selector.as_ref().is_some_and(|selector| matches(selector, &pod.metadata)));
        if selected.is_empty() {
            self.recorder.event(&reference(budget.as_ref()), EventType::Normal, "NoPods", "No matching pods found");
        }
        let mut status = budget.status.clone().unwrap_or_default();
        let (generation, now, mut again) = (budget.metadata.generation, Timestamp::now(), None);
        match self.wish(&budget, &selected).await {
            Ok(Wish { expected, healthy }) => {
                let disrupted = self.disrupted(&budget, &selected, now, &mut again);
                let counts = |pod: &&Arc<Pod>| {
                    let noted = pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
                    pod.metadata.deletion_timestamp.is_none() && !noted && pods::is_ready(pod)
                };
                let current = i32::try_from(selected.iter().filter(counts).count()).unwrap_or(i32::MAX);
                let allowed = if expected <= 0 { 0 } else { (current - healthy).max(0) };
                status.current_healthy = Some(current);
                status.desired_healthy = Some(healthy);
                status.expected_pods = Some(expected);
                status.disruptions_allowed = Some(allowed);
                status.disrupted_pods = Some(disrupted).filter(|disrupted| !disrupted.is_empty());
                let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
                allow(&mut status, allowed > 0, reason, "", generation);
            }
            Err(why) => {
                let said = format!("Failed to calculate the number of expected pods: {why}");
                let subject = reference(budget.as_ref());
                self.recorder.event(&subject, EventType::Warning, "CalculateExpectedPodCountFailed", said);
                // Nothing may go while the number is not known.
                status.disruptions_allowed = Some(0);
                allow(&mut status, false, "SyncFailed", &why, generation);
            }
        }
        status.observed_generation = generation;
        write::status(&self.client, &self.budgets, budget.as_ref(), (&budget.status, &status), writes).await?;
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fake::{Running, condition, named, run};

    fn budget(spec: &Value) -> Value {
        let mut budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "a", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "web"}}}});
        for (name, value) in spec.as_object().into_iter().flatten() {
            budget["spec"][name] = value.clone();
        }
        budget
    }

    fn pod(name: &str, ready: bool) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a",
            "labels": {"app": "web"}, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet",
                "name": "web", "uid": "web", "controller": true}]}, "spec": {"containers": []}});
        if ready {
            run(&mut pod, 1);
        }
        pod
    }

    fn set(replicas: i32) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "namespace": "a", "uid": "web"},
            "spec": {"replicas": replicas, "selector": {}, "template": {}}})
    }

    async fn reached(objects: &[Value], wanted: (i32, i32, i32, i32)) -> Running {
        let running = Running::new(objects);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        let (allowed, current, healthy, expected) = wanted;
        let holds = |budget: &Value| {
            let status = &budget["status"];
            (&status["disruptionsAllowed"], &status["currentHealthy"]) == (&json!(allowed), &json!(current))
                && (&status["desiredHealthy"], &status["expectedPods"]) == (&json!(healthy), &json!(expected))
        };
        running.api.until("poddisruptionbudgets", |budgets| holds(&budgets[0])).await;
        running
    }

    #[tokio::test]
    async fn numbers_and_percentages_bound_what_may_go() {
        let pods = [pod("p1", true), pod("p2", true), pod("p3", false), set(4)];
        let with = |spec: Value| [vec![budget(&spec)], pods.to_vec()].concat();
        reached(&with(json!({"minAvailable": 1})), (1, 2, 1, 3)).await;
        reached(&with(json!({"minAvailable": "30%"})), (0, 2, 2, 4)).await;
        let running = reached(&with(json!({"maxUnavailable": "75%"})), (1, 2, 1, 4)).await;
        let found = running.api.list("poddisruptionbudgets").remove(0);
        assert_eq!(condition(&found, "DisruptionAllowed")["reason"], "SufficientPods");
        assert_eq!(found["status"]["observedGeneration"], 1);
        running.api.edit("pods", "a", "p1", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
        let blocked = |budget: &Value| condition(budget, "DisruptionAllowed")["reason"] == "InsufficientPods";
        running.api.until("poddisruptionbudgets", |budgets| blocked(named(budgets, "b"))).await;
    }

    #[tokio::test]
    async fn whatever_has_a_size_tells_how_many_pods_there_should_be() {
        let owned = |name: &str| {
            let mut pod = pod(name, true);
            pod["metadata"]["ownerReferences"][0]["kind"] = json!("Deployment");
            pod
        };
        // Nobody here knows of Deployments that own pods themselves: it is asked for its scale as a custom kind would be.
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "a", "uid": "web"}, "spec": {"replicas": 4}});
        let all = [budget(&json!({"maxUnavailable": 3})), owned("p1"), owned("p2"), owner];
        reached(&all, (1, 2, 1, 4)).await;
    }

    #[tokio::test]
    async fn an_evicted_pod_counts_as_gone_for_a_while() {
        let mut budget = budget(&json!({"minAvailable": 1}));
        budget["status"] = json!({"disruptionsAllowed": 9, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            "disruptedPods": {"p1": Timestamp::now().to_string(), "p2": "2026-01-01T00:00:00Z"}});
        let running = reached(&[budget, pod("p1", true), pod("p2", true), pod("p3", true)], (1, 2, 1, 3)).await;
        running.api.until("events", |events| events.iter().any(|event| event["reason"] == "NotDeleted")).await;
    }

    #[tokio::test]
    async fn a_pod_that_was_not_evicted_after_all_is_told_so() {
        let marked = |name: &str, reason: &str, since: &str| {
            let mut pod = pod(name, true);
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason,
                "message": "m", "lastTransitionTime": since});
            pod["status"]["conditions"].as_array_mut().unwrap().push(condition);
            pod
        };
        let old = "2026-01-01T00:00:00Z";
        let pods = [
            marked("stale", "EvictionByEvictionAPI", old),
            marked("fresh", "EvictionByEvictionAPI", &Timestamp::now().to_string()),
            marked("kubelet", "TerminationByKubelet", old),
        ];
        let running = Running::new(&pods);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        let taken_back = |pod: &Value| condition(pod, "DisruptionTarget")["status"] == "False";
        running.api.until("pods", |pods| taken_back(named(pods, "stale"))).await;
        let pods = running.api.list("pods");
        assert!(condition(named(&pods, "stale"), "DisruptionTarget")["reason"].is_null());
        assert!(!taken_back(named(&pods, "fresh")) && !taken_back(named(&pods, "kubelet")));
    }

    #[tokio::test]
    async fn a_number_that_cannot_be_known_lets_nothing_go() {
        let running = Running::new(&[budget(&json!({"maxUnavailable": 1})), pod("p1", true)]);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        let failed = |budget: &Value| condition(budget, "DisruptionAllowed")["reason"] == "SyncFailed";
        running.api.until("poddisruptionbudgets", |budgets| failed(&budgets[0])).await;
    }
}
