//! Deletes pods nobody will ever finish: those of vanished nodes, those deleted before they had one, and the oldest
//! finished ones beyond a threshold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::{Cache, Caches, Change, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::pods;

/// How long a node may be away before its pods are given up; it may just be renamed or registering.
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) struct Controller {
    client: Client,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    finished: usize,
    /// Since when each node that pods name has been missed here. The pods' own ages say nothing about that.
    missed: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, finished: usize) -> Self {
        Self { client: client.clone(), pods: caches.of(), nodes: caches.of(), finished, missed: Arc::default() }
    }

    /// How long the pods of an absent node are still to be kept.
    fn quarantine_left(&self, node: &str) -> Duration {
        let since = *self.missed.lock().entry(node.to_owned()).or_insert_with(Instant::now);
        QUARANTINE.saturating_sub(since.elapsed())
    }

    /// A pod that nobody runs any more ends before it goes, so that its owner counts it rightly.
    async fn end(&self, pod: &Pod, condition: Option<Value>) -> Result<(), kube::Error> {
        if pods::is_finished(pod) {
            return Ok(());
        }
        let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed"}});
        if let Some(condition) = condition {
            patch["status"]["conditions"] = json!([condition]);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        optional(api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await).map(drop)
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
        let (all, missed) = (self.pods.clone(), self.missed.clone());
        let nodes = Source::of(&self.nodes, move |change| match change {
            Change::Deleted(gone) => {
                let name = gone.metadata.name.as_deref();
                missed.lock().insert(name.unwrap_or_default().to_owned(), Instant::now());
                all.list().iter().filter(|pod| node(pod) == name).map(|pod| Key::of(pod.as_ref())).collect()
            }
            _ => {
                missed.lock().remove(change.object().metadata.name.as_deref().unwrap_or_default());
                Vec::new()
            }
        });
        vec![pods, nodes]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(None) };
        match node(&pod) {
            None if pod.metadata.deletion_timestamp.is_some() => {
                self.end(&pod, None).await?;
                self.delete(&pod, writes).await?;
            }
            Some(name) if self.nodes.get("", name).is_none() => {
                let left = self.quarantine_left(name);
                if !left.is_zero() {
                    return Ok(Some(left));
                }
                let nodes: Api<Node> = Api::all(self.client.clone());
                if nodes.get_opt(name).await?.is_none() {
                    let gone = pods::disruption("DeletionByPodGC", "PodGC: node no longer exists");
                    self.end(&pod, Some(gone)).await?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;
    use crate::fake::{Running, named};

    #[tokio::test(start_paused = true)]
    async fn pods_outlive_their_node_by_the_quarantine_however_old_they_are() {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": "a",
            "creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let running = Running::new(&[node.clone(), pod]);
        running.start(Controller::new(&running.client, &running.caches, 10));
        sleep(Duration::from_secs(60)).await;
        running.api.remove("v1", "nodes", "", "n");
        sleep(Duration::from_secs(30)).await;
        running.api.put(&node);
        sleep(Duration::from_secs(30)).await;
        running.api.remove("v1", "nodes", "", "n");
        sleep(Duration::from_secs(39)).await;
        assert_eq!(running.api.list("pods").len(), 1, "a node that came back starts the wait anew");
        sleep(Duration::from_secs(2)).await;
        assert!(running.api.list("pods").is_empty());
        let told = |call: &mini_client::testing::Call| call.body["status"]["phase"] == "Failed";
        assert!(running.api.writes().iter().any(told), "its end is written first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_deleted_before_it_had_a_node_ends_before_it_goes() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "p",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/kept"]}, "spec": {},
            "status": {"phase": "Pending"}});
        let running = Running::new(&[pod]);
        running.start(Controller::new(&running.client, &running.caches, 10));
        sleep(Duration::from_secs(1)).await;
        let pod = running.api.list("pods").remove(0);
        assert_eq!((&pod["status"]["phase"], &pod["status"]["conditions"]), (&json!("Failed"), &Value::Null));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_finished_pods_go_beyond_the_threshold() {
        let pod = |name: &str, year: u32| {
            json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Succeeded"},
                "metadata": {"name": name, "namespace": "a", "creationTimestamp": format!("{year}-01-01T00:00:00Z")}})
        };
        let running = Running::new(&[pod("young", 2022), pod("oldest", 2020), pod("old", 2021)]);
        running.start(Controller::new(&running.client, &running.caches, 2));
        sleep(Duration::from_secs(1)).await;
        let left = running.api.list("pods");
        assert_eq!((left.len(), named(&left, "oldest").is_null()), (2, true));
    }
}
