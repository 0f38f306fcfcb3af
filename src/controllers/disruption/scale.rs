//! How many pods the owners of some pods ask for.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use mini_client::cache::Kind;
use mini_client::{Cache, Change};

use super::Owners;
use crate::driver::{Key, Source};
use crate::owner::{controller_named, controller_of};

impl Owners {
    /// The sum over the owners, each once. Pods without an owner do not count.
    pub(super) async fn scale(&self, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let (mut seen, mut total) = (HashSet::new(), 0_i32);
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if !seen.insert(owner.uid.clone()) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let (uid, size) = self.of(namespace, owner).await?.ok_or_else(|| {
                format!("found no controllers for pod {:?}", pod.metadata.name.as_deref().unwrap_or_default())
            })?;
            // ReplicaSets of one Deployment share its size.
            if uid == owner.uid || seen.insert(uid) {
                total = total.saturating_add(size);
            }
        }
        Ok(total)
    }

    /// The uid and size of an owner, or of the Deployment above it.
    async fn of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, String> {
        match self.known(namespace, &owner.kind, &owner.name) {
            Some(found) => Ok(found),
            // Whatever has a size will tell it.
            None => {
                let object = (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str());
                let size = crate::hpa::scale::size(&self.client, namespace, object).await?;
                Ok(size.map(|size| (owner.uid.clone(), size)))
            }
        }
    }

    /// The same of the kinds that are watched; `None` of others.
    fn known(&self, namespace: &str, kind: &str, name: &str) -> Option<Option<(String, i32)>> {
        let of = |uid: Option<&String>, replicas: Option<i32>| Some((uid?.clone(), replicas.unwrap_or(1)));
        Some(match kind {
            "ReplicaSet" => self.sets.get(namespace, name).and_then(|set| {
                let above = controller_named::<Deployment>(&set.metadata);
                match above.and_then(|name| self.deployments.get(namespace, name)) {
                    Some(deployment) => of(deployment.metadata.uid.as_ref(), deployment.spec.replicas),
                    None => of(set.metadata.uid.as_ref(), set.spec.replicas),
                }
            }),
            "StatefulSet" => {
                self.stateful.get(namespace, name).and_then(|set| of(set.metadata.uid.as_ref(), set.spec.replicas))
            }
            "ReplicationController" => self
                .replication
                .get(namespace, name)
                .and_then(|controller| of(controller.metadata.uid.as_ref(), controller.spec.as_ref()?.replicas)),
            _ => return None,
        })
    }

    /// A new size concerns the budgets of its namespace.
    pub(super) fn sources(&self, budgets: &Cache<PodDisruptionBudget>) -> Vec<Source> {
        vec![
            sized(&self.deployments, budgets, |deployment: &Deployment| deployment.spec.replicas),
            sized(&self.sets, budgets, |set: &ReplicaSet| set.spec.replicas),
            sized(&self.stateful, budgets, |set: &StatefulSet| set.spec.replicas),
            sized(&self.replication, budgets, |c: &ReplicationController| c.spec.as_ref().and_then(|s| s.replicas)),
        ]
    }
}

fn sized<K: Kind>(cache: &Cache<K>, budgets: &Cache<PodDisruptionBudget>, size: fn(&K) -> Option<i32>) -> Source {
    let budgets = budgets.clone();
    Source::of(cache, move |change| match change {
        Change::Updated { old, new } if size(old) == size(new) => Vec::new(),
        _ => {
            let namespace = change.object().meta().namespace.clone().unwrap_or_default();
            budgets.list_in(&namespace).iter().map(|budget| Key::of(budget.as_ref())).collect()
        }
    })
}
