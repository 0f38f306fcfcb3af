//! DaemonSets against the fake API server, with a scheduler that takes affinities at their word.

use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, named};

fn node(name: &str, extra: &Value) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {}});
    node["spec"] = extra.clone();
    node
}

fn set(image: &str, strategy: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "ds", "namespace": "a", "uid": "ds", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "ds"}}, "updateStrategy": strategy, "revisionHistoryLimit": 10,
            "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn rolling(unavailable: i32, surge: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.kubelet();
    running
}

fn edit(running: &Running, change: impl FnOnce(&mut Value)) {
    running.api.edit("daemonsets", "a", "ds", |set| {
        change(set);
        let generation = set["metadata"]["generation"].as_i64().unwrap_or_default();
        set["metadata"]["generation"] = json!(generation + 1);
    });
}

fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

fn aim_of(pod: &Value) -> &str {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    pod.pointer(terms).and_then(|terms| terms[0]["matchFields"][0]["values"][0].as_str()).unwrap_or_default()
}

fn settled(sets: &[Value], count: i32) -> bool {
    let status = &named(sets, "ds")["status"];
    status["observedGeneration"] == named(sets, "ds")["metadata"]["generation"]
        && status["updatedNumberScheduled"] == count
        && status["numberAvailable"] == count
        && status["desiredNumberScheduled"] == count
}

#[tokio::test]
async fn each_fitting_node_gets_one_pod_that_bears_the_usual_taints() {
    let tainted = json!({"taints": [{"key": "own", "effect": "NoSchedule"}]});
    let sick = json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]});
    let objects = [set("one", &rolling(1, 0)), node("n1", &json!({})), node("sick", &sick), node("tainted", &tainted)];
    let running = start(&objects);
    running.api.until("daemonsets", |sets| settled(sets, 2)).await;
    let pods = running.api.list("pods");
    let mut aims: Vec<_> = pods.iter().map(aim_of).collect();
    aims.sort_unstable();
    assert_eq!(aims, ["n1", "sick"]);
    let hash = pods[0]["metadata"]["labels"][POD_LABEL].as_str().unwrap_or_default().to_owned();
    let revisions = running.api.list("controllerrevisions");
    assert_eq!(revisions[0]["metadata"]["name"], format!("ds-{hash}"));
    assert_eq!(revisions[0]["metadata"]["labels"][POD_LABEL], hash);
    assert_eq!(revisions[0]["data"]["spec"]["template"]["$patch"], "replace");
    running.api.until("events", |events| events.iter().any(|e| e["reason"] == "SuccessfulCreate")).await;
    // A label asked for leaves one node; then none.
    edit(&running, |set| set["spec"]["template"]["spec"]["nodeSelector"] = json!({"name": "n1"}));
    running.api.until("daemonsets", |sets| settled(sets, 1)).await;
    running.api.edit("nodes", "", "n1", |node| node["metadata"]["labels"] = json!({}));
    running.api.until("pods", <[Value]>::is_empty).await;
}

#[tokio::test]
async fn a_new_template_rolls_and_an_old_one_comes_back_as_the_newest() {
    let mut objects = vec![set("one", &rolling(1, 0))];
    objects.extend((0..4).map(|n| node(&format!("n{n}"), &json!({}))));
    let running = start(&objects);
    running.api.until("daemonsets", |sets| settled(sets, 4)).await;
    let old = running.api.list("controllerrevisions").remove(0);
    edit(&running, |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("two"));
    running.api.until("pods", |pods| pods.len() == 4 && pods.iter().all(|pod| image(pod) == "two")).await;
    running.api.until("daemonsets", |sets| settled(sets, 4)).await;
    assert_eq!(running.api.list("controllerrevisions").len(), 2);
    // As kubectl rollout undo does.
    let template = old["data"]["spec"]["template"].clone();
    edit(&running, |set| {
        set["spec"]["template"] = template;
        set["spec"]["template"].as_object_mut().unwrap().remove("$patch");
    });
    running.api.until("pods", |pods| pods.len() == 4 && pods.iter().all(|pod| image(pod) == "one")).await;
    let revisions = running.api.list("controllerrevisions");
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    assert_eq!((revisions.len(), &named(&revisions, name)["revision"]), (2, &json!(3)));
}

/// A round over nodes `n0`…, each with pods given as (hash, ready).
fn planned(strategy: &Value, pods: &[&[(&str, bool)]]) -> (usize, usize) {
    let set: DaemonSet = serde_json::from_value(set("two", strategy)).unwrap();
    let nodes = (0..pods.len()).map(|n| Arc::new(serde_json::from_value(node(&format!("n{n}"), &json!({}))).unwrap()));
    let pod = |at: usize, (hash, ready): &(&str, bool)| {
        let mut pod = json!({"metadata": {"name": format!("p{at}{hash}"), "labels": {POD_LABEL: hash}},
            "spec": {"nodeName": format!("n{at}"), "containers": []}, "status": {"phase": "Running"}});
        if *ready {
            crate::fake::run(&mut pod, 1);
            pod["spec"]["nodeName"] = json!(format!("n{at}"));
        }
        Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    let all: Vec<_> = pods.iter().enumerate().flat_map(|(at, pods)| pods.iter().map(move |p| pod(at, p))).collect();
    let (nodes, pods) = (nodes.collect(), nodes::by_node(&all));
    let round = Round { set: &set, hash: "new".to_owned(), nodes, pods, now: Timestamp::now() };
    let plan = round.roll(&mut None);
    (plan.create.len(), plan.delete.len())
}

#[test]
fn no_more_pods_are_away_or_beside_than_allowed() {
    let (old, new, ailing, coming) = (&[("old", true)], &[("new", true)], &[("old", false)], &[("new", false)]);
    let both = &[("old", true), ("new", false)];
    assert_eq!(planned(&rolling(2, 0), &[old, old, old, old]), (0, 2));
    assert_eq!(planned(&rolling(2, 0), &[old, old, coming, new]), (0, 1));
    assert_eq!(planned(&rolling(2, 0), &[old, coming, coming, new]), (0, 0));
    assert_eq!(planned(&rolling(1, 0), &[old, ailing, new, new]), (0, 1), "what ails goes first");
    assert_eq!(planned(&rolling(1, 0), &[old, old, &[], new]), (0, 0), "a node without a pod is one away");
    assert_eq!(planned(&rolling(0, 2), &[old, old, old, new]), (2, 0));
    assert_eq!(planned(&rolling(0, 2), &[old, both, old, ailing]), (2, 0));
    assert_eq!(planned(&rolling(0, 1), &[&[("old", true), ("new", true)], old]), (1, 1));
}

#[tokio::test]
async fn on_delete_waits_and_surge_makes_the_new_pod_first() {
    let running = start(&[set("one", &json!({"type": "OnDelete"})), node("n", &json!({}))]);
    running.api.until("daemonsets", |sets| settled(sets, 1)).await;
    edit(&running, |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("two"));
    running
        .api
        .until("daemonsets", |sets| {
            sets[0]["status"]["observedGeneration"] == 2 && sets[0]["status"]["updatedNumberScheduled"].is_null()
        })
        .await;
    assert_eq!(image(&running.api.list("pods")[0]), "one");
    edit(&running, |set| set["spec"]["updateStrategy"] = rolling(0, 1));
    running.api.until("pods", |pods| pods.len() == 1 && image(&pods[0]) == "two").await;
    let calls = running.api.writes();
    let pods = |method: &str| calls.iter().rposition(|call| call.method == method && call.uri.contains("/pods"));
    assert!(pods("POST") < pods("DELETE"), "the new one came before the old one went");
}

#[tokio::test]
async fn failed_pods_are_replaced_and_strays_removed() {
    let running = start(&[set("one", &rolling(1, 0)), node("n", &json!({}))]);
    running.api.until("daemonsets", |sets| settled(sets, 1)).await;
    let first = running.api.list("pods")[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    running.api.edit("pods", "a", &first, |pod| pod["status"]["phase"] = json!("Failed"));
    running.api.until("events", |events| events.iter().any(|e| e["reason"] == "FailedDaemonPod")).await;
    running.api.until("pods", |pods| pods.len() == 1 && named(pods, &first).is_null()).await;
    let mut twin = running.api.list("pods").remove(0);
    twin["metadata"]["name"] = json!("twin");
    twin["metadata"]["uid"] = Value::Null;
    twin["metadata"]["creationTimestamp"] = json!("2090-01-01T00:00:00Z");
    running.api.put(&twin);
    running.api.until("pods", |pods| pods.len() == 1 && named(pods, "twin").is_null()).await;
}

#[tokio::test]
async fn pods_made_for_a_node_that_is_gone_go() {
    let running = Running::new(&[set("one", &rolling(1, 0)), node("n1", &json!({})), node("n2", &json!({}))]);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.api.until("pods", |pods| pods.len() == 2).await;
    running.api.remove("v1", "nodes", "", "n2");
    running.api.until("pods", |pods| pods.len() == 1 && aim_of(&pods[0]) == "n1").await;
}

#[tokio::test]
async fn of_equal_revisions_one_stays_with_all_their_pods() {
    let running = start(&[set("one", &rolling(1, 0)), node("n1", &json!({}))]);
    running.api.until("daemonsets", |sets| settled(sets, 1)).await;
    let (mut double, pod) = (running.api.list("controllerrevisions").remove(0), running.api.list("pods").remove(0));
    double["metadata"]["name"] = json!("ds-double");
    double["metadata"]["uid"] = json!("double");
    double["metadata"]["labels"][POD_LABEL] = json!("double");
    double["revision"] = json!(2);
    running.api.put(&double);
    let all_of = |pods: &[Value], hash: &str| pods.iter().all(|pod| pod["metadata"]["labels"][POD_LABEL] == hash);
    running.api.until("controllerrevisions", |all| all.len() == 1 && all[0]["metadata"]["name"] == "ds-double").await;
    running.api.until("pods", |pods| pods.len() == 1 && all_of(pods, "double")).await;
    assert_eq!(running.api.list("pods")[0]["metadata"]["uid"], pod["metadata"]["uid"]);
}
