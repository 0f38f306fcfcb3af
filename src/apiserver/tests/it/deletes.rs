//! delete, deletecollection, eviction, and namespaces that go.

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use serde_json::{Value, json};

#[tokio::test]
async fn plain_objects_go_at_once() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = s.delete(&path, &json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(wrong.code, 409);
    let wrong = s.delete(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(wrong.code, 409);
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
    let gone = s.delete(&path, &right).await;
    assert_eq!((gone.code, &gone.body["status"]), (200, &json!("Success")));
    assert_eq!(gone.body["details"]["uid"], made["metadata"]["uid"]);
    assert_eq!(gone.body["details"]["kind"], "configmaps");
    assert_eq!(s.delete(&path, &Value::Null).await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn finalizers_keep_an_object_until_the_last_is_gone() {
    let s = Server::start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/a"]);
    s.post(CONFIG_MAPS, &object).await;
    let path = format!("{CONFIG_MAPS}/a");
    let kept = s.delete(&path, &json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(kept.code, 200);
    assert_eq!(kept.body["kind"], "ConfigMap");
    assert!(kept.body["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(kept.body["metadata"]["finalizers"], json!(["example.com/a", "foregroundDeletion"]));
    let again = s.post(CONFIG_MAPS, &config_map("a")).await;
    assert!(again.body["message"].as_str().unwrap().starts_with("object is being deleted"), "{}", again.body);
    let one = s.patch(&path, &json!({"metadata": {"finalizers": ["example.com/a"]}})).await;
    assert_eq!(one.code, 200);
    assert_eq!(s.get(&path).await.code, 200);
    let last = s.patch(&path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(last.code, 200);
    assert_eq!(s.get(&path).await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn orphaning_is_left_to_the_collector() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a")).await;
    let path = format!("{CONFIG_MAPS}/a");
    let orphan = s.delete(&format!("{path}?propagationPolicy=Orphan"), &Value::Null).await;
    assert_eq!(orphan.body["metadata"]["finalizers"], json!(["orphan"]));
    assert_eq!(s.delete(&path, &json!({"propagationPolicy": "Sideways"})).await.code, 422);
    s.stop().await;
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_its_kubelet() {
    let s = Server::start().await;
    let mut placed = pod("p");
    placed["spec"]["nodeName"] = "n".into();
    placed["spec"]["terminationGracePeriodSeconds"] = 20.into();
    s.post(PODS, &placed).await;
    let path = format!("{PODS}/p");
    let going = s.delete(&path, &Value::Null).await;
    assert_eq!(going.code, 200);
    assert_eq!(going.body["metadata"]["deletionGracePeriodSeconds"], 20);
    let longer = s.delete(&path, &json!({"gracePeriodSeconds": 60})).await;
    assert_eq!(longer.body["metadata"]["deletionGracePeriodSeconds"], 20, "time is only ever shortened");
    let shorter = s.delete(&path, &json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(shorter.body["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(s.get(&path).await.code, 200);
    assert_eq!(s.delete(&path, &json!({"gracePeriodSeconds": 0})).await.code, 200);
    assert_eq!(s.get(&path).await.code, 404);

    s.post(PODS, &pod("unplaced")).await;
    let gone = s.delete(&format!("{PODS}/unplaced"), &Value::Null).await;
    assert_eq!(gone.body["kind"], "Pod");
    assert_eq!(s.get(&format!("{PODS}/unplaced")).await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn an_eviction_deletes() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(s.post(&format!("{PODS}/p/eviction"), &eviction).await.code, 201);
    assert_eq!(s.get(&format!("{PODS}/p")).await.code, 404);
    assert_eq!(s.post(&format!("{PODS}/p/eviction"), &eviction).await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn an_eviction_is_charged_to_the_budget_of_the_pod() {
    let s = Server::start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let mut placed = pod("p");
    placed["spec"]["nodeName"] = "n".into();
    placed["metadata"]["labels"] = json!({"app": "web"});
    s.post(PODS, &placed).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(s.patch(&format!("{PODS}/p/status"), &ready).await.code, 200);
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(s.post(budgets, &budget).await.code, 201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    assert_eq!(s.patch(&format!("{budgets}/b/status"), &status).await.code, 200);
    assert_eq!(s.post(&format!("{PODS}/p/eviction"), &eviction).await.code, 201);
    let budget = s.get(&format!("{budgets}/b")).await.body;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["p"].is_string());
    let going = s.get(&format!("{PODS}/p")).await.body;
    let told = going["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget");
    assert_eq!(told.unwrap()["reason"], "EvictionByEvictionAPI");
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    s.stop().await;
}

#[tokio::test]
async fn an_eviction_honours_preconditions_before_it_changes_anything() {
    const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let s = Server::start().await;
    let mut object = pod("p");
    object["metadata"]["labels"] = json!({"app": "web"});
    s.post(PODS, &object).await;
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let path = format!("{PODS}/p");
    assert_eq!(s.patch(&format!("{path}/status"), &running).await.code, 200);
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(s.post(BUDGETS, &budget).await.code, 201);
    let allowed = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 0,
        "expectedPods": 1, "observedGeneration": 1}});
    assert_eq!(s.patch(&format!("{BUDGETS}/b/status"), &allowed).await.code, 200);
    let evict = |preconditions: Value| {
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
            "deleteOptions": {"preconditions": preconditions}})
    };
    let left = async || s.get(&format!("{BUDGETS}/b")).await.body["status"]["disruptionsAllowed"].clone();
    for wrong in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        assert_eq!(s.post(&format!("{path}/eviction"), &evict(wrong)).await.code, 409);
    }
    let found = s.get(&path).await.body;
    assert_eq!(found["status"]["conditions"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(left().await, 1);
    let right = json!({"uid": found["metadata"]["uid"], "resourceVersion": found["metadata"]["resourceVersion"]});
    let gone = s.post(&format!("{path}/eviction"), &evict(right)).await;
    assert_eq!(gone.code, 201, "{}", gone.body);
    assert_eq!(left().await, 0);
    s.stop().await;
}

#[tokio::test]
async fn a_collection_goes_by_its_selector() {
    let s = Server::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"l": label});
        s.post(CONFIG_MAPS, &object).await;
    }
    let deleted = s.delete(&format!("{CONFIG_MAPS}?labelSelector=l%3Dx"), &Value::Null).await;
    assert_eq!(deleted.code, 200, "{}", deleted.body);
    let left = s.get(&format!("{CONFIG_MAPS}?labelSelector=l")).await.body;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    s.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let s = Server::start().await;
    let made = s.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    assert_eq!(made.body["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made.body["status"]["phase"], "Active");
    let going = s.delete("/api/v1/namespaces/n", &Value::Null).await;
    assert_eq!(going.code, 200);
    assert_eq!(going.body["status"]["phase"], "Terminating");
    assert_eq!(s.delete("/api/v1/namespaces/n", &Value::Null).await.code, 409);
    let refused = s.post("/api/v1/namespaces/n/configmaps", &config_map("a")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut last = going.body;
    last["spec"]["finalizers"] = json!([]);
    let finalized = s.put("/api/v1/namespaces/n/finalize", &last).await;
    assert_eq!(finalized.code, 200, "{}", finalized.body);
    assert_eq!(s.get("/api/v1/namespaces/n").await.code, 404);
    let kept = s.delete("/api/v1/namespaces/kube-system", &Value::Null).await;
    assert_eq!(kept.code, 403);
    assert!(kept.body["message"].as_str().unwrap().ends_with("this namespace may not be deleted"));
    s.stop().await;
}
