//! Addresses and ports of Services.

use crate::harness::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: &Value) -> Value {
    let mut all = json!({"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": all})
}

#[tokio::test]
async fn the_first_address_is_the_api_servers() {
    let s = Server::start().await;
    let kubernetes = s.get(&format!("{SERVICES}/kubernetes")).await.body;
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.152.183.1");
    let slice = s.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.body;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    assert_eq!(slice["ports"][0]["port"], s.address.port());
    let taken = s.post(SERVICES, &service("thief", &json!({"clusterIP": "10.152.183.1"}))).await;
    assert_eq!(taken.code, 422, "{}", taken.body);
    assert!(taken.body["message"].as_str().unwrap().contains("provided IP is already allocated"), "{}", taken.body);
    let outside = s.post(SERVICES, &service("far", &json!({"clusterIP": "10.9.9.9"}))).await;
    assert!(outside.body["message"].as_str().unwrap().contains("not in the valid range"), "{}", outside.body);
    s.stop().await;
}

#[tokio::test]
async fn many_at_once_never_collide() {
    let s = Server::start().await;
    let made = futures::future::join_all((0..60).map(|i| {
        let (s, body) = (&s, service(&format!("s{i}"), &json!({"type": "NodePort"})));
        async move { s.post(SERVICES, &body).await }
    }))
    .await;
    let mut addresses = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for answer in &made {
        assert_eq!(answer.code, 201, "{}", answer.body);
        let spec = &answer.body["spec"];
        assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
        assert_eq!((&spec["ipFamilies"], &spec["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
        assert!(addresses.insert(spec["clusterIP"].to_string()));
        assert!(ports.insert(spec["ports"][0]["nodePort"].as_u64().unwrap()));
    }
    assert!(ports.iter().all(|p| (30000..=32767).contains(p)));
    s.stop().await;
}

#[tokio::test]
async fn what_is_released_can_be_had_again() {
    let s = Server::start().await;
    let wanted = json!({"clusterIP": "10.152.183.77", "type": "NodePort",
                        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30123}]});
    let held = |s: &Server| {
        let snapshot = s.store.snapshot();
        snapshot.count("/allocations/", None) + snapshot.count("/registry/ipaddresses.networking.k8s.io/", None)
    };
    let before = held(&s);
    assert_eq!(s.post(SERVICES, &service("a", &wanted)).await.code, 201);
    assert_eq!(held(&s), before + 2);
    assert_eq!(s.post(SERVICES, &service("b", &wanted)).await.code, 422);
    let path = format!("{SERVICES}/a");
    let plain = s.patch(&path, &json!({"spec": {"type": "ClusterIP"}})).await;
    assert_eq!(plain.code, 200, "{}", plain.body);
    assert!(plain.body["spec"]["ports"][0].get("nodePort").is_none(), "{}", plain.body);
    assert_eq!(held(&s), before + 1);
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let external = s.patch(&path, &external).await;
    assert_eq!(external.code, 200, "{}", external.body);
    assert!(external.body["spec"].get("clusterIP").is_none(), "{}", external.body);
    assert_eq!(held(&s), before);
    let back = s.patch(&path, &json!({"spec": {"type": "NodePort", "externalName": null}})).await;
    assert_eq!(back.code, 200, "{}", back.body);
    assert_eq!(held(&s), before + 2);
    s.delete(&path, &Value::Null).await;
    assert_eq!(held(&s), before);
    s.stop().await;
}

#[tokio::test]
async fn updates_keep_what_they_do_not_mention() {
    let s = Server::start().await;
    let made = s.post(SERVICES, &service("a", &json!({"type": "NodePort"}))).await.body;
    let replaced = s.put(&format!("{SERVICES}/a"), &service("a", &json!({"type": "NodePort"}))).await;
    assert_eq!(replaced.code, 200, "{}", replaced.body);
    assert_eq!(replaced.body["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(replaced.body["spec"]["ports"][0]["nodePort"], made["spec"]["ports"][0]["nodePort"]);
    s.stop().await;
}

#[tokio::test]
async fn headless_services_and_shared_ports() {
    let s = Server::start().await;
    let headless = s.post(SERVICES, &service("h", &json!({"clusterIP": "None"}))).await.body;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let both = json!([{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    let dns = s.post(SERVICES, &service("dns", &json!({"type": "NodePort", "ports": both}))).await.body;
    assert_eq!(dns["spec"]["ports"][0]["nodePort"], dns["spec"]["ports"][1]["nodePort"], "{dns}");
    s.stop().await;
}
