//! Claims and volumes against the fake API server.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, named};

fn volume(name: &str, size: &str, extra: &Value) -> Value {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data"}});
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec,
        "status": {"phase": "Pending"}})
}

fn claim(name: &str, extra: &Value) -> Value {
    let mut spec = json!({"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": ""});
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "a", "uid": format!("u-{name}")}, "spec": spec,
        "status": {"phase": "Pending"}})
}

fn class(mode: &str, extra: &Value) -> Value {
    let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disk"},
        "provisioner": hostpath::NAME, "reclaimPolicy": "Delete", "volumeBindingMode": mode});
    for (field, value) in extra.as_object().into_iter().flatten() {
        class[field] = value.clone();
    }
    class
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(binder::Controller::new(&running.client, &running.caches, running.recorder()));
    running.start(protection::Controller::new(&running.client, &running.caches));
    running
}

/// Phase of a volume or claim.
fn phase(objects: &[Value], name: &str) -> String {
    named(objects, name)["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

async fn told(running: &Running, reason: &str) {
    running.api.until("events", |events| events.iter().any(|event| event["reason"] == reason)).await;
}

fn claims(running: &Running) -> Api<PersistentVolumeClaim> {
    Api::namespaced(running.client.clone(), "a")
}

#[tokio::test]
async fn a_claim_gets_the_smallest_volume_and_a_retained_one_is_released() {
    let plain = json!({});
    let running = start(&[volume("big", "10Gi", &plain), volume("fit", "2Gi", &plain), claim("c", &plain)]);
    running.api.until("persistentvolumeclaims", |all| phase(all, "c") == "Bound").await;
    running
        .api
        .until("persistentvolumes", |all| phase(all, "fit") == "Bound" && phase(all, "big") == "Available")
        .await;
    let bound = running.api.get("persistentvolumeclaims", "a", "c").unwrap_or_default();
    assert_eq!(bound["spec"]["volumeName"], "fit");
    assert_eq!(bound["status"]["capacity"]["storage"], "2Gi");
    let annotations = json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    assert_eq!(bound["metadata"]["annotations"], annotations);
    assert_eq!(bound["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let fit = running.api.get("persistentvolumes", "", "fit").unwrap_or_default();
    assert_eq!(fit["spec"]["claimRef"]["uid"], "u-c");

    claims(&running).delete("c", &DeleteParams::default()).await.unwrap();
    running.api.until("persistentvolumes", |all| phase(all, "fit") == "Released").await;
    // Its administrator gives it free again.
    running.api.edit("persistentvolumes", "", "fit", |fit| fit["spec"]["claimRef"] = Value::Null);
    running.api.until("persistentvolumes", |all| phase(all, "fit") == "Available").await;
}

#[tokio::test]
async fn promises_of_users_are_kept_by_both_sides() {
    let promise = json!({"claimRef": {"name": "c", "namespace": "a"}});
    let running = start(&[
        volume("kept", "10Gi", &promise),
        volume("small", "1Gi", &json!({})),
        volume("named", "1Gi", &json!({})),
        claim("named", &json!({"volumeName": "named"})),
        claim("greedy", &json!({"volumeName": "kept", "resources": {"requests": {"storage": "1Gi"}}})),
    ]);
    running.api.until("persistentvolumeclaims", |all| phase(all, "named") == "Bound").await;
    told(&running, "FailedBinding").await;
    running.api.until("persistentvolumes", |all| phase(all, "kept") == "Available").await;
    running.api.put(&claim("c", &json!({})));
    running.api.until("persistentvolumeclaims", |all| named(all, "c")["spec"]["volumeName"] == "kept").await;
    running.api.until("persistentvolumes", |all| phase(all, "kept") == "Bound").await;
    let kept = running.api.get("persistentvolumes", "", "kept").unwrap_or_default();
    assert!(kept["metadata"]["annotations"].is_null(), "the user's choice, not the binder's");
    assert_eq!(phase(&running.api.list("persistentvolumeclaims"), "greedy"), "Pending");
}

#[tokio::test]
async fn a_claim_whose_volume_is_gone_is_lost() {
    let running = start(&[volume("v", "1Gi", &json!({})), claim("c", &json!({}))]);
    running.api.until("persistentvolumeclaims", |all| phase(all, "c") == "Bound").await;
    running.api.remove("v1", "persistentvolumes", "", "v");
    running.api.until("persistentvolumeclaims", |all| phase(all, "c") == "Lost").await;
    told(&running, "ClaimLost").await;
}

#[tokio::test]
async fn what_is_used_is_kept_until_it_is_not() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
        "spec": {"nodeName": "n", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    let running = start(&[volume("v", "1Gi", &json!({})), claim("c", &json!({})), pod]);
    let bound = |all: &[Value]| phase(all, "c") == "Bound" && named(all, "c")["metadata"]["finalizers"].is_array();
    running.api.until("persistentvolumeclaims", bound).await;
    running.api.until("persistentvolumes", |all| phase(all, "v") == "Bound").await;
    claims(&running).delete("c", &DeleteParams::default()).await.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(running.client.clone());
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((running.api.list("persistentvolumeclaims").len(), running.api.list("persistentvolumes").len()), (1, 1));
    running.api.remove("v1", "pods", "a", "p");
    running.api.until("persistentvolumeclaims", <[Value]>::is_empty).await;
    running.api.until("persistentvolumes", <[Value]>::is_empty).await;
}

#[tokio::test]
async fn a_claim_made_before_the_default_class_gets_it() {
    let mut early = claim("c", &json!({}));
    if let Some(spec) = early["spec"].as_object_mut() {
        spec.remove("storageClassName");
    }
    let running = start(&[early]);
    told(&running, "FailedBinding").await;
    let mut default = class("WaitForFirstConsumer", &json!({}));
    default["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    running.api.put(&default);
    running.api.until("persistentvolumeclaims", |all| named(all, "c")["spec"]["storageClassName"] == "disk").await;
    told(&running, "WaitForFirstConsumer").await;
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn provisioner(running: &Running, test: &str) -> Folder {
    let root = std::env::temp_dir().join(format!("mini-{test}-{}", std::process::id()));
    let node = crate::Node { volumes: root.clone(), ..crate::fake::node() };
    running.start(hostpath::Controller::new(&running.client, &running.caches, &node, running.recorder()));
    Folder(root)
}

#[tokio::test]
async fn folders_are_made_for_the_first_consumer_and_go_with_their_claim() {
    let running = start(&[class("WaitForFirstConsumer", &json!({})), claim("c", &json!({"storageClassName": "disk"}))]);
    let root = provisioner(&running, "provision");
    told(&running, "WaitForFirstConsumer").await;
    let elsewhere = json!({"volume.kubernetes.io/selected-node": "other"});
    running.api.edit("persistentvolumeclaims", "a", "c", |c| c["metadata"]["annotations"] = elsewhere);
    told(&running, "ExternalProvisioning").await;
    assert!(running.api.list("persistentvolumes").is_empty(), "another node's to make");
    running.api.edit("persistentvolumeclaims", "a", "c", |c| {
        c["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = json!("n");
    });
    running.api.until("persistentvolumeclaims", |all| phase(all, "c") == "Bound").await;
    told(&running, "ProvisioningSucceeded").await;
    let volume = running.api.get("persistentvolumes", "", "pvc-u-c").unwrap_or_default();
    let folder = root.0.join("a-c-pvc-u-c");
    assert_eq!(volume["spec"]["hostPath"]["path"], folder.to_string_lossy().as_ref());
    let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["n"]));
    std::fs::write(folder.join("data"), "x").unwrap();
    claims(&running).delete("c", &DeleteParams::default()).await.unwrap();
    running.api.until("persistentvolumes", <[Value]>::is_empty).await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_retained_folder_stays_and_a_foreign_path_is_not_touched() {
    let keeping = class("Immediate", &json!({"reclaimPolicy": "Retain"}));
    let running = start(&[keeping, claim("c", &json!({"storageClassName": "disk"}))]);
    let root = provisioner(&running, "retain");
    running.api.until("persistentvolumeclaims", |all| phase(all, "c") == "Bound").await;
    claims(&running).delete("c", &DeleteParams::default()).await.unwrap();
    running.api.until("persistentvolumes", |all| phase(all, "pvc-u-c") == "Released").await;
    assert!(root.0.join("a-c-pvc-u-c").exists());

    let outside = root.0.join("precious");
    std::fs::create_dir(&outside).unwrap();
    let mut forged = volume(
        "forged",
        "1Gi",
        &json!({"hostPath": {"path": outside}, "persistentVolumeReclaimPolicy":
        "Delete", "claimRef": {"name": "gone", "namespace": "a", "uid": "u-gone"}}),
    );
    forged["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": hostpath::NAME});
    running.api.put(&forged);
    told(&running, "VolumeFailedDelete").await;
    assert!(outside.exists());
}
