use super::*;
use crate::check::Errors;

fn service(spec: Value) -> Value {
    let mut v = json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec});
    default(&mut v);
    v
}

fn errors_of(v: &Value) -> Vec<String> {
    let mut errors: Errors = Vec::new();
    rules::validate(v, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_of_a_plain_service() {
    let v = service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    assert_eq!(
        v["spec"],
        json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"app": "web"},
               "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})
    );
    assert_eq!(errors_of(&v), Vec::<String>::new());
    let v = service(
        json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": "http"}], "sessionAffinity": "ClientIP"}),
    );
    assert_eq!(v["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(v["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
    assert_eq!(errors_of(&v), Vec::<String>::new());
}

#[test]
fn ports_are_checked() {
    assert_eq!(errors_of(&service(json!({}))), ["spec.ports: Required value"]);
    let v = service(json!({"ports": [{"port": 80}, {"port": 80, "name": "b", "nodePort": 30000}]}));
    assert_eq!(
        errors_of(&v),
        [
            "spec.ports[0].name: Required value",
            "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ]
    );
    let v = service(json!({"ports": [{"port": 70000}]}));
    assert_eq!(
        errors_of(&v),
        [
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ]
    );
}

#[test]
fn cluster_ip_never_changes() {
    let mut old = service(json!({"ports": [{"port": 80}], "clusterIP": "10.0.0.1"}));
    fill_cluster_ips(&mut old);
    let mut new = service(json!({"ports": [{"port": 81}]}));
    (HOOKS.prepare_update)(&mut new, &old, None);
    assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
    let mut new = service(json!({"ports": [{"port": 81}], "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}));
    (HOOKS.prepare_update)(&mut new, &old, None);
    let mut errors = Vec::new();
    rules::validate_update(&new, &old, &mut errors);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]);
}

#[test]
fn a_change_of_type_drops_and_keeps_node_ports() {
    let old = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    let mut new = service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}));
    (HOOKS.prepare_update)(&mut new, &old, None);
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    let mut new = old.clone();
    new["spec"]["type"] = "ClusterIP".into();
    (HOOKS.prepare_update)(&mut new, &old, None);
    assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
}

#[test]
fn cells_read_as_kubectl_users_know_them() {
    let now = "2026-01-01T00:02:00Z".parse().unwrap();
    let mut v = service(json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"], "clusterIP": "10.0.0.1",
        "ports": [{"port": 80, "nodePort": 30001}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b"}}));
    v["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(
        (HOOKS.cells)(&v, now),
        [
            json!("s"),
            json!("NodePort"),
            json!("10.0.0.1"),
            json!("<none>"),
            json!("80:30001/TCP,53/UDP"),
            json!("2m"),
            json!("a=b")
        ]
    );
    let v = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    assert_eq!((HOOKS.cells)(&v, now)[3], "<pending>");
    let v = service(json!({"type": "ExternalName", "externalName": "example.com"}));
    assert_eq!((HOOKS.cells)(&v, now)[2..5], [json!("<none>"), json!("example.com"), json!("<none>")]);
}
