//! What a pod says about its own scheduling.

use k8s_openapi::api::core::v1::Pod;

use crate::NAME;

pub(crate) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default()
}

pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Waits for this scheduler, and is not leaving.
pub(crate) fn is_ours(pod: &Pod) -> bool {
    let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or(NAME);
    (name == NAME || name.is_empty()) && pod.metadata.deletion_timestamp.is_none()
}

pub(crate) fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

/// Whether another pod's placement can make this one fit: it must be near some, or spread evenly among some.
pub(crate) fn has_affinity(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        spec.affinity.as_ref().is_some_and(|affinity| affinity.pod_affinity.is_some())
            || spec.topology_spread_constraints.as_ref().is_some_and(|constraints| !constraints.is_empty())
    })
}

/// Whether a change of a waiting pod can change where it fits; its status cannot.
pub(crate) fn concerns(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || old.metadata.uid != new.metadata.uid
}
