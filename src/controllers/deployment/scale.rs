//! Changing the sizes of ReplicaSets: one of them, all in proportion, and the removal of empty old ones.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::{EventType, reference};
use serde_json::json;

use super::revision::age_key;
use super::{Controller, Rollout, annotations, numbers};
use crate::driver::{Error, Writes, code};

impl Controller {
    /// Brings one ReplicaSet to a size; tells whether that changed anything.
    pub(super) async fn resize(
        &self,
        rollout: &mut Rollout<'_>,
        set: &Arc<ReplicaSet>,
        size: i32,
        writes: &mut Writes,
    ) -> Result<bool, Error> {
        if numbers::size(set) == size {
            return Ok(false);
        }
        self.write_size(rollout, set, size, writes).await?;
        Ok(true)
    }

    async fn write_size(
        &self,
        rollout: &mut Rollout<'_>,
        set: &Arc<ReplicaSet>,
        size: i32,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let before = numbers::size(set);
        let notes = annotations::sizes(rollout.deployment, set.metadata.annotations.as_ref());
        if before == size && notes.is_empty() {
            return Ok(());
        }
        let mut patch = json!({"metadata": {"uid": set.metadata.uid, "annotations": notes}});
        if before != size {
            patch["spec"]["replicas"] = json!(size);
        }
        let name = set.metadata.name.clone().unwrap_or_default();
        let api = self.sets_api(rollout.deployment);
        let written = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        writes.wrote(&self.sets, &written);
        rollout.replace(&Arc::new(written));
        if before != size {
            self.tell_scaled(rollout.deployment, &name, before, size);
        }
        Ok(())
    }

    pub(super) fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let way = if to > from { "up" } else { "down" };
        let said = format!("Scaled {way} replica set {set} from {from} to {to}");
        self.recorder.event(&reference(deployment), EventType::Normal, "ScalingReplicaSet", said);
    }

    /// Answers a changed size outside a rollout step, or while paused.
    pub(super) async fn scale(&self, rollout: &mut Rollout<'_>, writes: &mut Writes) -> Result<(), Error> {
        let wished = numbers::replicas(rollout.deployment);
        let active: Vec<_> = rollout.all().filter(|set| numbers::size(set) > 0).cloned().collect();
        let latest = || rollout.new.clone().or_else(|| rollout.old.iter().max_by_key(|set| age_key(set)).cloned());
        let only = match active.as_slice() {
            [] => latest(),
            [one] => Some(one.clone()),
            _ => None,
        };
        if let Some(set) = only {
            if numbers::size(&set) != wished {
                self.write_size(rollout, &set, wished, writes).await?;
            }
            return Ok(());
        }
        if active.is_empty() {
            return Ok(());
        }
        if rollout.new.as_ref().is_some_and(|new| is_saturated(rollout.deployment, new)) {
            for set in rollout.old.clone() {
                self.resize(rollout, &set, 0, writes).await?;
            }
            return Ok(());
        }
        if numbers::is_rolling(rollout.deployment) {
            for (set, size) in proportional(rollout.deployment, active) {
                self.write_size(rollout, &set, size, writes).await?;
            }
        }
        Ok(())
    }

    /// Deletes old, empty ReplicaSets beyond the history limit, oldest first.
    pub(super) async fn clean_up(&self, rollout: &Rollout<'_>, writes: &mut Writes) -> Result<(), Error> {
        let limit = rollout.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return Ok(()) };
        let mut sets: Vec<_> = rollout.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        let excess = sets.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        sets.sort_by_key(|set| (annotations::revision(set), age_key(set)));
        let api = self.sets_api(rollout.deployment);
        for set in sets.into_iter().take(excess) {
            let status = numbers::status(set);
            let seen = status.observed_generation >= set.metadata.generation;
            if numbers::size(set) != 0 || status.replicas != 0 || !seen {
                continue;
            }
            let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            match api.delete(set.metadata.name.as_deref().unwrap_or_default(), &params).await {
                Ok(_) => writes.deleted(&self.sets, set.as_ref()),
                Err(error) if code(&error) == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wished = numbers::replicas(deployment);
    numbers::size(set) == wished
        && annotations::number(&set.metadata, annotations::DESIRED) == Some(wished)
        && numbers::available(set) == wished
}

/// Shares what must be added or taken among ReplicaSets by their size: larger first; among equals newer ones grow and
/// older ones shrink first. What rounding leaves goes to the first.
fn proportional(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Vec<(Arc<ReplicaSet>, i32)> {
    let wished = numbers::replicas(deployment);
    let allowed = if wished > 0 { wished.saturating_add(numbers::max_surge(deployment)) } else { 0 };
    let to_add = allowed - numbers::sum(&sets, numbers::size);
    if to_add > 0 {
        sets.sort_by_key(|set| (Reverse(numbers::size(set)), Reverse(age_key(set))));
    } else {
        sets.sort_by_key(|set| (Reverse(numbers::size(set)), age_key(set)));
    }
    let mut added = 0;
    let mut sizes = HashMap::new();
    for set in &sets {
        let left = to_add - added;
        let share = if left == 0 { 0 } else { fraction(set, deployment) };
        let share = if to_add > 0 { share.min(left) } else { share.max(left) };
        added += share;
        sizes.insert(set.metadata.uid.clone(), numbers::size(set) + share);
    }
    let leftover = to_add - added;
    let sized = sets.into_iter().enumerate().map(|(at, set)| {
        let size = sizes.get(&set.metadata.uid).copied().unwrap_or_else(|| numbers::size(&set));
        (set, if at == 0 { (size + leftover).max(0) } else { size })
    });
    sized.collect()
}

/// How much a ReplicaSet grows if it keeps its part of the whole.
fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    let size = i64::from(numbers::size(set));
    let wished = numbers::replicas(deployment);
    if wished == 0 {
        return -numbers::size(set);
    }
    let whole = i64::from(wished) + i64::from(numbers::max_surge(deployment));
    let status = deployment.status.as_ref().and_then(|status| status.replicas);
    let before = annotations::number(&set.metadata, annotations::MAX).or(status).unwrap_or_default();
    if before <= 0 {
        return 0;
    }
    let (product, before) = (size * whole, i64::from(before));
    let rounded = (2 * product + before).div_euclid(2 * before);
    i32::try_from(rounded - size).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, size: i32, most: i32) -> Arc<ReplicaSet> {
        let value = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {annotations::MAX: most.to_string()}}, "spec": {"replicas": size, "selector": {}}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn deployment(replicas: i32) -> Deployment {
        serde_json::from_value(json!({"metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}}))
        .unwrap()
    }

    fn sizes(replicas: i32, sets: Vec<Arc<ReplicaSet>>) -> Vec<(String, i32)> {
        let mut sizes: Vec<_> = proportional(&deployment(replicas), sets)
            .into_iter()
            .map(|(set, size)| (set.metadata.name.clone().unwrap_or_default(), size))
            .collect();
        sizes.sort();
        sizes
    }

    #[test]
    fn a_rollout_under_way_grows_in_proportion() {
        // Upstream's conformance case: 10 → 30 in the middle of a rollout with 8 old and 5 new.
        let found = sizes(30, vec![set("a-old", 8, 13), set("b-new", 5, 13)]);
        assert_eq!(found, [("a-old".to_owned(), 20), ("b-new".to_owned(), 13)]);
    }

    #[test]
    fn scaling_to_zero_empties_all() {
        let found = sizes(0, vec![set("a", 8, 13), set("b", 5, 13)]);
        assert_eq!(found, [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    }
}
