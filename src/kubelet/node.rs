//! The Node object and its Lease: registered, kept true, renewed.
//!
//! Status is written when it changes and every five minutes; the lease every ten seconds. Invariant: the node says Ready
//! only while containerd answers and the pod network is configured, and says why when it does not.

use crate::admission::RESERVED_MEMORY;
use crate::runtime::Runtime;
use crate::{Config, images, resources};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mini_client::{CancellationToken, Client, EventType, Recorder};
use mini_telemetry::Component;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const TICK: Duration = Duration::from_secs(10);
/// While the node is not Ready, or not registered.
const EAGER: Duration = Duration::from_millis(50);
const EAGER_MAX: Duration = Duration::from_secs(2);
const REPORT: Duration = Duration::from_secs(300);
/// Less free memory or disk than this is pressure.
const MEMORY_MIN: i64 = RESERVED_MEMORY;
const DISK_MIN_PERCENT: u64 = 5;

struct Keeper {
    nodes: Api<Node>,
    leases: Api<Lease>,
    config: Config,
    runtime: Runtime,
    recorder: Recorder,
    component: Component,
    /// What was last written.
    status: Option<Value>,
    written: Instant,
    ready: bool,
    uid: String,
    /// The conditions that events have told of, as they were.
    told: HashMap<String, String>,
}

/// What a change of a condition to `status` is called in an event.
const TURNS: &[(&str, &str, &str)] = &[
    ("MemoryPressure", "False", "NodeHasSufficientMemory"),
    ("MemoryPressure", "True", "NodeHasInsufficientMemory"),
    ("DiskPressure", "False", "NodeHasNoDiskPressure"),
    ("DiskPressure", "True", "NodeHasDiskPressure"),
    ("PIDPressure", "False", "NodeHasSufficientPID"),
    ("PIDPressure", "True", "NodeHasInsufficientPID"),
    ("Ready", "True", "NodeReady"),
    ("Ready", "False", "NodeNotReady"),
];

pub(crate) async fn keep(
    client: Client,
    config: Config,
    runtime: Runtime,
    mut up: watch::Receiver<bool>,
    recorder: Recorder,
    component: Component,
    cancel: CancellationToken,
) {
    let mut keeper = Keeper {
        nodes: Api::all(client.clone()),
        leases: Api::namespaced(client, LEASE_NAMESPACE),
        config,
        runtime,
        recorder,
        component,
        status: None,
        written: Instant::now(),
        ready: false,
        uid: String::new(),
        told: HashMap::new(),
    };
    keeper.event("Starting", "Starting kubelet.".to_owned());
    let mut eager = EAGER;
    let mut registered = false;
    let mut leased: Option<Instant> = None;
    loop {
        let outcome = keeper.look(&mut registered).await;
        if let Err(error) = &outcome {
            tracing::debug!(%error, "node not written");
            if keeper.ready {
                keeper.ready = false;
            }
            keeper.component.waiting(format!("for the API server to take its node: {error}"));
        }
        if registered && leased.is_none_or(|at| at.elapsed() + Duration::from_secs(1) >= TICK) {
            match keeper.renew().await {
                Ok(()) => leased = Some(Instant::now()),
                Err(error) => tracing::debug!(%error, "lease not renewed"),
            }
        }
        let pause = if keeper.ready && outcome.is_ok() {
            eager = EAGER;
            TICK
        } else {
            eager = (eager * 2).min(EAGER_MAX);
            eager
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = up.changed() => if changed.is_err() { return },
        }
    }
}

impl Keeper {
    async fn look(&mut self, registered: &mut bool) -> Result<(), kube::Error> {
        let (ready, why) = self.runtime_ready().await;
        let status = self.build(ready, &why).await;
        if !*registered {
            self.register(&status).await?;
            *registered = true;
        }
        let due = self.written.elapsed() >= REPORT;
        if due || self.status.as_ref().is_none_or(|old| !same(old, &status)) {
            let patch = json!({"status": self.merged(&status)});
            self.nodes.patch_status(&self.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            self.status = Some(self.merged(&status));
            self.written = Instant::now();
        }
        if ready && !self.ready {
            self.component.ready();
        } else if !ready {
            self.component.waiting(why);
        }
        self.ready = ready;
        self.tell(&status);
        Ok(())
    }

    /// An event for each condition that is new or has turned. Not ready yet is no news.
    fn tell(&mut self, status: &Value) {
        for (kind, state, reason) in TURNS {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let holds = conditions.into_iter().any(|c| c["type"] == *kind && c["status"] == *state);
            let before = self.told.get(*kind).map(String::as_str);
            if !holds || before == Some(state) || (before.is_none() && *reason == "NodeNotReady") {
                continue;
            }
            self.event(reason, format!("Node {} status is now: {reason}", self.config.node_name));
            self.told.insert((*kind).to_owned(), (*state).to_owned());
        }
    }

    fn event(&self, reason: &str, message: String) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.config.node_name.clone()),
            uid: Some(self.config.node_name.clone()),
            ..Default::default()
        };
        self.recorder.event(&about, EventType::Normal, reason, message);
    }

    /// Whether pods can run; the text says what is missing.
    async fn runtime_ready(&self) -> (bool, String) {
        match self.runtime.conditions().await {
            Err(status) => (false, format!("for containerd: {}", status.message())),
            Ok(conditions) => match conditions.into_iter().find(|(_, holds, _)| !holds) {
                Some((kind, _, message)) => (false, format!("for containerd's {kind}: {message}")),
                None => (true, String::new()),
            },
        }
    }

    /// A create for a new node, labels and addresses for a known one.
    async fn register(&mut self, status: &Value) -> Result<(), kube::Error> {
        let name = &self.config.node_name;
        let labels = json!({
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": images::architecture(),
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": images::architecture(),
        });
        let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"podCIDR": self.config.pod_cidr, "podCIDRs": [self.config.pod_cidr]},
            "status": status,
        });
        let node: Node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
        let known = match self.nodes.create(&PostParams::default(), &node).await {
            Ok(node) => node,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
                self.nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?
            }
            Err(error) => return Err(error),
        };
        self.uid = known.metadata.uid.clone().unwrap_or_default();
        self.status = known.status.as_ref().and_then(|s| serde_json::to_value(s).ok());
        Ok(())
    }

    async fn renew(&self) -> Result<(), kube::Error> {
        let name = &self.config.node_name;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let patch = json!({"spec": spec});
        match self.leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [
                        {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self.uid}]},
                    "spec": spec,
                });
                let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                self.leases.create(&PostParams::default(), &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Keeps the transition times of conditions that did not change.
    fn merged(&self, status: &Value) -> Value {
        let mut out = status.clone();
        let old = self.status.as_ref().and_then(|s| s["conditions"].as_array()).cloned().unwrap_or_default();
        for condition in out["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(before) =
                old.iter().find(|o| o["type"] == condition["type"] && o["status"] == condition["status"])
                && !before["lastTransitionTime"].is_null()
            {
                condition["lastTransitionTime"] = before["lastTransitionTime"].clone();
            }
        }
        out
    }

    async fn build(&self, ready: bool, why: &str) -> Value {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
            json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        let memory_low = available_memory() < MEMORY_MIN;
        let disk_low = free_percent(&self.config.data_dir) < DISK_MIN_PERCENT;
        let conditions = json!([
            if memory_low {
                condition(
                    "MemoryPressure",
                    true,
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                )
            } else {
                condition(
                    "MemoryPressure",
                    false,
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                )
            },
            if disk_low {
                condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure")
            } else {
                condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
            },
            condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            if ready {
                condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
            } else {
                condition("Ready", false, "KubeletNotReady", &format!("container runtime is not ready: waiting {why}"))
            },
        ]);
        let memory = resources::machine_memory();
        let disk = disk_size(&self.config.data_dir);
        let list = |memory: i64| {
            json!({"cpu": resources::machine_cpus().to_string(), "memory": format!("{}Ki", memory / 1024),
                "ephemeral-storage": format!("{}Ki", disk / 1024), "pods": self.config.max_pods.to_string(),
                "hugepages-1Gi": "0", "hugepages-2Mi": "0"})
        };
        let runtime = self.runtime.version().await.map(|v| v.runtime_version).unwrap_or_default();
        json!({
            "addresses": [{"type": "InternalIP", "address": self.config.node_ip.to_string()},
                {"type": "Hostname", "address": self.config.node_name}],
            "capacity": list(memory),
            "allocatable": list(memory - MEMORY_MIN),
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.config.listen.port()}},
            "nodeInfo": {
                "machineID": line("/etc/machine-id"),
                "systemUUID": line("/sys/class/dmi/id/product_uuid"),
                "bootID": line("/proc/sys/kernel/random/boot_id"),
                "kernelVersion": line("/proc/sys/kernel/osrelease"),
                "osImage": os_image(),
                "containerRuntimeVersion": format!("containerd://{runtime}"),
                "kubeletVersion": mini_api::KUBERNETES_VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": images::architecture(),
            },
        })
    }
}

/// Equal but for times. Fields that others add to the node do not count.
fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => new.iter().all(|(key, value)| {
            matches!(key.as_str(), "lastHeartbeatTime" | "lastTransitionTime")
                || old.get(key).is_some_and(|o| same(o, value))
        }),
        (Value::Array(old), Value::Array(new)) => new.iter().all(|n| old.iter().any(|o| same(o, n))),
        _ => old == new,
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    name.trim_matches('"').to_owned()
}

fn available_memory() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<i64>().ok());
    kib.map_or(i64::MAX, |k| k * 1024)
}

fn free_percent(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(100, |s| s.f_bavail * 100 / s.f_blocks.max(1))
}

fn disk_size(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |s| s.f_blocks * s.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_foreign_fields_are_no_change() {
        let old = json!({"capacity": {"cpu": "2", "example.com/x": "5"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "a"}, {"type": "Other", "status": "True"}]});
        let new = json!({"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "b"}]});
        assert!(same(&old, &new));
        let changed = json!({"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "False"}]});
        assert!(!same(&old, &changed));
    }
}
