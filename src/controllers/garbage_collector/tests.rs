//! The garbage collector against the fake API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, named};

fn map(name: &str, owners: &[(&str, bool)]) -> Value {
    let owners: Vec<_> = owners
        .iter()
        .map(|(owner, block)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": format!("u-{owner}"),
            "blockOwnerDeletion": block})
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "a", "uid": format!("u-{name}"), "ownerReferences": owners}})
}

fn start(objects: &[Value]) -> (Running, Api<ConfigMap>) {
    let running = Running::new(objects);
    tokio::spawn(run(running.client.clone(), running.recorder(), running.cancel.clone()));
    let api = Api::namespaced(running.client.clone(), "a");
    (running, api)
}

async fn names(running: &Running, expected: &[&str]) {
    running
        .api
        .until("configmaps", |maps| {
            maps.iter().filter_map(|map| map["metadata"]["name"].as_str()).collect::<Vec<_>>() == expected
        })
        .await;
}

#[tokio::test]
async fn dependents_follow_their_owner_to_the_last_one() {
    let (running, api) = start(&[
        map("owner", &[]),
        map("child", &[("owner", false)]),
        map("grandchild", &[("child", false)]),
        map("other", &[]),
    ]);
    api.delete("owner", &DeleteParams::background()).await.unwrap();
    names(&running, &["other"]).await;
}

#[tokio::test]
async fn what_was_left_behind_before_the_start_goes() {
    let (running, _) = start(&[map("child", &[("gone", false)]), map("other", &[])]);
    names(&running, &["other"]).await;
}

#[tokio::test]
async fn one_owner_that_stays_is_enough() {
    let (running, api) = start(&[map("a", &[]), map("b", &[]), map("child", &[("a", false), ("b", false)])]);
    api.delete("a", &DeleteParams::background()).await.unwrap();
    running
        .api
        .until("configmaps", |maps| {
            maps.len() == 2
                && named(maps, "child")["metadata"]["ownerReferences"].as_array().is_some_and(|o| o.len() == 1)
        })
        .await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let mut held = map("child", &[("owner", true)]);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let (running, api) = start(&[map("owner", &[]), held]);
    api.delete("owner", &DeleteParams::foreground()).await.unwrap();
    running.api.until("configmaps", |maps| !named(maps, "child")["metadata"]["deletionTimestamp"].is_null()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.api.list("configmaps").len(), 2);
    running.api.remove("v1", "configmaps", "a", "child");
    names(&running, &[]).await;
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let (running, api) = start(&[map("child", &[("owner", true)]), map("owner", &[])]);
    api.delete("owner", &DeleteParams::orphan()).await.unwrap();
    running
        .api
        .until("configmaps", |maps| {
            maps.len() == 1 && maps[0]["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.api.list("configmaps").len(), 1);
}

#[tokio::test]
async fn a_circle_deleted_in_the_foreground_dissolves() {
    let (running, api) = start(&[map("a", &[("c", true)]), map("b", &[("a", true)]), map("c", &[("b", true)])]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    api.delete("a", &DeleteParams::foreground()).await.unwrap();
    names(&running, &[]).await;
}

#[tokio::test]
async fn an_owner_of_an_unknown_kind_keeps_its_dependents() {
    let mut child = map("child", &[("x", false)]);
    child["metadata"]["ownerReferences"][0]["kind"] = json!("Mystery");
    let (running, _) = start(&[child, map("late", &[("gone", false)])]);
    names(&running, &["child"]).await;
}

fn owned_volume(kind: &str, owner: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv", "uid": "u-pv",
        "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": owner, "uid": format!("u-{owner}")}]}})
}

#[tokio::test]
async fn what_has_no_namespace_is_never_deleted_for_an_owner_in_one() {
    let (running, _) = start(&[owned_volume("ConfigMap", "gone"), map("late", &[("gone", false)])]);
    names(&running, &[]).await;
    running.api.until("events", |events| events.iter().any(|e| e["reason"] == "OwnerRefInvalidNamespace")).await;
    let said = "ownerRef [v1/ConfigMap, namespace: , name: gone, uid: u-gone] does not exist in namespace \"\"";
    assert_eq!(running.api.list("events")[0]["message"], said);
    assert_eq!(running.api.list("persistentvolumes").len(), 1);
}

#[tokio::test]
async fn nor_when_that_owner_is_deleted() {
    let (running, api) = start(&[map("owner", &[]), owned_volume("ConfigMap", "owner")]);
    running.api.until("events", |events| !events.is_empty()).await;
    api.delete("owner", &DeleteParams::background()).await.unwrap();
    names(&running, &[]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.api.list("persistentvolumes").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_cannot_be_listed_is_not_waited_for_for_ever() {
    let running = Running::new(&[map("child", &[("gone", false)])]);
    running.api.refuse_lists("secrets", 500);
    tokio::spawn(run(running.client.clone(), running.recorder(), running.cancel.clone()));
    tokio::time::sleep(PATIENCE * 2).await;
    assert!(running.api.list("configmaps").is_empty());
}
