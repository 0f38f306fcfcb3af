//! Which nodes run a DaemonSet's pod, and how a pod is made for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use mini_client::taints::tolerates;
use mini_client::{EventType, node_selector, reference};

use super::{Controller, Plan, Round};
use crate::pods;

const NAME_FIELD: &str = "metadata.name";
/// Taints that a daemon's pod bears whatever its template says: nodes need their daemons most when they are unwell.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Also borne on the host's network.
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Makes a pod one for this node alone.
pub(super) fn aim(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    tolerate(spec);
}

fn tolerate(spec: &mut PodSpec) {
    let network = (spec.host_network == Some(true)).then_some(NO_NETWORK);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in BORNE.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// The node that a pod is on, or was made for.
fn target(pod: &Pod) -> Option<&str> {
    let on = Some(pods::node(pod)).filter(|node| !node.is_empty());
    on.or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        let mut named = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
        named.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
    })
}

/// Pods by node: those on it first, then the oldest.
pub(super) fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        // What is over and being deleted is no longer there to anybody.
        let over = pod.metadata.deletion_timestamp.is_some() && pods::is_finished(pod);
        if let Some(node) = target(pod).filter(|_| !over) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| (pods::node(pod).is_empty(), pods::created(pod), pod.metadata.name.clone()));
    }
    by_node
}

/// Whether a node should get the set's pod, and whether one that is there may stay.
pub(super) fn fits(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let Some(mut spec) = set.spec.template.spec.clone() else { return (false, false) };
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| Some(name) != node.metadata.name.as_deref()) || !node_selector::selects(&spec, node) {
        return (false, false);
    }
    tolerate(&mut spec);
    let tolerations = spec.tolerations.unwrap_or_default();
    let borne = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let refused = |effects: &[&str]| taints.iter().any(|t| effects.contains(&t.effect.as_str()) && !borne(t));
    (!refused(&["NoSchedule", "NoExecute"]), !refused(&["NoExecute"]))
}

impl Controller {
    /// What brings every node to its one pod of whatever template.
    pub(super) fn place(&self, round: &Round<'_>, again: &mut Option<Duration>) -> Plan {
        let mut plan = Plan::default();
        let known: BTreeSet<_> = round.nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        for (_, pods) in round.pods.iter().filter(|(node, _)| !known.contains(node.as_str())) {
            // Nobody will ever run what was made for a node that is gone.
            let waits = |pod: &&Arc<Pod>| pods::node(pod).is_empty() && pod.metadata.deletion_timestamp.is_none();
            plan.delete.extend(pods.iter().filter(waits).cloned());
        }
        for node in &round.nodes {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let (should_run, may_stay) = fits(round.set, node);
            match round.pods.get(name) {
                None if should_run => plan.create.push(name.to_owned()),
                None => {}
                Some(pods) if may_stay => self.tidy(round, name, pods, &mut plan, again),
                Some(pods) => {
                    plan.delete.extend(pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).cloned());
                }
            }
        }
        plan
    }

    /// One pod stays on a node; two while a surge goes on.
    fn tidy(&self, round: &Round<'_>, node: &str, all: &[Arc<Pod>], plan: &mut Plan, again: &mut Option<Duration>) {
        let mut running = Vec::new();
        for pod in all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let meta = &pod.metadata;
            let (namespace, name) =
                (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
            let (kind, reason, said) = match pods::phase(pod) {
                "Failed" => {
                    let left = self.hold(round.set, node);
                    if !left.is_zero() {
                        *again = Some(again.map_or(left, |soonest| soonest.min(left)));
                        continue;
                    }
                    let said =
                        format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
                    (EventType::Warning, "FailedDaemonPod", said)
                }
                "Succeeded" => {
                    let said =
                        format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
                    (EventType::Normal, "SucceededDaemonPod", said)
                }
                _ => {
                    running.push(pod.clone());
                    continue;
                }
            };
            self.control.recorder.event(&reference(round.set), kind, reason, said);
            plan.delete.push(pod.clone());
        }
        if running.len() <= 1 {
            return;
        }
        if round.limits().0 == 0 {
            plan.delete.extend(running.into_iter().skip(1));
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| round.is_updated(pod));
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).cloned());
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || round.is_available(new, again))
        {
            plan.delete.push(old.clone());
        }
    }
}
