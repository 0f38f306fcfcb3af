//! watch.

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use serde_json::{Value, json};

fn labelled(name: &str, label: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = json!({"l": label});
    object
}

#[tokio::test]
async fn a_watch_goes_on_from_its_revision() {
    let s = Server::start().await;
    let first = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    s.post(CONFIG_MAPS, &config_map("b")).await;
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
    assert_eq!(watch.names(1).await, ["ADDED b"]);
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    let gone = s.get(&format!("{CONFIG_MAPS}/a")).await.body;
    s.delete(&format!("{CONFIG_MAPS}/a"), &Value::Null).await;
    assert_eq!(watch.names(1).await, ["MODIFIED a"]);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!(kind, "DELETED");
    assert_eq!(object["data"], gone["data"]);
    assert_ne!(object["metadata"]["resourceVersion"], gone["metadata"]["resourceVersion"], "a deletion is a revision");
    s.stop().await;
}

#[tokio::test]
async fn without_a_revision_it_starts_with_what_is_there() {
    let s = Server::start().await;
    for name in ["a", "b"] {
        s.post(CONFIG_MAPS, &config_map(name)).await;
    }
    for query in ["watch=true", "watch=1&resourceVersion=0"] {
        let mut watch = s.watch(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(watch.names(2).await, ["ADDED a", "ADDED b"]);
    }
    let mut one = s.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    s.post(CONFIG_MAPS, &config_map("bb")).await;
    s.patch(&format!("{CONFIG_MAPS}/b"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(one.names(2).await, ["ADDED b", "MODIFIED b"]);
    s.stop().await;
}

#[tokio::test]
async fn leaving_the_selection_is_a_deletion() {
    let s = Server::start().await;
    let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=l%3Dx")).await;
    s.post(CONFIG_MAPS, &labelled("a", "x")).await;
    s.post(CONFIG_MAPS, &labelled("other", "y")).await;
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    let left = s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"metadata": {"labels": {"l": "y"}}})).await.body;
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"metadata": {"labels": {"l": "x"}}})).await;
    assert_eq!(watch.names(2).await, ["ADDED a", "MODIFIED a"]);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!(kind, "DELETED");
    assert_eq!(object["metadata"]["labels"]["l"], "x", "the state from before");
    assert_eq!(object["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"], "at the revision of now");
    assert_eq!(watch.names(1).await, ["ADDED a"]);
    s.stop().await;
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a")).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = s.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.names(1).await, ["ADDED a"]);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(object["metadata"]["resourceVersion"], s.store.revision().to_string());
    s.post(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(watch.names(1).await, ["ADDED b"]);
    let forbidden = s.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(forbidden.code, 422);
    s.stop().await;
}

#[tokio::test]
async fn an_end_comes_with_the_timeout_and_with_the_drain() {
    let s = Server::start().await;
    let mut short = s.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion=1")).await;
    let started = std::time::Instant::now();
    while short.next().await.is_some() {}
    assert!(started.elapsed().as_millis() >= 900);
    let mut long = s.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    s.cancel.cancel();
    assert_eq!(long.next().await, None);
    s.stop().await;
}

#[tokio::test]
async fn tables_name_their_columns_once() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let mut watch = s.watch_as(&format!("{PODS}?watch=1"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let (_, first) = watch.next().await.unwrap();
    assert_eq!(first["kind"], "Table");
    assert!(!first["columnDefinitions"].as_array().unwrap().is_empty());
    s.patch(&format!("{PODS}/p"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    let (kind, second) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), second["columnDefinitions"].as_array().unwrap().len()), ("MODIFIED", 0));
    assert_eq!(second["rows"][0]["object"]["metadata"]["labels"]["a"], "b");
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut watch = s.watch_as(&format!("{PODS}?watch=1"), accept).await;
    let (_, object) = watch.next().await.unwrap();
    assert_eq!((&object["kind"], object.get("spec")), (&json!("PartialObjectMetadata"), None));
    s.stop().await;
}

#[tokio::test]
async fn a_watch_of_one_path_shows_one_object() {
    let s = Server::start().await;
    for name in ["a", "ab"] {
        s.post(CONFIG_MAPS, &config_map(name)).await;
    }
    let path = CONFIG_MAPS.replace("/api/v1/", "/api/v1/watch/");
    let mut watch = s.watch(&format!("{path}/a")).await;
    assert_eq!(watch.names(1).await, ["ADDED a"]);
    s.post(CONFIG_MAPS, &config_map("ac")).await;
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(watch.names(1).await, ["MODIFIED a"]);
    s.stop().await;
}
