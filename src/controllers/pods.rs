//! What controllers ask of a pod: is it active, ready, available, and which go first.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The condition of a pod that is to go for no fault of its own.
pub(crate) const DISRUPTION: &str = "DisruptionTarget";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Succeeded or Failed: it will never run again.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// The names of the claims a pod uses, its own ephemeral ones included.
pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name))
        }
    })
}

/// The condition by which the controllers of a pod tell a removal from a failure of its own.
pub(crate) fn disruption(reason: &str, message: &str) -> Value {
    json!({"type": DISRUPTION, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": Time(Timestamp::now())})
}

/// Whether a pod counts as available, and for a ready one that does not yet, when it will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    No,
    In(Duration),
    Yes,
}

impl Availability {
    /// Keeps the soonest time at which a pod becomes available.
    pub(crate) fn note(self, again: &mut Option<Duration>) -> bool {
        if let Self::In(left) = self {
            *again = Some(again.map_or(left, |soonest| soonest.min(left)));
        }
        self == Self::Yes
    }
}

pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    let Some(condition) = ready_condition(pod).filter(|condition| condition.status == "True") else {
        return Availability::No;
    };
    if min_ready_seconds <= 0 {
        return Availability::Yes;
    }
    let Some(since) = &condition.last_transition_time else { return Availability::No };
    let left = SignedDuration::from_secs(i64::from(min_ready_seconds)) - now.duration_since(since.0);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Availability::In(left),
        _ => Availability::Yes,
    }
}

/// A number, or a percentage of `of`.
pub(crate) fn scaled(value: Option<&IntOrString>, of: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let product = percent * i64::from(of);
            let whole = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// Sorts pods so that those to be deleted first come first: unassigned, pending, not ready, cheap, crowded on their
/// node, ready for a short time, restarted often, young (upstream's `ActivePodsWithRanks`).
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>]) {
    let mut crowds: HashMap<String, usize> = HashMap::new();
    for pod in pods.iter() {
        *crowds.entry(node(pod).to_owned()).or_default() += 1;
    }
    pods.sort_by(|a, b| {
        let stage = |pod: &Pod| (!node(pod).is_empty(), rank(phase(pod)), is_ready(pod), cost(pod));
        let crowd = |pod: &Pod| crowds.get(node(pod)).copied().unwrap_or_default();
        stage(a)
            .cmp(&stage(b))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| younger(ready_since(a), ready_since(b)))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| younger(created(a), created(b)))
    });
}

pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn rank(phase: &str) -> u8 {
    match phase {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod).filter(|c| c.status == "True").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0)
}

pub(crate) fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// An unknown time first, then the later one.
fn younger(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => Reverse(a).cmp(&Reverse(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, ready: bool, extra: &Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": []}, "status": {"phase": phase, "conditions": [{"type": "Ready",
            "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:10Z"}]}});
        if let Some(node) = node {
            value["spec"]["nodeName"] = json!(node);
        }
        mini_merge(&mut value, extra);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn mini_merge(target: &mut Value, extra: &Value) {
        if let (Some(target), Some(extra)) = (target.as_object_mut(), extra.as_object()) {
            for (name, value) in extra {
                mini_merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        } else if !extra.is_null() {
            *target = extra.clone();
        }
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let none = json!({});
        let mut pods = [
            pod("ready", Some("n"), "Running", true, &none),
            pod(
                "young",
                Some("n"),
                "Running",
                true,
                &json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}),
            ),
            pod("dear", Some("n"), "Running", true, &json!({"metadata": {"annotations": {DELETION_COST: "5"}}})),
            pod("unready", Some("n"), "Running", false, &none),
            pod("pending", Some("n"), "Pending", false, &none),
            pod("unassigned", None, "Pending", false, &none),
        ];
        sort_for_deletion(&mut pods);
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, ["unassigned", "pending", "unready", "young", "ready", "dear"]);
    }

    #[test]
    fn a_ready_pod_is_available_after_its_minimum() {
        let pod = pod("a", Some("n"), "Running", true, &json!({}));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(availability(&pod, 0, at("2026-01-01T00:00:10Z")), Availability::Yes);
        assert_eq!(availability(&pod, 30, at("2026-01-01T00:00:20Z")), Availability::In(Duration::from_secs(20)));
        assert_eq!(availability(&pod, 30, at("2026-01-01T00:00:40Z")), Availability::Yes);
    }
}
