//! The status of a Deployment: sums over its ReplicaSets.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::{Controller, Rollout, conditions, numbers};
use crate::driver::{Outcome, Writes, optional};

fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// The status as it should read.
pub(super) fn status_of(rollout: &Rollout<'_>) -> DeploymentStatus {
    let total = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        numbers::sum(rollout.all(), |set| of(&numbers::status(set)))
    };
    let available = total(|status| status.available_replicas.unwrap_or_default());
    let wanted = numbers::sum(rollout.all(), numbers::size);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(total(|status| status.replicas)),
        updated_replicas: some(numbers::sum(&rollout.new, |set| numbers::status(set).replicas)),
        ready_replicas: some(total(|status| status.ready_replicas.unwrap_or_default())),
        available_replicas: some(available),
        unavailable_replicas: some((wanted - available).max(0)),
        terminating_replicas: Some(total(|status| status.terminating_replicas.unwrap_or_default())),
        collision_count: rollout.collisions,
        conditions: Some(conditions::finish(rollout, available)),
    }
}

impl Controller {
    /// Writes the status if it changed; comes back when the rollout may be late.
    pub(super) async fn write_status(&self, rollout: &Rollout<'_>, writes: &mut Writes) -> Outcome {
        let status = status_of(rollout);
        let again = conditions::next_look(rollout, &status);
        let deployment = rollout.deployment;
        let before = json!(deployment.status);
        let after = json!(status);
        if before == after {
            return Ok(again);
        }
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), rollout.namespace());
        let patch = json!({"metadata": {"uid": deployment.metadata.uid}, "status": with_removals(&before, after)});
        let patch = Patch::Merge(patch);
        if let Some(written) = optional(api.patch_status(rollout.name(), &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.deployments, &written);
        }
        Ok(again)
    }
}

/// A merge patch leaves alone what it does not mention: fields that are no longer there become null.
fn with_removals(before: &Value, after: Value) -> Value {
    let Value::Object(mut after) = after else { return after };
    let gone: Map<String, Value> = before
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !after.contains_key(*name))
        .map(|(name, _)| (name.clone(), Value::Null))
        .collect();
    after.extend(gone);
    Value::Object(after)
}
