//! StatefulSets against the fake API server.

use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, named};

fn set(replicas: i32, extra: &Value) -> Value {
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "a", "uid": "web", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "serviceName": "svc",
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    for (name, value) in extra.as_object().into_iter().flatten() {
        set["spec"][name] = value.clone();
    }
    set
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running
}

fn edit(running: &Running, change: impl FnOnce(&mut Value)) {
    running.api.edit("statefulsets", "a", "web", |set| {
        change(set);
        let generation = set["metadata"]["generation"].as_i64().unwrap_or_default();
        set["metadata"]["generation"] = json!(generation + 1);
    });
}

fn new_image(running: &Running, image: &str) {
    edit(running, |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn image(pods: &[Value], name: &str) -> String {
    named(pods, name)["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

fn arrived(sets: &[Value], count: i32) -> bool {
    let status = &named(sets, "web")["status"];
    status["observedGeneration"] == named(sets, "web")["metadata"]["generation"]
        && status["availableReplicas"] == count
        && status["replicas"] == count
        && status["updatedReplicas"] == count
        && status["currentRevision"] == status["updateRevision"]
}

fn names(pods: &[Value]) -> Vec<String> {
    pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn ready(running: &Running, name: &str) {
    running.api.edit("pods", "a", name, |pod| crate::fake::run(pod, 1));
}

#[tokio::test]
async fn pods_come_in_order_with_names_labels_and_claims_of_their_own() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let running = start(&[set(2, &json!({"volumeClaimTemplates": claims, "ordinals": {"start": 5}}))]);
    running.api.until("pods", |pods| names(pods) == ["web-5"]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.api.list("pods").len(), 1, "the next waits until this one is ready");
    ready(&running, "web-5");
    running.api.until("pods", |pods| names(pods) == ["web-5", "web-6"]).await;
    let pod = running.api.get("pods", "a", "web-6").unwrap_or_default();
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-6");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "6");
    let revision = running.api.list("controllerrevisions").remove(0);
    assert_eq!(labels["controller-revision-hash"], revision["metadata"]["name"]);
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("web-6"), &json!("svc")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-web-6");
    assert_eq!(names(&running.api.list("persistentvolumeclaims")), ["data-web-5", "data-web-6"]);
    assert_eq!(running.api.list("persistentvolumeclaims")[0]["metadata"]["labels"]["app"], "web");
    running.kubelet();
    running.api.until("statefulsets", |sets| arrived(sets, 2)).await;
    let said = "create Pod web-5 in StatefulSet web successful";
    running.api.until("events", |events| events.iter().any(|event| event["message"] == said)).await;
}

#[tokio::test]
async fn scaling_down_takes_the_highest_first_and_stops_where_one_is_unwell() {
    let running = start(&[set(3, &json!({"podManagementPolicy": "Parallel"}))]);
    running.api.until("pods", |pods| pods.len() == 3).await;
    for name in ["web-0", "web-1", "web-2"] {
        ready(&running, name);
    }
    running.api.until("statefulsets", |sets| arrived(sets, 3)).await;
    running.api.edit("pods", "a", "web-0", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
    edit(&running, |set| {
        set["spec"]["podManagementPolicy"] = json!("OrderedReady");
        set["spec"]["replicas"] = json!(1);
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.api.list("pods").len(), 3);
    running.kubelet();
    running.api.until("pods", |pods| names(pods) == ["web-0"]).await;
    let calls = running.api.writes();
    let gone: Vec<_> = calls
        .iter()
        .filter(|c| c.method == "DELETE")
        .map(|c| c.uri.rsplit('/').next().unwrap_or_default()[..5].to_owned())
        .collect();
    assert_eq!(gone, ["web-2", "web-1"]);
}

#[tokio::test]
async fn a_new_template_rolls_from_the_top_to_the_partition() {
    let running = start(&[set(
        3,
        &json!({"updateStrategy":
        {"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}}),
    )]);
    running.kubelet();
    running.api.until("statefulsets", |sets| arrived(sets, 3)).await;
    new_image(&running, "two");
    running
        .api
        .until("statefulsets", |sets| {
            let status = &sets[0]["status"];
            status["observedGeneration"] == 2
                && status["updateRevision"] != status["currentRevision"]
                && status["updatedReplicas"].is_null()
                && status["currentReplicas"] == 3
        })
        .await;
    edit(&running, |set| set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(2));
    running.api.until("pods", |pods| image(pods, "web-2") == "two").await;
    running
        .api
        .until("statefulsets", |sets| {
            sets[0]["status"]["updatedReplicas"] == 1 && sets[0]["status"]["readyReplicas"] == 3
        })
        .await;
    // A pod below the partition comes back as it was.
    running.api.remove("v1", "pods", "a", "web-0");
    running.api.until("pods", |pods| pods.len() == 3 && image(pods, "web-0") == "one").await;
    edit(&running, |set| set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0));
    running.api.until("statefulsets", |sets| arrived(sets, 3)).await;
    assert!(running.api.list("pods").iter().all(|pod| pod["spec"]["containers"][0]["image"] == "two"));
    new_image(&running, "one");
    running.api.until("statefulsets", |sets| arrived(sets, 3) && sets[0]["metadata"]["generation"] == 5).await;
    assert_eq!(running.api.list("controllerrevisions").len(), 2, "the first template's revision serves again");
}

#[tokio::test]
async fn failed_pods_come_back_under_their_name_and_on_delete_waits() {
    let running = start(&[set(1, &json!({"updateStrategy": {"type": "OnDelete"}}))]);
    running.kubelet();
    running.api.until("statefulsets", |sets| sets[0]["status"]["availableReplicas"] == 1).await;
    let uid = running.api.list("pods")[0]["metadata"]["uid"].clone();
    running.api.edit("pods", "a", "web-0", |pod| {
        pod["status"] = json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "True"}]});
    });
    running.api.until("pods", |pods| pods.len() == 1 && pods[0]["metadata"]["uid"] != uid).await;
    running.api.until("events", |events| events.iter().any(|e| e["reason"] == "RecreatingFailedPod")).await;
    new_image(&running, "two");
    running.api.until("statefulsets", |sets| sets[0]["status"]["observedGeneration"] == 2).await;
    assert_eq!(image(&running.api.list("pods"), "web-0"), "one");
    running.api.remove("v1", "pods", "a", "web-0");
    running.api.until("pods", |pods| image(pods, "web-0") == "two").await;
}

#[tokio::test]
async fn as_many_pods_as_may_be_away_are_replaced_at_once() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}});
    let running = start(&[set(4, &json!({"podManagementPolicy": "Parallel", "updateStrategy": strategy}))]);
    running.api.until("pods", |pods| pods.len() == 4).await;
    for n in 0..4 {
        ready(&running, &format!("web-{n}"));
    }
    running.api.until("statefulsets", |sets| arrived(sets, 4)).await;
    new_image(&running, "two");
    let leaving = |pods: &[Value]| pods.iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).count();
    running.api.until("pods", |pods| leaving(pods) == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(leaving(&running.api.list("pods")), 2);
    running.kubelet();
    running.api.until("statefulsets", |sets| arrived(sets, 4)).await;
}

#[tokio::test]
async fn claims_are_owned_as_the_retention_policy_says() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let extra = json!({"volumeClaimTemplates": claims, "persistentVolumeClaimRetentionPolicy": policy});
    let running = start(&[set(2, &extra)]);
    running.kubelet();
    running.api.until("statefulsets", |sets| arrived(sets, 2)).await;
    let owner = |claims: &[Value], name: &str| named(claims, name)["metadata"]["ownerReferences"][0]["kind"].clone();
    running.api.until("persistentvolumeclaims", |claims| owner(claims, "data-web-1") == "StatefulSet").await;
    edit(&running, |set| set["spec"]["replicas"] = json!(1));
    running.api.until("persistentvolumeclaims", |claims| owner(claims, "data-web-1") == "Pod").await;
    running.api.until("pods", |pods| pods.len() == 1).await;
    edit(&running, |set| {
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    });
    running.api.until("persistentvolumeclaims", |claims| owner(claims, "data-web-0").is_null()).await;
}

#[tokio::test]
async fn a_set_that_goes_gets_no_new_history() {
    let mut leaving = set(1, &json!({}));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    leaving["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    let running = start(&[leaving]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(running.api.list("controllerrevisions").is_empty());
}

#[tokio::test]
async fn a_huge_set_begins_with_some_of_its_pods() {
    let running = start(&[set(i32::MAX, &json!({"podManagementPolicy": "Parallel"}))]);
    running.api.until("statefulsets", |sets| !sets[0]["status"]["replicas"].is_null()).await;
    assert_eq!(named(&running.api.list("pods"), "web-249")["metadata"]["name"], "web-249");
    running.cancel.cancel();
}

#[tokio::test]
async fn pods_that_serve_nobody_count_and_are_replaced_first() {
    let strategy = |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": 2}});
    for (partition, wanted) in [(0, ["web-0", "web-3"].as_slice()), (1, &["web-3"])] {
        let extra = json!({"podManagementPolicy": "Parallel", "updateStrategy": strategy(partition)});
        let running = start(&[set(4, &extra)]);
        running.api.until("pods", |pods| pods.len() == 4).await;
        for n in 0..4 {
            ready(&running, &format!("web-{n}"));
        }
        running.api.until("statefulsets", |sets| arrived(sets, 4)).await;
        running.api.edit("pods", "a", "web-0", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
        running.api.until("statefulsets", |sets| sets[0]["status"]["availableReplicas"] == 3).await;
        new_image(&running, "two");
        let leaving = |pods: &[Value]| -> Vec<String> {
            let leaving = pods.iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
            names(&leaving.cloned().collect::<Vec<_>>())
        };
        running.api.until("pods", |pods| leaving(pods).len() == wanted.len()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(leaving(&running.api.list("pods")), wanted);
    }
}
