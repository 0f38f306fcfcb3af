//! What a kubelet may not do, though it may do much.

use crate::harness::Server;
use serde_json::{Value, json as j};

fn message(answer: &(u16, Value)) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

/// Two nodes, a namespace with accounts, and a pod on each node; answers the node and its pod.
async fn world(server: &Server) -> (Value, Value) {
    server.create("/api/v1/namespaces", j!({"metadata": {"name": "a"}})).await;
    for account in ["default", "robot"] {
        server.create("/api/v1/namespaces/a/serviceaccounts", j!({"metadata": {"name": account}})).await;
    }
    server.create("/api/v1/nodes", j!({"metadata": {"name": "n2"}})).await;
    let node = server.create("/api/v1/nodes", j!({"metadata": {"name": "n1"}})).await;
    let pod = |name: &str, node: &str| {
        j!({"metadata": {"name": name}, "spec": {"serviceAccountName": "robot", "nodeName": node,
            "containers": [{"name": "c", "image": "x"}],
            "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]}})
    };
    server.create("/api/v1/namespaces/a/pods", pod("theirs", "n2")).await;
    let own = server.create("/api/v1/namespaces/a/pods", pod("own", "n1")).await;
    (node, own)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sees_its_own_pods_only() {
    let server = Server::start().await;
    world(&server).await;
    let get = async |path: &str| server.call_as_node("GET", path, None).await;
    for path in ["/api/v1/pods", "/api/v1/namespaces/a/pods", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"] {
        let answer = get(path).await;
        assert_eq!(answer.0, 403, "{path}");
        assert!(message(&answer).ends_with("can only list/watch pods with spec.nodeName field selector"), "{answer:?}");
    }
    assert_eq!(get("/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1").await.0, 403);
    let (code, list) = get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!(get("/api/v1/namespaces/a/pods/own").await.0, 200);
    assert_eq!(get("/api/v1/namespaces/a/pods/theirs").await.0, 403);
    assert_eq!(
        (get("/api/v1/nodes").await.0, get("/api/v1/nodes?fieldSelector=metadata.name%3Dn1").await.0),
        (403, 200)
    );
    // The same is told to who asks.
    let ask = async |selector: Value| {
        let review = j!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": "system:node:n1", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "version": "v1", "resource": "pods", "fieldSelector": selector}}});
        let made = server.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
        made["status"]["allowed"].as_bool().unwrap()
    };
    assert!(ask(j!({"rawSelector": "spec.nodeName=n1"})).await);
    assert!(ask(j!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]})).await);
    assert!(!ask(j!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n2"]}]})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_pods_refer_to_nothing() {
    let server = Server::start().await;
    let (node, _) = world(&server).await;
    let owner =
        j!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": true});
    let mirror = |name: &str, owners: Value, more: Value| {
        let mut spec = j!({"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        Some(
            j!({"metadata": {"name": name, "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owners},
            "spec": spec}),
        )
    };
    let pods = "/api/v1/namespaces/a/pods";
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = j!("v");
        j!({"volumes": [volume]})
    };
    for (name, more, why) in [
        ("account", j!({"serviceAccountName": "robot"}), "service account"),
        ("pull", j!({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
        ("secret", volume(j!({"secret": {"secretName": "s"}})), "secrets"),
        ("projected", volume(j!({"projected": {"sources": [{"secret": {"name": "s"}}]}})), "secrets"),
        ("map", volume(j!({"configMap": {"name": "c"}})), "configmaps"),
        ("maps", volume(j!({"projected": {"sources": [{"configMap": {"name": "c"}}]}})), "configmaps"),
        ("claim", volume(j!({"persistentVolumeClaim": {"claimName": "c"}})), "persistentvolumeclaims"),
        ("device", j!({"resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}), "resourceclaims"),
        (
            "token",
            volume(j!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            "ServiceAccountToken",
        ),
    ] {
        let answer = server.call_as_node("POST", pods, mirror(name, j!([owner]), more)).await;
        assert_eq!(answer.0, 403, "{name}: {answer:?}");
        assert!(message(&answer).contains(why), "{name}: {answer:?}");
    }
    for owners in [j!([]), j!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "other", "controller": true}])]
    {
        assert_eq!(server.call_as_node("POST", pods, mirror("m", owners, j!({}))).await.0, 403);
    }
    let made = server.call_as_node("POST", pods, mirror("m", j!([owner]), j!({}))).await;
    assert_eq!(made.0, 201, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_changes_no_labels() {
    let server = Server::start().await;
    world(&server).await;
    let path = "/api/v1/namespaces/a/pods/own/status";
    let label = Some(j!({"metadata": {"labels": {"app": "web"}}}));
    let answer = server.call_as_node("PATCH", path, label).await;
    assert!(message(&answer).ends_with("node \"n1\" cannot update labels through pod status"), "{answer:?}");
    let phase = || Some(j!({"status": {"phase": "Running"}}));
    assert_eq!(server.call_as_node("PATCH", path, phase()).await.0, 200);
    assert_eq!(server.call_as_node("PATCH", "/api/v1/namespaces/a/pods/theirs/status", phase()).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_draw_pods_to_itself() {
    let server = Server::start().await;
    let node = |label: &str| Some(j!({"metadata": {"name": "n1", "labels": {label: "x"}}}));
    let answer = server.call_as_node("POST", "/api/v1/nodes", node("node-role.kubernetes.io/control-plane")).await;
    assert!(message(&answer).contains("is not allowed to set the following labels"), "{answer:?}");
    assert_eq!(server.call_as_node("POST", "/api/v1/nodes", node("kubernetes.io/hostname")).await.0, 201);
    for (change, code) in [
        (j!({"metadata": {"labels": {"kubernetes.io/unknown": "x"}}}), 403),
        (j!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "x"}}}), 403),
        (j!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}), 403),
        (j!({"metadata": {"labels": {"example.com/x": "x", "topology.kubernetes.io/zone": "z"}}}), 200),
    ] {
        let answer = server.call_as_node("PATCH", "/api/v1/nodes/n1", Some(change)).await;
        assert_eq!(answer.0, code, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_tokens_for_those_its_pods_speak_to() {
    let server = Server::start().await;
    let (_, pod) = world(&server).await;
    let path = "/api/v1/namespaces/a/serviceaccounts/robot/token";
    let ask = async |audiences: Value| {
        let reference = j!({"apiVersion": "v1", "kind": "Pod", "name": "own", "uid": pod["metadata"]["uid"]});
        let request = j!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "boundObjectRef": reference}});
        server.call_as_node("POST", path, Some(request)).await
    };
    assert_eq!(ask(j!(["vault"])).await.0, 201);
    // The token that every pod has mounted is for the API itself.
    assert_eq!(ask(j!([])).await.0, 201);
    let refused = ask(j!(["bank"])).await;
    assert_eq!(refused.0, 403, "{refused:?}");
    assert!(message(&refused).contains("audience \"bank\" not found in pod spec volume"), "{refused:?}");
    assert!(message(&ask(j!(["vault", "bank"])).await).ends_with("node may only request 0 or 1 audiences"));
    let role = j!({"metadata": {"name": "bank"}, "rules": [{"verbs": ["request-serviceaccounts-token-audience"],
        "apiGroups": [""], "resources": ["bank"]}]});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let binding = j!({"metadata": {"name": "bank"}, "subjects": [{"kind": "Group", "name": "system:nodes"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bank"}});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    assert_eq!(ask(j!(["bank"])).await.0, 201);
}
