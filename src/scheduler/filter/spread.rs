//! Topology spread constraints that must hold.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use kube::core::{Selector, SelectorExt};

use super::affinity::compile;
use super::node_affinity::selects;
use super::taints::{unschedulable, untolerated};
use crate::cluster::{Cluster, NodeState};

const SOFT: &str = "ScheduleAnyway";

/// Constraints that should hold.
pub(crate) struct Soft(Vec<Constraint>);

impl Soft {
    pub(crate) fn gather(pod: &Pod, cluster: &Cluster) -> Self {
        let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref());
        let soft = constraints.unwrap_or_default().iter().filter(|constraint| constraint.when_unsatisfiable == SOFT);
        Self(soft.filter_map(|constraint| Constraint::count(constraint, pod, cluster)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 0 to 100: the fewer matching pods around a node the better. Many domains weigh more than few.
    pub(crate) fn score(&self, state: &NodeState, nodes: &[&NodeState]) -> i64 {
        let crowd = |state: &NodeState| -> Option<f64> {
            let crowds = self.0.iter().map(|constraint| {
                let here = constraint.counts.get(state.label(&constraint.topology)?).copied().unwrap_or_default();
                let domains = f64::from(u32::try_from(constraint.counts.len()).unwrap_or(u32::MAX));
                let skew = f64::from(i32::try_from(constraint.max_skew - 1).unwrap_or(i32::MAX));
                Some(f64::from(i32::try_from(here).unwrap_or(i32::MAX)) * (domains + 2.0).ln() + skew)
            });
            crowds.sum()
        };
        let Some(here) = crowd(state) else { return 0 };
        let all: Vec<f64> = nodes.iter().filter_map(|state| crowd(state)).collect();
        let (least, most) = (all.iter().copied().fold(f64::MAX, f64::min), all.iter().copied().fold(0.0, f64::max));
        if most <= 0.0 { 100 } else { (100.0 * (most + least - here) / most) as i64 }
    }
}

/// Per constraint: how many matching pods each domain holds.
pub(super) struct Facts(Vec<Constraint>);

struct Constraint {
    topology: String,
    max_skew: i64,
    counts: HashMap<String, i64>,
    least: i64,
    itself: i64,
}

fn matches(selector: &Selector, pod: &Pod) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(pod.metadata.labels.as_ref().unwrap_or(&NONE))
}

impl Facts {
    pub(super) fn gather(pod: &Pod, cluster: &Cluster) -> Self {
        let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref());
        let hard = |constraint: &&TopologySpreadConstraint| constraint.when_unsatisfiable != SOFT;
        let constraints = constraints.unwrap_or_default().iter().filter(hard);
        Self(constraints.filter_map(|constraint| Constraint::count(constraint, pod, cluster)).collect())
    }

    pub(super) fn refuses(&self, state: &NodeState) -> Option<String> {
        const REASON: &str = "node(s) didn't match pod topology spread constraints";
        for constraint in &self.0 {
            let Some(domain) = state.label(&constraint.topology) else {
                return Some(format!("{REASON} (missing required label)"));
            };
            let count = constraint.counts.get(domain).copied().unwrap_or_default();
            if count + constraint.itself - constraint.least > constraint.max_skew {
                return Some(REASON.to_owned());
            }
        }
        None
    }
}

impl Constraint {
    fn count(constraint: &TopologySpreadConstraint, pod: &Pod, cluster: &Cluster) -> Option<Self> {
        let mut selector = constraint.label_selector.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let keys = constraint.match_label_keys.iter().flatten();
        let same = keys.filter_map(|key| Some((key.clone(), labels.get(key)?.clone())));
        selector.match_labels.get_or_insert_default().extend(same);
        let nothing = constraint.label_selector.is_none();
        let selector = compile(Some(&selector))?;
        let affine =
            |state: &NodeState| constraint.node_affinity_policy.as_deref() == Some("Ignore") || selects(pod, state);
        let borne = |state: &NodeState| {
            constraint.node_taints_policy.as_deref() != Some("Honor")
                || (untolerated(pod, state).is_none() && unschedulable(pod, state).is_none())
        };
        let counts_node = |state: &&NodeState| affine(state) && borne(state);
        let mut counts: HashMap<String, i64> = HashMap::new();
        for state in cluster.nodes().filter(counts_node) {
            let Some(domain) = state.label(&constraint.topology_key) else { continue };
            let here = state.pods.values().filter(|placed| {
                !nothing
                    && placed.pod.metadata.namespace == pod.metadata.namespace
                    && placed.pod.metadata.deletion_timestamp.is_none()
                    && matches(&selector, &placed.pod)
            });
            let count = i64::try_from(here.count()).unwrap_or(i64::MAX);
            *counts.entry(domain.to_owned()).or_default() += count;
        }
        let enough = constraint.min_domains.is_none_or(|least| i32::try_from(counts.len()).is_ok_and(|n| n >= least));
        let least = if enough { counts.values().copied().min().unwrap_or_default() } else { 0 };
        let itself = i64::from(!nothing && matches(&selector, pod));
        let topology = constraint.topology_key.clone();
        Some(Self { topology, max_skew: i64::from(constraint.max_skew), counts, least, itself })
    }
}
