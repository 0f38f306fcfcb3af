//! create, get, update.

use crate::harness::{CONFIG_MAPS, JSON, Server, config_map};
use serde_json::{Value, json};

#[tokio::test]
async fn create_fills_what_the_system_owns() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let meta = &made.body["metadata"];
    assert_eq!(meta["namespace"], "default");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(meta[field].is_string(), "{field}");
    }
    assert_eq!(s.get(&format!("{CONFIG_MAPS}/a")).await.body, made.body, "what is read is what was answered");
    s.stop().await;
}

#[tokio::test]
async fn create_refuses_in_upstreams_words() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a")).await;
    let with = |field: &str, value: &str| {
        let mut v = config_map("b");
        v["metadata"][field] = value.into();
        v
    };
    let mut other_kind = config_map("b");
    other_kind["kind"] = "Secret".into();
    let mut other_version = config_map("b");
    other_version["apiVersion"] = "v2".into();
    for (path, body, code, reason, message) in [
        (CONFIG_MAPS, config_map("a"), 409, "AlreadyExists", "configmaps \"a\" already exists"),
        (
            CONFIG_MAPS,
            with("namespace", "x"),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            CONFIG_MAPS,
            with("resourceVersion", "1"),
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        (
            CONFIG_MAPS,
            other_version,
            400,
            "BadRequest",
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (CONFIG_MAPS, other_kind, 400, "BadRequest", "cannot be handled as a ConfigMap"),
        ("/api/v1/namespaces/none/configmaps", config_map("a"), 404, "NotFound", "namespaces \"none\" not found"),
        (
            "/api/v1/namespaces/default/nothing",
            config_map("a"),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            "/api/v1/namespaces/default/configmaps/a",
            config_map("a"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
    ] {
        let answer = s.post(path, &body).await;
        assert_eq!(answer.code, code, "{message}: {}", answer.body);
        assert_eq!(answer.body["kind"], "Status");
        assert_eq!(answer.body["code"], code);
        assert_eq!(answer.body["reason"], reason);
        assert!(
            answer.body["message"].as_str().unwrap().contains(message),
            "{} lacks {message}",
            answer.body["message"]
        );
    }
    let broken = http::Request::post(CONFIG_MAPS).header("content-type", JSON).body(b"{".to_vec().into()).unwrap();
    assert_eq!(s.send(broken).await.code, 400);
    let unknown = s.call("POST", CONFIG_MAPS, "text/html", &config_map("z")).await;
    assert_eq!((unknown.code, unknown.body["reason"].as_str()), (415, Some("UnsupportedMediaType")));
    let large = json!({"data": {"a": "x".repeat(3 * 1024 * 1024)}});
    assert_eq!(s.post(CONFIG_MAPS, &large).await.code, 413);
    s.stop().await;
}

#[tokio::test]
async fn bodies_may_be_yaml_of_1_1() {
    let s = Server::start().await;
    let text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: why}\nspec:\n  automountServiceAccountToken: false\n  containers: [{name: c, image: i}]\n  volumes:\n  - name: v\n    configMap: {name: c, defaultMode: 0644}\n";
    let request = http::Request::post("/api/v1/namespaces/default/pods").header("content-type", "application/yaml");
    let made = s.send(request.body(text.to_vec().into()).unwrap()).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["volumes"][0]["configMap"]["defaultMode"], 420);
    let yaml = s.get_as(&format!("{CONFIG_MAPS}?limit=1"), "application/yaml").await;
    assert!(yaml.body.as_str().unwrap().contains("kind: ConfigMapList"), "{}", yaml.body);
    s.stop().await;
}

#[tokio::test]
async fn generated_names_are_tried_again_and_unlike() {
    let s = Server::start().await;
    let body = json!({"metadata": {"generateName": "x-"}});
    let (a, b) = (s.post(CONFIG_MAPS, &body).await, s.post(CONFIG_MAPS, &body).await);
    let name = |v: &Value| v["metadata"]["name"].as_str().unwrap().to_owned();
    let (a, b) = (name(&a.body), name(&b.body));
    assert!(a.starts_with("x-") && a.len() == 7 && a != b, "{a} {b}");
    s.stop().await;
}

#[tokio::test]
async fn unknown_and_repeated_fields_are_told_as_asked() {
    let s = Server::start().await;
    let text = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"spec":1,"data":{"k":"1","k":"2"}}"#;
    let post = |query: &str| {
        let uri = format!("{CONFIG_MAPS}?dryRun=All&{query}");
        http::Request::post(uri).header("content-type", JSON).body(text.as_bytes().to_vec().into()).unwrap()
    };
    let strict = s.send(post("fieldValidation=Strict")).await;
    assert_eq!(strict.code, 400);
    let message = strict.body["message"].as_str().unwrap();
    assert!(message.contains("strict decoding error: unknown field \"spec\", duplicate field \"data.k\""), "{message}");
    let warned = s.send(post("")).await;
    assert_eq!(warned.code, 201);
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"spec\"""#, r#"299 - "duplicate field \"data.k\"""#]);
    assert!(warned.body.get("spec").is_none(), "unknown fields are dropped");
    let ignored = s.send(post("fieldValidation=Ignore")).await;
    assert_eq!((ignored.code, ignored.headers.get("warning")), (201, None));
    assert_eq!(s.send(post("fieldValidation=Maybe")).await.code, 422);
    s.stop().await;
}

#[tokio::test]
async fn updates_keep_to_the_revision() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut object = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    let same = s.put(&path, &object).await;
    assert_eq!(same.body, object, "an update that changes nothing makes no revision");

    object["data"]["k"] = "w".into();
    let changed = s.put(&path, &object).await;
    assert_eq!(changed.code, 200);
    assert_ne!(changed.body["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);

    let stale = s.put(&path, &object).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    // Without a revision the last one wins.
    assert_eq!(s.put(&path, &config_map("a")).await.code, 200);
    let mut other = config_map("a");
    other["metadata"]["uid"] = "other".into();
    assert_eq!(s.put(&path, &other).await.code, 409);
    assert_eq!(s.put(&path, &config_map("b")).await.code, 400, "another name");
    assert_eq!(s.put(&format!("{CONFIG_MAPS}/none"), &config_map("none")).await.code, 404);
    s.stop().await;
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let revision = s.store.revision();
    let dry = s.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await;
    assert_eq!(dry.code, 201);
    assert!(dry.body["metadata"]["uid"].is_string());
    assert_eq!(s.get(&path).await.code, 404);
    assert_eq!(s.store.revision(), revision);
    assert_eq!(s.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("a")).await.code, 422);

    let made = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    assert_eq!(s.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.code, 409);
    let patched = s.patch(&format!("{path}?dryRun=All"), &json!({"data": {"k": "other"}})).await;
    assert_eq!(patched.body["data"]["k"], "other");
    assert_eq!(s.delete(&format!("{path}?dryRun=All"), &Value::Null).await.code, 200);
    assert_eq!(s.delete(&path, &json!({"dryRun": ["All"]})).await.code, 200);
    assert_eq!(s.get(&path).await.body, made);
    s.stop().await;
}

#[tokio::test]
async fn many_writers_of_one_object_all_count() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}, "data": {}})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..24).map(|i| {
        let (s, path) = (&s, path.as_str());
        async move { s.patch(path, &json!({"data": {(format!("k{i}")): "v"}})).await.code }
    });
    let codes = futures::future::join_all(patches).await;
    assert!(codes.iter().all(|c| *c == 200), "{codes:?}");
    assert_eq!(s.get(&path).await.body["data"].as_object().unwrap().len(), 24);
    s.stop().await;
}

#[tokio::test]
async fn who_configures_a_webhook_is_told_that_it_is_not_called() {
    let s = Server::start().await;
    let hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com"}});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let made = s.post(path, &json!({"metadata": {"name": "w"}, "webhooks": [hook]})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let told = "299 - \"webhooks of admission are kept, but this server does not call them yet\"";
    assert_eq!(made.headers["warning"], told);
    let labelled = s.patch(&format!("{path}/w"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.headers["warning"], told);
    let emptied = s.patch(&format!("{path}/w"), &json!({"webhooks": null})).await;
    assert_eq!((emptied.code, emptied.headers.get("warning")), (200, None));
    s.stop().await;
}
