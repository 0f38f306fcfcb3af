//! Requests that are wrong, too large or too slow.

use crate::harness::{As, Server};
use base64::Engine;
use serde_json::{Value, json as j};
use tokio::io::AsyncWriteExt;

fn message(answer: &(u16, Value)) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

async fn pod(server: &Server, spec: Value) -> Value {
    server.create("/api/v1/namespaces", j!({"metadata": {"name": "a"}})).await;
    server.create("/api/v1/namespaces/a/serviceaccounts", j!({"metadata": {"name": "default"}})).await;
    server.create("/api/v1/namespaces/a/pods", j!({"metadata": {"name": "p"}, "spec": spec})).await
}

fn containers() -> Value {
    j!({"containers": [{"name": "c", "image": "x"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_end_where_their_objects_end() {
    let server = Server::start().await;
    pod(&server, containers()).await;
    for (path, code) in [
        ("/api/v1/namespaces/a/pods/p", 200),
        ("/api/v1/namespaces/a/pods/p/status", 200),
        ("/api/v1/namespaces/a/pods/p/status/more", 404),
        ("/api/v1/namespaces/a/pods/p/log/more", 404),
        ("/api/v1/namespaces/a/status/more", 404),
        ("/api/v1/nodes/n/status/more", 404),
    ] {
        assert_eq!(server.call(server.admin(), "GET", path, None).await.0, code, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_say_what_they_bind() {
    let server = Server::start().await;
    let made = pod(&server, containers()).await;
    let path = "/api/v1/namespaces/a/pods/p/binding";
    let bind = async |metadata: Value, more: Value| {
        let mut binding = j!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata,
                              "target": {"kind": "Node", "name": "n1"}});
        for (field, value) in more.as_object().unwrap() {
            binding[field] = value.clone();
        }
        server.call(server.admin(), "POST", path, Some(binding)).await
    };
    let own = j!({"name": "p"});
    assert_eq!(bind(own.clone(), j!({"kind": "Pod"})).await.0, 400);
    assert_eq!(bind(own.clone(), j!({"apiVersion": "v2"})).await.0, 400);
    assert_eq!(bind(j!({"name": "q"}), j!({})).await.0, 400);
    assert_eq!(bind(own.clone(), j!({"target": {"kind": "Pod", "name": "x"}})).await.0, 422);
    for (field, value) in [("uid", "other"), ("resourceVersion", "1")] {
        let answer = bind(j!({"name": "p", field: value}), j!({})).await;
        assert_eq!(answer.0, 409, "{answer:?}");
        assert!(message(&answer).contains("Precondition failed"), "{answer:?}");
    }
    let version = &made["metadata"]["resourceVersion"];
    assert_eq!(bind(j!({"name": "p", "resourceVersion": version}), j!({})).await.0, 201);
    let answer = bind(own, j!({})).await;
    let why = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((answer.0, message(&answer)), (409, why));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_this_apis_tokens_outlive_their_request() {
    let server = Server::start().await;
    let made = pod(&server, containers()).await;
    let lasts = async |audiences: Value| {
        let reference = j!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]});
        let spec = j!({"audiences": audiences, "expirationSeconds": 3607, "boundObjectRef": reference});
        let request = j!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
        let made = server.create("/api/v1/namespaces/a/serviceaccounts/default/token", request).await;
        let token = made["status"]["token"].as_str().unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        (
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            claims["kubernetes.io"]["warnafter"].is_i64(),
        )
    };
    let year = 365 * 24 * 3600;
    assert_eq!(lasts(j!([])).await, (year, true));
    assert_eq!(lasts(j!(["https://issuer.test"])).await, (year, true));
    assert_eq!(lasts(j!(["vault"])).await, (3607, false));
    assert_eq!(lasts(j!(["https://issuer.test", "vault"])).await, (3607, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_would_not_take_is_refused() {
    let server = Server::start().await;
    pod(&server, containers()).await;
    let large = "x".repeat(1_600_000);
    let pod = j!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "x", "args": [large]}]}});
    let answer = server.call(server.admin(), "POST", "/api/v1/namespaces/a/pods", Some(pod)).await;
    assert_eq!((answer.0, message(&answer)), (500, "etcdserver: request is too large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_come_keep_nobody_waiting() {
    let server = Server::start().await;
    let rules = j!([{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]);
    let role = j!({"metadata": {"name": "maps"}, "rules": rules});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let binding = j!({"metadata": {"name": "maps"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"}});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let mut held = Vec::new();
    for _ in 0..220 {
        let mut stream = server.connect(&server.admin()).await;
        let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nImpersonate-User: jane\r\n\
                    Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        held.push(stream);
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let map = Some(j!({"metadata": {"name": "m"}}));
    let answer = server.call_as("jane", "POST", "/api/v1/namespaces/default/configmaps", map).await;
    assert_eq!(answer.0, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_paths_make_no_series() {
    let server = Server::start().await;
    for n in 0..20 {
        server.call(As::Nobody, "GET", &format!("/api/v1/namespaces/a/pods/b/made-up-{n}"), None).await;
        server.call(As::Nobody, &format!("MADE{n}"), "/version", None).await;
    }
    let (code, text) = server.call(server.admin(), "GET", "/metrics", None).await;
    let text = text.as_str().unwrap();
    assert!(code == 200 && text.contains("subresource=\"other\"") && text.contains("verb=\"other\""), "{text}");
    assert!(!text.to_lowercase().contains("made"), "{text}");
}
