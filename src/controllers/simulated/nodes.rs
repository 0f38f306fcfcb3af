//! The Node objects and their Leases: registered at the start, renewed all in one go.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mini_client::{Cache, CancellationToken};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Fleet, host_address, node_name, pod_network};
use crate::driver::code;

const LEASES: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
/// Half of the time after which a silent node counts as lost.
const RENEW: Duration = Duration::from_secs(20);
/// Requests under way at once.
const AT_ONCE: usize = 16;
const RETRY: Duration = Duration::from_secs(1);
const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// What marks a simulated node, for selectors and for whoever wants to reach its kubelet.
const MARK: &str = "mini.local/simulated";
/// No condition but that nobody was heard: a machine under load may be late.
const SILENT: &str = "NodeStatusUnknown";

/// Registers the nodes, tells so through `registered`, and keeps them alive until `cancel`.
pub(crate) async fn keep(fleet: Fleet, nodes: Cache<Node>, registered: oneshot::Sender<()>, cancel: CancellationToken) {
    let work = async {
        for_all(&fleet, |number| {
            let fleet = fleet.clone();
            async move {
                while let Err(error) = register(&fleet, number).await {
                    tracing::debug!(node = node_name(number), %error, "not registered");
                    tokio::time::sleep(RETRY).await;
                }
            }
        })
        .await;
        let _ = registered.send(());
        nodes.synced().await;
        loop {
            tokio::time::sleep(RENEW).await;
            for_all(&fleet, |number| {
                let (fleet, known) = (fleet.clone(), nodes.get("", &node_name(number)));
                async move {
                    // Who deletes a node means it.
                    let Some(known) = known else { return };
                    if let Err(error) = renew(&fleet, number, &known).await {
                        tracing::debug!(node = node_name(number), %error, "lease not renewed");
                    }
                }
            })
            .await;
        }
    };
    let _ = cancel.run_until_cancelled(work).await;
}

async fn for_all<F: Future<Output = ()>>(fleet: &Fleet, work: impl Fn(usize) -> F) {
    futures::stream::iter(fleet.numbers()).for_each_concurrent(AT_ONCE, work).await;
}

async fn register(fleet: &Fleet, number: usize) -> Result<(), kube::Error> {
    let Some(client) = fleet.client(number) else { return Ok(()) };
    let api: Api<Node> = Api::all(client);
    let node: Node = serde_json::from_value(node(fleet, number)).map_err(kube::Error::SerdeError)?;
    let known = match api.create(&PostParams::default(), &node).await {
        // From an earlier start.
        Err(error) if code(&error) == 409 => {
            let status = json!({"status": node.status});
            api.patch_status(&node_name(number), &PatchParams::default(), &Patch::Strategic(status)).await?
        }
        created => created?,
    };
    renew(fleet, number, &known).await
}

async fn renew(fleet: &Fleet, number: usize, node: &Node) -> Result<(), kube::Error> {
    let (Some(client), name) = (fleet.client(number), node_name(number)) else { return Ok(()) };
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let now = Timestamp::now();
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": MicroTime(now)});
    let patch = Patch::Merge(json!({"spec": spec}));
    match leases.patch(&name, &PatchParams::default(), &patch).await {
        Err(error) if code(&error) == 404 => {
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid});
            let lease =
                json!({"metadata": {"name": name, "namespace": LEASES, "ownerReferences": [owner]}, "spec": spec});
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await?;
        }
        renewed => drop(renewed?),
    }
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if conditions.into_iter().any(|condition| condition.reason.as_deref() == Some(SILENT)) {
        let status = json!({"status": {"conditions": conditions_at(now)}});
        Api::<Node>::all(client).patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    }
    Ok(())
}

fn conditions_at(now: Timestamp) -> Value {
    let healthy = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let condition = |(kind, status, reason, message)| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": Time(now), "lastTransitionTime": Time(now)})
    };
    healthy.map(condition).into()
}

fn node(fleet: &Fleet, number: usize) -> Value {
    let name = node_name(number);
    let network = format!("{}/24", pod_network(number));
    let room = json!({"cpu": "32", "memory": "256Gi", "ephemeral-storage": "1Ti",
        "pods": fleet.0.config.pods.to_string()});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/region": "simulated",
                "topology.kubernetes.io/zone": ZONES.get(number % ZONES.len()),
                "node.kubernetes.io/instance-type": "simulated",
                MARK: "true",
            },
        },
        "spec": {"podCIDR": network, "podCIDRs": [network]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": host_address(number).to_string()},
                {"type": "Hostname", "address": name}],
            "capacity": room, "allocatable": room,
            "conditions": conditions_at(Timestamp::now()),
            "nodeInfo": {
                "machineID": name, "systemUUID": name, "bootID": name, "kernelVersion": "simulated",
                "osImage": "simulated", "containerRuntimeVersion": "simulated://0", "kubeProxyVersion": "",
                "kubeletVersion": mini_api::KUBERNETES_VERSION, "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    })
}
