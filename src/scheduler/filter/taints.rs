//! Taints, tolerations, and nodes closed for new pods.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use mini_client::taints::tolerates;

use crate::cluster::NodeState;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

fn is_tolerated(pod: &Pod, taint: &Taint) -> bool {
    tolerations(pod).iter().any(|toleration| tolerates(toleration, taint))
}

pub(super) fn unschedulable(pod: &Pod, state: &NodeState) -> Option<String> {
    let closed = state.node.as_ref()?.spec.as_ref()?.unschedulable == Some(true);
    let taint = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    (closed && !is_tolerated(pod, &taint)).then(|| "node(s) were unschedulable".to_owned())
}

pub(super) fn untolerated(pod: &Pod, state: &NodeState) -> Option<String> {
    let taints = state.node.as_ref()?.spec.as_ref()?.taints.as_ref()?;
    let keeps_off = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    let taint = taints.iter().filter(keeps_off).find(|taint| !is_tolerated(pod, taint))?;
    let value = taint.value.as_deref().unwrap_or_default();
    Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key))
}

/// How many of a node's taints a pod would rather avoid.
pub(crate) fn unwanted(pod: &Pod, state: &NodeState) -> usize {
    let taints = state.node.as_ref().and_then(|node| node.spec.as_ref()?.taints.as_ref());
    let unwanted = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !is_tolerated(pod, taint);
    taints.into_iter().flatten().filter(unwanted).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(toleration: serde_json::Value) -> bool {
        let taint: Taint = serde_json::from_value(json!({"key": "a", "value": "1", "effect": "NoSchedule"})).unwrap();
        tolerates(&serde_json::from_value(toleration).unwrap(), &taint)
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        assert!(check(json!({"operator": "Exists"})));
        assert!(check(json!({"key": "a", "value": "1"})));
        assert!(check(json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"})));
        assert!(check(json!({"key": "a", "operator": "Lt", "value": "2"})));
        assert!(!check(json!({"key": "a", "value": "2"})));
        assert!(!check(json!({"key": "a", "operator": "Exists", "effect": "NoExecute"})));
        assert!(!check(json!({"key": "b", "operator": "Exists"})));
    }
}
