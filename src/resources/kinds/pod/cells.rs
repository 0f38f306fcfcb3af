//! The row of a pod: what `kubectl get pods` says it is doing.

use crate::columns::{self, NONE, int, list, text_or};
use jiff::Timestamp;
use mini_api::Meta;
use serde_json::Value;

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts > 0 => {
            let ago = columns::human_duration(now.as_second() - at.as_second());
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        columns::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        columns::age(pod, now),
        match list(pod, &["status", "podIPs"]).first() {
            Some(first) => text_or(first, &["ip"], NONE),
            None => text_or(pod, &["status", "podIP"], NONE),
        },
        text_or(pod, &["spec", "nodeName"], NONE),
        text_or(pod, &["status", "nominatedNodeName"], NONE),
        readiness_gates(pod).into(),
    ]
}

struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts of some containers, and when the last of them ended before it was started again.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += int(container, &["restartCount"]);
        let ended = container.text(&["lastState", "terminated", "finishedAt"]).parse::<Timestamp>().ok();
        self.last = self.last.max(ended);
    }
}

fn summarize(pod: &Value) -> Summary {
    let spec_inits = list(pod, &["spec", "initContainers"]);
    let sidecar =
        |name: &str| spec_inits.iter().any(|c| c.text(&["name"]) == name && c.text(&["restartPolicy"]) == "Always");
    let phase = pod.text(&["status", "phase"]);
    let mut status = match pod.text(&["status", "reason"]) {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let conditions = list(pod, &["status", "conditions"]);
    let condition = |name: &str| conditions.iter().find(|c| c.text(&["type"]) == name);
    if condition("PodScheduled").is_some_and(|c| c.text(&["reason"]) == "SchedulingGated") {
        status = "SchedulingGated".to_owned();
    }
    let total = list(pod, &["spec", "containers"]).len()
        + spec_inits.iter().filter(|c| c.text(&["restartPolicy"]) == "Always").count();
    let mut ready = 0;
    let (mut all, mut sidecars) = (Restarts::default(), Restarts::default());

    let mut initializing = false;
    for (i, container) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        all.add(container);
        let is_sidecar = sidecar(container.text(&["name"]));
        if is_sidecar {
            sidecars.add(container);
        }
        let state = container.get("state").unwrap_or(&Value::Null);
        if let Some(ended) = state.get("terminated") {
            if int(ended, &["exitCode"]) == 0 {
                continue;
            }
            status = format!("Init:{}", termination(ended));
        } else if is_sidecar && container.get("started").and_then(Value::as_bool) == Some(true) {
            ready += usize::from(is_ready(container));
            continue;
        } else {
            status = match state.text(&["waiting", "reason"]) {
                "" | "PodInitializing" => format!("Init:{i}/{}", spec_inits.len()),
                reason => format!("Init:{reason}"),
            };
        }
        initializing = true;
        break;
    }

    let initialized = condition("Initialized").is_some_and(|c| c.text(&["status"]) == "True");
    if !initializing || initialized {
        all = sidecars;
        let mut running = false;
        let mut failure = None;
        for container in list(pod, &["status", "containerStatuses"]).iter().rev() {
            all.add(container);
            let state = container.get("state").unwrap_or(&Value::Null);
            match (state.text(&["waiting", "reason"]), state.get("terminated")) {
                ("", Some(ended)) => {
                    status = termination(ended);
                    if int(ended, &["exitCode"]) != 0 {
                        failure = Some(status.clone());
                    }
                }
                ("", None) => {
                    if is_ready(container) && state.get("running").is_some() {
                        running = true;
                        ready += 1;
                    }
                }
                (reason, _) => status = reason.to_owned(),
            }
        }
        if status == "Completed" {
            let pod_ready = condition("Ready").is_some_and(|c| c.text(&["status"]) == "True");
            status = match (failure, running) {
                (_, true) if pod_ready => "Running".to_owned(),
                (Some(failure), _) => failure,
                (None, true) => "NotReady".to_owned(),
                (None, false) => status,
            };
        }
    }

    if pod.is_deleting() {
        if pod.text(&["status", "reason"]) == "NodeLost" {
            status = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            status = "Terminating".to_owned();
        }
    }
    Summary { status, ready, total, restarts: all.count, last_restart: all.last }
}

fn is_ready(container: &Value) -> bool {
    container.get("ready").and_then(Value::as_bool) == Some(true)
}

fn termination(ended: &Value) -> String {
    match (ended.text(&["reason"]), int(ended, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(ended, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let conditions = list(pod, &["status", "conditions"]);
    let open = gates
        .iter()
        .filter(|gate| {
            let wanted = gate.text(&["conditionType"]);
            let found = conditions.iter().find(|c| c.text(&["type"]) == wanted);
            found.is_some_and(|c| c.text(&["status"]) == "True")
        })
        .count();
    format!("{open}/{}", gates.len())
}
