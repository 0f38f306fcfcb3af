//! Schemas of custom kinds: pruning, defaults, validation, versions, and their publication.

use crate::custom_kinds::{DEFINITIONS, cron_tab, define, definition};
use crate::harness::{JSON, Server};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CRON_TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn schema() -> Value {
    json!({"type": "object", "description": "A table of times.", "required": ["spec"], "properties": {
        "spec": {"type": "object", "description": "What is wished.", "properties": {
            "cron": {"type": "string", "pattern": "^[0-9* ]+$", "default": "* * *"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "port": {"x-kubernetes-int-or-string": true},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}}}}})
}

#[tokio::test]
async fn fields_are_validated_pruned_and_defaulted() {
    let s = Server::start().await;
    define(&s, &definition("crontabs", "CronTab", &schema())).await;
    let object = cron_tab("a", json!({"unknown": 1, "replicas": 2, "parts": [{"name": "n", "no": 1}]}));
    let strict = s.post(&format!("{CRON_TABS}?fieldValidation=Strict"), &object).await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.body["message"],
        "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \
         \"spec.parts[0].no\", unknown field \"spec.unknown\""
    );
    let warned = s.post(&format!("{CRON_TABS}?fieldValidation=Warn"), &object).await;
    assert_eq!(warned.code, 201, "{}", warned.body);
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    assert_eq!(
        warnings,
        [r#"299 - "unknown field \"spec.parts[0].no\"""#, r#"299 - "unknown field \"spec.unknown\"""#]
    );
    assert_eq!(warned.body["spec"], json!({"cron": "* * *", "replicas": 2, "parts": [{"name": "n"}]}));
    let wrong = cron_tab(
        "b",
        json!({"cron": "x", "replicas": 11, "port": true, "parts": [{"name": "n"}, {"name": "n"}],
                                     "template": {"kind": "Pod"}}),
    );
    let refused = s.post(CRON_TABS, &wrong).await;
    assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")));
    let causes: Vec<String> = refused.body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{} {}: {}",
                c["reason"].as_str().unwrap(),
                c["field"].as_str().unwrap(),
                c["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        causes,
        [
            "FieldValueInvalid spec.cron: Invalid value: \"x\": spec.cron in body should match '^[0-9* ]+$'",
            "FieldValueTypeInvalid spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            "FieldValueInvalid spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
            "FieldValueRequired spec.template.apiVersion: Required value",
            "FieldValueDuplicate spec.parts[1]: Duplicate value: {\"name\":\"n\"}",
        ]
    );
    let bad_patch = s.patch(&format!("{CRON_TABS}/a"), &json!({"spec": {"replicas": "many"}})).await;
    assert_eq!(bad_patch.code, 422, "{}", bad_patch.body);
    let meta = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "m", "unknownMeta": 1},
        "spec": {"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"unknownSubMeta": 1}, "spec": {"x": 1}}}});
    let strict = s.post(&format!("{CRON_TABS}?fieldValidation=Strict"), &meta).await;
    assert_eq!(
        strict.body["message"],
        "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \
         \"metadata.unknownMeta\", unknown field \"spec.template.metadata.unknownSubMeta\""
    );
    let kindless = s.post(CRON_TABS, &json!({"metadata": {"name": "k"}, "spec": {}})).await;
    assert_eq!(kindless.code, 400);
    assert!(
        kindless.body["message"].as_str().unwrap().starts_with("Object 'Kind' is missing in '"),
        "{}",
        kindless.body
    );
    s.stop().await;
}

/// What upstream's conformance test of defaulting does.
#[tokio::test]
async fn defaults_come_to_what_was_stored_before() {
    let s = Server::start().await;
    let plain = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let mut wanted = definition("crontabs", "CronTab", &plain);
    define(&s, &wanted).await;
    let mut object = cron_tab("a", json!(null));
    object.as_object_mut().unwrap().remove("spec");
    s.post(CRON_TABS, &object).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let patch =
        json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/a/default", "value": "A"}]);
    let patched = s.call("PATCH", &path, "application/json-patch+json", &patch).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let until = Instant::now() + Duration::from_secs(5);
    while s.get(&format!("{CRON_TABS}/a")).await.body["a"] != "A" {
        assert!(Instant::now() < until, "the default never came");
    }
    assert_eq!(s.get(CRON_TABS).await.body["items"][0]["a"], "A");
    let mut watch = s.watch(&format!("{CRON_TABS}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap().1["a"], "A");
    // A change of the definition ends the watch: it would show objects as they were served before.
    wanted["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["b"]["default"] = "B".into();
    let merged = s.patch(&path, &json!({"spec": {"versions": wanted["spec"]["versions"]}})).await;
    assert_eq!(merged.code, 200, "{}", merged.body);
    assert_eq!(watch.next().await, None);
    let read = s.get(&format!("{CRON_TABS}/a")).await.body;
    assert_eq!((read.get("a"), &read["b"]), (None, &json!("B")));
    s.stop().await;
}

#[tokio::test]
async fn versions_are_views_of_the_same_objects() {
    let s = Server::start().await;
    let mut wanted = definition("crontabs", "CronTab", &schema());
    let mut second = wanted["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["selectableFields"] = json!([{"jsonPath": ".spec.cron"}]);
    second["additionalPrinterColumns"] = json!([{"name": "Times", "type": "string", "jsonPath": ".spec.cron"}]);
    let mut third = second.clone();
    third["name"] = "v3".into();
    third["served"] = false.into();
    wanted["spec"]["versions"].as_array_mut().unwrap().extend([second, third]);
    define(&s, &wanted).await;
    let group = s.get("/apis/stable.example.com").await.body;
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let v2 = "/apis/stable.example.com/v2/namespaces/default/crontabs";
    s.post(CRON_TABS, &cron_tab("a", json!({"cron": "1"}))).await;
    let mut other = cron_tab("b", json!({"cron": "2"}));
    other["apiVersion"] = "stable.example.com/v2".into();
    assert_eq!(s.post(v2, &other).await.body["apiVersion"], "stable.example.com/v2");
    assert_eq!(s.get(&format!("{CRON_TABS}/b")).await.body["apiVersion"], "stable.example.com/v1");
    assert_eq!(s.get(&v2.replace("v2", "v3")).await.code, 404);
    let selected = s.get(&format!("{v2}?fieldSelector=spec.cron%3D2")).await.body;
    let names: Vec<_> = selected["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(names, ["b"]);
    let refused = s.get(&format!("{CRON_TABS}?fieldSelector=spec.cron%3D2")).await;
    assert_eq!((refused.code, &refused.body["message"]), (400, &json!("field label not supported: spec.cron")));
    let table = s.get_as(v2, "application/json;as=Table;v=v1;g=meta.k8s.io").await.body;
    assert_eq!(table["rows"][0]["cells"], json!(["a", "1"]));
    s.stop().await;
}

#[tokio::test]
async fn documents_follow_definitions() {
    let s = Server::start().await;
    let index = |body: Value| body["paths"]["apis/apps/v1"]["serverRelativeURL"].clone();
    let apps = index(s.get("/openapi/v3").await.body);
    assert_eq!(s.get("/openapi/v3/apis/stable.example.com/v1").await.code, 404);
    s.get("/openapi/v2").await;
    define(&s, &definition("crontabs", "CronTab", &schema())).await;
    let document = s.get("/openapi/v3").await.body;
    assert_eq!(index(document.clone()), apps, "documents of other groups keep their hash");
    let url = document["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let v3 = s.get(&url).await.body;
    let of = &v3["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        of["x-kubernetes-group-version-kind"],
        json!([{"group": "stable.example.com", "version": "v1", "kind": "CronTab"}])
    );
    assert_eq!(of["properties"]["spec"]["properties"]["cron"], schema()["properties"]["spec"]["properties"]["cron"]);
    assert_eq!(
        of["properties"]["spec"]["properties"]["port"]["anyOf"],
        json!([{"type": "integer"}, {"type": "string"}])
    );
    assert!(v3["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"].is_object());
    let v2 = s.get("/openapi/v2").await.body;
    let of = &v2["definitions"]["com.example.stable.v1.CronTab"];
    assert_eq!((&of["description"], &of["required"]), (&json!("A table of times."), &json!(["spec"])));
    s.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com"), &Value::Null).await;
    let until = Instant::now() + Duration::from_secs(5);
    while s.get(&url).await.code != 404 {
        assert!(Instant::now() < until, "the document stays");
    }
    assert!(s.get("/openapi/v2").await.body["definitions"].get("com.example.stable.v1.CronTab").is_none());
    s.stop().await;
}

#[tokio::test]
async fn definitions_are_validated() {
    let s = Server::start().await;
    let bad = definition("crontabs", "CronTab", &json!({"type": "object", "properties": {"a": {"type": "array"}}}));
    let refused = s.post(DEFINITIONS, &bad).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.body["message"],
        "CustomResourceDefinition.apiextensions.k8s.io \"crontabs.stable.example.com\" is invalid: \
         spec.versions[0].schema.openAPIV3Schema.properties[a].items: Required value: must be specified"
    );
    let made = define(&s, &definition("crontabs", "CronTab", &schema())).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let scope = s.patch(&path, &json!({"spec": {"scope": "Cluster"}})).await;
    assert!(
        scope.body["message"].as_str().unwrap().contains("spec.scope: Invalid value: \"Cluster\": field is immutable")
    );
    // A status may be written by others, such as a migration of what is stored.
    let mut other = made.clone();
    other["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "Extra", "status": "True"}));
    let written = s.call("PUT", &format!("{path}/status"), JSON, &other).await;
    assert_eq!(written.code, 200, "{}", written.body);
    s.stop().await;
}

#[tokio::test]
async fn custom_objects_are_applied() {
    let s = Server::start().await;
    define(&s, &definition("crontabs", "CronTab", &schema())).await;
    let one = format!("{CRON_TABS}/a");
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{one}?fieldManager={manager}");
        s.call("PATCH", &path, "application/apply-patch+yaml", &cron_tab("a", spec)).await
    };
    let made = apply("x", json!({"replicas": 1, "parts": [{"name": "p"}]})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let owned = &made.body["metadata"]["managedFields"][0];
    assert_eq!((&owned["manager"], &owned["operation"]), (&json!("x"), &json!("Apply")));
    assert_eq!(owned["fieldsV1"]["f:spec"]["f:parts"]["k:{\"name\":\"p\"}"], json!({".": {}, "f:name": {}}));
    let other = apply("y", json!({"parts": [{"name": "q"}]})).await;
    assert_eq!(other.body["spec"]["parts"], json!([{"name": "p"}, {"name": "q"}]), "{}", other.body);
    let conflict = apply("y", json!({"replicas": 2})).await;
    assert_eq!(conflict.code, 409, "{}", conflict.body);
    let fewer = apply("x", json!({"replicas": 1})).await;
    assert_eq!(fewer.body["spec"]["parts"], json!([{"name": "q"}]), "{}", fewer.body);
    let unknown = apply("x", json!({"replicas": 1, "nothing": 1})).await;
    assert_eq!(unknown.code, 500, "{}", unknown.body);
    assert!(unknown.body["message"].as_str().unwrap().contains(".spec.nothing: field not declared in schema"));
    s.stop().await;
}

/// A controller as kube-rs users write it: a definition, a watch, a status.
#[tokio::test]
async fn kube_defines_watches_and_reports() {
    use futures::StreamExt;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let s = Server::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(s.client.clone());
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"doubled": {"type": "integer"}}}}});
    let mut wanted = definition("doubles", "Double", &schema);
    wanted["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    let wanted = serde_json::from_value(wanted).unwrap();
    definitions.create(&PostParams::default(), &wanted).await.unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    let wait = kube::runtime::wait::await_condition(definitions, "doubles.stable.example.com", established);
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap();
    let kind = kube::core::GroupVersionKind::gvk("stable.example.com", "v1", "Double");
    let (resource, _) = kube::discovery::pinned_kind(&s.client, &kind).await.unwrap();
    let doubles: Api<DynamicObject> = Api::namespaced_with(s.client.clone(), "default", &resource);
    let mut events = std::pin::pin!(kube::runtime::watcher(doubles.clone(), kube::runtime::watcher::Config::default()));
    let object = DynamicObject::new("four", &resource).data(json!({"spec": {"n": 2}}));
    doubles.create(&PostParams::default(), &object).await.unwrap();
    let within = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(event) = events.next().await {
            let (kube::runtime::watcher::Event::Apply(seen) | kube::runtime::watcher::Event::InitApply(seen)) =
                event.unwrap()
            else {
                continue;
            };
            let n = seen.data["spec"]["n"].as_i64().unwrap();
            let status = Patch::Merge(json!({"status": {"doubled": n * 2}}));
            let name = seen.metadata.name.unwrap();
            return doubles.patch_status(&name, &PatchParams::default(), &status).await.unwrap();
        }
        panic!("the watch ended");
    });
    assert_eq!(within.await.unwrap().data["status"]["doubled"], 4);
    s.stop().await;
}
