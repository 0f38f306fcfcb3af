//! Deletes pods nobody will ever finish: those of vanished nodes, those deleted before they had one, and the oldest
//! finished ones beyond a threshold.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use mini_client::{Cache, Caches, Change, Client};

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::pods;

/// How long a node may be away before its pods are given up; it may just be renamed or registering.
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) struct Controller {
    client: Client,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    finished: usize,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, finished: usize) -> Self {
        Self { client: client.clone(), pods: caches.of(), nodes: caches.of(), finished }
    }

    async fn delete(&self, pod: &Pod, writes: &mut Writes) -> Result<(), kube::Error> {
        let meta = &pod.metadata;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        if optional(api.delete(meta.name.as_deref().unwrap_or_default(), &params).await)?.is_some() {
            writes.deleted(&self.pods, pod);
        }
        Ok(())
    }

    /// The oldest finished pods beyond the threshold.
    fn excess(&self) -> Vec<Arc<Pod>> {
        let mut finished: Vec<_> = self.pods.list().into_iter().filter(|pod| pods::is_finished(pod)).collect();
        let excess = finished.len().saturating_sub(self.finished);
        finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        finished.truncate(excess);
        finished
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "pod-gc"
    }

    fn sources(&self) -> Vec<Source> {
        let nodes = self.nodes.clone();
        let pods = Source::of(&self.pods, move |change| {
            let pod = change.object();
            let homeless = node(pod).is_some_and(|node| nodes.get("", node).is_none());
            let unborn = node(pod).is_none() && pod.metadata.deletion_timestamp.is_some();
            let suspect = !matches!(change, Change::Deleted(_)) && (homeless || unborn || pods::is_finished(pod));
            suspect.then(|| Key::of(pod.as_ref())).into_iter().collect()
        });
        let all = self.pods.clone();
        let nodes = Source::of(&self.nodes, move |change| match change {
            Change::Deleted(gone) => {
                let name = gone.metadata.name.as_deref();
                all.list().iter().filter(|pod| node(pod) == name).map(|pod| Key::of(pod.as_ref())).collect()
            }
            _ => Vec::new(),
        });
        vec![pods, nodes]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(None) };
        match node(&pod) {
            None if pod.metadata.deletion_timestamp.is_some() => self.delete(&pod, writes).await?,
            Some(name) if self.nodes.get("", name).is_none() => {
                let since = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                let age = since.map_or(SignedDuration::ZERO, |since| Timestamp::now().duration_since(since));
                let left = SignedDuration::try_from(QUARANTINE).unwrap_or_default() - age;
                if let Ok(left) = Duration::try_from(left)
                    && !left.is_zero()
                {
                    return Ok(Some(left));
                }
                let nodes: Api<Node> = Api::all(self.client.clone());
                if nodes.get_opt(name).await?.is_none() {
                    self.delete(&pod, writes).await?;
                }
            }
            _ if pods::is_finished(&pod) => {
                if self.excess().iter().any(|old| old.metadata.uid == pod.metadata.uid) {
                    self.delete(&pod, writes).await?;
                } else if let Some(oldest) = self.excess().first() {
                    self.delete(oldest, writes).await?;
                }
            }
            _ => {}
        }
        Ok(None)
    }
}
