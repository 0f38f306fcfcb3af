//! EndpointSlices and Endpoints against the fake API server.

use serde_json::{Value, json};

use super::*;
use crate::endpoints;
use crate::fake::{Running, named, run};

fn service(spec: &Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "a", "uid": "svc", "labels": {"tier": "front"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.152.183.7", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}});
    for (name, value) in spec.as_object().into_iter().flatten() {
        service["spec"][name] = value.clone();
    }
    service
}

fn pod(number: u32) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{number}"), "namespace": "a", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]}});
    run(&mut pod, number);
    pod
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(Controller::new(&running.client, &running.caches));
    running.start(endpoints::Controller::new(&running.client, &running.caches));
    running
}

fn endpoints_of(slices: &[Value]) -> Vec<Value> {
    slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn ready_pods_are_published_with_their_own_port_numbers() {
    let running = start(&[service(&json!({})), pod(1)]);
    running.api.until("endpointslices", |slices| endpoints_of(slices).len() == 1).await;
    let slice = running.api.list("endpointslices").remove(0);
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"tier": "front", "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "svc");
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["addresses"], json!(["10.1.0.1"]));
    assert_eq!(endpoint["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!((&endpoint["nodeName"], &endpoint["targetRef"]["name"]), (&json!("node"), &json!("p1")));
    running
        .api
        .until("endpoints", |all| {
            let subset = &named(all, "web")["subsets"][0];
            subset["addresses"][0]["ip"] == "10.1.0.1" && subset["ports"][0]["port"] == 8080
        })
        .await;
}

#[tokio::test]
async fn readiness_and_termination_show_in_conditions() {
    let running = start(&[service(&json!({})), pod(1), pod(2)]);
    running.api.until("endpointslices", |slices| endpoints_of(slices).len() == 2).await;
    running.api.edit("pods", "a", "p1", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
    running.api.edit("pods", "a", "p2", |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    running
        .api
        .until("endpointslices", |slices| {
            let of = |ip: &str| endpoints_of(slices).into_iter().find(|e| e["addresses"][0] == ip).unwrap_or_default();
            of("10.1.0.1")["conditions"] == json!({"ready": false, "serving": false, "terminating": false})
                && of("10.1.0.2")["conditions"] == json!({"ready": false, "serving": true, "terminating": true})
        })
        .await;
    running
        .api
        .until("endpoints", |all| {
            let subset = &named(all, "web")["subsets"][0];
            subset["addresses"].is_null() && subset["notReadyAddresses"].as_array().is_some_and(|a| a.len() == 1)
        })
        .await;
    running.api.remove("v1", "pods", "a", "p2");
    running.api.until("endpointslices", |slices| endpoints_of(slices).len() == 1).await;
}

#[tokio::test]
async fn unready_pods_count_where_the_service_says_so() {
    let mut unready = pod(1);
    unready["status"]["conditions"] = json!([]);
    let running = start(&[service(&json!({"publishNotReadyAddresses": true, "clusterIP": "None"})), unready]);
    running
        .api
        .until("endpointslices", |slices| {
            endpoints_of(slices).first().is_some_and(|endpoint| endpoint["conditions"]["ready"] == true)
                && slices[0]["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
        })
        .await;
    running.api.until("endpoints", |all| named(all, "web")["subsets"][0]["addresses"][0]["ip"] == "10.1.0.1").await;
}

#[tokio::test]
async fn a_service_without_pods_has_an_empty_slice_and_one_without_selector_none() {
    let mut plain = service(&json!({"selector": null}));
    plain["metadata"]["name"] = json!("plain");
    let running = start(&[service(&json!({})), plain]);
    running.api.until("endpointslices", |slices| slices.len() == 1 && endpoints_of(slices).is_empty()).await;
    running.api.until("endpoints", |all| all.len() == 1).await;
    // Its first pod goes into that same slice.
    let name = running.api.list("endpointslices")[0]["metadata"]["name"].clone();
    running.api.put(&pod(1));
    running
        .api
        .until("endpointslices", |slices| endpoints_of(slices).len() == 1 && slices[0]["metadata"]["name"] == name)
        .await;
}

#[tokio::test]
async fn many_pods_share_slices_of_a_hundred() {
    let mut objects = vec![service(&json!({}))];
    objects.extend((1..=130).map(pod));
    let running = start(&objects);
    running.api.until("endpointslices", |slices| slices.len() == 2 && endpoints_of(slices).len() == 130).await;
    running.api.remove("v1", "pods", "a", "p1");
    running.api.until("endpointslices", |slices| endpoints_of(slices).len() == 129).await;
}

#[tokio::test]
async fn endpoints_go_with_their_service() {
    let running = start(&[service(&json!({})), pod(1)]);
    running.api.until("endpoints", |all| all.len() == 1).await;
    running.api.remove("v1", "services", "a", "web");
    running.api.until("endpoints", <[Value]>::is_empty).await;
}
