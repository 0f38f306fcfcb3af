//! The `status` of a simulated pod, as patches.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its containers did what they were for.
    Done,
    /// It was told to go.
    Killed,
    /// Its `activeDeadlineSeconds` are over.
    Late,
}

fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// An init container that goes on running beside the others.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn id(pod: &Pod, container: &Container) -> String {
    format!("simulated://{}/{}", pod.metadata.uid.as_deref().unwrap_or_default(), container.name)
}

/// The status of a container; `code` is that of its exit, if it has ended.
fn container(pod: &Pod, container: &Container, since: &Time, code: Option<(i32, Timestamp)>) -> Value {
    let id = id(pod, container);
    let state = match code {
        None => json!({"running": {"startedAt": since}}),
        Some((code, at)) => json!({"terminated": {"exitCode": code, "startedAt": since, "finishedAt": Time(at),
            "reason": if code == 0 { "Completed" } else { "Error" }, "containerID": id}}),
    };
    let runs = code.is_none();
    json!({"name": container.name, "image": container.image, "imageID": container.image, "containerID": id,
        "ready": runs, "started": runs, "restartCount": 0, "state": state, "lastState": {}})
}

fn statuses(pod: &Pod, since: &Time, code: Option<(i32, Timestamp)>) -> Map<String, Value> {
    let mut all = Map::new();
    let init: Vec<_> = init_containers(pod)
        .iter()
        .map(|each| {
            if is_sidecar(each) {
                return container(pod, each, since, code);
            }
            let mut done = container(pod, each, since, Some((0, since.0)));
            // Of an init container that is what it was for.
            if let Some(fields) = done.as_object_mut() {
                fields.insert("ready".to_owned(), true.into());
            }
            done
        })
        .collect();
    if !init.is_empty() {
        all.insert("initContainerStatuses".to_owned(), init.into());
    }
    let mains: Vec<_> = containers(pod).iter().map(|each| container(pod, each, since, code)).collect();
    all.insert("containerStatuses".to_owned(), mains.into());
    all
}

/// The conditions that the pod's readiness gates ask for and that do not hold.
fn closed_gates(pod: &Pod) -> Vec<&str> {
    let held = |kind: &str| {
        let mut all = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        all.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.map(|gate| gate.condition_type.as_str()).filter(|kind| !held(kind)).collect()
}

/// Whether the condition Ready of a running pod with readiness gates is not what they say.
pub(super) fn gates_turned(pod: &Pod) -> bool {
    let gated = pod.spec.as_ref().is_some_and(|spec| spec.readiness_gates.iter().flatten().next().is_some());
    gated && crate::pods::is_ready(pod) != closed_gates(pod).is_empty()
}

fn condition(
    pod: &Pod,
    now: Timestamp,
    kind: &str,
    holds: bool,
    reason: Option<&str>,
    message: Option<String>,
) -> Value {
    let mut condition = json!({"type": kind, "status": if holds { "True" } else { "False" },
        "lastTransitionTime": Time(now), "observedGeneration": pod.metadata.generation});
    if let Some(fields) = condition.as_object_mut() {
        // A merge leaves what it is not told of.
        fields.insert("reason".to_owned(), json!(reason));
        fields.insert("message".to_owned(), json!(message));
    }
    condition
}

/// Whether a running pod is ready.
pub(super) fn conditions(pod: &Pod, now: Timestamp) -> Value {
    json!({"conditions": [ready(pod, now)]})
}

fn ready(pod: &Pod, now: Timestamp) -> Value {
    let closed = closed_gates(pod);
    if closed.is_empty() {
        return condition(pod, now, "Ready", true, None, None);
    }
    let told = |kind: &&str| format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.");
    let message = closed.iter().map(told).collect::<Vec<_>>().join(", ");
    condition(pod, now, "Ready", false, Some("ReadinessGatesNotReady"), Some(message))
}

/// Of a pod that was started.
pub(super) fn running(pod: &Pod, host: Ipv4Addr, ip: Ipv4Addr, now: Timestamp) -> Value {
    let mut status = statuses(pod, &Time(now), None);
    let holds = |kind| condition(pod, now, kind, true, None, None);
    let [host, ip] = [host, ip].map(|address| address.to_string());
    let own = json!({
        "phase": "Running", "startTime": Time(now), "observedGeneration": pod.metadata.generation,
        "hostIP": host, "hostIPs": [{"ip": host}], "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [holds("PodReadyToStartContainers"), holds("Initialized"), ready(pod, now), holds("ContainersReady")],
    });
    status.extend(own.as_object().cloned().unwrap_or_default());
    status.into()
}

/// Of a pod that ended.
pub(super) fn ended(pod: &Pod, end: End, now: Timestamp) -> Value {
    let since = pod.status.as_ref().and_then(|status| status.start_time.clone()).unwrap_or(Time(now));
    let (phase, reason, code) = match end {
        End::Done => ("Succeeded", "PodCompleted", 0),
        // By SIGTERM.
        End::Killed | End::Late => ("Failed", "PodFailed", 143),
    };
    let mut status = statuses(pod, &since, Some((code, now)));
    let fails = |kind| condition(pod, now, kind, false, Some(reason), None);
    status.insert("conditions".to_owned(), json!([fails("Ready"), fails("ContainersReady")]));
    status.insert("phase".to_owned(), phase.into());
    if end == End::Late {
        status.insert("reason".to_owned(), "DeadlineExceeded".into());
        let told = "Pod was active on the node longer than the specified deadline";
        status.insert("message".to_owned(), told.into());
    }
    status.into()
}
