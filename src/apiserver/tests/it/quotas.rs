//! ResourceQuota.

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use serde_json::{Value, json};
use std::time::Duration;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn quota(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

/// The amounts in use, once they are as wished.
async fn used(s: &Server, name: &str, wished: Value) {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = s.get(&format!("{QUOTAS}/{name}")).await.body["status"]["used"].take();
        if last == wished {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} uses {last}, not {wished}");
}

#[tokio::test]
async fn a_full_namespace_takes_no_more_until_something_goes() {
    let s = Server::start().await;
    let hard = json!({"pods": "1", "requests.cpu": "500m", "count/pods": "5"});
    assert_eq!(s.post(QUOTAS, &quota("q", json!({"hard": hard}))).await.code, 201);
    used(&s, "q", json!({"count/pods": "0", "pods": "0", "requests.cpu": "0"})).await;
    let silent = s.post(PODS, &pod("p")).await;
    assert_eq!(
        (silent.code, silent.body["message"].as_str().unwrap()),
        (403, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c")
    );
    let asks = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod
    };
    assert_eq!(s.post(PODS, &asks("a", "100m")).await.code, 201);
    used(&s, "q", json!({"count/pods": "1", "pods": "1", "requests.cpu": "100m"})).await;
    let second = s.post(PODS, &asks("b", "450m")).await;
    assert_eq!(
        (second.code, second.body["message"].as_str().unwrap()),
        (
            403,
            "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=450m, used: pods=1,requests.cpu=100m, \
             limited: pods=1,requests.cpu=500m"
        )
    );
    // A pod that is over takes no place among the running ones.
    let over = json!({"status": {"phase": "Succeeded"}});
    assert_eq!(s.patch(&format!("{PODS}/a/status"), &over).await.code, 200);
    used(&s, "q", json!({"count/pods": "1", "pods": "0", "requests.cpu": "0"})).await;
    assert_eq!(s.post(PODS, &asks("b", "450m")).await.code, 201);
    s.stop().await;
}

#[tokio::test]
async fn two_never_take_the_last_place() {
    let s = Server::start().await;
    let before = s.get(CONFIG_MAPS).await.body["items"].as_array().unwrap().len();
    let hard = json!({"count/configmaps": (before + 5).to_string()});
    assert_eq!(s.post(QUOTAS, &quota("q", json!({"hard": hard}))).await.code, 201);
    let made = futures::future::join_all((0..20).map(|i| {
        let (s, body) = (&s, config_map(&format!("m{i}")));
        async move { s.post(CONFIG_MAPS, &body).await.code }
    }))
    .await;
    assert_eq!(made.iter().filter(|code| **code == 201).count(), 5, "{made:?}");
    assert_eq!(made.iter().filter(|code| **code == 403).count(), 15, "{made:?}");
    s.stop().await;
}

#[tokio::test]
async fn scopes_services_and_dry_runs() {
    let s = Server::start().await;
    let scoped = json!({"hard": {"pods": "0"}, "scopes": ["Terminating"]});
    assert_eq!(s.post(QUOTAS, &quota("scoped", scoped)).await.code, 201);
    assert_eq!(s.post(PODS, &pod("free")).await.code, 201);
    let mut short = pod("short");
    short["spec"]["activeDeadlineSeconds"] = 60.into();
    assert_eq!(s.post(&format!("{PODS}?dryRun=All"), &short).await.code, 403);
    let hard = json!({"hard": {"services.nodeports": "1", "services": "9"}});
    assert_eq!(s.post(QUOTAS, &quota("services", hard)).await.code, 201);
    let service =
        |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/default/services";
    assert_eq!(s.post(path, &service("a", "NodePort")).await.code, 201);
    assert_eq!(s.post(path, &service("b", "NodePort")).await.code, 403);
    assert_eq!(s.post(path, &service("b", "ClusterIP")).await.code, 201);
    let more = s.patch(&format!("{path}/b"), &json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(more.code, 403, "{}", more.body);
    assert!(more.body["message"].as_str().unwrap().contains("requested: services.nodeports=1"), "{}", more.body);
    s.stop().await;
}
