//! The rolling update: which old pods go next, or which nodes get a new pod beside the old one.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;

use super::nodes::fits;
use super::{Plan, Round};
use crate::pods::scaled;

pub(super) fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The pod of the present template and that of another on one node. `None` where there are more.
fn pair<'a>(round: &Round<'_>, pods: &'a [Arc<Pod>]) -> Option<Pair<'a>> {
    let staying = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| round.is_updated(pod));
    (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
}

impl Round<'_> {
    /// (surge, unavailable) in nodes, never both zero.
    pub(super) fn limits(&self) -> (usize, usize) {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.filter(|_| is_rolling(self.set)).and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = self.nodes.iter().filter(|node| fits(self.set, node).0).count();
        let of = |value| usize::try_from(scaled(value, i32::try_from(wanted).unwrap_or(i32::MAX), true)).unwrap_or(0);
        let surge = of(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
        let unavailable = of(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
        (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
    }

    /// The next step towards the present template.
    pub(super) fn roll(&self, again: &mut Option<Duration>) -> Plan {
        let (surge, unavailable) = self.limits();
        let wanted = self.nodes.iter().filter(|node| fits(self.set, node).0);
        let names = wanted.filter_map(|node| node.metadata.name.as_deref());
        let pods_of = |name: &str| self.pods.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut plan = Plan::default();
        // How many nodes use up the allowance, and what it could be spent on.
        let mut used = 0;
        if surge == 0 {
            let mut candidates = Vec::new();
            for name in names {
                match pair(self, pods_of(name)) {
                    Some((None, Some(old))) if self.is_available(old, again) => candidates.push(old.clone()),
                    // It is of no use where it is: its replacement costs nothing.
                    Some((None, Some(old))) => {
                        used += 1;
                        plan.delete.push(old.clone());
                    }
                    Some((Some(new), None)) if self.is_available(new, again) => {}
                    _ => used += 1,
                }
            }
            plan.delete.extend(candidates.into_iter().take(unavailable.saturating_sub(used)));
            return plan;
        }
        let mut candidates = Vec::new();
        for name in names {
            match pair(self, pods_of(name)) {
                Some((None, Some(old))) if self.is_available(old, again) => candidates.push(name.to_owned()),
                Some((None, Some(_))) => plan.create.push(name.to_owned()),
                Some((Some(new), Some(old))) if self.is_available(new, again) => plan.delete.push(old.clone()),
                Some((_, None)) => {}
                _ => used += 1,
            }
        }
        plan.create.extend(candidates.into_iter().take(surge.saturating_sub(used)));
        plan
    }
}
