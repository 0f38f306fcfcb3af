//! Many requests at once: who waits, who is sent away, and who is not touched by it.

use crate::harness::{As, Server, json};
use http::Method;
use serde_json::{Value, json as j};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// Keeps its seat for three seconds: the revision is still to come.
const SLOW: &str = "/api/v1/configmaps?resourceVersion=999999999&resourceVersionMatch=NotOlderThan";
const QUICK: &str = "/api/v1/configmaps";

/// A level of three seats, in which `greedy` and `modest` are.
async fn tiny(server: &Server) -> (Value, Value) {
    let queuing = j!({"queues": 2, "handSize": 1, "queueLengthLimit": 2});
    let limited = j!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}});
    let level = j!({"metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": limited}});
    let level = server.create(&format!("{FLOW}/prioritylevelconfigurations"), level).await;
    let users: Vec<Value> =
        ["greedy", "modest"].iter().map(|name| j!({"kind": "User", "user": {"name": name}})).collect();
    let rule = j!({"subjects": users, "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
        "clusterScope": true, "namespaces": ["*"]}]});
    let schema = j!({"metadata": {"name": "tiny"}, "spec": {"priorityLevelConfiguration": {"name": "tiny"},
        "matchingPrecedence": 10, "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}});
    let schema = server.create(&format!("{FLOW}/flowschemas"), schema).await;
    let subjects: Vec<Value> = ["greedy", "modest"]
        .iter()
        .map(|name| j!({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}))
        .collect();
    let binding = j!({"metadata": {"name": "look"}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    server.create(&format!("{RBAC}/clusterrolebindings"), binding).await;
    (schema["metadata"]["uid"].clone(), level["metadata"]["uid"].clone())
}

async fn list(server: &Server, user: &str, path: &str) -> (u16, http::HeaderMap, Value) {
    let answer = server.send(server.admin(), Method::GET, path, &[("impersonate-user", user)], None).await;
    let headers = answer.headers().clone();
    let (code, body) = json(answer).await;
    (code, headers, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_client_waits_and_is_sent_away_and_others_are_not() {
    let server = Arc::new(Server::start().await);
    let (schema, level) = tiny(&server).await;
    let (code, headers, body) = list(&server, "modest", QUICK).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(headers["x-kubernetes-pf-flowschema-uid"], schema.as_str().unwrap());
    assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"], level.as_str().unwrap());

    // Three seats and a queue of two: the sixth is one too many.
    let started = Instant::now();
    let spawn = |user: &'static str, path: &'static str| {
        let server = server.clone();
        tokio::spawn(async move { (list(&server, user, path).await, started.elapsed()) })
    };
    let mut greedy: Vec<_> = (0..5).map(|_| spawn("greedy", SLOW)).collect();
    let executing = async || {
        let (_, metrics) = server.call(server.admin(), "GET", "/metrics", None).await;
        let value = |name: &str| -> u32 {
            let name = format!(
                "apiserver_flowcontrol_current_{name}_requests{{flow_schema=\"tiny\",priority_level=\"tiny\"}} "
            );
            metrics
                .as_str()
                .unwrap()
                .lines()
                .find_map(|line| line.strip_prefix(&name)?.parse().ok())
                .unwrap_or_default()
        };
        (value("executing"), value("inqueue"))
    };
    while executing().await != (3, 2) {
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", executing().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (code, headers, body) = list(&server, "greedy", QUICK).await;
    assert_eq!((code, body), (429, j!("Too many requests, please try again later.\n")));
    assert_eq!(
        (&headers["retry-after"], &headers["content-type"]),
        (&"1".parse().unwrap(), &"text/plain; charset=utf-8".parse().unwrap())
    );
    assert_eq!(headers["x-kubernetes-pf-flowschema-uid"], schema.as_str().unwrap());

    // The node and those who mend are in levels of their own.
    let quick = Instant::now();
    assert_eq!(server.call_as_node("GET", "/api/v1/nodes/n1", None).await.0, 404);
    assert_eq!(server.call(server.admin(), "GET", QUICK, None).await.0, 200);
    assert_eq!(server.call(As::Nobody, "GET", "/readyz", None).await.0, 200);
    assert!(quick.elapsed() < Duration::from_secs(1), "{:?}", quick.elapsed());

    // Who comes last but has no seat is next, before those who wait for their fourth.
    let ((code, _, body), modest) = spawn("modest", QUICK).await.unwrap();
    assert_eq!(code, 200, "{body}");
    let mut ends = Vec::new();
    for task in greedy.drain(..) {
        let ((code, _, body), took) = task.await.unwrap();
        assert_eq!(code, 504, "{body}");
        ends.push(took);
    }
    ends.sort();
    assert!(ends[2] < modest + Duration::from_secs(1) && modest < ends[3], "{modest:?} {ends:?}");
    assert_eq!(executing().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_leaves_nothing_behind() {
    let server = Arc::new(Server::start().await);
    tiny(&server).await;
    for _ in 0..3 {
        let requests: Vec<_> = (0..5)
            .map(|_| {
                let server = server.clone();
                tokio::spawn(async move { list(&server, "greedy", SLOW).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        requests.iter().for_each(tokio::task::JoinHandle::abort);
    }
    let started = Instant::now();
    assert_eq!(list(&server, "modest", QUICK).await.0, 200);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_keep_no_seat() {
    let server = Server::start().await;
    tiny(&server).await;
    let mut watches = Vec::new();
    for _ in 0..10 {
        let watch = [("impersonate-user", "greedy")];
        let answer = server.send(server.admin(), Method::GET, &format!("{QUICK}?watch=1"), &watch, None).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
        watches.push(answer);
    }
    assert_eq!(list(&server, "greedy", QUICK).await.0, 200);
}
