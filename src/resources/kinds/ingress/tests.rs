//! What Ingresses and their classes may say.

use crate::kinds::tests::{NOTHING, cells, errors, made, update_errors};
use crate::resource::Resource;
use serde_json::{Value, json};

fn path(path: &Value, kind: &str) -> Value {
    json!({"path": path, "pathType": kind, "backend": {"service": {"name": "s", "port": {"number": 80}}}})
}

fn rule(host: &str, paths: &[Value]) -> Value {
    json!({"spec": {"rules": [{"host": host, "http": {"paths": paths}}]}})
}

fn class(parameters: &Value) -> Value {
    json!({"spec": {"controller": "acme.io/foo", "parameters": parameters}})
}

#[test]
fn hosts_and_paths() {
    let good = [path(&json!("/a"), "Prefix"), path(&json!("/a(/|$)(.*)"), "ImplementationSpecific")];
    assert_eq!(errors("Ingress", rule("*.a.b", &good)), NOTHING);
    let address = errors("Ingress", rule("10.0.0.1", &good));
    assert_eq!(address, ["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"]);
    let inner = errors("Ingress", rule("a.*.b", &good));
    assert!(
        inner[0].starts_with("spec.rules[0].host: Invalid value: \"a.*.b\": a wildcard DNS-1123 subdomain"),
        "{inner:?}"
    );
    let bad = [
        path(&json!("a"), "Exact"),
        path(&json!("/a//b/.."), "Prefix"),
        path(&json!("a"), "ImplementationSpecific"),
        path(&json!("/"), "Regex"),
    ];
    assert_eq!(
        errors("Ingress", rule("a.b", &bad)),
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
            "spec.rules[0].http.paths[1].path: Invalid value: \"/a//b/..\": must not contain '//'",
            "spec.rules[0].http.paths[1].path: Invalid value: \"/a//b/..\": cannot end with '/..'",
            "spec.rules[0].http.paths[2].path: Invalid value: \"a\": must be an absolute path",
            "spec.rules[0].http.paths[3].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \
             \"ImplementationSpecific\", \"Prefix\"",
        ]
    );
    assert_eq!(
        errors("Ingress", json!({"spec": {}})),
        ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
    );
    assert_eq!(
        errors("Ingress", json!({"spec": {"rules": [{"http": {"paths": [{"path": "x", "backend": {}}]}}]}})),
        ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
    );
    let tls = json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"name": "web"}}},
        "tls": [{"hosts": ["x_y"], "secretName": "S"}], "ingressClassName": "A"}});
    let found = errors("Ingress", tls);
    let fields: Vec<&str> = found.iter().filter_map(|e| e.split(": ").next()).collect();
    assert_eq!(fields, ["spec.tls[0].hosts[0]", "spec.tls[0].secretName", "spec.ingressClassName"]);
}

#[test]
fn backends() {
    let of = |backend: Value| errors("Ingress", json!({"spec": {"defaultBackend": backend}}));
    assert_eq!(of(json!({})), ["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"]);
    assert_eq!(
        of(json!({"service": {"name": "s", "port": {"number": 1}}, "resource": {"kind": "K", "name": "n"}})),
        ["spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"]
    );
    assert_eq!(
        of(json!({"service": {"name": "", "port": {"name": "a", "number": 1}}})),
        [
            "spec.defaultBackend.service.name: Required value",
            "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number",
        ]
    );
    assert_eq!(
        of(json!({"service": {"name": "s"}})),
        ["spec.defaultBackend: Required value: port name or number is required"]
    );
    assert_eq!(
        of(json!({"service": {"name": "s", "port": {"number": 70000}}})),
        ["spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive"]
    );
    assert_eq!(
        of(json!({"resource": {"kind": "", "name": "a"}})),
        ["spec.defaultBackend.resource.kind: Required value"]
    );
}

#[test]
fn a_class_is_named_once_at_creation() {
    let (row, mut v) = made("Ingress", rule("a.b", &[path(&json!("/"), "Exact")]));
    let words = |row: &Resource, v: &Value| row.validate(v).iter().map(ToString::to_string).collect::<Vec<_>>();
    v["spec"]["ingressClassName"] = "a".into();
    v["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "a"});
    assert_eq!(words(&row, &v), NOTHING);
    let old = v.clone();
    v["metadata"]["annotations"]["kubernetes.io/ingress.class"] = "b".into();
    let detail = "must match `ingressClassName` when both are specified";
    assert_eq!(words(&row, &v), [format!("annotations.kubernetes.io/ingress.class: Invalid value: \"b\": {detail}")]);
    assert_eq!(row.validate_update(&v, &old, None), []);
}

#[test]
fn classes() {
    let of = |name: &str| errors("IngressClass", json!({"spec": {"controller": name}}));
    assert_eq!(of("acme.io/foo/bar"), NOTHING);
    assert_eq!(of(""), ["spec.controller: Required value"]);
    for lone in ["acme.io", "/foo", "acme.io/"] {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        assert_eq!(of(lone), [format!("spec.controller: Invalid value: \"{lone}\": {detail}")]);
    }
    assert!(of("acme.io/a b")[0].starts_with("spec.controller: Invalid value: \"a b\": Invalid path"));
    assert_eq!(
        of(&format!("acme.io/{}", "a".repeat(250))),
        ["spec.controller: Too long: may not be more than 250 bytes"]
    );
    let (_, v) = made("IngressClass", class(&json!({"kind": "K", "name": "n"})));
    assert_eq!(v["spec"]["parameters"]["scope"], "Cluster");
    let of = |parameters: Value| errors("IngressClass", class(&parameters));
    assert_eq!(
        of(json!({"kind": "K", "name": "n", "scope": "Namespace"})),
        ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
    );
    assert_eq!(
        of(json!({"kind": "K", "name": "n", "namespace": "a"})),
        ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
    );
    assert_eq!(
        of(json!({"name": "a/b", "scope": "X"})),
        [
            "spec.parameters.kind: Required value",
            "spec.parameters.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.parameters.scope: Unsupported value: \"X\": supported values: \"Cluster\", \"Namespace\"",
        ]
    );
    assert_eq!(
        update_errors("IngressClass", class(&Value::Null), json!({"spec": {"controller": "acme.io/bar"}})),
        ["spec.controller: Invalid value: \"acme.io/bar\": field is immutable"]
    );
}

#[test]
fn printed() {
    let rules = |hosts: &[&str]| {
        let rules: Vec<Value> = hosts.iter().map(|host| json!({"host": host})).collect();
        cells("Ingress", json!({"spec": {"rules": rules}}))[2].clone()
    };
    assert_eq!(rules(&[""]), "*");
    assert_eq!(rules(&["a.b", "", "c.d"]), "a.b,c.d");
    assert_eq!(rules(&["a.b", "c.d", "e.f", "g.h", "i.j"]), "a.b,c.d,e.f + 2 more...");
    let ingress = json!({"spec": {"ingressClassName": "mini", "rules": [{"host": "a.b"}], "tls": [{}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.example"}]}}});
    assert_eq!(cells("Ingress", ingress), ["n", "mini", "a.b", "192.0.2.1,a.example", "80, 443", "5m"]);
    let parameters = json!({"apiGroup": "k8s.example.com", "kind": "Param", "name": "p"});
    assert_eq!(cells("IngressClass", class(&parameters)), ["n", "acme.io/foo", "Param.k8s.example.com/p", "5m"]);
    assert_eq!(cells("IngressClass", class(&Value::Null))[2], "<none>");
}

#[test]
fn a_status_names_addresses() {
    let (row, old) = made("Ingress", rule("a.b", &[path(&json!("/"), "Exact")]));
    let mut new = old.clone();
    new["status"] = json!({"loadBalancer": {"ingress": [{"ip": "x", "hostname": "192.0.2.1"}]}});
    let found: Vec<String> = row.validate_update(&new, &old, Some("status")).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
        ]
    );
}
