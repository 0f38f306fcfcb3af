use std::time::Duration;

use mini_client::{CancellationToken, Client};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::fake::{Running, condition, named};

fn fleet(running: &Running, nodes: usize) -> Fleet {
    let client = running.client.clone();
    Fleet::new(&Config { nodes, pods: 110, client_of: Arc::new(move |_| -> Client { client.clone() }) })
}

fn start(running: &Running, nodes: usize) {
    running.start(super::pods::Controller::new(&fleet(running, nodes), &running.caches));
}

fn pod(name: &str, node: &str, extra: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "generation": 1},
        "spec": {"nodeName": node, "restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}});
    for (part, fields) in extra.as_object().into_iter().flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            pod[part][field] = value.clone();
        }
    }
    pod
}

fn of_job() -> Value {
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true});
    json!({"metadata": {"ownerReferences": [job]}, "spec": {"restartPolicy": "Never"}})
}

#[test]
fn a_node_is_ours_by_its_number() {
    let config = Config { nodes: 12, pods: 110, client_of: Arc::new(|_| unreachable!()) };
    let fleet = Fleet::new(&config);
    let numbers =
        ["fake-1", "fake-12", "fake-13", "fake-0", "fake-01", "fake-+1", "other"].map(|name| fleet.number(name));
    assert_eq!(numbers, [Some(1), Some(12), None, None, None, None, None]);
}

#[test]
fn no_two_pods_have_one_address_and_those_of_the_gone_are_given_again() {
    let mut addresses = Addresses::default();
    let first: Vec<_> = (0..254).map(|n| addresses.give(&format!("a{n}"), 1).unwrap()).collect();
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 254);
    assert_eq!(addresses.give("one more", 1), None);
    assert_eq!(addresses.give("a0", 1), first.first().copied());
    assert!(!first.contains(&addresses.give("elsewhere", 2).unwrap()));
    addresses.release("a7");
    assert_eq!(addresses.give("one more", 1), first.get(7).copied());
    let known: Pod =
        serde_json::from_value(pod("old", "fake-1", &json!({"status": {"podIP": first[0].to_string()}}))).unwrap();
    let mut after = Addresses::of(&[Arc::new(known)]);
    assert_eq!(after.give("new", 1), first.get(1).copied());
}

#[tokio::test]
async fn pods_run_at_once_and_only_on_simulated_nodes() {
    let init = json!({"spec": {"initContainers": [{"name": "first", "image": "i"},
        {"name": "beside", "image": "i", "restartPolicy": "Always"}]}});
    let running = Running::new(&[
        pod("one", "fake-1", &json!({})),
        pod("two", "fake-2", &init),
        pod("host", "fake-2", &json!({"spec": {"hostNetwork": true}})),
        pod("real", "machine", &json!({})),
        pod("beyond", "fake-3", &json!({})),
    ]);
    start(&running, 2);
    let runs = |pods: &[Value], name: &str| named(pods, name)["status"]["phase"] == "Running";
    running.api.until("pods", |pods| ["one", "two", "host"].iter().all(|name| runs(pods, name))).await;
    let all = running.api.list("pods");
    assert!(!runs(&all, "real") && !runs(&all, "beyond"));
    let one = named(&all, "one");
    for kind in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        assert_eq!(condition(one, kind)["status"], "True", "{kind}");
    }
    let status = &one["status"];
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("100.64.1.1"), &json!("198.18.0.1")));
    assert!(status["startTime"].is_string());
    assert!(status["containerStatuses"][0]["state"]["running"]["startedAt"].is_string());
    let init = &named(&all, "two")["status"]["initContainerStatuses"];
    assert_eq!(init[0]["state"]["terminated"]["exitCode"], 0);
    assert!(init[1]["state"]["running"].is_object());
    assert_eq!(named(&all, "host")["status"]["podIP"], "198.18.0.2");
}

#[tokio::test]
async fn the_pods_of_jobs_succeed_and_deadlines_end_pods() {
    let late = json!({"spec": {"activeDeadlineSeconds": 1}});
    let bare = json!({"spec": {"restartPolicy": "Never"}});
    let running =
        Running::new(&[pod("job", "fake-1", &of_job()), pod("late", "fake-1", &late), pod("bare", "fake-1", &bare)]);
    start(&running, 1);
    let phase = |pods: &[Value], name: &str| named(pods, name)["status"]["phase"].clone();
    running.api.until("pods", |pods| phase(pods, "job") == "Succeeded" && phase(pods, "late") == "Failed").await;
    let all = running.api.list("pods");
    assert_eq!(phase(&all, "bare"), "Running");
    let job = named(&all, "job");
    assert_eq!(job["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(job, "Ready")["reason"], "PodCompleted");
    assert_eq!(named(&all, "late")["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test]
async fn who_is_told_to_go_goes_at_once_and_tells_its_end_where_somebody_waits_for_it() {
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}});
    let mut kept = pod("kept", "fake-1", &going);
    kept["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let running = Running::new(&[pod("going", "fake-1", &going), kept]);
    start(&running, 1);
    let failed = |pods: &[Value]| named(pods, "kept")["status"]["phase"] == "Failed";
    running.api.until("pods", |pods| named(pods, "going").is_null() && failed(pods)).await;
    let deletions = || running.api.writes().iter().filter(|call| call.method == "DELETE").count();
    sleep(Duration::from_millis(100)).await;
    let before = deletions();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(deletions(), before, "what is kept is not deleted again and again");
}

#[tokio::test]
async fn readiness_gates_are_waited_for() {
    let gated = json!({"spec": {"readinessGates": [{"conditionType": "example.com/lb"}]}});
    let running = Running::new(&[pod("p", "fake-1", &gated)]);
    start(&running, 1);
    let ready = |pods: &[Value], status: &str| condition(named(pods, "p"), "Ready")["status"] == status;
    running.api.until("pods", |pods| ready(pods, "False")).await;
    running.api.edit("pods", "a", "p", |pod| {
        let gate = json!({"type": "example.com/lb", "status": "True"});
        pod["status"]["conditions"].as_array_mut().unwrap().push(gate);
    });
    running.api.until("pods", |pods| ready(pods, "True")).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_register_and_stay_alive_and_deleted_ones_stay_away() {
    let running = Running::new(&[]);
    let (sender, registered) = oneshot::channel();
    let (fleet, cancel) = (fleet(&running, 3), CancellationToken::new());
    tokio::spawn(nodes::keep(fleet, running.caches.of(), sender, cancel));
    let lifecycle = crate::node_lifecycle::Controller::new(&running.client, &running.caches, running.recorder());
    running.start(lifecycle);
    registered.await.unwrap();
    let renewed = |name: &str| running.api.get("leases", "kube-node-lease", name).unwrap()["spec"]["renewTime"].clone();
    let first = renewed("fake-3");
    running.api.remove("v1", "nodes", "", "fake-2");
    running.api.remove("coordination.k8s.io/v1", "leases", "kube-node-lease", "fake-2");
    sleep(Duration::from_secs(100)).await;
    assert_ne!(renewed("fake-3"), first);
    assert!(running.api.get("leases", "kube-node-lease", "fake-2").is_none());
    let all = running.api.list("nodes");
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|node| condition(node, "Ready")["status"] == "True" && node["spec"]["taints"].is_null()));
    let zones: Vec<_> = all.iter().map(|node| &node["metadata"]["labels"]["topology.kubernetes.io/zone"]).collect();
    assert_ne!(zones[0], zones[1]);
    assert_eq!(all[0]["status"]["capacity"]["pods"], "110");
}
