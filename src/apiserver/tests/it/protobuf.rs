//! Answers in Kubernetes' protobuf, as client-go's typed clients may ask for them.

use crate::harness::{CONFIG_MAPS, Server, config_map};
use kube::client::Body;
use mini_resources::protobuf::{MEDIA_TYPE, decode, encode};
use serde_json::{Value, json};

const ACCEPT: &str = "application/vnd.kubernetes.protobuf,application/json";

struct Reply {
    code: u16,
    content_type: String,
    bytes: Vec<u8>,
}

async fn ask(s: &Server, method: &str, path: &str, body: Option<&Value>, accept: &str) -> Reply {
    let bytes = body.map(|body| encode(body).unwrap()).unwrap_or_default();
    let request = http::Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", MEDIA_TYPE).body(Body::from(bytes)).unwrap();
    let response = s.client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect_bytes().await.unwrap().to_vec();
    Reply { code, content_type, bytes }
}

/// What JSON says of an object but the decoder does not: empty maps of metadata, and zeros.
fn same(decoded: &Value, json: &Value) {
    assert_eq!(decoded["metadata"]["uid"], json["metadata"]["uid"]);
    assert_eq!(decoded["metadata"]["resourceVersion"], json["metadata"]["resourceVersion"]);
    assert_eq!(decoded["data"], json["data"]);
    assert_eq!(decoded["spec"], json["spec"]);
}

#[tokio::test]
async fn objects_lists_failures_and_watches() {
    let s = Server::start().await;
    let mut object = config_map("p");
    object["metadata"]["labels"] = json!({"a": "b"});
    let made = ask(&s, "POST", CONFIG_MAPS, Some(&object), ACCEPT).await;
    assert_eq!((made.code, made.content_type.as_str()), (201, MEDIA_TYPE));
    let path = format!("{CONFIG_MAPS}/p");
    let json = s.get(&path).await.body;
    same(&decode(&made.bytes).unwrap(), &json);
    same(&decode(&ask(&s, "GET", &path, None, MEDIA_TYPE).await.bytes).unwrap(), &json);

    let list = ask(&s, "GET", &format!("{CONFIG_MAPS}?labelSelector=a"), None, ACCEPT).await;
    let list = decode(&list.bytes).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 1));
    same(&list["items"][0], &json);

    let nodes = ask(&s, "GET", "/api/v1/services", None, ACCEPT).await;
    let nodes = decode(&nodes.bytes).unwrap();
    same(&nodes["items"][0], &s.get("/api/v1/services").await.body["items"][0]);

    let nobody = ask(&s, "GET", &format!("{CONFIG_MAPS}/nobody"), None, ACCEPT).await;
    assert_eq!((nobody.code, nobody.content_type.as_str()), (404, MEDIA_TYPE));
    let status = decode(&nobody.bytes).unwrap();
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&json!("Status"), &json!("NotFound"), &json!(404))
    );

    // What has no such form comes as JSON where that is welcome, and not at all where it is not.
    let services = "/apis/apiregistration.k8s.io/v1/apiservices/v1.";
    assert_eq!(ask(&s, "GET", services, None, ACCEPT).await.content_type, "application/json");
    assert_eq!(ask(&s, "GET", services, None, MEDIA_TYPE).await.code, 406);
    let partial = format!("{MEDIA_TYPE};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let partial = decode(&ask(&s, "GET", &path, None, &partial).await.bytes).unwrap();
    assert_eq!((&partial["kind"], &partial["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("p")));
    assert!(partial.get("data").is_none());

    let request = http::Request::get(format!("{CONFIG_MAPS}?watch=1&labelSelector=a&timeoutSeconds=1"));
    let request = request.header("accept", MEDIA_TYPE).body(Vec::new().into()).unwrap();
    let response = s.client.send(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let frames = response.into_body().collect_bytes().await.unwrap();
    let (length, event) = frames.split_at(4);
    let event = &event[..u32::from_be_bytes(length.try_into().unwrap()) as usize];
    assert_eq!(&event[..7], b"\x0a\x05ADDED");
    let at = event.windows(4).position(|window| window == b"k8s\0").unwrap();
    same(&decode(&event[at..]).unwrap(), &json);
    s.stop().await;
}
