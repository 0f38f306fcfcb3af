//! Custom kinds: from a definition to its discovery, its objects' verbs, and their end.

use crate::harness::{JSON, Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRON_TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A definition of `plural` in `stable.example.com`, with one version.
pub(crate) fn definition(plural: &str, kind: &str, schema: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.stable.example.com")},
        "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Waits until a condition of a definition holds.
async fn condition(s: &Server, name: &str, kind: &str, status: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let body = s.get(&format!("{DEFINITIONS}/{name}")).await.body;
        let found = body["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == kind && c["status"] == status);
        if found {
            return body;
        }
        assert!(Instant::now() < until, "{name} is never {kind}={status}: {body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn established(s: &Server, name: &str) -> Value {
    condition(s, name, "Established", "True").await
}

/// Makes a definition and waits until it is served.
pub(crate) async fn define(s: &Server, definition: &Value) -> Value {
    let made = s.post(DEFINITIONS, definition).await;
    assert_eq!(made.code, 201, "{}", made.body);
    established(s, definition["metadata"]["name"].as_str().unwrap()).await
}

pub(crate) fn cron_tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

async fn gone(s: &Server, path: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while s.get(path).await.code != 404 {
        assert!(Instant::now() < until, "{path} is still there: {}", s.get(path).await.body);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_definition_is_served_until_it_is_deleted() {
    let s = Server::start().await;
    assert_eq!(s.get(CRON_TABS).await.code, 404);
    let mut wanted = definition("crontabs", "CronTab", &anything());
    wanted["spec"]["names"]["shortNames"] = json!(["ct"]);
    wanted["spec"]["names"]["categories"] = json!(["all"]);
    let made = define(&s, &wanted).await;
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["status"]["acceptedNames"]["listKind"], "CronTabList");

    let groups = s.get("/apis").await.body;
    let group = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "stable.example.com").unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], "stable.example.com/v1");
    let resources = s.get("/apis/stable.example.com/v1").await.body;
    let row = &resources["resources"][0];
    assert_eq!((&row["name"], &row["shortNames"]), (&json!("crontabs"), &json!(["ct"])));
    assert_eq!((&row["categories"], &row["singularName"]), (&json!(["all"]), &json!("crontab")));
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = s.get_as("/apis", v2).await.body;
    let item = aggregated["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == "stable.example.com");
    assert_eq!(item.unwrap()["versions"][0]["resources"][0]["responseKind"]["kind"], "CronTab");

    let one = format!("{CRON_TABS}/a");
    let made = s.post(CRON_TABS, &cron_tab("a", json!({"any": {"thing": [1, null]}}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert_eq!(made.body["spec"], json!({"any": {"thing": [1, null]}}));
    let mut watch = s.watch(&format!("{CRON_TABS}?watch=1")).await;
    assert_eq!(watch.names(1).await, ["ADDED a"]);
    let patched = s.patch(&one, &json!({"spec": {"more": true, "any": null}})).await;
    assert_eq!((patched.code, &patched.body["spec"]), (200, &json!({"more": true})));
    assert_eq!(patched.body["metadata"]["generation"], 2);
    let list = s.get("/apis/stable.example.com/v1/crontabs").await.body;
    assert_eq!((&list["kind"], &list["items"][0]["spec"]), (&json!("CronTabList"), &json!({"more": true})));
    let table = s.get_as(CRON_TABS, TABLE).await.body;
    assert_eq!((&table["columnDefinitions"][1]["name"], &table["rows"][0]["cells"][0]), (&json!("Age"), &json!("a")));
    let partial = s.get_as(&one, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.body;
    assert_eq!((&partial["kind"], &partial["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
    let merge = s.call("PATCH", &one, "application/strategic-merge-patch+json", &json!({})).await;
    assert_eq!(merge.code, 415, "{}", merge.body);
    let mut stale = patched.body.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(s.put(&one, &stale).await.code, 409);
    stale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let unconditional = s.put(&one, &stale).await;
    assert_eq!(unconditional.code, 422, "{}", unconditional.body);
    let nameless = s.post(CRON_TABS, &cron_tab("Not_A_Name", json!({}))).await;
    assert_eq!(nameless.code, 422, "{}", nameless.body);

    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let going = s.delete(&path, &Value::Null).await;
    assert_eq!(
        (going.code, going.body["metadata"]["finalizers"][0].as_str()),
        (200, Some("customresourcecleanup.apiextensions.k8s.io"))
    );
    assert_eq!(watch.names(2).await, ["MODIFIED a", "DELETED a"]);
    assert_eq!(watch.next().await, None, "the watch ends with the kind");
    gone(&s, &path).await;
    assert_eq!(s.get(CRON_TABS).await.code, 404);
    assert_eq!(s.get("/apis/stable.example.com").await.code, 404);
    // Defined anew, it begins empty.
    define(&s, &wanted).await;
    assert_eq!(s.get(CRON_TABS).await.body["items"], json!([]));
    s.stop().await;
}

#[tokio::test]
async fn objects_with_finalizers_hold_their_definition() {
    let s = Server::start().await;
    define(&s, &definition("crontabs", "CronTab", &anything())).await;
    let mut held = cron_tab("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    s.post(CRON_TABS, &held).await;
    s.post(CRON_TABS, &cron_tab("free", json!({}))).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    s.delete(&path, &Value::Null).await;
    gone(&s, &format!("{CRON_TABS}/free")).await;
    condition(&s, "crontabs.stable.example.com", "Terminating", "True").await;
    let late = s.post(CRON_TABS, &cron_tab("late", json!({}))).await;
    assert_eq!(late.code, 403, "{}", late.body);
    assert!(
        late.body["message"]
            .as_str()
            .unwrap()
            .contains("create not allowed while custom resource definition is terminating")
    );
    let path_of_late = format!("{CRON_TABS}/late?fieldManager=m");
    let applied = s.call("PATCH", &path_of_late, "application/apply-patch+yaml", &cron_tab("late", json!({}))).await;
    assert_eq!(applied.code, 403, "{}", applied.body);
    let verbs = &s.get("/apis/stable.example.com/v1").await.body["resources"][0]["verbs"];
    assert_eq!(*verbs, json!(["delete", "deletecollection", "get", "list", "watch"]));
    let freed = s.patch(&format!("{CRON_TABS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200, "{}", freed.body);
    gone(&s, &path).await;
    s.stop().await;
}

#[tokio::test]
async fn a_definition_made_anew_keeps_its_objects_from_the_end_of_the_old_one() {
    let s = Server::start().await;
    let wanted = definition("crontabs", "CronTab", &anything());
    define(&s, &wanted).await;
    let mut held = cron_tab("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    s.post(CRON_TABS, &held).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    for _ in 0..2 {
        // Somebody lets it go before its objects are gone.
        s.delete(&path, &Value::Null).await;
        condition(&s, "crontabs.stable.example.com", "Terminating", "True").await;
        while s.get(&path).await.code != 404 {
            s.patch(&path, &json!({"metadata": {"finalizers": null}})).await;
        }
        define(&s, &wanted).await;
        assert_eq!(s.post(CRON_TABS, &cron_tab("new", json!({}))).await.code, 201);
        s.patch(&format!("{CRON_TABS}/held"), &json!({"metadata": {"finalizers": null}})).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(s.get(&format!("{CRON_TABS}/new")).await.code, 200);
        s.delete(&format!("{CRON_TABS}/new"), &Value::Null).await;
        s.post(CRON_TABS, &held).await;
    }
    // The last one is cleaned as well, though the first was being cleaned.
    s.patch(&format!("{CRON_TABS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    s.delete(&path, &Value::Null).await;
    gone(&s, &path).await;
    s.stop().await;
}

#[tokio::test]
async fn a_name_belongs_to_who_had_it_first() {
    let s = Server::start().await;
    define(&s, &definition("crontabs", "CronTab", &anything())).await;
    assert_eq!(s.post(DEFINITIONS, &definition("others", "CronTab", &anything())).await.code, 201);
    let refused = condition(&s, "others.stable.example.com", "NamesAccepted", "False").await;
    let conditions = refused["status"]["conditions"].as_array().unwrap();
    let names = conditions.iter().find(|c| c["type"] == "NamesAccepted").unwrap();
    assert_eq!(
        (&names["reason"], &names["message"]),
        (&json!("ListKindConflict"), &json!("\"CronTabList\" is already in use"))
    );
    assert_eq!(s.get("/apis/stable.example.com/v1/others").await.code, 404);
    s.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com"), &Value::Null).await;
    established(&s, "others.stable.example.com").await;
    assert_eq!(s.get("/apis/stable.example.com/v1/others").await.code, 200);
    s.stop().await;
}

#[tokio::test]
async fn a_name_of_a_built_in_kind_is_no_custom_kinds() {
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let s = Server::start().await;
    let role = json!({"metadata": {"name": "stays"}, "rules": []});
    assert_eq!(s.post(ROLES, &role).await.code, 201);
    for (plural, kind, singular, reason) in [
        ("clusterroles", "Other", "other", "PluralConflict"),
        ("others", "Other", "clusterrole", "SingularConflict"),
        ("more", "ClusterRole", "more", "ListKindConflict"),
    ] {
        let mut wanted = definition(plural, kind, &anything());
        let name = format!("{plural}.rbac.authorization.k8s.io");
        wanted["metadata"] =
            json!({"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}});
        wanted["spec"]["group"] = "rbac.authorization.k8s.io".into();
        wanted["spec"]["versions"][0]["name"] = "v2".into();
        wanted["spec"]["names"]["singular"] = singular.into();
        wanted["spec"]["scope"] = "Cluster".into();
        let made = s.post(DEFINITIONS, &wanted).await;
        assert_eq!(made.code, 201, "{}", made.body);
        let refused = condition(&s, &name, "NamesAccepted", "False").await;
        let conditions = refused["status"]["conditions"].as_array().unwrap();
        let names = conditions.iter().find(|c| c["type"] == "NamesAccepted").unwrap();
        assert_eq!(names["reason"], reason);
        let path = format!("{DEFINITIONS}/{name}");
        s.delete(&path, &Value::Null).await;
        gone(&s, &path).await;
    }
    assert_eq!(s.get(&format!("{ROLES}/stays")).await.code, 200);
    s.stop().await;
}

#[tokio::test]
async fn status_and_scale_are_resources_of_their_own() {
    let s = Server::start().await;
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "x": {"type": "string"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}}});
    let mut wanted = definition("crontabs", "CronTab", &schema);
    wanted["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    define(&s, &wanted).await;
    let mut object = cron_tab("a", json!({"replicas": 1}));
    object["status"] = json!({"replicas": 7});
    let made = s.post(CRON_TABS, &object).await.body;
    assert_eq!(made.get("status"), None);
    let one = format!("{CRON_TABS}/a");
    let change = json!({"status": {"replicas": 1, "selector": "a=b"}, "spec": {"replicas": 9}});
    let reported = s.patch(&format!("{one}/status"), &change).await.body;
    assert_eq!((&reported["spec"]["replicas"], &reported["status"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(reported["metadata"]["generation"], 1);
    let scale = s.get(&format!("{one}/scale")).await.body;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let scaled = s.patch(&format!("{one}/scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(3)), "{}", scaled.body);
    let read = s.get(&one).await.body;
    assert_eq!((&read["spec"]["replicas"], &read["metadata"]["generation"]), (&json!(3), &json!(2)));
    let wrong = s.patch(&format!("{one}/status"), &json!({"status": {"replicas": "x"}})).await;
    let want = r#"status.replicas: Invalid value: "string": replicas in body must be of type integer: "string""#;
    assert!(wrong.body["message"].as_str().unwrap().contains(want), "{}", wrong.body);
    s.stop().await;
}

#[tokio::test]
async fn the_api_survives_a_restart_of_what_serves_it() {
    let s = Server::start().await;
    define(&s, &definition("crontabs", "CronTab", &anything())).await;
    s.post(CRON_TABS, &cron_tab("a", json!({}))).await;
    // Another server on the same store knows the kind from its first request on.
    let again = mini_apiserver::ApiServer::new(s.api.config.clone(), s.store.clone()).unwrap();
    assert!(again.registry.get("stable.example.com", "v1", "crontabs").is_none());
    again.bootstrap(s.address).await.unwrap();
    assert!(again.registry.get("stable.example.com", "v1", "crontabs").is_some());
    s.stop().await;
}

#[tokio::test]
async fn deletecollection_and_dry_run() {
    let s = Server::start().await;
    define(&s, &definition("crontabs", "CronTab", &anything())).await;
    let dry = s.post(&format!("{CRON_TABS}?dryRun=All"), &cron_tab("a", json!({}))).await;
    assert_eq!((dry.code, s.get(&format!("{CRON_TABS}/a")).await.code), (201, 404));
    for name in ["a", "b"] {
        s.post(CRON_TABS, &cron_tab(name, json!({}))).await;
    }
    let deleted = s.call("DELETE", &format!("{CRON_TABS}?fieldSelector=metadata.name%3Da"), JSON, &Value::Null).await;
    assert_eq!(deleted.code, 200, "{}", deleted.body);
    let left: Vec<_> = s.get(CRON_TABS).await.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].clone())
        .collect();
    assert_eq!(left, ["b"]);
    let dry = s.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com?dryRun=All"), &Value::Null).await;
    assert_eq!((dry.code, s.get(CRON_TABS).await.code), (200, 200));
    s.stop().await;
}
