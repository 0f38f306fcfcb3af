//! patch, scale, binding.

use crate::harness::{CONFIG_MAPS, JSON, MERGE, PODS, Server, config_map, pod};
use serde_json::json;

const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[tokio::test]
async fn three_kinds_of_patch() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let path = format!("{PODS}/p");
    let merged = s.call("PATCH", &path, MERGE, &json!({"metadata": {"labels": {"a": "1", "b": "2"}}})).await;
    assert_eq!(merged.body["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    let operations = json!([{"op": "remove", "path": "/metadata/labels/a"}]);
    let removed = s.call("PATCH", &path, JSON_PATCH, &operations).await;
    assert_eq!(removed.body["metadata"]["labels"], json!({"b": "2"}));
    let strategic = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    let patched = s.call("PATCH", &path, STRATEGIC, &strategic).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    assert_eq!(patched.body["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(patched.body["spec"]["containers"][0]["image"], "other");
    s.stop().await;
}

#[tokio::test]
async fn patches_that_do_not_fit_are_refused() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    let path = format!("{CONFIG_MAPS}/a");
    for (kind, patch, code) in [
        (JSON_PATCH, json!([{"op": "test", "path": "/data/k", "value": "other"}]), 422),
        (JSON_PATCH, json!({"a": 1}), 400),
        (MERGE, json!([1]), 400),
        (MERGE, json!({"metadata": {"name": "b"}}), 400),
        (MERGE, json!({"metadata": {"resourceVersion": "1"}}), 409),
        (MERGE, json!({"data": {"k": 1}}), 422),
        ("application/apply-patch+cbor", json!({}), 415),
        (JSON, json!({}), 415),
    ] {
        let answer = s.call("PATCH", &path, kind, &patch).await;
        assert_eq!(answer.code, code, "{kind} {patch}: {}", answer.body);
    }
    assert_eq!(s.get(&path).await.body, made);
    assert_eq!(s.patch(&format!("{CONFIG_MAPS}/none"), &json!({})).await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let s = Server::start().await;
    let base = "/apis/apps/v1/namespaces/default/replicasets";
    let labels = json!({"app": "a"});
    let set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = s.post(base, &set).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let scale = s.get(&format!("{base}/r/scale")).await.body;
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=a")));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = 5.into();
    assert_eq!(s.put(&format!("{base}/r/scale"), &wanted).await.body["spec"]["replicas"], 5);
    assert_eq!(s.put(&format!("{base}/r/scale"), &wanted).await.code, 409, "its revision is an old one");
    assert_eq!(s.patch(&format!("{base}/r/scale"), &json!({"spec": {"replicas": 7}})).await.code, 200);
    assert_eq!(s.get(&format!("{base}/r")).await.body["spec"]["replicas"], 7);
    assert_eq!(s.patch(&format!("{base}/r/scale"), &json!({"spec": {"replicas": -1}})).await.code, 422);
    s.stop().await;
}

#[tokio::test]
async fn a_binding_happens_once() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
                         "target": {"kind": "Node", "name": "n"}});
    let bound = s.post(&format!("{PODS}/p/binding"), &binding).await;
    assert_eq!((bound.code, &bound.body["status"]), (201, &json!("Success")));
    let pod = s.get(&format!("{PODS}/p")).await.body;
    assert_eq!(pod["spec"]["nodeName"], "n");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"));
    let again = s.post(&format!("{PODS}/p/binding"), &binding).await;
    assert_eq!(again.code, 409);
    assert_eq!(
        again.body["message"],
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
    s.stop().await;
}

#[tokio::test]
async fn status_and_spec_are_separate() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let path = format!("{PODS}/p");
    let patch = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"from": "patch"}}});
    let main = s.patch(&path, &patch).await;
    assert_ne!(main.body["status"]["phase"], "Running", "status is not changed through the object");
    assert_eq!(main.body["metadata"]["labels"]["from"], "patch");
    let status = s.patch(&format!("{path}/status"), &json!({"status": {"phase": "Running"}})).await;
    assert_eq!(status.body["status"]["phase"], "Running", "{}", status.body);
    s.stop().await;
}
