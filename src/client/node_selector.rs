//! Does a pod select a node? The scheduler, the controller of DaemonSets and the node must not differ in this.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

fn label<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Whether a pod's node selector and required node affinity hold for a node.
#[must_use]
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let mut selector = spec.node_selector.iter().flatten();
    if !selector.all(|(name, value)| label(node, name) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node)))
}

/// An empty term holds for no node.
#[must_use]
pub fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = |requirement: &NodeSelectorRequirement| {
        (requirement.key == "metadata.name").then_some(node.metadata.name.as_deref().unwrap_or_default())
    };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| meets(requirement, label(node, &requirement.key)))
        && fields.iter().all(|requirement| meets(requirement, name(requirement)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_and_affinity_must_hold() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"disk": "ssd", "size": "7"}}})).unwrap();
        let affine = |term: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
        };
        let wants = |operator: &str, key: &str, values: Value| {
            affine(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        for (spec, fits) in [
            (json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), true),
            (json!({"containers": [], "nodeSelector": {"disk": "hdd"}}), false),
            (wants("In", "disk", json!(["hdd", "ssd"])), true),
            (wants("NotIn", "disk", json!(["ssd"])), false),
            (wants("Gt", "size", json!(["6"])), true),
            (wants("Lt", "size", json!(["6"])), false),
            (affine(json!({})), false),
            (affine(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})), true),
            (affine(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]})), false),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(selects(&spec, &node), fits, "{spec:?}");
        }
    }
}
