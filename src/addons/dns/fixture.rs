//! A small cluster's index for tests.

use super::facts::{Service, Slice};
use super::index::Index;
use super::zone::Zone;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

pub(super) fn zone() -> Zone {
    Zone::new("cluster.local", 5).unwrap()
}

pub(super) fn service(index: &mut Index, namespace: &str, name: &str, spec: Value) {
    let service: core::Service = serde_json::from_value(json!({"spec": spec})).unwrap();
    index.set_service(&(namespace.to_owned(), name.to_owned()), Some(Service::of(&service)));
}

pub(super) fn slice(index: &mut Index, namespace: &str, name: &str, service: &str, ports: Value, endpoints: Value) {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .unwrap();
    index.set_slice(&(namespace.to_owned(), name.to_owned()), Slice::of(&slice));
}

pub(super) fn cluster() -> Index {
    let mut index = Index::default();
    for namespace in ["default", "kube-system", "empty"] {
        index.set_namespace(namespace, true);
    }
    service(
        &mut index,
        "kube-system",
        "kube-dns",
        json!({"clusterIP": "10.0.0.10", "clusterIPs": ["10.0.0.10"],
        "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]}),
    );
    service(
        &mut index,
        "default",
        "web",
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ports": [
        {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "https", "port": 443, "protocol": "TCP"}]}),
    );
    slice(
        &mut index,
        "default",
        "web-a",
        "web",
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}]),
        json!([{"addresses": ["10.1.0.5"], "conditions": {"ready": true}}]),
    );
    service(&mut index, "default", "plain", json!({"clusterIP": "10.0.0.2", "ports": [{"port": 80}]}));
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "db", "port": 5432}]});
    service(&mut index, "default", "db", headless.clone());
    slice(
        &mut index,
        "default",
        "db-a",
        "db",
        json!([{"name": "db", "port": 5432, "protocol": "TCP"}]),
        json!([
        {"addresses": ["10.1.0.6"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.1.0.7"], "conditions": {"ready": true}},
        {"addresses": ["10.1.0.8"], "hostname": "db-2", "conditions": {"ready": false}}]),
    );
    slice(
        &mut index,
        "default",
        "db-b",
        "db",
        json!([{"name": "db", "port": 5432, "protocol": "TCP"}]),
        json!([
        {"addresses": ["fd01::6"], "hostname": "db-0", "conditions": {}}]),
    );
    service(&mut index, "default", "early", json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
    slice(
        &mut index,
        "default",
        "early-a",
        "early",
        json!([]),
        json!([
        {"addresses": ["10.1.0.9"], "hostname": "early-0", "conditions": {"ready": false}}]),
    );
    service(&mut index, "default", "unready", headless);
    service(&mut index, "default", "elsewhere", json!({"type": "ExternalName", "externalName": "www.Example.org"}));
    service(
        &mut index,
        "default",
        "nearby",
        json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local."}),
    );
    service(
        &mut index,
        "default",
        "round",
        json!({"type": "ExternalName", "externalName": "round.default.svc.cluster.local"}),
    );
    service(&mut index, "default", "address", json!({"type": "ExternalName", "externalName": "192.0.2.1"}));
    index
}
