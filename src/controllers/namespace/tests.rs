//! Namespaces on their way out.

use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, condition, named};

fn leaving(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}})
}

fn object(kind: &str, name: &str) -> Value {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "old"}, "spec": {}})
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(Controller::new(&running.client, &running.caches));
    running
}

#[tokio::test]
async fn all_content_goes_and_then_the_namespace() {
    let mut elsewhere = object("ConfigMap", "stays");
    elsewhere["metadata"]["namespace"] = json!("other");
    let running = start(&[
        leaving("old"),
        object("ConfigMap", "a"),
        object("Secret", "b"),
        object("Deployment", "c"),
        object("Pod", "d"),
        elsewhere,
    ]);
    running.api.until("namespaces", <[Value]>::is_empty).await;
    assert_eq!(running.api.list("configmaps").len(), 1);
    assert!(running.api.list("secrets").is_empty() && running.api.list("deployments").is_empty());
}

#[tokio::test]
async fn a_held_pod_holds_the_rest_and_is_told() {
    let mut held = object("Pod", "held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let running = start(&[leaving("old"), held, object("ConfigMap", "a")]);
    running
        .api
        .until("namespaces", |all| {
            let remaining = condition(named(all, "old"), "NamespaceContentRemaining").clone();
            remaining["status"] == "True"
                && remaining["message"] == "Some resources are remaining: pods has 1 resource instances"
                && condition(named(all, "old"), "NamespaceDeletionContentFailure")["status"] == "False"
        })
        .await;
    assert_eq!(running.api.list("configmaps").len(), 1, "pods go before what they use");
    running.api.remove("v1", "pods", "old", "held");
    running.api.until("namespaces", <[Value]>::is_empty).await;
    assert!(running.api.list("configmaps").is_empty());
}

#[tokio::test]
async fn a_namespace_that_stays_is_left_alone() {
    let mut stays = leaving("stays");
    stays["metadata"]["deletionTimestamp"] = Value::Null;
    let running = start(&[stays, leaving("old")]);
    running.api.until("namespaces", |all| all.len() == 1).await;
}
