//! Evicts pods from nodes with `NoExecute` taints: at once, or as long after as their tolerations allow.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::taints::tolerates;
use mini_client::{Cache, Caches, Client, EventType, Recorder, reference};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::pods;

const EVENT: &str = "TaintManagerEviction";

pub(crate) struct Controller {
    client: Client,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    recorder: Recorder,
    /// Since when each pod (by key and uid) bears its node's taints, by our own clock.
    bearing: Mutex<HashMap<Key, (Option<String>, Instant)>>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        let (pods, nodes) = (caches.of(), caches.of());
        Self { client: client.clone(), pods, nodes, recorder, bearing: Mutex::default() }
    }

    fn since(&self, key: &Key, pod: &Pod) -> Instant {
        let mut bearing = self.bearing.lock();
        let (uid, since) = bearing.entry(key.clone()).or_insert_with(|| (pod.metadata.uid.clone(), Instant::now()));
        if *uid != pod.metadata.uid {
            (*uid, *since) = (pod.metadata.uid.clone(), Instant::now());
        }
        *since
    }

    fn tell(&self, pod: &Pod, said: String) {
        self.recorder.event(&reference(pod), EventType::Normal, EVENT, said);
    }

    async fn evict(&self, pod: &Pod, key: &Key, writes: &mut Writes) -> Result<(), kube::Error> {
        self.tell(pod, format!("Marking for deletion Pod {key}"));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let why = "Taint manager: deleting due to NoExecute taint";
        let status = json!({"conditions": [pods::disruption("DeletionByTaintManager", why)]});
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        optional(api.patch_status(&key.name, &PatchParams::default(), &patch).await)?;
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        if optional(api.delete(&key.name, &params).await)?.is_some() {
            writes.deleted(&self.pods, pod);
        }
        Ok(())
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn taints(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").collect()
}

/// How long a pod bears these taints: `None` for ever.
fn patience(pod: &Pod, taints: &[&Taint]) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut least = None;
    for taint in taints {
        let mut tolerating = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if tolerating.peek().is_none() {
            return Some(Duration::ZERO);
        }
        let seconds = tolerating.filter_map(|toleration| toleration.toleration_seconds);
        let bounds = seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        least = bounds.chain(least).min();
    }
    least
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn sources(&self) -> Vec<Source> {
        let pods = self.pods.clone();
        let nodes = Source::of(&self.nodes, move |change| {
            let node = change.object();
            if change.states().all(|state| taints(state).is_empty()) {
                return Vec::new();
            }
            let name = node.metadata.name.as_deref();
            pods.list().iter().filter(|pod| node_of(pod) == name).map(|pod| Key::of(pod.as_ref())).collect()
        });
        vec![Source::own(&self.pods), nodes]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let pod = self.pods.get(&key.namespace, &key.name).filter(|pod| pods::is_active(pod));
        let node = pod.as_ref().and_then(|pod| self.nodes.get("", node_of(pod)?));
        let (Some(pod), Some(node)) = (pod, node) else {
            self.bearing.lock().remove(key);
            return Ok(None);
        };
        let Some(patience) = Some(taints(&node)).filter(|t| !t.is_empty()).and_then(|t| patience(&pod, &t)) else {
            if self.bearing.lock().remove(key).is_some() {
                self.tell(&pod, format!("Cancelling deletion of Pod {key}"));
            }
            return Ok(None);
        };
        let left = patience.saturating_sub(self.since(key, &pod).elapsed());
        if left.is_zero() {
            self.evict(&pod, key, writes).await?;
            self.bearing.lock().remove(key);
            return Ok(None);
        }
        Ok(Some(left))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::time::sleep;

    use super::*;
    use crate::fake::Running;

    fn node(taints: &[&str]) -> Value {
        let taints: Vec<_> = taints.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": taints}})
    }

    fn pod(name: &str, tolerations: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
            "spec": {"nodeName": "n", "tolerations": tolerations}, "status": {"phase": "Running"}})
    }

    fn leaving(running: &Running) -> Vec<String> {
        let pods = running.api.list("pods");
        let leaving = pods.iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        leaving.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_pod_stays_as_long_as_it_tolerates() {
        let running = Running::new(&[
            node(&["gone"]),
            pod("plain", json!([])),
            pod("patient", json!([{"key": "gone", "operator": "Exists", "tolerationSeconds": 300}])),
            pod(
                "shorter",
                json!([{"key": "gone", "operator": "Exists", "tolerationSeconds": 300},
                {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]),
            ),
            pod("everlasting", json!([{"operator": "Exists"}])),
        ]);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(leaving(&running), ["plain"]);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(leaving(&running), ["plain", "shorter"]);
        // A change of the pod meanwhile does not start the wait anew.
        running.api.edit("pods", "a", "patient", |pod| pod["metadata"]["labels"] = json!({"a": "b"}));
        sleep(Duration::from_secs(240)).await;
        assert_eq!(leaving(&running), ["patient", "plain", "shorter"]);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(leaving(&running).len(), 3);
        let told = running.api.list("events");
        assert!(told.iter().any(|event| event["message"] == "Marking for deletion Pod a/plain"));
        let plain = running.api.get("pods", "a", "plain").unwrap_or_default();
        assert_eq!(plain["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
    }

    #[tokio::test(start_paused = true)]
    async fn an_eviction_is_called_off_when_the_taint_goes() {
        let tolerations = json!([{"key": "gone", "operator": "Exists", "tolerationSeconds": 300}]);
        let running = Running::new(&[node(&["gone"]), pod("patient", tolerations)]);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        sleep(Duration::from_secs(200)).await;
        running.api.put(&node(&[]));
        sleep(Duration::from_secs(200)).await;
        running.api.put(&node(&["gone"]));
        sleep(Duration::from_secs(200)).await;
        assert!(leaving(&running).is_empty());
        assert!(running.api.list("events").iter().any(|e| e["message"] == "Cancelling deletion of Pod a/patient"));
        sleep(Duration::from_secs(101)).await;
        assert_eq!(leaving(&running), ["patient"]);
    }
}
