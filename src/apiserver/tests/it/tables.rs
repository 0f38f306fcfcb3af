//! The other forms of objects, lists and watches: tables, metadata alone, and who can have which.

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use serde_json::{Value, json};

const PARTIAL: &str = "PartialObjectMetadata";

/// The media type of a form.
fn form(kind: &str, version: &str) -> String {
    format!("application/json;as={kind};v={version};g=meta.k8s.io")
}

fn first_cells(table: &Value) -> Vec<&str> {
    table["rows"].as_array().unwrap().iter().map(|row| row["cells"][0].as_str().unwrap()).collect()
}

#[tokio::test]
async fn get_list_and_watch_come_as_tables_and_metadata_in_both_versions() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    for version in ["v1", "v1beta1"] {
        let group_version = format!("meta.k8s.io/{version}");
        let table = form("Table", version);
        let one = s.get_as(&format!("{PODS}/p"), &table).await.body;
        let list = s.get_as(PODS, &table).await.body;
        let (_, event) = s.watch_as(&format!("{PODS}?watch=1"), &table).await.next().await.unwrap();
        for (what, table) in [("get", one), ("list", list), ("watch", event)] {
            assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!(group_version)), "{what}");
            assert_ne!(table["metadata"]["resourceVersion"], "", "{what}");
            let columns = table["columnDefinitions"].as_array().unwrap();
            assert_eq!((&columns[0]["name"], &columns[0]["format"]), (&json!("Name"), &json!("name")), "{what}");
            let row = &table["rows"][0];
            assert_eq!(row["cells"].as_array().unwrap().len(), columns.len(), "{what}");
            assert_eq!(row["cells"][0], "p", "{what}");
            assert_eq!(
                (&row["object"]["kind"], &row["object"]["apiVersion"]),
                (&json!(PARTIAL), &json!(group_version))
            );
            assert_eq!(row["object"]["metadata"]["name"], "p", "{what}");
        }
        let one = s.get_as(&format!("{PODS}/p"), &form(PARTIAL, version)).await.body;
        let list = s.get_as(PODS, &form("PartialObjectMetadataList", version)).await.body;
        let (_, event) = s.watch_as(&format!("{PODS}?watch=1"), &form(PARTIAL, version)).await.next().await.unwrap();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PartialObjectMetadataList"), &json!(group_version)));
        assert_ne!(list["metadata"]["resourceVersion"], "");
        for partial in [&one, &list["items"][0], &event] {
            assert_eq!((&partial["kind"], &partial["apiVersion"]), (&json!(PARTIAL), &json!(group_version)));
            assert_eq!(partial["metadata"]["name"], "p");
            assert!(partial.get("spec").is_none() && partial.get("status").is_none());
        }
    }
    s.stop().await;
}

#[tokio::test]
async fn rows_hold_of_their_object_what_was_asked() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let table = form("Table", "v1");
    for (include, kind) in
        [("None", Value::Null), ("Metadata", json!(PARTIAL)), ("", json!(PARTIAL)), ("Object", json!("Pod"))]
    {
        let one = s.get_as(&format!("{PODS}/p?includeObject={include}"), &table).await.body;
        let list = s.get_as(&format!("{PODS}?includeObject={include}"), &table).await.body;
        let mut watch = s.watch_as(&format!("{PODS}?watch=1&includeObject={include}"), &table).await;
        let (_, event) = watch.next().await.unwrap();
        for table in [one, list, event] {
            assert_eq!(table["rows"][0]["object"]["kind"], kind, "{include}");
        }
    }
    let bad = s.get_as(&format!("{PODS}?includeObject=All"), &table).await;
    let why = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', \
               'Object', 'None', or empty";
    assert_eq!(bad.failure(), (400, "BadRequest", why));
    assert_eq!(s.get(&format!("{PODS}?includeObject=All")).await.code, 200, "of no interest where there are no rows");
    s.stop().await;
}

#[tokio::test]
async fn tables_come_in_chunks_too() {
    let s = Server::start().await;
    for name in ["a", "b", "c"] {
        s.post(CONFIG_MAPS, &config_map(name)).await;
    }
    let table = form("Table", "v1beta1");
    let first = s.get_as(&format!("{CONFIG_MAPS}?limit=2"), &table).await.body;
    assert_eq!((first_cells(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(1)));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = s.get_as(&format!("{CONFIG_MAPS}?limit=2&continue={token}"), &table).await.body;
    assert_eq!((first_cells(&second), &second["metadata"]["continue"]), (vec!["c"], &Value::Null));
    let nothing = s.get_as("/api/v1/namespaces/nobody/configmaps", &table).await.body;
    assert_eq!(nothing["rows"], json!([]));
    assert!(!nothing["columnDefinitions"].as_array().unwrap().is_empty());
    s.stop().await;
}

#[tokio::test]
async fn what_cannot_be_made_is_not_acceptable() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let one = format!("{PODS}/p");
    let media = "only the following media types are accepted: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf";
    let stream = "only the following media types are accepted: application/json;stream=watch, \
                  application/vnd.kubernetes.protobuf;stream=watch";
    let watch = format!("{PODS}?watch=1");
    for (path, accept, message) in [
        (PODS, form("Table", "v1alpha1"), media),
        (PODS, form("Table", "v2"), media),
        (PODS, form("Chart", "v1"), media),
        (PODS, form("Table", "v1").replace("meta.k8s.io", "example.com"), media),
        (PODS, form("Table", "v1").replace("json", "vnd.kubernetes.protobuf"), media),
        (PODS, "application/cbor".to_owned(), media),
        (
            PODS,
            form(PARTIAL, "v1"),
            "you requested PartialObjectMetadata, but the requested object is a list (*core.PodList)",
        ),
        (
            &one,
            form("PartialObjectMetadataList", "v1"),
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.Pod)",
        ),
        (&watch, "application/yaml".to_owned(), stream),
        (&watch, form("Table", "v1").replace("json", "yaml"), stream),
    ] {
        assert_eq!(s.get_as(path, &accept).await.failure(), (406, "NotAcceptable", message), "{path} {accept}");
    }
    // The next best is taken.
    let either = format!("{},{},application/json", form("Table", "v7"), form("Table", "v1beta1"));
    assert_eq!(s.get_as(PODS, &either).await.body["apiVersion"], "meta.k8s.io/v1beta1");
    let plain = format!("{},application/json", form("Table", "v7"));
    assert_eq!(s.get_as(PODS, &plain).await.body["kind"], "PodList");
    let yaml = s.get_as(PODS, &form("Table", "v1").replace("json", "yaml")).await;
    assert!(yaml.body.as_str().unwrap().contains("columnDefinitions:"), "{}", yaml.body);
    s.stop().await;
}

/// Conformance: "should return a 406 for a backend which does not implement metadata".
#[tokio::test]
async fn reviews_have_no_columns() {
    let s = Server::start().await;
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
                        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let post = |accept: String| {
        let request = http::Request::post(path).header("accept", accept).header("content-type", "application/json");
        s.send(request.body(review.to_string().into_bytes().into()).unwrap())
    };
    assert_eq!(post(form("Table", "v1")).await.code, 406);
    let answer = post(format!("{},application/json", form("Table", "v1"))).await;
    assert_eq!((answer.code, &answer.body["kind"]), (201, &json!("SelfSubjectAccessReview")));
    s.stop().await;
}

#[tokio::test]
async fn answers_to_writes_have_forms_and_a_status_has_none() {
    let s = Server::start().await;
    let send = async |method: &str, path: &str, accept: String, body: Value| {
        let request = http::Request::builder().method(method).uri(path).header("accept", accept);
        let request = request.header("content-type", "application/json");
        s.send(request.body(body.to_string().into_bytes().into()).unwrap()).await
    };
    let made = send("POST", CONFIG_MAPS, form("Table", "v1"), config_map("a")).await;
    assert_eq!((made.code, first_cells(&made.body)), (201, vec!["a"]));
    let made = send("POST", CONFIG_MAPS, form(PARTIAL, "v1"), config_map("b")).await;
    assert_eq!((made.code, &made.body["kind"]), (201, &json!(PARTIAL)));
    for (name, kind) in [("a", "Table"), ("b", PARTIAL)] {
        let gone = send("DELETE", &format!("{CONFIG_MAPS}/{name}"), form(kind, "v1"), json!({})).await;
        assert_eq!((gone.code, &gone.body["kind"], &gone.body["status"]), (200, &json!("Status"), &json!("Success")));
    }
    s.stop().await;
}

#[tokio::test]
async fn pods_at_their_end_say_so_in_their_rows() {
    let s = Server::start().await;
    for (name, phase) in [("done", "Succeeded"), ("failed", "Failed"), ("running", "Running")] {
        s.post(PODS, &pod(name)).await;
        let status = json!({"status": {"phase": phase}});
        assert_eq!(s.patch(&format!("{PODS}/{name}/status"), &status).await.code, 200);
    }
    let table = s.get_as(PODS, &form("Table", "v1")).await.body;
    let completed = |reason: &str, message: &str| json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    assert_eq!(table["rows"][0]["conditions"], completed("Succeeded", "The pod has completed successfully."));
    assert_eq!(table["rows"][1]["conditions"], completed("Failed", "The pod failed."));
    assert_eq!(table["rows"][2].get("conditions"), None);
    s.stop().await;
}

#[tokio::test]
async fn flow_schemas_are_shown_in_the_order_in_which_they_match() {
    let s = Server::start().await;
    let flows = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let table = s.get_as(flows, &form("Table", "v1")).await.body;
    let precedence: Vec<i64> =
        table["rows"].as_array().unwrap().iter().map(|row| row["cells"][2].as_i64().unwrap()).collect();
    assert!(precedence.is_sorted() && precedence.len() > 2, "{precedence:?}");
    s.stop().await;
}

/// `kubectl get deployment d --subresource=scale`.
#[tokio::test]
async fn a_scale_has_columns_of_its_own() {
    let s = Server::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(s.post(path, &deployment).await.code, 201);
    let table = s.get_as(&format!("{path}/d/scale"), &form("Table", "v1")).await.body;
    let names: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("d"), json!(3), json!(0)]);
    let partial = s.get_as(&format!("{path}/d/scale"), &form(PARTIAL, "v1")).await.body;
    assert_eq!((&partial["kind"], &partial["metadata"]["name"]), (&json!(PARTIAL), &json!("d")));
    s.stop().await;
}
