//! ReplicaSets and ReplicationControllers against the fake API server.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, condition, named, run};

fn set(replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "a", "uid": "set", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}})
}

fn pod(name: &str, labels: &Value, ready: bool) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "labels": labels}, "spec": {"containers": []},
        "status": {"phase": "Pending"}});
    if ready {
        run(&mut pod, 9);
    }
    pod
}

fn owned(mut pod: Value) -> Value {
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
        "uid": "set", "controller": true}]);
    pod
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(sets(&running.client, &running.caches, running.recorder()));
    running
}

#[tokio::test]
async fn missing_pods_are_made_once_and_the_status_follows() {
    let running = start(&[set(10)]);
    running.kubelet();
    running.api.until("replicasets", |sets| named(sets, "web")["status"]["availableReplicas"] == 10).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let creations = running.api.writes().iter().filter(|c| c.method == "POST" && c.uri.contains("/pods")).count();
    assert_eq!(creations, 10);
    let pod = running.api.list("pods").remove(0);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "set");
    assert_eq!(pod["metadata"]["labels"]["app"], "web");
    running
        .api
        .until("events", |events| events.iter().filter(|e| e["reason"] == "SuccessfulCreate").count() == 10)
        .await;
    let status = &running.api.list("replicasets").remove(0)["status"];
    assert_eq!(
        (&status["replicas"], &status["fullyLabeledReplicas"], &status["observedGeneration"]),
        (&json!(10), &json!(10), &json!(1))
    );
}

#[tokio::test]
async fn scaling_down_takes_unready_pods_first() {
    let labels = json!({"app": "web"});
    let running = start(&[set(1), owned(pod("ready", &labels, true)), owned(pod("not", &labels, false))]);
    running.api.until("pods", |pods| pods.len() == 1).await;
    assert!(running.api.get("pods", "a", "ready").is_some());
    running.api.until("events", |events| events.iter().any(|e| e["message"] == "Deleted pod: not")).await;
}

#[tokio::test]
async fn orphans_are_adopted_and_strangers_released() {
    let running = start(&[
        set(2),
        pod("orphan", &json!({"app": "web"}), true),
        owned(pod("stranger", &json!({"app": "other"}), true)),
    ]);
    running
        .api
        .until("pods", |pods| {
            pods.len() == 3
                && named(pods, "orphan")["metadata"]["ownerReferences"][0]["uid"] == "set"
                && named(pods, "stranger")["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
}

#[tokio::test]
async fn a_lost_pod_is_replaced() {
    let running = start(&[set(1)]);
    running.kubelet();
    running.api.until("replicasets", |sets| named(sets, "web")["status"]["readyReplicas"] == 1).await;
    let name = running.api.list("pods")[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    running.api.remove("v1", "pods", "a", &name);
    running.api.until("pods", |pods| pods.len() == 1 && pods[0]["metadata"]["name"] != name.as_str()).await;
}

#[tokio::test]
async fn refusals_are_told_and_end_with_them() {
    let running = Running::new(&[set(5)]);
    running.api.refuse_creations("pods", 4, 403, "exceeded quota");
    running.start(sets(&running.client, &running.caches, running.recorder()));
    running
        .api
        .until("replicasets", |sets| {
            let failure = condition(named(sets, "web"), "ReplicaFailure");
            failure["reason"] == "FailedCreate" && failure["message"] == "exceeded quota"
        })
        .await;
    running.api.until("events", |events| events.iter().any(|e| e["message"] == "Error creating: exceeded quota")).await;
    // Slow start: one refusal ends an attempt.
    running.api.until("pods", |pods| pods.len() == 5).await;
    running.api.until("replicasets", |sets| condition(named(sets, "web"), "ReplicaFailure").is_null()).await;
    let creations = running.api.writes().iter().filter(|c| c.method == "POST" && c.uri.contains("/pods")).count();
    assert_eq!(creations, 9);
}

#[tokio::test]
async fn replication_controllers_work_alike() {
    let running = Running::new(&[json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "rc", "namespace": "a", "generation": 1}, "spec": {"replicas": 2, "selector": {"app": "rc"},
        "template": {"metadata": {"labels": {"app": "rc"}}, "spec": {"containers": []}}}})]);
    running.start(replication(&running.client, &running.caches, running.recorder()));
    running.kubelet();
    running.api.until("replicationcontrollers", |rcs| named(rcs, "rc")["status"]["readyReplicas"] == 2).await;
    assert!(named(&running.api.list("replicationcontrollers"), "rc")["status"]["terminatingReplicas"].is_null());
    running.api.edit("replicationcontrollers", "a", "rc", |rc| rc["spec"]["replicas"] = json!(0));
    running.api.until("pods", <[Value]>::is_empty).await;
}
