//! The status of an owner of pods: counts, and the failure of its last scaling.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Selector;
use serde_json::{Value, json};

use super::{Controller, ReplicaOwner, Wish};
use crate::driver::{Error, Outcome, Writes, optional};
use crate::owner::matches;
use crate::pods::{self, Availability};

const FAILURE: &str = "ReplicaFailure";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: Option<i32>,
    /// The generation these counts answer.
    pub(crate) observed: i64,
}

impl<O: ReplicaOwner> Controller<O> {
    /// Writes the status if it changed; comes back when the next ready pod becomes available.
    #[allow(clippy::too_many_arguments)] // one step of one reconcile
    pub(super) async fn write_status(
        &self,
        owner: &O,
        wish: &Wish<'_>,
        active: &[Arc<Pod>],
        terminating: usize,
        scaled: &Result<(), Error>,
        writes: &mut Writes,
        now: Timestamp,
    ) -> Outcome {
        let (counts, again) = count::<O>(owner, wish, active, terminating, now);
        let before = owner.conditions();
        let conditions = conditions(&before, scaled, active.len() < wish.replicas, now);
        if counts == owner.counts() && conditions == list(&before) {
            return Ok(again);
        }
        let some = |count: i32| if count == 0 { Value::Null } else { json!(count) };
        let mut status = json!({
            "replicas": counts.replicas,
            "fullyLabeledReplicas": some(counts.fully_labeled),
            "readyReplicas": some(counts.ready),
            "availableReplicas": some(counts.available),
            "observedGeneration": counts.observed,
            "conditions": if conditions.is_empty() { Value::Null } else { Value::Array(conditions) },
        });
        if let Some(terminating) = counts.terminating {
            status["terminatingReplicas"] = json!(terminating);
        }
        let meta = owner.meta();
        let api: Api<O> = Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid}, "status": status}));
        let name = meta.name.as_deref().unwrap_or_default();
        if let Some(written) = optional(api.patch_status(name, &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.owners, &written);
        }
        Ok(again)
    }
}

fn count<O: ReplicaOwner>(
    owner: &O,
    wish: &Wish<'_>,
    active: &[Arc<Pod>],
    terminating: usize,
    now: Timestamp,
) -> (Counts, Option<Duration>) {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let labels = wish.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let template: Selector = labels.into_iter().collect();
    let (mut ready, mut available, mut again) = (0, 0, None::<Duration>);
    for pod in active {
        ready += i32::from(pods::is_ready(pod));
        match pods::availability(pod, wish.min_ready_seconds, now) {
            Availability::Yes => available += 1,
            Availability::In(left) => again = Some(again.map_or(left, |soonest| soonest.min(left))),
            Availability::No => {}
        }
    }
    let counts = Counts {
        replicas: number(active.len()),
        fully_labeled: number(active.iter().filter(|pod| matches(&template, &pod.metadata)).count()),
        ready,
        available,
        terminating: O::TELLS_TERMINATING.then(|| number(terminating)),
        observed: owner.meta().generation.unwrap_or_default(),
    };
    (counts, again)
}

fn list(conditions: &Value) -> Vec<Value> {
    conditions.as_array().cloned().unwrap_or_default()
}

fn conditions(before: &Value, scaled: &Result<(), Error>, too_few: bool, now: Timestamp) -> Vec<Value> {
    let mut conditions = list(before);
    let told = conditions.iter().any(|condition| condition["type"] == FAILURE);
    match scaled {
        Err(error) if !told => {
            let reason = if too_few { "FailedCreate" } else { "FailedDelete" };
            conditions.push(json!({"type": FAILURE, "status": "True", "reason": reason, "message": error.to_string(),
                "lastTransitionTime": Time(now)}));
        }
        Ok(()) => conditions.retain(|condition| condition["type"] != FAILURE),
        Err(_) => {}
    }
    conditions
}
