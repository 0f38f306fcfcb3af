//! Tables of small worlds.

use super::super::certificates::{self, tests::pair};
use super::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn class(name: &str, controller: &str, default: &str) -> Arc<IngressClass> {
    object(
        json!({"metadata": {"name": name, "annotations": {DEFAULT_CLASS: default}}, "spec": {"controller": controller}}),
    )
}

/// A Service with one port and an endpoint at 10.0.0.`last`.
fn service(world: &mut World, name: &str, last: u8) {
    let meta = json!({"namespace": "a", "name": name});
    world.services.push(object(json!({"metadata": meta, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}})));
    world.slices.push(object(json!({
        "metadata": {"namespace": "a", "name": format!("{name}-1"), "labels": {SERVICE_NAME: name}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": [format!("10.0.0.{last}")]}],
    })));
}

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

fn ingress(name: &str, made: &str, annotations: Value, spec: Value) -> Arc<Ingress> {
    object(json!({"metadata": {"namespace": "a", "name": name, "creationTimestamp": made, "annotations": annotations},
                  "spec": spec}))
}

fn rule(host: &str, path: &str, kind: &str, service: &str) -> Value {
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend(service)}]}})
}

const OLD: &str = "2026-01-01T00:00:00Z";
const NEW: &str = "2026-01-02T00:00:00Z";

fn world() -> World {
    let mut world = World { classes: vec![class("mini", CONTROLLER, "true")], ..World::default() };
    for (name, last) in [("one", 1), ("two", 2)] {
        service(&mut world, name, last);
    }
    world
}

fn built(world: &World) -> Built {
    build(world, &mut Keys::default(), &certificates::self_signed().unwrap())
}

/// The address that a request reaches, and the path it asks for.
fn reached(built: &Built, host: &str, path: &str) -> String {
    let Some(hit) = built.table.find(host, path) else { return "none".to_owned() };
    let address = hit.route.backend.turn().next().map_or_else(|| "empty".to_owned(), |a| a.to_string());
    format!("{address}{}{}", hit.path.unwrap_or_default(), if hit.route.secure { " secure" } else { "" })
}

#[test]
fn the_older_ingress_has_the_path() {
    let mut world = world();
    let spec = |service: &str| json!({"rules": [rule("x.y", "/", "Prefix", service)]});
    world.ingresses = vec![
        ingress("b", NEW, json!({}), spec("two")),
        ingress("c", OLD, json!({}), spec("one")),
        ingress("a", NEW, json!({}), json!({"defaultBackend": backend("two")})),
    ];
    let built = built(&world);
    assert_eq!(reached(&built, "x.y", "/z"), "10.0.0.1:8080");
    assert_eq!(reached(&built, "other", "/"), "10.0.0.2:8080");
    let names: Vec<_> = built.served.iter().filter_map(|i| i.metadata.name.as_deref()).collect();
    assert_eq!(names, ["c", "a", "b"]);
    assert_eq!(built.problems, []);
}

#[test]
fn only_our_classes_are_served() {
    let mut world = world();
    world.classes = vec![class("nginx", CONTROLLER, "false"), class("other", "acme.io/x", "true")];
    let plain = json!({"defaultBackend": backend("one")});
    let mut named = plain.clone();
    let served = |world: &World, ingress: Arc<Ingress>| is_ours(&ingress, &world.classes);
    assert!(!served(&world, ingress("a", OLD, json!({}), plain.clone())));
    assert!(served(&world, ingress("a", OLD, json!({CLASS: "nginx"}), plain.clone())));
    assert!(!served(&world, ingress("a", OLD, json!({CLASS: "other"}), plain.clone())));
    named["ingressClassName"] = "nginx".into();
    assert!(served(&world, ingress("a", OLD, json!({}), named.clone())));
    named["ingressClassName"] = "absent".into();
    assert!(!served(&world, ingress("a", OLD, json!({}), named)));
    world.classes.push(class("mini", CONTROLLER, "true"));
    assert!(served(&world, ingress("a", OLD, json!({}), plain)));
}

#[test]
fn a_default_backend_takes_the_rest_of_its_hosts() {
    let mut world = world();
    let spec =
        json!({"defaultBackend": backend("two"), "rules": [rule("x.y", "/a", "Prefix", "one"), {"host": "bare.y"}]});
    world.ingresses = vec![ingress("a", OLD, json!({}), spec)];
    let built = built(&world);
    assert_eq!(reached(&built, "x.y", "/a"), "10.0.0.1:8080");
    assert_eq!(reached(&built, "x.y", "/b"), "10.0.0.2:8080");
    assert_eq!(reached(&built, "bare.y", "/b"), "10.0.0.2:8080");
    assert_eq!(reached(&built, "z", "/"), "none");
}

#[test]
fn patterns_and_rewrites() {
    let mut world = world();
    let nginx = "nginx.ingress.kubernetes.io";
    let rules = json!({"rules": [
        rule("x.y", "/app(/|$)(.*)", "ImplementationSpecific", "one"),
        rule("x.y", "/app(/|$)api/(.*)", "Prefix", "two"),
        rule("x.y", "/plain", "Prefix", "one"),
        rule("x.y", "/look(?=x)", "Prefix", "one"),
    ]});
    let annotations = json!({format!("{nginx}/rewrite-target"): "/$2", format!("{nginx}/backend-protocol"): "AJP"});
    world.ingresses = vec![ingress("a", OLD, annotations, rules)];
    let built = built(&world);
    assert_eq!(reached(&built, "x.y", "/APP/v1"), "10.0.0.1:8080/v1");
    assert_eq!(reached(&built, "x.y", "/app/api/v1"), "10.0.0.2:8080/v1");
    assert_eq!(reached(&built, "x.y", "/plain/x"), "10.0.0.1:8080/");
    assert_eq!(reached(&built, "x.y", "/plainx"), "none");
    let reasons: Vec<_> = built.problems.iter().map(|p| p.reason).collect();
    assert_eq!(reasons, ["InvalidAnnotation", "InvalidPath"]);
}

#[test]
fn tls_redirects_and_chooses_certificates() {
    let mut world = world();
    let (certificate, key) = pair(&["x.y"]);
    let encode = |text: &str| serde_json::to_value(k8s_openapi::ByteString(text.into())).unwrap();
    world.secrets = vec![object(json!({"metadata": {"namespace": "a", "name": "good", "resourceVersion": "1"},
        "data": {"tls.crt": encode(&certificate), "tls.key": encode(&key)}}))];
    let spec = json!({
        "rules": [rule("x.y", "/", "Prefix", "one"), rule("plain.y", "/", "Prefix", "one"), rule("w.z.y", "/", "Exact", "one")],
        "tls": [{"hosts": ["x.y"], "secretName": "good"}, {"hosts": ["*.z.y"], "secretName": "missing"}],
    });
    let off = json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"});
    world.ingresses = vec![ingress("a", OLD, json!({}), spec.clone())];
    let on = built(&world);
    assert_eq!(reached(&on, "x.y", "/"), "10.0.0.1:8080 secure");
    assert_eq!(reached(&on, "w.z.y", "/"), "10.0.0.1:8080 secure");
    assert_eq!(reached(&on, "plain.y", "/"), "10.0.0.1:8080");
    let shown = |host: &str| on.table.certificates.find(Some(host)).unwrap().cert[0].clone();
    assert_ne!(shown("x.y"), shown("plain.y"));
    assert_eq!(shown("w.z.y"), shown("plain.y"));
    assert_eq!(
        on.problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(),
        ["Secret a/missing does not exist, or is not of type kubernetes.io/tls: clients are shown another certificate"]
    );
    world.ingresses = vec![ingress("a", OLD, off, spec)];
    assert_eq!(reached(&built(&world), "x.y", "/"), "10.0.0.1:8080");
}

#[test]
fn wrong_backends_are_told_once() {
    let mut world = world();
    let missing = rule("x.y", "/a", "Prefix", "nobody");
    let mut port = rule("x.y", "/b", "Prefix", "one");
    port["http"]["paths"][0]["backend"]["service"]["port"]["number"] = 81.into();
    world.ingresses = vec![ingress("a", OLD, json!({}), json!({"rules": [missing.clone(), missing, port]}))];
    let built = built(&world);
    assert_eq!(reached(&built, "x.y", "/a"), "empty");
    let messages: Vec<_> = built.problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(messages, ["Service a/nobody does not exist", "Service a/one has no TCP port 81"]);
}
