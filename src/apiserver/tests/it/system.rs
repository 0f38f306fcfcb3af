//! What a server says of itself, and kinds that are told in two ways.

use crate::harness::Server;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_group_is_announced() {
    let s = Server::start().await;
    let list = s.get(API_SERVICES).await.body;
    let found = names(&list);
    assert!(!found.contains(&"v1.metrics.k8s.io"), "an addon announces it");
    for group in s.api.registry.current().filtered(|row| !row.hooks.optional).groups() {
        for version in group.versions {
            let name = format!("{version}.{}", group.name);
            assert!(found.contains(&name.as_str()), "{name} is not among {found:?}");
        }
    }
    let core = s.get(&format!("{API_SERVICES}/v1.")).await.body;
    assert_eq!(core["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let condition = &core["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Local")));
    let table = s.get_as(&format!("{API_SERVICES}/v1.apps"), TABLE).await.body;
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("v1.apps"), json!("Local"), json!("True")]);

    let remote = json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"namespace": "default", "name": "s"}}});
    let made = s.post(API_SERVICES, &remote).await.body;
    let condition = &made["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("NotForwarded")), "{made}");
    let mut other = remote;
    other["metadata"]["name"] = "x".into();
    let refused = s.post(API_SERVICES, &other).await.body;
    assert_eq!(
        refused["message"],
        "APIService.apiregistration.k8s.io \"x\" is invalid: metadata.name: Invalid value: \"x\": must be \
         `spec.version+\".\"+spec.group`: \"v1.example.com\""
    );
    s.stop().await;
}

#[tokio::test]
async fn flow_control_has_upstreams_objects() {
    let s = Server::start().await;
    let base = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let levels = s.get(&format!("{base}/prioritylevelconfigurations")).await.body;
    assert_eq!(
        names(&levels),
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let schemas = s.get(&format!("{base}/flowschemas")).await.body;
    assert_eq!(names(&schemas).len(), 11);
    let change = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    let refused = s.patch(&format!("{base}/prioritylevelconfigurations/catch-all"), &change).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.ends_with("spec of 'catch-all' must equal the fixed value"), "{message}");
    s.stop().await;
}

#[tokio::test]
async fn addresses_of_services_are_objects() {
    let s = Server::start().await;
    let range = s.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.body;
    assert_eq!(range["spec"]["cidrs"], json!(["10.152.183.0/24"]));
    assert_eq!(range["status"]["conditions"][0]["type"], "Ready");
    let first = s.get(&format!("{ADDRESSES}/10.152.183.1")).await.body;
    assert_eq!(
        first["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "kubernetes"})
    );
    let revision = s.store.revision();
    let mut watch = s.watch(&format!("{ADDRESSES}?watch=1&resourceVersion={revision}")).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.152.183.40"}});
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(s.post(services, &service).await.code, 201);
    s.delete(&format!("{services}/s"), &Value::Null).await;
    assert_eq!(watch.names(2).await, ["ADDED 10.152.183.40", "DELETED 10.152.183.40"]);
    let taken = json!({"metadata": {"name": "10.152.183.41"},
        "spec": {"parentRef": {"group": "example.com", "resource": "widgets", "name": "w"}}});
    assert_eq!(s.post(ADDRESSES, &taken).await.code, 201);
    let mut service = service;
    service["spec"]["clusterIP"] = "10.152.183.41".into();
    assert_eq!(s.post(services, &service).await.code, 422, "somebody else has it");
    s.stop().await;
}

#[tokio::test]
async fn autoscalers_are_told_in_two_versions() {
    let s = Server::start().await;
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let first = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 55,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let made = s.post(&path("v1"), &first).await;
    assert_eq!((made.code, &made.body["spec"]["targetCPUUtilizationPercentage"]), (201, &json!(55)), "{}", made.body);
    let second = s.get(&format!("{}/h", path("v2"))).await.body;
    assert_eq!(second["metadata"]["uid"], made.body["metadata"]["uid"]);
    let target = &second["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(*target, json!({"type": "Utilization", "averageUtilization": 55}));
    let bad = s.patch(&format!("{}/h", path("v1")), &json!({"spec": {"maxReplicas": 0}})).await;
    assert_eq!(
        bad.body["message"],
        "HorizontalPodAutoscaler.autoscaling \"h\" is invalid: [spec.maxReplicas: Invalid value: 0: must be greater than 0, \
         spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`]"
    );
    let groups = s.get("/apis/autoscaling").await.body;
    assert_eq!(groups["preferredVersion"]["version"], "v2");
    s.stop().await;
}
