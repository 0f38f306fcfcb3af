//! Server-side apply and managedFields.

use crate::harness::{Answer, CONFIG_MAPS, JSON, MERGE, PODS, Server, config_map, pod};
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";

impl Server {
    async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        self.call("PATCH", &format!("{path}?fieldManager={manager}"), APPLY, config).await
    }

    async fn forced(&self, path: &str, manager: &str, config: &Value) -> Answer {
        self.call("PATCH", &format!("{path}?fieldManager={manager}&force=true"), APPLY, config).await
    }
}

/// Manager, operation, subresource and fields of each entry.
fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let text = |e: &Value, name: &str| e[name].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entry = |e: &Value| (text(e, "manager"), text(e, "operation"), text(e, "subresource"), e["fieldsV1"].clone());
    entries.iter().map(entry).collect()
}

fn managers(object: &Value) -> Vec<String> {
    owners(object).into_iter().map(|(manager, ..)| manager).collect()
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(name: &str, spec: &Value) -> Value {
    let mut out = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    for (field, value) in spec.as_object().unwrap() {
        out["spec"][field] = value.clone();
    }
    out
}

#[tokio::test]
async fn every_write_is_recorded() {
    let s = Server::start().await;
    let made = s.post(&format!("{CONFIG_MAPS}?fieldManager=maker"), &config_map("a")).await.body;
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    assert!(entry["time"].is_string() && entry.get("subresource").is_none(), "{entry}");
    let fields = json!({"f:data": {".": {}, "f:k": {}}});
    assert_eq!(owners(&made), [("maker".to_owned(), "Update".to_owned(), String::new(), fields)]);
    let path = format!("{CONFIG_MAPS}/a");
    let patch = json!({"data": {"l": "w"}, "metadata": {"labels": {"x": "y"}, "finalizers": ["example.com/f"]}});
    let changed = s.call("PATCH", &format!("{path}?fieldManager=changer"), MERGE, &patch).await.body;
    let fields = json!({"f:data": {"f:l": {}}, "f:metadata": {"f:labels": {".": {}, "f:x": {}},
                        "f:finalizers": {".": {}, "v:\"example.com/f\"": {}}}});
    assert!(
        owners(&changed).contains(&("changer".to_owned(), "Update".to_owned(), String::new(), fields)),
        "{changed}"
    );
    // What is changed changes its owner; whose fields are all gone is gone.
    let mut new = s.get(&path).await.body;
    new["data"] = json!({"k": "other"});
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    let put = s.put(&format!("{path}?fieldManager=putter"), &new).await.body;
    let mut names = managers(&put);
    names.sort();
    assert_eq!(names, ["changer", "maker", "putter"]);
    // The agent's first word where no manager is named.
    let request =
        http::Request::post(CONFIG_MAPS).header("content-type", JSON).header("user-agent", "kubectl/v1.37 (x)");
    let made = s.send(request.body(config_map("b").to_string().into_bytes().into()).unwrap()).await.body;
    assert_eq!(managers(&made), ["kubectl"]);
    s.stop().await;
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let s = Server::start().await;
    let (path, config) = (format!("{DEPLOYMENTS}/d"), deployment("d", &json!({"replicas": 2})));
    let first = s.apply(&path, "a", &config).await;
    assert_eq!(first.code, 201, "{}", first.body);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let again = s.apply(&path, "a", &config).await;
    assert_eq!((again.code, &again.body), (200, &first.body));
    for (kind, patch) in [(MERGE, json!({})), (STRATEGIC, json!({"spec": {"replicas": 2}})), (JSON, first.body.clone())]
    {
        let method = if kind == JSON { "PUT" } else { "PATCH" };
        let same = s.call(method, &format!("{path}?fieldManager=b"), kind, &patch).await;
        assert_eq!((same.code, &same.body), (200, &first.body));
    }
    // A null, or another spelling of what is there, is no change either.
    let mut spelled = config.clone();
    spelled["metadata"]["creationTimestamp"] = Value::Null;
    assert_eq!(s.apply(&path, "a", &spelled).await.body, first.body);
    // Another's claim on the same values is one.
    let shared = s.apply(&path, "c", &config).await.body;
    assert_eq!(managers(&shared).len(), 2);
    assert_ne!(shared["metadata"]["resourceVersion"], first.body["metadata"]["resourceVersion"]);
    s.stop().await;
}

#[tokio::test]
async fn conflicts_are_told_and_can_be_forced() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    s.post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), &deployment("d", &json!({"replicas": 1})))
        .await;
    let wanted = deployment("d", &json!({"replicas": 3}));
    let refused = s.apply(&path, "me", &wanted).await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &json!("Conflict")));
    let who = "conflict with \"kubectl-client-side-apply\" using apps/v1";
    assert_eq!(refused.body["message"], format!("Apply failed with 1 conflict: {who}: .spec.replicas"));
    let cause = json!({"reason": "FieldManagerConflict", "message": who, "field": ".spec.replicas"});
    assert_eq!(refused.body["details"]["causes"], json!([cause]));
    let mut image = wanted.clone();
    image["spec"]["template"]["spec"]["containers"][0]["image"] = "other".into();
    let refused = s.apply(&path, "me", &image).await;
    assert_eq!(
        refused.body["message"],
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
    let forced = s.forced(&path, "me", &wanted).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(3)));
    let owned = owners(&forced.body);
    let other = owned.iter().find(|o| o.0 == "kubectl-client-side-apply").unwrap();
    assert!(other.3["f:spec"].get("f:replicas").is_none(), "{other:?}");
    // A dry run says what would be, and leaves it.
    let dry = format!("{path}?fieldManager=me&dryRun=All");
    let tried = s.call("PATCH", &dry, APPLY, &deployment("d", &json!({"replicas": 9}))).await;
    assert_eq!((tried.code, &tried.body["spec"]["replicas"]), (200, &json!(9)));
    assert_eq!(s.get(&path).await.body, forced.body);
    s.stop().await;
}

#[tokio::test]
async fn what_is_left_out_goes_back_to_its_default() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    let mut config = deployment("d", &json!({"replicas": 3}));
    config["spec"]["template"]["spec"]["hostname"] = "h".into();
    config["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    s.apply(&path, "a", &config).await;
    let left = s.apply(&path, "a", &deployment("d", &json!({}))).await.body;
    assert_eq!(left["spec"]["replicas"], 1);
    let template = &left["spec"]["template"]["spec"];
    assert!(template.get("hostname").is_none() && template["containers"][0].get("ports").is_none(), "{template}");
    // An updater's field keeps what an applier leaves to it, but goes with the element it is in.
    let patch =
        json!({"spec": {"replicas": 4, "template": {"spec": {"containers": [{"name": "c", "workingDir": "/w"}]}}}});
    let patched = s.call("PATCH", &format!("{path}?fieldManager=u"), STRATEGIC, &patch).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let mut other = deployment("d", &json!({}));
    other["spec"]["template"]["spec"]["containers"][0]["name"] = "other".into();
    let swapped = s.apply(&path, "a", &other).await.body;
    assert_eq!(swapped["spec"]["replicas"], 4, "{swapped}");
    let names: Vec<&Value> =
        swapped["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["other"]);
    s.stop().await;
}

#[tokio::test]
async fn lists_are_known_by_keys_that_have_defaults() {
    let s = Server::start().await;
    let path = format!("{SERVICES}/s");
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let both = service(json!([{"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"}]));
    let made = s.apply(&path, "a", &both).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let ports = json!({"k:{\"port\":53,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}},
                       "k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}});
    assert_eq!(owners(&made.body)[0].3, json!({"f:spec": {"f:ports": ports}}));
    let more = s.apply(&path, "b", &service(json!([{"name": "http", "port": 80}]))).await.body;
    assert_eq!(more["spec"]["ports"].as_array().unwrap().len(), 3);
    let less = s.apply(&path, "a", &service(json!([{"name": "udp", "port": 53, "protocol": "UDP"}]))).await.body;
    let names: Vec<&Value> = less["spec"]["ports"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["udp", "http"]);
    let twice = s
        .apply(&path, "a", &service(json!([{"name": "a", "port": 1}, {"name": "b", "port": 1, "protocol": "TCP"}])))
        .await;
    assert_eq!(twice.code, 500);
    assert_eq!(
        twice.body["message"],
        "failed to create typed patch object (/s; /v1, Kind=Service): .spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]"
    );
    s.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_applied_are_refused() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let good = map("a", &json!({"k": "v"}));
    let change = |pointer: &str, value: Value| {
        let mut config = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        config
    };
    for (config, code, message) in [
        (change("/kind", "Secret".into()), 400, "invalid object type: /v1, Kind=Secret"),
        (change("/apiVersion", "apps/v1".into()), 400, "invalid object type: apps/v1, Kind=ConfigMap"),
        (
            change("/metadata/name", "b".into()),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            change("/metadata", json!({})),
            400,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (change("/metadata/managedFields", json!([])), 400, "metadata.managedFields must be nil"),
        (
            change("/metadata/uid", "x".into()),
            409,
            "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid x, and no existing object was found",
        ),
        (
            change("/what", 1.into()),
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .what: field not declared in schema",
        ),
        (
            change("/data/n", 1.into()),
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data.n: expected string, got &value.valueUnstructured{Value:1}",
        ),
    ] {
        let answer = s.apply(&path, "m", &config).await;
        assert_eq!((answer.code, &answer.body["message"]), (code, &json!(message)), "{config}");
    }
    assert_eq!(s.get(&path).await.code, 404);
    let nobody = s.call("PATCH", &path, APPLY, &good).await;
    assert_eq!(nobody.code, 422);
    assert_eq!(
        nobody.body["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    s.post(CONFIG_MAPS, &config_map("a")).await;
    let forced = s.call("PATCH", &format!("{path}?force=true"), MERGE, &json!({})).await;
    assert_eq!(forced.code, 422);
    let text = forced.body["message"].as_str().unwrap();
    assert!(text.ends_with("force: Forbidden: may not be specified for non-apply patch"), "{text}");
    assert_eq!(s.call("PATCH", &format!("{path}?fieldManager={}", "x".repeat(129)), MERGE, &json!({})).await.code, 422);
    assert_eq!(
        s.call("PATCH", &format!("{path}?fieldManager=a"), "application/apply-patch+cbor", &good).await.code,
        415
    );
    let old = change("/metadata/resourceVersion", "1".into());
    assert_eq!(s.forced(&path, "m", &old).await.code, 409);
    s.stop().await;
}

#[tokio::test]
async fn yaml_and_duplicates() {
    let s = Server::start().await;
    let send = async |name: &str, query: &str, text: &str| {
        let request =
            http::Request::patch(format!("{CONFIG_MAPS}/{name}?fieldManager=m{query}")).header("content-type", APPLY);
        s.send(request.body(text.as_bytes().to_vec().into()).unwrap()).await
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: 'yes'\n";
    let made = send("a", "", yaml).await;
    assert_eq!((made.code, &made.body["data"]), (201, &json!({"k": "yes"})));
    let loose = "{apiVersion: v1, kind: ConfigMap, metadata: {name: b,},}";
    assert_eq!(send("b", "", loose).await.code, 201);
    let twice = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "1", "k": "2"}}"#;
    let strict = send("c", "&fieldValidation=Strict", twice).await;
    let prefix = "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:";
    let message = format!("{prefix}\n  line 1: key \"k\" already set in map");
    assert_eq!((strict.code, &strict.body["message"]), (400, &json!(message)));
    let warned = send("c", "", twice).await;
    assert_eq!((warned.code, &warned.body["data"]["k"]), (201, &json!("2")));
    assert_eq!(warned.headers["warning"], "299 - \"line 1: key \\\"k\\\" already set in map\"");
    let twice = yaml.replace("k: 'yes'\n", "k: 'yes'\n  k: 'no'\n");
    assert_eq!(send("a", "&fieldValidation=Strict", &twice).await.code, 400);
    let ignored = send("a", "&fieldValidation=Ignore", &twice).await;
    assert_eq!((ignored.code, &ignored.body["data"]["k"]), (200, &json!("no")));
    assert!(ignored.headers.get("warning").is_none());
    assert_eq!(send("d", "", "a: [").await.code, 400);
    assert_eq!(send("d", "", "[]").await.code, 400);
    s.stop().await;
}

#[tokio::test]
async fn owners_can_be_reset_but_not_through_a_subresource() {
    let s = Server::start().await;
    for (i, (kind, patch)) in [
        (MERGE, json!({"metadata": {"managedFields": [{}]}})),
        (STRATEGIC, json!({"metadata": {"managedFields": [{}]}})),
        ("application/json-patch+json", json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])),
        (MERGE, json!({"metadata": {"managedFields": []}})),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("a{i}");
        s.post(CONFIG_MAPS, &config_map(&name)).await;
        let reset = s.call("PATCH", &format!("{CONFIG_MAPS}/{name}"), kind, &patch).await;
        assert_eq!((reset.code, managers(&reset.body).len()), (200, 0), "{}", reset.body);
        // Whoever changes it then is not recorded, until somebody applies.
        let changed = s.patch(&format!("{CONFIG_MAPS}/{name}"), &json!({"data": {"x": "y"}})).await.body;
        assert!(managers(&changed).is_empty());
        let applied = s.apply(&format!("{CONFIG_MAPS}/{name}"), "m", &map(&name, &json!({"z": "1"}))).await.body;
        assert_eq!(managers(&applied), ["m", "before-first-apply"]);
    }
    let made = s.apply(&format!("{PODS}/p"), "m", &pod("p")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let entry =
        json!({"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}});
    let status =
        json!({"metadata": {"managedFields": [entry]}, "status": {"conditions": [{"type": "My", "status": "True"}]}});
    let changed = s.call("PATCH", &format!("{PODS}/p/status?fieldManager=u"), STRATEGIC, &status).await.body;
    let entries = &changed["metadata"]["managedFields"];
    assert_eq!(entries[0], made.body["metadata"]["managedFields"][0]);
    assert_eq!((&entries[1]["manager"], &entries[1]["subresource"]), (&json!("u"), &json!("status")));
    // What is no managedFields is not taken for any.
    let mut odd = config_map("odd");
    odd["metadata"]["managedFields"] =
        json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": ""}]);
    let made = s.post(&format!("{CONFIG_MAPS}?fieldManager=m"), &odd).await;
    assert_eq!((made.code, managers(&made.body)), (201, vec!["m".to_owned()]));
    s.stop().await;
}

#[tokio::test]
async fn status_and_object_have_owners_apart() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    let mut config = deployment("d", &json!({}));
    config["status"] = json!({"replicas": 5});
    let made = s.apply(&path, "a", &config).await.body;
    assert!(owners(&made)[0].3.get("f:status").is_none(), "{made}");
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"l": "m"}},
                        "spec": {"replicas": 7}, "status": {"observedGeneration": 1,
                        "conditions": [{"type": "Progressing", "status": "True", "reason": "r", "message": "m"}]}});
    let applied = s.apply(&format!("{path}/status"), "a", &status).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    assert_eq!(
        (&applied.body["spec"]["replicas"], &applied.body["status"]["observedGeneration"]),
        (&json!(1), &json!(1))
    );
    let of_status = owners(&applied.body).into_iter().find(|o| o.2 == "status").unwrap();
    let keys: Vec<&String> = of_status.3.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["f:status"], "{of_status:?}");
    assert_eq!(s.apply(&format!("{DEPLOYMENTS}/none/status"), "a", &status).await.code, 404);
    // Its own entry, so that neither takes the other's fields away.
    let again = s.apply(&path, "a", &config).await.body;
    assert_eq!(again["status"]["observedGeneration"], 1);
    s.stop().await;
}

#[tokio::test]
async fn scale_owns_the_replicas() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    s.apply(&path, "a", &deployment("d", &json!({"replicas": 1}))).await;
    let patched =
        s.call("PATCH", &format!("{path}/scale?fieldManager=hpa"), MERGE, &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let object = s.get(&path).await.body;
    let scaled = ("hpa".to_owned(), "Update".to_owned(), "scale".to_owned(), json!({"f:spec": {"f:replicas": {}}}));
    let owned = owners(&object);
    assert!(owned.contains(&scaled), "{owned:?}");
    assert!(owned[0].3["f:spec"].get("f:replicas").is_none());
    let refused = s.apply(&path, "a", &deployment("d", &json!({"replicas": 1}))).await;
    assert_eq!(
        refused.body["message"],
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    assert_eq!(s.apply(&format!("{path}/scale"), "b", &scale(6)).await.code, 409);
    let forced = s.forced(&format!("{path}/scale"), "b", &scale(6)).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(6)));
    let object = s.get(&path).await.body;
    let applied = ("b".to_owned(), "Apply".to_owned(), "scale".to_owned(), json!({"f:spec": {"f:replicas": {}}}));
    assert!(owners(&object).contains(&applied), "{:?}", owners(&object));
    let mut odd = scale(1);
    odd["spec"]["what"] = 1.into();
    assert_eq!(s.forced(&format!("{path}/scale"), "b", &odd).await.code, 500);
    for (name, message) in [
        ("", "the name of the object (d based on URL) was undeterminable: name must be provided"),
        ("e", "the name of the object (e) does not match the name on the URL (d)"),
    ] {
        odd = scale(6);
        odd["metadata"]["name"] = name.into();
        let refused = s.forced(&format!("{path}/scale"), "b", &odd).await;
        assert_eq!((refused.code, &refused.body["message"]), (400, &json!(message)));
    }
    // What it does not say any more is none, not the default.
    odd = scale(6);
    odd["spec"] = json!({});
    let none = s.forced(&format!("{path}/scale"), "b", &odd).await;
    assert_eq!((none.code, &none.body["spec"]["replicas"]), (200, &json!(0)));
    assert_eq!(s.get(&path).await.body["spec"]["replicas"], 0);
    s.stop().await;
}

#[tokio::test]
async fn who_scales_what_nobody_owns_is_in_nobodys_way() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    let made = s.apply(&path, "a", &deployment("d", &json!({}))).await.body;
    let patch = json!({"spec": {"replicas": 5}});
    let scaled = s.call("PATCH", &format!("{path}/scale?fieldManager=hpa"), MERGE, &patch).await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(5)));
    let object = s.get(&path).await.body;
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(object["metadata"]["managedFields"], made["metadata"]["managedFields"]);
    let applied = s.apply(&path, "a", &deployment("d", &json!({"replicas": 3}))).await;
    assert_eq!((applied.code, &applied.body["spec"]["replicas"]), (200, &json!(3)), "{}", applied.body);
    s.stop().await;
}

#[tokio::test]
async fn what_nests_too_deep_is_refused() {
    let s = Server::start().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let nested = |levels: usize| (0..levels).fold(json!({}), |inside, _| json!({"f:a": inside}));
    let mut map = config_map("deep");
    let entry = |fields: Value| json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    map["metadata"]["managedFields"] = entry(nested(98));
    let refused = s.post(CONFIG_MAPS, &map).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("too deep"), "{}", refused.body);
    // What is no set of fields is not taken for one.
    map["metadata"]["managedFields"] = entry(nested(110));
    let made = s.post(&format!("{CONFIG_MAPS}?fieldManager=m"), &map).await;
    assert_eq!((made.code, managers(&made.body)), (201, vec!["m".to_owned()]));
    let values = (0..100).fold(json!({}), |inside, _| json!({"a": inside}));
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "deeps.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "deeps", "kind": "Deep"}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "default": {"x": values}}}}]}});
    let refused = s.post(crds, &definition).await;
    assert!(matches!(refused.code, 400 | 422), "{}", refused.body);
    assert_eq!(s.get(crds).await.code, 200);
    s.stop().await;
}

#[tokio::test]
async fn absurd_managed_fields_are_refused() {
    let s = Server::start().await;
    let entry = |i: usize| json!({"manager": format!("m{i}"), "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:immutable": {}}});
    let mut map = config_map("a");
    map["metadata"]["managedFields"] = (0..1001).map(entry).collect();
    let refused = s.post(CONFIG_MAPS, &map).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("metadata.managedFields: Too many"), "{}", refused.body);
    s.stop().await;
}

#[tokio::test]
async fn requests_own_nothing_they_cannot_change() {
    let s = Server::start().await;
    let classes = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "f"},
                        "spec": {"priorityLevelConfiguration": {"name": "exempt"}}});
    let made = s.post(classes, &schema).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let mut status = schema.clone();
    status["metadata"]["labels"] = json!({"l": "m"});
    status["status"] = json!({"conditions": [{"type": "Dangling", "status": "True"}]});
    let applied = s.apply(&format!("{classes}/f/status"), "a", &status).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    let of_status = owners(&applied.body).into_iter().find(|o| o.2 == "status").unwrap();
    assert_eq!(of_status.3.as_object().unwrap().keys().collect::<Vec<_>>(), ["f:status"]);
    s.stop().await;
}

#[tokio::test]
async fn names_of_managers() {
    let s = Server::start().await;
    let request = http::Request::post(CONFIG_MAPS).header("content-type", JSON);
    let made = s.send(request.body(config_map("none").to_string().into_bytes().into()).unwrap()).await.body;
    assert_eq!(managers(&made), ["unknown"]);
    let request = http::Request::post(CONFIG_MAPS)
        .header("content-type", JSON)
        .header("user-agent", "a\u{200b}b\u{e9}".as_bytes());
    let made = s.send(request.body(config_map("odd").to_string().into_bytes().into()).unwrap()).await.body;
    assert_eq!(managers(&made), ["ab\u{e9}"]);
    assert_eq!(s.post(&format!("{CONFIG_MAPS}?fieldManager=a%E2%80%8Bb"), &config_map("x")).await.code, 422);
    s.stop().await;
}

#[tokio::test]
async fn a_create_keeps_owners_at_the_other_version() {
    let s = Server::start().await;
    let entry = json!({"manager": "x", "operation": "Apply", "apiVersion": "events.k8s.io/v1", "fieldsType": "FieldsV1",
                       "fieldsV1": {"f:note": {}}});
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "managedFields": [entry]},
                       "involvedObject": {"namespace": "default"}, "reason": "r", "message": "m", "type": "Normal"});
    let made = s.post("/api/v1/namespaces/default/events?fieldManager=m", &event).await;
    assert_eq!(made.code, 201, "{}", made.body);
    // The message is new, and so the creator's alone; what nothing changed would stay.
    assert_eq!(managers(&made.body), ["m"]);
    let mut event = event;
    event["metadata"]["name"] = "f".into();
    event["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:series": {}});
    let made = s.post("/api/v1/namespaces/default/events?fieldManager=m", &event).await;
    assert_eq!(managers(&made.body), ["x", "m"], "{}", made.body);
    s.stop().await;
}

#[tokio::test]
async fn an_object_of_two_versions_has_owners_in_both() {
    let s = Server::start().await;
    let core = "/api/v1/namespaces/default/events/e";
    let events = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "a", "reason": "r", "type": "Normal", "regarding": {"namespace": "default"}, "note": "n"});
    let made = s.apply(events, "a", &new).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let old = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "other"});
    let refused = s.apply(core, "b", &old).await;
    assert_eq!(refused.body["message"], "Apply failed with 1 conflict: conflict with \"a\": .note");
    let forced = s.forced(core, "b", &old).await;
    assert_eq!(forced.code, 200, "{}", forced.body);
    let seen = s.get(events).await.body;
    assert_eq!(seen["note"], "other");
    let entries = seen["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let of_a = entries.iter().find(|e| e["manager"] == "a").unwrap();
    assert_eq!(of_a["apiVersion"], "events.k8s.io/v1");
    assert!(of_a["fieldsV1"].get("f:note").is_none());
    s.stop().await;
}

#[tokio::test]
async fn kubectl_goes_on_where_it_left_off() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let config = deployment("d", &json!({"replicas": 3}));
    let mut object = config.clone();
    object["metadata"]["annotations"] = json!({ annotation: config.to_string() });
    s.post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), &object).await;
    let mut wanted = config.clone();
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "new".into();
    assert_eq!(s.apply(&path, "other", &wanted).await.code, 409);
    let applied = s.apply(&path, "kubectl", &wanted).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    let kept: Value =
        serde_json::from_str(applied.body["metadata"]["annotations"][annotation].as_str().unwrap()).unwrap();
    assert_eq!(kept, wanted);
    // Scaled by another since: that is no business of kubectl's.
    s.call("PATCH", &format!("{path}/scale?fieldManager=hpa"), MERGE, &json!({"spec": {"replicas": 9}})).await;
    let refused = s.apply(&path, "kubectl", &wanted).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    s.stop().await;
}

#[tokio::test]
async fn a_large_object_goes_without() {
    let s = Server::start().await;
    let data: serde_json::Map<String, Value> = (0..9999)
        .map(|i| (format!("this-key-is-very-long-so-as-to-create-a-very-large-serialized-fieldset-{i}"), "A".into()))
        .collect();
    let made = s.post(CONFIG_MAPS, &map("large", &Value::Object(data))).await;
    assert_eq!((made.code, managers(&made.body).len()), (201, 0));
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}});
    assert_eq!(s.apply(&format!("{CONFIG_MAPS}/large"), "m", &empty).await.code, 500);
    s.stop().await;
}
