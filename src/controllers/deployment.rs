//! Deployment: moves pods from old ReplicaSets to the one of the present template.
//!
//! The ReplicaSet whose template equals the Deployment's is the new one, all others are old; revisions are numbered
//! in annotations, so that a rollback is nothing but an older template written again.

mod annotations;
mod conditions;
mod numbers;
mod revision;
mod rollout;
mod scale;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;
use mini_client::{Cache, Caches, Client, Recorder};

use crate::driver::{Error, Key, Outcome, Source, Writes};
use crate::owner::{self, controller_named, controls};

pub(crate) struct Controller {
    client: Client,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    recorder: Recorder,
}

/// A Deployment in the middle of a reconcile.
struct Rollout<'a> {
    deployment: &'a Deployment,
    /// Conditions as they will be written.
    conditions: Vec<DeploymentCondition>,
    collisions: Option<i32>,
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        let (deployments, sets, pods) = (caches.of(), caches.of(), caches.of());
        Self { client: client.clone(), deployments, sets, pods, recorder }
    }

    /// Whether the size changed since the ReplicaSets were last brought to it.
    fn is_scaling(rollout: &Rollout<'_>) -> bool {
        let wished = numbers::replicas(rollout.deployment);
        rollout
            .all()
            .filter(|set| numbers::size(set) > 0)
            .filter_map(|set| annotations::number(&set.metadata, annotations::DESIRED))
            .any(|desired| desired != wished)
    }

    /// Old ReplicaSets count pods that are still there, whatever their status says.
    fn old_pods_run(&self, rollout: &Rollout<'_>) -> bool {
        if rollout.old.iter().any(|set| numbers::status(set).replicas > 0) {
            return true;
        }
        let namespace = rollout.deployment.metadata.namespace.as_deref().unwrap_or_default();
        self.pods
            .list_in(namespace)
            .iter()
            .filter(|pod| !crate::pods::is_finished(pod))
            .any(|pod| rollout.old.iter().any(|set| controls(set.as_ref(), &pod.metadata)))
    }
}

impl Rollout<'_> {
    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Puts a ReplicaSet as the server answered it in place of the one held.
    fn replace(&mut self, set: &Arc<ReplicaSet>) {
        for held in self.old.iter_mut().chain(&mut self.new) {
            if held.metadata.uid == set.metadata.uid {
                *held = set.clone();
            }
        }
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn sources(&self) -> Vec<Source> {
        let sets = owner::claimable(&self.sets, &self.deployments, selector);
        // Recreate waits for the last old pod to go.
        let owners = self.sets.clone();
        let pods = Source::of(&self.pods, move |change| {
            let pod = &change.object().metadata;
            let gone = matches!(change, mini_client::Change::Deleted(_)) || crate::pods::is_finished(change.object());
            let namespace = pod.namespace.as_deref().unwrap_or_default();
            let set = gone.then(|| controller_named::<ReplicaSet>(pod)).flatten();
            let set = set.and_then(|name| owners.get(namespace, name));
            let owner = set.as_ref().and_then(|set| controller_named::<Deployment>(&set.metadata));
            owner.map(|name| Key::new(namespace, name)).into_iter().collect()
        });
        vec![Source::own(&self.deployments), sets, pods]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(None) };
        let Some(selector) = selector(&deployment) else { return Ok(None) };
        let sets = self.sets.list_in(&key.namespace);
        let sets = owner::claim(&self.client, deployment.as_ref(), &selector, sets, &self.sets, writes).await?;
        let mut rollout = Rollout::of(&deployment, sets);
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.write_status(&rollout, writes).await;
        }
        conditions::tell_paused(&mut rollout);
        self.number_revision(&mut rollout, false, writes).await?;
        let paused = deployment.spec.paused == Some(true);
        if paused || Self::is_scaling(&rollout) {
            self.scale(&mut rollout, writes).await?;
            if paused {
                self.clean_up(&rollout, writes).await?;
            }
            return self.write_status(&rollout, writes).await;
        }
        let outcome: Result<(), Error> = if numbers::is_rolling(&deployment) {
            self.roll(&mut rollout, writes).await
        } else {
            self.recreate(&mut rollout, writes).await
        };
        if outcome.is_ok() {
            conditions::tell_progress(&mut rollout);
        }
        let again = self.write_status(&rollout, writes).await;
        outcome?;
        again
    }
}

/// `None` for a selector that selects everything or cannot be read.
fn selector(deployment: &Deployment) -> Option<Selector> {
    let selector = Selector::try_from(deployment.spec.selector.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

#[cfg(test)]
mod tests;
