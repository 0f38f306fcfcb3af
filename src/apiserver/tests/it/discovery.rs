//! Discovery, documents, health, version, metrics.

use crate::harness::Server;
use serde_json::json;

#[tokio::test]
async fn groups_versions_and_resources() {
    let s = Server::start().await;
    assert_eq!(s.get("/api").await.body["versions"], json!(["v1"]));
    let groups = s.get("/apis").await.body;
    let names: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"apps") && names.contains(&"rbac.authorization.k8s.io"), "{names:?}");
    assert_eq!(s.get("/apis/apps").await.body["preferredVersion"]["groupVersion"], "apps/v1");
    let core = s.get("/api/v1").await.body;
    let pods = core["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods").unwrap();
    assert_eq!(
        (&pods["kind"], &pods["shortNames"], &pods["namespaced"]),
        (&json!("Pod"), &json!(["po"]), &json!(true))
    );
    let apps = s.get("/apis/apps/v1").await.body;
    let scale = apps["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!(
        (&scale["group"], &scale["version"], &scale["kind"]),
        (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
    );
    assert_eq!(s.get("/apis/nothing").await.code, 404);
    assert_eq!(s.get("/apis/apps/v9").await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn aggregated_discovery_is_one_document_with_a_tag() {
    let s = Server::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = s.get_as("/apis", accept).await;
    let content_type = answer.headers["content-type"].to_str().unwrap();
    assert_eq!(content_type, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let apps =
        answer.body["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "apps").unwrap().clone();
    let resources = apps["versions"][0]["resources"].as_array().unwrap();
    let deployments = resources.iter().find(|r| r["resource"] == "deployments").unwrap();
    assert_eq!(deployments["scope"], "Namespaced");
    assert!(deployments["subresources"].as_array().unwrap().iter().any(|r| r["subresource"] == "scale"));
    let core = s.get_as("/api", accept).await.body;
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
    let tag = answer.headers["etag"].clone();
    let again = http::Request::get("/apis").header("accept", accept).header("if-none-match", tag);
    assert_eq!(s.send(again.body(Vec::new().into()).unwrap()).await.code, 304);
    s.stop().await;
}

#[tokio::test]
async fn openapi_documents() {
    let s = Server::start().await;
    let index = s.get("/openapi/v3").await.body;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = s.get(url).await;
    assert_eq!(document.code, 200);
    assert!(document.body["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    assert!(document.headers.contains_key("etag"));
    let v2 = s.get("/openapi/v2").await.body;
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert_eq!(s.get("/openapi/v3/apis/none/v1").await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn the_version_is_told() {
    let s = Server::start().await;
    let version = s.get("/version").await.body;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("37")));
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.37."));
    s.stop().await;
}
