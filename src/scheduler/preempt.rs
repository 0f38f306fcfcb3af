//! Preemption: which pods of lower priority would have to go so that one that fits nowhere fits.
//!
//! The cluster is changed to ask what would be, and is as before once the answer is found.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt};
use mini_client::Cache;

use crate::Scheduler;
use crate::claims::PodVolumes;
use crate::cluster::{Cluster, Placed};
use crate::filter;
use crate::selection::{node, priority};

/// Nodes that are looked at closely.
const MOST: usize = 100;

/// A node with the pods that would have to leave it.
pub(crate) struct Choice {
    pub(crate) node: String,
    pub(crate) victims: Vec<Arc<Pod>>,
    /// How many of them their budgets would keep.
    violations: usize,
}

impl Choice {
    /// The less it costs the better: budgets kept, then the importance of the victims, then their number; of the most
    /// important victims those that run the shortest.
    fn cost(&self) -> (usize, i32, i64, usize, Reverse<Option<Timestamp>>) {
        let highest = self.victims.iter().map(|pod| priority(pod)).max().unwrap_or(i32::MIN);
        // Upstream adds so much to each that negative priorities count as well.
        let sum = self.victims.iter().map(|pod| i64::from(priority(pod)) + i64::from(i32::MAX) + 1).sum();
        let important = self.victims.iter().filter(|pod| priority(pod) == highest);
        let earliest = important.filter_map(|pod| started(pod)).min();
        (self.violations, highest, sum, self.victims.len(), Reverse(earliest))
    }
}

fn started(pod: &Pod) -> Option<Timestamp> {
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    start.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0)
}

/// Why nothing can be pushed out, as the end of upstream's sentence.
pub(crate) enum Why {
    /// The pod may not, or need not yet.
    NotEligible(&'static str),
    /// By node, why not.
    Nodes(String),
}

impl Why {
    pub(crate) fn tell(&self) -> String {
        match self {
            Self::NotEligible(why) => format!("preemption: {why}."),
            Self::Nodes(told) => format!("preemption: {told}"),
        }
    }
}

impl Scheduler {
    /// The node where the fewest and least important pods must go, or why there is none.
    pub(crate) fn preempt(&mut self, pod: &Pod, volumes: &PodVolumes) -> Result<Choice, Why> {
        if pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
            return Err(Why::NotEligible("not eligible due to preemptionPolicy=Never"));
        }
        if self.is_being_served(pod) {
            return Err(Why::NotEligible("not eligible due to terminating pod on the nominated node"));
        }
        let names: Vec<String> = self.cluster.nodes().map(|state| state.name().to_owned()).collect();
        let (mut choices, mut hopeless, mut without) = (Vec::new(), 0, 0);
        for name in &names {
            let helps = self.cluster.node(name).is_some_and(|state| filter::may_fit(pod, state));
            if !helps {
                hopeless += 1;
            } else if choices.len() < MOST {
                match self.victims(pod, name, volumes) {
                    Some(choice) => choices.push(choice),
                    None => without += 1,
                }
            }
        }
        choices.into_iter().min_by_key(Choice::cost).ok_or_else(|| {
            let reasons = [
                (without, "No preemption victims found for incoming pod"),
                (hopeless, "Preemption is not helpful for scheduling"),
            ];
            let counted = reasons.iter().filter(|(count, _)| *count > 0);
            let mut told: Vec<_> = counted.map(|(count, reason)| format!("{count} {reason}")).collect();
            told.sort();
            Why::Nodes(format!("0/{} nodes are available: {}.", names.len(), told.join(", ")))
        })
    }

    /// Whether pods already leave the node that was promised to this one.
    fn is_being_served(&self, pod: &Pod) -> bool {
        let promised = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        let state = promised.and_then(|name| self.cluster.node(name));
        state.is_some_and(|state| {
            let mut others = state.pods.values().map(|placed| &placed.pod);
            others.any(|other| other.metadata.deletion_timestamp.is_some() && priority(other) < priority(pod))
        })
    }

    /// The pods that must leave a node. First all of lower priority go in thought; then as many as possible come back,
    /// those whose budgets would be violated and the most important first.
    fn victims(&mut self, pod: &Pod, name: &str, volumes: &PodVolumes) -> Option<Choice> {
        let state = self.cluster.node(name)?;
        let lower = state.pods.values().filter(|placed| priority(&placed.pod) < priority(pod));
        let mut lower: Vec<Placed> = lower.cloned().collect();
        if lower.is_empty() {
            return None;
        }
        lower.sort_by_key(|placed| {
            (Reverse(priority(&placed.pod)), started(&placed.pod), placed.pod.metadata.name.clone())
        });
        for placed in &lower {
            self.cluster.remove_pod(&placed.pod);
        }
        let mut choice = None;
        if self.fits(pod, name, volumes) {
            let (violating, rest) = divide(&self.budgets, lower.clone());
            let (mut victims, mut violations) = (Vec::new(), 0);
            for (placed, violates) in
                violating.into_iter().map(|p| (p, true)).chain(rest.into_iter().map(|p| (p, false)))
            {
                self.cluster.put_back(name, &placed);
                if !self.fits(pod, name, volumes) {
                    self.cluster.remove_pod(&placed.pod);
                    violations += usize::from(violates);
                    victims.push(placed.pod);
                }
            }
            choice = (!victims.is_empty()).then_some(Choice { node: name.to_owned(), victims, violations });
        }
        for placed in &lower {
            // Those that may stay are back already.
            if !self.cluster.knows(&placed.pod) {
                self.cluster.put_back(name, placed);
            }
        }
        choice
    }

    fn fits(&self, pod: &Pod, name: &str, volumes: &PodVolumes) -> bool {
        filter::fits_on(pod, volumes, &self.cluster, &self.namespaces, name)
    }
}

/// Those whose budgets would be violated, and the others; in order.
fn divide(budgets: &Cache<PodDisruptionBudget>, pods: Vec<Placed>) -> (Vec<Placed>, Vec<Placed>) {
    let mut left: HashMap<(String, String), i32> = HashMap::new();
    pods.into_iter().partition(|placed| {
        let pod = &placed.pod;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut violates = false;
        for budget in budgets.list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            let selector = budget.spec.as_ref().and_then(|spec| Selector::try_from(spec.selector.clone()?).ok());
            if !selector.is_some_and(|selector| !selector.selects_all() && selector.matches(&labels)) {
                continue;
            }
            let status = budget.status.as_ref();
            let noted = status.and_then(|status| status.disrupted_pods.as_ref());
            let name = pod.metadata.name.clone().unwrap_or_default();
            if noted.is_some_and(|noted| noted.contains_key(&name)) {
                continue;
            }
            let key = (
                budget.metadata.namespace.clone().unwrap_or_default(),
                budget.metadata.name.clone().unwrap_or_default(),
            );
            let allowed = status.and_then(|status| status.disruptions_allowed).unwrap_or_default();
            let left = left.entry(key).or_insert(allowed);
            *left -= 1;
            violates |= *left < 0;
        }
        violates
    })
}

/// Promises of nodes to pods that wait for others to leave.
#[derive(Default)]
pub(crate) struct Nominated(HashMap<String, (Arc<Pod>, String)>);

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Nominated {
    pub(crate) fn note(&mut self, pod: &Arc<Pod>) {
        let promised = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        match promised.filter(|name| !name.is_empty()) {
            Some(name) if node(pod).is_none() => self.promise(pod, name),
            _ => self.forget(pod),
        }
    }

    pub(crate) fn promise(&mut self, pod: &Arc<Pod>, name: &str) {
        self.0.insert(uid(pod).to_owned(), (pod.clone(), name.to_owned()));
    }

    pub(crate) fn forget(&mut self, pod: &Pod) {
        self.0.remove(uid(pod));
    }

    /// Less important pods that were promised a node which now goes to another.
    pub(crate) fn displaced(&self, pod: &Pod, name: &str) -> Vec<Arc<Pod>> {
        let lower = self.0.values().filter(|(other, node)| node == name && priority(other) < priority(pod));
        lower.map(|(other, _)| other.clone()).collect()
    }

    /// Puts those at least as important as `pod` on their nodes; gives them, to be taken off again.
    pub(crate) fn stand_in(&self, pod: &Pod, cluster: &mut Cluster) -> Vec<Arc<Pod>> {
        let others = self
            .0
            .values()
            .filter(|(other, _)| uid(other) != uid(pod) && priority(other) >= priority(pod) && !cluster.knows(other));
        let others: Vec<_> = others.cloned().collect();
        for (other, name) in &others {
            cluster.assume(other, name);
        }
        others.into_iter().map(|(other, _)| other).collect()
    }
}
