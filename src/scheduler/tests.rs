//! The scheduler against a fake API server.

use std::time::Duration;

use mini_client::testing::FakeApi;
use mini_telemetry::Health;
use serde_json::{Value, json};

use super::*;

struct Running {
    api: FakeApi,
    cancel: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn start(objects: &[Value]) -> Running {
    let api = FakeApi::default();
    for object in objects {
        api.put(object);
    }
    let cancel = CancellationToken::new();
    let caches = Caches::new(api.client(), cancel.clone());
    drop(spawn(api.client(), caches, Health::default().component("scheduler"), cancel.clone()));
    Running { api, cancel }
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "10"}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Pending"}})
}

fn with(mut object: Value, path: &str, value: Value) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(parent) = object.pointer_mut(&if parent.is_empty() { String::new() } else { format!("/{parent}") }) {
        parent[name] = value;
    }
    object
}

fn place(pods: &[Value], name: &str) -> String {
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
    pod.and_then(|pod| pod["spec"]["nodeName"].as_str()).unwrap_or_default().to_owned()
}

fn why(pods: &[Value], name: &str) -> String {
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
    let conditions = pod.and_then(|pod| pod["status"]["conditions"].as_array().cloned()).unwrap_or_default();
    let condition =
        conditions.iter().find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    condition.and_then(|condition| condition["message"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_pod_is_bound_and_an_event_tells_where() {
    let running = start(&[node("n", "1"), pod("web", "100m")]);
    running.api.until("pods", |pods| place(pods, "web") == "n").await;
    running
        .api
        .until("events", |events| events.iter().any(|e| e["message"] == "Successfully assigned a/web to n"))
        .await;
}

#[tokio::test]
async fn what_fits_nowhere_says_why_and_is_placed_once_room_is_made() {
    let running = start(&[node("n", "1"), pod("big", "900m")]);
    running.api.until("pods", |pods| place(pods, "big") == "n").await;
    running.api.put(&pod("late", "500m"));
    running.api.until("pods", |pods| why(pods, "late") == "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.").await;
    running.api.until("events", |events| events.iter().any(|e| e["reason"] == "FailedScheduling")).await;
    running.api.remove("v1", "pods", "a", "big");
    running.api.until("pods", |pods| place(pods, "late") == "n").await;
}

#[tokio::test]
async fn a_burst_never_overcommits_a_node() {
    let mut objects = vec![node("n", "1")];
    objects.extend((0..8).map(|n| pod(&format!("p{n}"), "300m")));
    let running = start(&objects);
    let placed = |pods: &[Value]| pods.iter().filter(|pod| pod["spec"]["nodeName"] == "n").count();
    let told = |pods: &[Value]| (0..8).filter(|n| !why(pods, &format!("p{n}")).is_empty()).count();
    running.api.until("pods", |pods| placed(pods) == 3 && told(pods) == 5).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(placed(&running.api.list("pods")), 3);
}

#[tokio::test]
async fn taints_selectors_and_closed_nodes_keep_pods_off() {
    let tainted =
        with(node("tainted", "1"), "spec", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}));
    let closed = with(node("closed", "1"), "spec", json!({"unschedulable": true}));
    let choosy = with(pod("choosy", "1m"), "spec/nodeSelector", json!({"disk": "ssd"}));
    let tolerant = with(pod("tolerant", "1m"), "spec/tolerations", json!([{"key": "k", "operator": "Exists"}]));
    let running = start(&[tainted, closed, choosy, tolerant]);
    running.api.until("pods", |pods| place(pods, "tolerant") == "tainted").await;
    let reason = "0/2 nodes are available: 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable. preemption: \
                  0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    running.api.until("pods", |pods| why(pods, "choosy") == reason).await;
    running.api.put(&with(node("new", "1"), "metadata/labels", json!({"disk": "ssd"})));
    running.api.until("pods", |pods| place(pods, "choosy") == "new").await;
}

#[tokio::test]
async fn host_ports_and_anti_affinity_spread_pods() {
    let port = json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "one"}}}]}});
    let running = start(&[node("n1", "4"), with(pod("one", "1m"), "spec/containers", port.clone())]);
    running.api.until("pods", |pods| place(pods, "one") == "n1").await;
    running.api.put(&with(pod("two", "1m"), "spec/containers", port));
    running.api.put(&with(pod("three", "1m"), "spec/affinity", anti));
    let ports = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: \
                 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    let rules = "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. preemption: \
                 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    running.api.until("pods", |pods| why(pods, "two") == ports && why(pods, "three") == rules).await;
    running.api.put(&node("n2", "4"));
    running.api.until("pods", |pods| place(pods, "two") == "n2" && place(pods, "three") == "n2").await;
}

#[tokio::test]
async fn others_pods_and_gated_pods_are_left_alone() {
    let other = with(pod("other", "1m"), "spec/schedulerName", json!("mine"));
    let gated = with(pod("gated", "1m"), "spec/schedulingGates", json!([{"name": "wait"}]));
    let running = start(&[node("n", "1"), other, gated, pod("plain", "1m")]);
    running.api.until("pods", |pods| place(pods, "plain") == "n" && !why(pods, "gated").is_empty()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let pods = running.api.list("pods");
    assert_eq!((place(&pods, "other"), place(&pods, "gated")), (String::new(), String::new()));
    running.api.edit("pods", "a", "gated", |pod| pod["spec"]["schedulingGates"] = json!([]));
    running.api.until("pods", |pods| place(pods, "gated") == "n").await;
}

#[tokio::test]
async fn pods_prefer_the_emptier_node() {
    let running = start(&[node("a", "1"), node("b", "1"), pod("first", "500m")]);
    running.api.until("pods", |pods| !place(pods, "first").is_empty()).await;
    running.api.put(&pod("second", "500m"));
    running.api.until("pods", |pods| !place(pods, "second").is_empty()).await;
    let pods = running.api.list("pods");
    assert_ne!(place(&pods, "first"), place(&pods, "second"));
}

#[tokio::test]
async fn a_placed_pod_that_shrinks_or_is_relabelled_makes_room() {
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "big"}}}]}});
    let running = start(&[node("n", "1"), pod("big", "900m")]);
    running.api.until("pods", |pods| place(pods, "big") == "n").await;
    running.api.put(&pod("late", "500m"));
    running.api.put(&with(pod("shy", "1m"), "spec/affinity", anti));
    running.api.until("pods", |pods| !why(pods, "late").is_empty() && !why(pods, "shy").is_empty()).await;
    running.api.edit("pods", "a", "big", |big| {
        big["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("100m");
    });
    running.api.until("pods", |pods| place(pods, "late") == "n").await;
    running.api.edit("pods", "a", "big", |big| big["metadata"]["labels"]["app"] = json!("other"));
    running.api.until("pods", |pods| place(pods, "shy") == "n").await;
}

fn with_claim(pod: Value, claim: &str) -> Value {
    with(pod, "spec/volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]))
}

fn claim(name: &str, class: &str, bound_to: Option<&str>) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "a", "uid": format!("u-{name}")},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"}});
    if let Some(volume) = bound_to {
        claim["spec"]["volumeName"] = json!(volume);
        claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
        claim["status"]["phase"] = json!("Bound");
    }
    claim
}

fn volume(name: &str, class: &str, node: &str) -> Value {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
        "status": {"phase": "Available"}})
}

fn class(name: &str, provisioner: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"})
}

#[tokio::test]
async fn pods_go_where_their_volumes_can_be_used() {
    let running = start(&[
        node("a", "1"),
        node("b", "1"),
        volume("here", "", "b"),
        claim("here", "", Some("here")),
        volume("far", "", "gone"),
        claim("far", "", Some("far")),
        claim("late", "", None),
        with_claim(pod("fits", "1m"), "here"),
        with_claim(pod("cannot", "1m"), "far"),
        with_claim(pod("waits", "1m"), "late"),
        with_claim(pod("lacks", "1m"), "none"),
    ]);
    running.api.until("pods", |pods| place(pods, "fits") == "b").await;
    let cannot = "0/2 nodes are available: 2 node(s) had volume node affinity conflict.";
    let waits = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    let lacks = "0/2 nodes are available: persistentvolumeclaim \"none\" not found.";
    for (name, reason) in [("cannot", cannot), ("waits", waits), ("lacks", lacks)] {
        running.api.until("pods", |pods| why(pods, name).starts_with(reason)).await;
    }
    running.api.put(&volume("free", "", "a"));
    running.api.put(&claim("late", "", Some("free")));
    running.api.until("pods", |pods| place(pods, "waits") == "a").await;
}

#[tokio::test]
async fn the_first_consumer_decides_where_volumes_are() {
    let running = start(&[
        node("a", "1"),
        node("b", "1"),
        class("made", "example.com/p"),
        class("byhand", "kubernetes.io/no-provisioner"),
        claim("made", "made", None),
        claim("static", "byhand", None),
        volume("disk", "byhand", "b"),
        with_claim(with(pod("one", "1m"), "spec/nodeSelector", json!({"kubernetes.io/hostname": "a"})), "made"),
        with_claim(pod("two", "1m"), "static"),
    ]);
    let node_of = |claims: &[Value], name: &str| {
        let claim = claims.iter().find(|claim| claim["metadata"]["name"] == name).cloned().unwrap_or_default();
        claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].clone()
    };
    running.api.until("persistentvolumeclaims", |claims| node_of(claims, "made") == "a").await;
    running.api.until("persistentvolumes", |volumes| volumes[0]["spec"]["claimRef"]["uid"] == "u-static").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(place(&running.api.list("pods"), "one").is_empty(), "not before its volume is there");
    assert!(why(&running.api.list("pods"), "one").is_empty(), "and that is no failure");
    running.api.put(&volume("fresh", "made", "a"));
    running.api.put(&claim("made", "made", Some("fresh")));
    running.api.put(&claim("static", "byhand", Some("disk")));
    running.api.until("pods", |pods| place(pods, "one") == "a" && place(pods, "two") == "b").await;
}

fn important(pod: Value, priority: i32) -> Value {
    with(pod, "spec/priority", json!(priority))
}

fn placed_on(pod: Value, node: &str) -> Value {
    with(with(pod, "spec/nodeName", json!(node)), "status", json!({"phase": "Running"}))
}

fn leaving(pods: &[Value], name: &str) -> bool {
    pods.iter().any(|pod| pod["metadata"]["name"] == name && !pod["metadata"]["deletionTimestamp"].is_null())
}

#[tokio::test]
async fn an_important_pod_pushes_out_the_least_that_makes_room() {
    let running = start(&[
        node("n", "1"),
        placed_on(important(pod("low", "400m"), 1), "n"),
        placed_on(important(pod("lower", "400m"), 0), "n"),
        placed_on(important(pod("equal", "100m"), 9), "n"),
    ]);
    running.api.put(&important(pod("high", "400m"), 9));
    running.api.until("pods", |pods| leaving(pods, "lower")).await;
    let promised = |pods: &[Value]| pods.iter().any(|pod| pod["status"]["nominatedNodeName"] == "n");
    running.api.until("pods", promised).await;
    running.api.until("events", |events| events.iter().any(|event| event["reason"] == "Preempted")).await;
    let victim = running.api.get("pods", "a", "lower").unwrap_or_default();
    let condition = &victim["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("DisruptionTarget"), &json!("PreemptionByScheduler"))
    );
    // What leaves makes room for the one it was promised to, and for no less important one.
    running.api.put(&important(pod("thief", "400m"), 1));
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.api.remove("v1", "pods", "a", "lower");
    running.api.until("pods", |pods| place(pods, "high") == "n").await;
    assert!(!leaving(&running.api.list("pods"), "equal") && place(&running.api.list("pods"), "thief").is_empty());
}

#[tokio::test]
async fn budgets_and_policies_bear_on_who_is_pushed_out() {
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": "a"},
        "spec": {"selector": {"matchLabels": {"app": "kept"}}}, "status": {"disruptionsAllowed": 0}});
    let running = start(&[
        budget,
        node("n", "1"),
        placed_on(important(pod("kept", "500m"), 0), "n"),
        placed_on(important(pod("dearer", "500m"), 5), "n"),
    ]);
    let meek = with(important(pod("meek", "500m"), 9), "spec/preemptionPolicy", json!("Never"));
    running.api.put(&meek);
    let never = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    running.api.until("pods", |pods| why(pods, "meek") == never).await;
    running.api.put(&important(pod("bold", "500m"), 9));
    running.api.until("pods", |pods| leaving(pods, "dearer")).await;
    assert!(!leaving(&running.api.list("pods"), "kept"));
}

#[tokio::test]
async fn images_that_are_there_and_wished_spread_draw_pods() {
    let mut holder = node("z", "4");
    holder["status"]["images"] = json!([{"names": ["docker.io/library/big:1"], "sizeBytes": 900 << 20}]);
    let mut wants = pod("wants", "1m");
    wants["spec"]["containers"][0]["image"] = json!("big:1");
    let running = start(&[node("a", "4"), holder, wants]);
    running.api.until("pods", |pods| place(pods, "wants") == "z").await;
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "wants"}}}]);
    let twin = with(
        with(pod("twin", "1m"), "spec/topologySpreadConstraints", spread),
        "metadata/labels",
        json!({"app": "wants"}),
    );
    running.api.put(&twin);
    running.api.until("pods", |pods| place(pods, "twin") == "a").await;
}
