//! Notices nodes that stopped renewing their Lease, tells that their pods are not ready, and taints nodes by their
//! conditions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use mini_client::{Cache, Caches, Client, EventType, Recorder, Scope, reference};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::pods;

const LEASES: &str = "kube-node-lease";
/// A node that said nothing for this long is not known to be ready (upstream's node monitor grace period).
const GRACE: Duration = Duration::from_secs(40);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Condition, its bad status, and the taint it brings.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) struct Controller {
    client: Client,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    recorder: Recorder,
    /// What was last heard of each node, by our own clock: theirs may differ.
    heard: Arc<Mutex<HashMap<String, (String, Instant)>>>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        let scope = Scope { namespace: Some(LEASES.to_owned()), ..Scope::default() };
        let leases = caches.scoped(scope);
        let (nodes, pods) = (caches.of(), caches.of());
        Self { client: client.clone(), nodes, leases, pods, recorder, heard: Arc::default() }
    }

    /// How long ago a node last renewed its lease or wrote its status.
    fn silence(&self, name: &str, node: &Node) -> Duration {
        let lease = self.leases.get(LEASES, name);
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let beat = condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let sign = format!("{renewed:?} {beat:?}");
        let mut heard = self.heard.lock();
        let (last, since) = heard.entry(name.to_owned()).or_insert_with(|| (sign.clone(), Instant::now()));
        if *last != sign {
            (*last, *since) = (sign, Instant::now());
        }
        since.elapsed()
    }

    async fn mark_unknown(&self, node: &Node, writes: &mut Writes) -> Result<(), kube::Error> {
        let now = Time(Timestamp::now());
        let conditions: Vec<_> = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
            .into_iter()
            .map(|kind| {
                let heartbeat = condition(node, kind).and_then(|condition| condition.last_heartbeat_time.clone());
                json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": now,
                    "lastHeartbeatTime": heartbeat, "message": "Kubelet stopped posting node status."})
            })
            .collect();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let said = format!("Node {name} status is now: NodeNotReady");
        self.recorder.event(&reference(node), EventType::Normal, "NodeNotReady", said);
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        if let Some(written) = optional(api.patch_status(name, &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.nodes, &written);
        }
        Ok(())
    }

    /// Nobody vouches any more for the pods of a node that is silent: they leave the endpoints of their Services.
    async fn mark_pods_not_ready(&self, node: &str, writes: &mut Writes) -> Result<(), kube::Error> {
        let here = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        for pod in self.pods.list().into_iter().filter(|pod| here(pod) && pods::is_ready(pod)) {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let patched = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if let Some(written) = optional(patched)? {
                writes.wrote(&self.pods, &written);
                self.recorder.event(&reference(pod.as_ref()), EventType::Warning, "NodeNotReady", "Node is not ready");
            }
        }
        Ok(())
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Nothing is known of it any more.
fn is_lost(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "Unknown")
}

fn is_ours(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    [UNREACHABLE, NOT_READY, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
}

/// The taints a node should have: those of others as they are, ours by its conditions.
fn taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wished: Vec<(&str, &str)> = Vec::new();
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => {}
        Some("Unknown") => wished.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wished.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    for (kind, taint) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wished.push((taint, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wished.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = wished.into_iter().map(|(key, effect)| {
        let same = present.iter().find(|taint| taint.key == key && taint.effect == effect);
        same.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            // Evictions count from here; the other effects have no use for a time.
            time_added: (effect == "NoExecute").then_some(Time(now)),
            value: None,
        })
    });
    present.iter().filter(|taint| !is_ours(taint)).cloned().chain(ours).collect()
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn sources(&self) -> Vec<Source> {
        let leases = Source::of(&self.leases, |change| {
            vec![Key::new("", change.object().metadata.name.clone().unwrap_or_default())]
        });
        vec![Source::own(&self.nodes), leases]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(node) = self.nodes.get("", &key.name) else {
            self.heard.lock().remove(&key.name);
            return Ok(None);
        };
        let silence = self.silence(&key.name, &node);
        let unknown = is_lost(&node);
        if silence >= GRACE && !unknown {
            self.mark_unknown(&node, writes).await?;
            self.mark_pods_not_ready(&key.name, writes).await?;
            return Ok(None);
        }
        let wished = taints(&node, Timestamp::now());
        let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        if wished != present {
            let api: Api<Node> = Api::all(self.client.clone());
            let meta = json!({"resourceVersion": node.metadata.resource_version});
            let patch = Patch::Merge(json!({"metadata": meta, "spec": {"taints": wished}}));
            if let Some(written) = optional(api.patch(&key.name, &PatchParams::default(), &patch).await)? {
                writes.wrote(&self.nodes, &written);
            }
        }
        Ok((!unknown).then(|| GRACE.saturating_sub(silence).max(Duration::from_secs(1))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::fake::{Running, condition as condition_of};

    fn node(ready: &str, unschedulable: bool) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"},
            "spec": {"unschedulable": unschedulable, "taints": [{"key": "mine", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    fn keys(node: &Node) -> Vec<String> {
        taints(node, Timestamp::now()).into_iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        assert_eq!(keys(&node("True", false)), ["mine:NoSchedule"]);
        let unknown = [
            "mine:NoSchedule",
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute",
        ];
        assert_eq!(keys(&node("Unknown", false)), unknown);
        assert_eq!(keys(&node("True", true)), ["mine:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pods_of_a_silent_node_are_not_ready_any_more() {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let pod = |name: &str, node: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
                "spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        };
        let running = Running::new(&[node, pod("lost", "n"), pod("other", "m")]);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        sleep(Duration::from_secs(38)).await;
        let ready = |name: &str| {
            let pod = running.api.get("pods", "a", name).unwrap_or_default();
            condition_of(&pod, "Ready")["status"] == "True"
        };
        assert!(ready("lost"));
        sleep(Duration::from_secs(4)).await;
        assert!(!ready("lost") && ready("other"));
        let node = running.api.get("nodes", "", "n").unwrap_or_default();
        assert_eq!(node["spec"]["taints"][1]["key"], UNREACHABLE);
        assert!(
            running
                .api
                .list("events")
                .iter()
                .any(|event| event["reason"] == "NodeNotReady" && event["involvedObject"]["name"] == "lost")
        );
    }
}
