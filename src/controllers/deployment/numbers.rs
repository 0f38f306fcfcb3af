//! Sizes: surge and unavailability in numbers or percent, and the sums over ReplicaSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};

use crate::pods::scaled;

pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(super) fn status(set: &ReplicaSet) -> ReplicaSetStatus {
    set.status.clone().unwrap_or_default()
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// (surge, unavailable), never both zero: the rollout could not move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let wished = replicas(deployment);
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), wished, true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), wished, false);
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    fenceposts(deployment).1.min(replicas(deployment))
}

pub(super) fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| of(set)).fold(0, i32::saturating_add)
}

/// The size the new ReplicaSet may have now, given how many pods all of them want.
pub(super) fn new_size(deployment: &Deployment, all: i32, new: i32) -> i32 {
    let wished = replicas(deployment);
    if !is_rolling(deployment) {
        return wished;
    }
    let most = wished.saturating_add(max_surge(deployment));
    if all >= most { new } else { new + (most - all).min(wished - new) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
        serde_json::from_value(json!({"metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .unwrap()
    }

    #[test]
    fn surge_rounds_up_and_unavailability_down() {
        let d = deployment(10, json!("25%"), json!("25%"));
        assert_eq!((max_surge(&d), max_unavailable(&d)), (3, 2));
        let d = deployment(1, json!("25%"), json!("25%"));
        assert_eq!((max_surge(&d), max_unavailable(&d)), (1, 0));
    }

    #[test]
    fn a_rollout_can_always_move() {
        let d = deployment(3, json!(0), json!("10%"));
        assert_eq!((max_surge(&d), max_unavailable(&d)), (0, 1));
    }

    #[test]
    fn the_new_set_grows_as_far_as_surge_allows() {
        let d = deployment(10, json!(3), json!(2));
        assert_eq!(new_size(&d, 10, 0), 3);
        assert_eq!(new_size(&d, 13, 3), 3);
        assert_eq!(new_size(&d, 11, 3), 5);
        assert_eq!(new_size(&d, 4, 4), 10);
    }
}
