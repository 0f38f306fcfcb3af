//! Deployments with the ReplicaSet controller and a fake kubelet.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, condition, named};
use crate::replicaset;

fn deployment(replicas: i32, strategy: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "template": template("one")}})
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.start(replicaset::sets(&running.client, &running.caches, running.recorder()));
    running.kubelet();
    running
}

fn edit(running: &Running, change: impl FnOnce(&mut Value)) {
    running.api.edit("deployments", "a", "web", |deployment| {
        change(deployment);
        let generation = deployment["metadata"]["generation"].as_i64().unwrap_or_default();
        deployment["metadata"]["generation"] = json!(generation + 1);
    });
}

/// As `kubectl rollout status` judges.
fn is_rolled_out(deployment: &Value) -> bool {
    let status = &deployment["status"];
    let wished = &deployment["spec"]["replicas"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && &status["updatedReplicas"] == wished
        && &status["replicas"] == wished
        && &status["availableReplicas"] == wished
}

async fn rolled_out(running: &Running) {
    running.api.until("deployments", |all| is_rolled_out(named(all, "web"))).await;
}

fn set_of(running: &Running, image: &str) -> Value {
    let is_it = |set: &Value| set["spec"]["template"]["spec"]["containers"][0]["image"] == image;
    running.api.list("replicasets").into_iter().find(is_it).unwrap_or_default()
}

#[tokio::test]
async fn a_new_deployment_rolls_out_and_says_so() {
    let running = start(&[deployment(3, &rolling())]);
    rolled_out(&running).await;
    running
        .api
        .until("deployments", |all| condition(named(all, "web"), "Progressing")["reason"] == "NewReplicaSetAvailable")
        .await;
    let deployment = named(&running.api.list("deployments"), "web").clone();
    assert_eq!(condition(&deployment, "Available")["reason"], "MinimumReplicasAvailable");
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let set = set_of(&running, "one");
    let hash = set["metadata"]["labels"]["pod-template-hash"].as_str().unwrap_or_default();
    assert_eq!(set["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"], "4");
    running
        .api
        .until("events", |events| {
            events.iter().any(|e| e["message"] == format!("Scaled up replica set web-{hash} from 0 to 3"))
        })
        .await;
}

#[tokio::test]
async fn a_changed_template_rolls_within_its_bounds_and_back() {
    let running = start(&[deployment(4, &rolling())]);
    rolled_out(&running).await;
    let pods = running.caches.of::<Pod>();
    let watching = tokio::spawn(async move {
        let (mut least, mut most) = (usize::MAX, 0);
        let mut changes = pods.subscribe();
        while changes.next().await.is_some() {
            let active = pods.list();
            least = least.min(active.iter().filter(|pod| crate::pods::is_ready(pod)).count());
            most = most.max(active.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count());
            if active.len() == 4
                && active
                    .iter()
                    .all(|p| p.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some("two")))
            {
                break;
            }
        }
        (least, most)
    });
    edit(&running, |d| d["spec"]["template"] = template("two"));
    rolled_out(&running).await;
    let (least, most) = tokio::time::timeout(Duration::from_secs(5), watching).await.unwrap().unwrap();
    assert!(least >= 3 && most <= 5, "ready never below 3: {least}, active never above 5: {most}");
    assert_eq!(set_of(&running, "one")["spec"]["replicas"], 0);
    // A rollback is the old template, written again.
    edit(&running, |d| d["spec"]["template"] = template("one"));
    rolled_out(&running).await;
    let set = set_of(&running, "one");
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    running
        .api
        .until("deployments", |all| {
            named(all, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        })
        .await;
    assert_eq!(running.api.list("replicasets").len(), 2);
}

#[tokio::test]
async fn recreate_runs_old_and_new_never_together() {
    let running = start(&[deployment(2, &json!({"type": "Recreate"}))]);
    rolled_out(&running).await;
    edit(&running, |d| d["spec"]["template"] = template("two"));
    let mut mixed = false;
    running
        .api
        .until("pods", |pods| {
            let images: std::collections::BTreeSet<_> =
                pods.iter().map(|p| p["spec"]["containers"][0]["image"].to_string()).collect();
            mixed |= images.len() > 1;
            images.contains("\"two\"") && pods.len() == 2
        })
        .await;
    assert!(!mixed);
    rolled_out(&running).await;
}

#[tokio::test]
async fn scaling_keeps_the_revision_and_a_pause_holds_the_rollout() {
    let running = start(&[deployment(1, &rolling())]);
    rolled_out(&running).await;
    edit(&running, |d| d["spec"]["replicas"] = json!(3));
    rolled_out(&running).await;
    assert_eq!(running.api.list("replicasets").len(), 1);
    edit(&running, |d| {
        d["spec"]["paused"] = json!(true);
        d["spec"]["template"] = template("two");
        d["spec"]["replicas"] = json!(2);
    });
    running
        .api
        .until("deployments", |all| {
            let web = named(all, "web");
            condition(web, "Progressing")["reason"] == "DeploymentPaused" && web["status"]["replicas"] == 2
        })
        .await;
    assert_eq!(running.api.list("replicasets").len(), 1);
    edit(&running, |d| d["spec"]["paused"] = json!(false));
    rolled_out(&running).await;
    assert_eq!(set_of(&running, "two")["spec"]["replicas"], 2);
}

#[tokio::test]
async fn old_sets_beyond_the_limit_are_deleted() {
    let mut first = deployment(1, &rolling());
    first["spec"]["revisionHistoryLimit"] = json!(1);
    let running = start(&[first]);
    for image in ["two", "three", "four"] {
        rolled_out(&running).await;
        edit(&running, |d| d["spec"]["template"] = template(image));
        running.api.until("replicasets", |_| set_of(&running, image)["status"]["availableReplicas"] == 1).await;
    }
    running.api.until("replicasets", |sets| sets.len() == 2).await;
    assert!(!set_of(&running, "four").is_null() && !set_of(&running, "three").is_null());
}

#[tokio::test]
async fn a_rollout_without_progress_is_late() {
    let mut late = deployment(1, &rolling());
    late["spec"]["progressDeadlineSeconds"] = json!(1);
    let running = Running::new(&[late]);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.start(replicaset::sets(&running.client, &running.caches, running.recorder()));
    running
        .api
        .until("deployments", |all| {
            let progress = condition(named(all, "web"), "Progressing").clone();
            progress["status"] == "False" && progress["reason"] == "ProgressDeadlineExceeded"
        })
        .await;
}
