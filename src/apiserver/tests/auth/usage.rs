//! `metrics.k8s.io`: there while it is announced, made of what a kubelet measured.

use crate::harness::{Server, json};
use crate::streams;
use http::Method;
use serde_json::{Value, json as j};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

async fn get(server: &Server, path: &str) -> (u16, Value) {
    server.call(server.admin(), "GET", path, None).await
}

/// As the addon does.
async fn announce(server: &Server) {
    for version in ["v1", "v1beta1"] {
        let spec =
            j!({"group": "metrics.k8s.io", "version": version, "groupPriorityMinimum": 100, "versionPriority": 100});
        let object = j!({"metadata": {"name": format!("{version}.metrics.k8s.io")}, "spec": spec});
        server.create("/apis/apiregistration.k8s.io/v1/apiservices", object).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_with_their_announcement() {
    let server = streams::server().await;
    let root = "/apis/metrics.k8s.io";
    for path in [root.to_owned(), format!("{root}/v1"), format!("{root}/v1/nodes"), format!("{root}/v1beta1/pods")] {
        assert_eq!(get(&server, &path).await.0, 404, "{path}");
    }
    announce(&server).await;

    let (_, group) = get(&server, root).await;
    let versions: Vec<&str> =
        group["versions"].as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap()).collect();
    assert_eq!((versions, &group["preferredVersion"]["version"]), (vec!["v1", "v1beta1"], &j!("v1")));
    let (_, resources) = get(&server, &format!("{root}/v1beta1")).await;
    let nodes = resources["resources"].as_array().unwrap().iter().find(|r| r["name"] == "nodes").unwrap();
    assert_eq!((&nodes["kind"], &nodes["verbs"]), (&j!("NodeMetrics"), &j!(["get", "list"])));
    assert!(nodes.get("storageVersionHash").is_none());
    let (_, document) = get(&server, "/openapi/v3/apis/metrics.k8s.io/v1").await;
    assert!(document["components"]["schemas"]["io.k8s.metrics.pkg.apis.metrics.v1.PodMetrics"].is_object());

    let (code, node) = get(&server, &format!("{root}/v1beta1/nodes/n1")).await;
    assert_eq!(code, 200, "{node}");
    assert_eq!((&node["kind"], &node["apiVersion"]), (&j!("NodeMetrics"), &j!("metrics.k8s.io/v1beta1")));
    assert_eq!((&node["timestamp"], &node["window"]), (&j!("2026-01-02T03:04:05Z"), &j!("10.062s")));
    assert_eq!(node["usage"], j!({"cpu": "250m", "memory": "1000Mi"}));
    let (code, list) = get(&server, &format!("{root}/v1/nodes?labelSelector=a%3Db")).await;
    assert_eq!((code, &list["items"], &list["kind"]), (200, &j!([]), &j!("NodeMetricsList")));
    let (code, missing) = get(&server, &format!("{root}/v1/nodes/n2")).await;
    assert_eq!((code, &missing["message"]), (404, &j!("nodemetrics.metrics.k8s.io \"n2\" not found")));
    for method in ["POST", "PUT", "DELETE"] {
        let (code, answer) = server.call(server.admin(), method, &format!("{root}/v1/nodes/n1"), Some(j!({}))).await;
        assert_eq!(code, 405, "{method}: {answer}");
    }
    assert_eq!(get(&server, &format!("{root}/v1/nodes?watch=true")).await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_do_not_run_use_nothing() {
    let server = streams::server().await;
    announce(&server).await;
    let pods = "/apis/metrics.k8s.io/v1/namespaces/a/pods";
    // Neither running nor known to the kubelet.
    let (code, missing) = get(&server, &format!("{pods}/p")).await;
    assert_eq!((code, &missing["message"]), (404, &j!("podmetrics.metrics.k8s.io \"a/p\" not found")));
    let (code, list) = get(&server, pods).await;
    assert_eq!((code, &list["kind"], &list["items"]), (200, &j!("PodMetricsList"), &j!([])));
    let accept = [("accept", TABLE)];
    let (code, table) = json(server.send(server.admin(), Method::GET, pods, &accept, None).await).await;
    assert_eq!((code, &table["columnDefinitions"][1]["name"]), (200, &j!("CPU")));
}
