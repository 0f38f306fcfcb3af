//! What writing roles and other objects needs beyond the verb of the method.

use crate::harness::{Server, json};
use serde_json::{Value, json as j};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn message(answer: &(u16, Value)) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

/// Jane may do this everywhere.
async fn allow(server: &Server, name: &str, rules: Value) {
    server.create(&format!("{RBAC}/clusterroles"), j!({"metadata": {"name": name}, "rules": rules})).await;
    let binding = j!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
    server.create(&format!("{RBAC}/clusterrolebindings"), binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_puts_no_role_into_another_that_its_user_may_not_grant() {
    let server = Server::start().await;
    let group = "rbac.authorization.k8s.io";
    allow(&server, "editor", j!([{"verbs": ["update", "patch"], "apiGroups": [group], "resources": ["clusterroles"]}]))
        .await;
    let label = j!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}});
    let path = format!("{RBAC}/clusterroles/cluster-admin");
    let refused = server.call_as("jane", "PATCH", &path, Some(label.clone())).await;
    assert_eq!(refused.0, 403, "{refused:?}");
    assert!(message(&refused).contains("is attempting to grant RBAC permissions not currently held"), "{refused:?}");
    // What the garbage collector needs is anybody's who may update; so is a role with no more than one has.
    let finalizer = Some(j!({"metadata": {"finalizers": ["example.com/a"]}}));
    assert_eq!(server.call_as("jane", "PATCH", &path, finalizer).await.0, 200);
    let own = format!("{RBAC}/clusterroles/editor");
    assert_eq!(server.call_as("jane", "PATCH", &own, Some(label)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gathers_rules_is_for_those_who_have_them_all() {
    let server = Server::start().await;
    let everywhere = j!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    allow(&server, "nearly", everywhere).await;
    let refused = "must have cluster-admin privileges to use the aggregationRule";
    // `*` on all resources includes `escalate`, which is upstream's way around.
    let rule = j!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let gathering = |name: &str| Some(j!({"metadata": {"name": name}, "aggregationRule": rule}));
    assert_eq!(server.call_as("jane", "POST", &format!("{RBAC}/clusterroles"), gathering("one")).await.0, 201);
    let group = "rbac.authorization.k8s.io";
    let writer = j!({"metadata": {"name": "writer"},
        "rules": [{"verbs": ["create", "update", "patch"], "apiGroups": [group], "resources": ["clusterroles"]}]});
    server.create(&format!("{RBAC}/clusterroles"), writer).await;
    let binding = j!({"metadata": {"name": "joe"}, "subjects": [{"kind": "User", "name": "joe"}],
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writer"}});
    server.create(&format!("{RBAC}/clusterrolebindings"), binding).await;
    let made = server.call_as("joe", "POST", &format!("{RBAC}/clusterroles"), gathering("two")).await;
    assert!(message(&made).ends_with(refused), "{made:?}");
    let path = format!("{RBAC}/clusterroles/one");
    for change in [j!({"metadata": {"labels": {"x": "y"}}}), j!({"aggregationRule": null})] {
        let changed = server.call_as("joe", "PATCH", &path, Some(change)).await;
        assert!(message(&changed).ends_with(refused), "{changed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_gather_show_what_they_gather() {
    let server = Server::start().await;
    let rules = async |name: &str| {
        let (_, role) = server.call(server.admin(), "GET", &format!("{RBAC}/clusterroles/{name}"), None).await;
        role["rules"].as_array().unwrap().len()
    };
    let (view, edit, admin) = (rules("view").await, rules("edit").await, rules("admin").await);
    assert!(0 < view && view < edit && edit < admin, "{view} {edit} {admin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_or_an_apply_that_creates_needs_leave_to_create() {
    let server = Server::start().await;
    allow(&server, "putter", j!([{"verbs": ["patch", "update"], "apiGroups": [""], "resources": ["services"]}])).await;
    let path = "/api/v1/namespaces/default/services/s";
    let config =
        j!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let service = || Some(config.clone());
    let apply = async || {
        let headers = [("impersonate-user", "jane"), ("content-type", "application/apply-patch+yaml")];
        let path = format!("{path}?fieldManager=m&force=true");
        json(server.send(server.admin(), http::Method::PATCH, &path, &headers, Some(&config)).await).await
    };
    let refused = apply().await;
    assert_eq!(refused.0, 403, "{refused:?}");
    let refused = server.call_as("jane", "PUT", path, service()).await;
    assert_eq!(refused.0, 403, "{refused:?}");
    assert!(message(&refused).contains("cannot create resource \"services\""), "{refused:?}");
    allow(&server, "creator", j!([{"verbs": ["create"], "apiGroups": [""], "resources": ["services"]}])).await;
    assert_eq!(server.call_as("jane", "PUT", path, service()).await.0, 201);
    assert_eq!(apply().await.0, 200);
}
