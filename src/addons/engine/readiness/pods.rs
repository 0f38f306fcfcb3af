//! What keeps a workload's pods from running: the sentence its user needs.

use super::{Cluster, Error, condition, said};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Why a pod is not ready.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) what: String,
    /// Of the kind that seldom mends itself.
    pub(super) lasting: bool,
}

/// Waiting reasons that are part of every start.
const USUAL: &[&str] = &["ContainerCreating", "PodInitializing"];

/// A container that was restarted counts as well when it has run this long.
const STEADY_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// The worst trouble among the pods of a workload.
pub(super) async fn trouble(cluster: &Cluster, workload: &Value) -> Result<Option<Trouble>, Error> {
    let pods = of_workload(cluster, workload).await?;
    if pods.is_empty() {
        let failure = condition(workload, "ReplicaFailure").filter(|found| found["status"] == "True");
        return Ok(failure.map(|found| Trouble { what: said(found), lasting: true }));
    }
    let mut found: Vec<(&Value, Trouble)> = pods.iter().filter_map(|pod| Some((pod, of_pod(pod)?))).collect();
    found.sort_by_key(|(_, trouble)| !trouble.lasting);
    let Some((pod, mut trouble)) = found.into_iter().next() else { return Ok(None) };
    if let Some(more) = more_about(cluster, pod, &trouble).await {
        trouble.what = format!("{}: {more}", trouble.what);
    }
    Ok(Some(trouble))
}

/// A container among a workload's pods that was restarted only now: it looks well each time, for a moment.
pub(super) async fn flapping(cluster: &Cluster, workload: &Value) -> Result<Option<String>, Error> {
    let now = Timestamp::now();
    for pod in of_workload(cluster, workload).await? {
        if let Some(what) = restarted(&pod, now) {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn restarted(pod: &Value, now: Timestamp) -> Option<String> {
    let containers = pod["status"]["containerStatuses"].as_array()?;
    let fresh = containers.iter().find(|container| {
        let started =
            container["state"]["running"]["startedAt"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let steady = started.is_some_and(|started| now.duration_since(started) >= STEADY_AFTER);
        container["restartCount"].as_i64().unwrap_or_default() > 0 && !steady
    })?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let last = &fresh["lastState"]["terminated"]["exitCode"];
    let ended = last.as_i64().map(|code| format!(", last with exit code {code}")).unwrap_or_default();
    Some(format!(
        "pod {}: container {} was restarted {} times{ended}",
        text(&pod["metadata"]["name"]),
        text(&fresh["name"]),
        fresh["restartCount"]
    ))
}

async fn of_workload(cluster: &Cluster, workload: &Value) -> Result<Vec<Value>, Error> {
    let namespace = workload["metadata"]["namespace"].as_str();
    let labels = workload["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{}%3D{}", key.replace('/', "%2F"), value.as_str()?)))
        .collect();
    if selector.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("labelSelector={}", selector.join("%2C"));
    let mut pods = cluster.list("v1", "Pod", namespace, &query).await?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(pods)
}

/// What the pod's own status says.
fn of_pod(pod: &Value) -> Option<Trouble> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let told = |what: String, lasting: bool| Some(Trouble { what: format!("pod {name}: {what}"), lasting });
    if let Some(unplaced) = condition(pod, "PodScheduled").filter(|found| found["status"] == "False") {
        return told(said(unplaced), false);
    }
    let status = &pod["status"];
    let containers =
        ["initContainerStatuses", "containerStatuses"].into_iter().flat_map(|key| status[key].as_array()).flatten();
    for container in containers {
        let state = &container["state"];
        let of = container["name"].as_str().unwrap_or_default();
        let waiting = &state["waiting"];
        if let Some(reason) = waiting["reason"].as_str().filter(|reason| !USUAL.contains(reason)) {
            let last = &container["lastState"]["terminated"];
            let ended = last["exitCode"].as_i64().map(|code| format!(", exit code {code}")).unwrap_or_default();
            let message = waiting["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
            return told(format!("container {of}: {reason}{ended}{message}"), true);
        }
        if let Some(code) = state["terminated"]["exitCode"].as_i64().filter(|code| *code != 0) {
            return told(format!("container {of} ended with exit code {code}"), true);
        }
    }
    if status["phase"] == "Failed" {
        return told(said(status), true);
    }
    match condition(pod, "Ready").filter(|found| found["status"] == "True") {
        Some(_) => None,
        None => told(status["phase"].as_str().unwrap_or("Pending").to_owned() + ", not ready", false),
    }
}

/// The last line of a container that ended, or else the pod's last warning.
async fn more_about(cluster: &Cluster, pod: &Value, trouble: &Trouble) -> Option<String> {
    let meta = &pod["metadata"];
    let (namespace, name) = (meta["namespace"].as_str()?, meta["name"].as_str()?);
    if trouble.what.contains("exit code") {
        let ended = pod["status"]["containerStatuses"].as_array()?.iter().find(|container| {
            !container["lastState"]["terminated"].is_null() || !container["state"]["terminated"].is_null()
        })?;
        let previous = ended["state"]["terminated"].is_null();
        let container = ended["name"].as_str()?;
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}&previous={previous}&tailLines=1"
        );
        let line = cluster.text(&path).await.ok()?;
        return Some(format!("its log ends with {:?}", line.trim())).filter(|_| !line.trim().is_empty());
    }
    let query = format!("fieldSelector=involvedObject.name%3D{name}%2Ctype%3DWarning");
    let events = cluster.list("v1", "Event", Some(namespace), &query).await.ok()?;
    let time = |event: &Value| {
        let at = ["lastTimestamp", "eventTime"].iter().find_map(|key| event[*key].as_str());
        at.unwrap_or_default().to_owned()
    };
    // Probes fail until the server listens.
    let telling = events.iter().filter(|event| event["reason"] != "FailedScheduling");
    let last = telling.max_by_key(|event| time(event))?;
    let what = said(last);
    (!trouble.what.contains(last["message"].as_str()?)).then_some(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn trouble(status: Value) -> Option<(String, bool)> {
        let trouble = of_pod(&json!({"metadata": {"name": "p"}, "status": status}))?;
        Some((trouble.what, trouble.lasting))
    }

    #[test]
    fn the_cause_is_found_in_the_pods_status() {
        let container = |state: Value, last: Value| json!({"containerStatuses": [{"name": "c", "state": state, "lastState": last}]});
        let pull = container(json!({"waiting": {"reason": "ErrImagePull", "message": "no such host"}}), json!({}));
        assert_eq!(trouble(pull), Some(("pod p: container c: ErrImagePull: no such host".into(), true)));
        let crash =
            container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"terminated": {"exitCode": 2}}));
        assert_eq!(trouble(crash), Some(("pod p: container c: CrashLoopBackOff, exit code 2".into(), true)));
        let ended = container(json!({"terminated": {"exitCode": 1}}), json!({}));
        assert_eq!(trouble(ended), Some(("pod p: container c ended with exit code 1".into(), true)));
        let unplaced = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]});
        assert_eq!(trouble(unplaced), Some(("pod p: Unschedulable: 0/1 nodes".into(), false)));
        let starting = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]});
        assert_eq!(trouble(starting), Some(("pod p: Pending, not ready".into(), false)));
        assert_eq!(trouble(json!({"conditions": [{"type": "Ready", "status": "True"}]})), None);
    }

    #[test]
    fn a_container_must_stay_up_after_a_restart() {
        let now: Timestamp = "2026-11-22T10:00:30Z".parse().unwrap();
        let told = |restarts: i64, started: &str| {
            let container = json!({"name": "c", "restartCount": restarts, "state": {"running": {"startedAt": started}},
                                   "lastState": {"terminated": {"exitCode": 3}}});
            restarted(&json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}}), now)
        };
        assert_eq!(told(0, "2026-11-22T10:00:30Z"), None);
        assert_eq!(told(2, "2026-11-22T10:00:20Z"), None);
        let said = "pod p: container c was restarted 2 times, last with exit code 3".to_owned();
        assert_eq!(told(2, "2026-11-22T10:00:29Z"), Some(said));
    }
}
