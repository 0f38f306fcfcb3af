//! Which nodes a pod names, selects or requires by node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::cluster::NodeState;
use crate::selection;

pub(super) fn refuses(pod: &Pod, state: &NodeState) -> Option<String> {
    if selection::node(pod).is_some_and(|name| name != state.name()) {
        return Some("node(s) didn't match the requested node name".to_owned());
    }
    (!selects(pod, state)).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Whether a pod's node selector and required node affinity hold for a node.
pub(super) fn selects(pod: &Pod, state: &NodeState) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let mut selector = spec.node_selector.iter().flatten();
    if !selector.all(|(name, value)| state.label(name) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, state)))
}

/// An empty term holds for no node.
pub(crate) fn holds(term: &NodeSelectorTerm, state: &NodeState) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|requirement| meets(requirement, state.label(&requirement.key)))
        && fields
            .iter()
            .all(|requirement| meets(requirement, (requirement.key == "metadata.name").then(|| state.name())))
}

fn meets(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |found: &str| values.iter().any(|value| value == found);
    let numbers = || found?.parse::<i64>().ok().zip(values.first()?.parse::<i64>().ok());
    match requirement.operator.as_str() {
        "In" => found.is_some_and(among),
        "NotIn" => !found.is_some_and(among),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(found, wanted)| found > wanted),
        "Lt" => numbers().is_some_and(|(found, wanted)| found < wanted),
        _ => false,
    }
}

/// The weights of the preferences that a node meets.
pub(crate) fn matches_preference(pod: &Pod, state: &NodeState) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = preferred.into_iter().flatten().filter(|preferred| holds(&preferred.preference, state));
    met.map(|preferred| i64::from(preferred.weight)).sum()
}
