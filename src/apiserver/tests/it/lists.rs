//! list: chunks, selectors, revisions, and the other forms.

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use http_body_util::BodyExt;
use mini_apiserver::UserInfo;
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

async fn with_maps(count: usize) -> Server {
    let s = Server::start().await;
    for i in 0..count {
        let mut object = config_map(&format!("m{i:02}"));
        object["metadata"]["labels"] = json!({"even": (i % 2 == 0).to_string()});
        assert_eq!(s.post(CONFIG_MAPS, &object).await.code, 201);
    }
    s
}

#[tokio::test]
async fn chunks_are_of_one_revision() {
    let s = with_maps(10).await;
    let first = s.get(&format!("{CONFIG_MAPS}?limit=4")).await.body;
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(names(&first), ["m00", "m01", "m02", "m03"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    s.delete(&format!("{CONFIG_MAPS}/m05"), &Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.body;
    assert_eq!(names(&second), ["m04", "m05", "m06", "m07"], "what went after the first chunk is still there");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 2);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.body;
    assert_eq!(names(&last), ["m08", "m09"]);
    assert!(last["metadata"].get("continue").is_none() && last["metadata"].get("remainingItemCount").is_none());
    let odd = s.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=even%3Dfalse")).await.body;
    assert_eq!(names(&odd), ["m01", "m03"]);
    assert!(odd["metadata"].get("remainingItemCount").is_none(), "nobody has counted what a selector leaves");
    assert_eq!(s.get(&format!("{CONFIG_MAPS}?limit=4&continue=rubbish")).await.code, 400);
    s.stop().await;
}

#[tokio::test]
async fn selectors_select() {
    let s = with_maps(4).await;
    for (query, want) in [
        ("labelSelector=even%3Dtrue", vec!["m00", "m02"]),
        ("labelSelector=even%20notin%20(true)", vec!["m01", "m03"]),
        ("fieldSelector=metadata.name%3Dm01", vec!["m01"]),
        ("fieldSelector=metadata.name!%3Dm01&labelSelector=even", vec!["m00", "m02", "m03"]),
        ("fieldSelector=metadata.name%3Dm01&labelSelector=even%3Dtrue", vec![]),
    ] {
        assert_eq!(names(&s.get(&format!("{CONFIG_MAPS}?{query}")).await.body), want, "{query}");
    }
    for query in ["labelSelector=a%3D%3D%3D", "fieldSelector=data.k%3D1", "limit=x", "resourceVersion=x"] {
        assert_eq!(s.get(&format!("{CONFIG_MAPS}?{query}")).await.code, 400, "{query}");
    }
    s.stop().await;
}

#[tokio::test]
async fn revisions_are_kept_to() {
    let s = with_maps(3).await;
    let revision = s.get(CONFIG_MAPS).await.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    s.delete(&format!("{CONFIG_MAPS}/m00"), &Value::Null).await;
    let exact = s.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await.body;
    assert_eq!(names(&exact), ["m00", "m01", "m02"]);
    assert_eq!(exact["metadata"]["resourceVersion"], *revision);
    let newer = s.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(names(&newer.body), ["m01", "m02"]);
    assert_eq!(s.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")).await.code, 422);
    // Past kube's client, which would ask again and again.
    let admin = s.api.local(UserInfo::new("admin", &["system:masters"]));
    let request = http::Request::get(format!("{CONFIG_MAPS}?resourceVersion=99999999"));
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let future = tower::ServiceExt::oneshot(admin, request).await.unwrap();
    assert_eq!((future.status().as_u16(), future.headers()["retry-after"].to_str().unwrap()), (504, "1"));
    let body = future.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    s.stop().await;
}

#[tokio::test]
async fn tables_and_metadata() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let table = s.get_as(PODS, TABLE).await.body;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns = table["columnDefinitions"].as_array().unwrap();
    assert_eq!(columns[0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns.len());
    assert_eq!(table["rows"][0]["cells"][0], "p");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "p");
    let one = s.get_as(&format!("{PODS}/p?includeObject=Object"), TABLE).await.body;
    assert_eq!(one["rows"][0]["object"]["kind"], "Pod");
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";
    let list = s.get_as(PODS, metadata).await.body;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("spec").is_none());
    assert_eq!(s.get_as(PODS, "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io").await.code, 406);
    assert_eq!(s.get_as(PODS, "application/json;as=Table;v=v1alpha1;g=meta.k8s.io").await.code, 406);
    s.stop().await;
}

#[tokio::test]
async fn large_lists_come_whole() {
    let s = Server::start().await;
    for i in 0..20 {
        let mut object = config_map(&format!("big{i:02}"));
        object["data"]["k"] = "x".repeat(30_000).into();
        assert_eq!(s.post(CONFIG_MAPS, &object).await.code, 201);
    }
    let list = s.get(CONFIG_MAPS).await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
    let request = http::Request::get(CONFIG_MAPS).header("accept-encoding", "gzip").body(Vec::new().into()).unwrap();
    let response = s.client.send(request).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let packed = response.into_body().collect_bytes().await.unwrap();
    let unpacked: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&*packed)).unwrap();
    assert_eq!(unpacked, list);
    s.stop().await;
}
