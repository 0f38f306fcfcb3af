//! `DefaultIngressClass`: an Ingress that names no class gets the default one.

use super::{Operation, Request};
use mini_api::{Meta, Status, Value, meta};
use std::cmp::Reverse;

const PREFIX: &str = "/registry/ingressclasses.networking.k8s.io/";
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The older way to name a class.
const CLASS: &str = "kubernetes.io/ingress.class";

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    let is_ingress = request.resource.group == "networking.k8s.io" && request.resource.plural == "ingresses";
    if !is_ingress || request.operation != Operation::Create || names_class(request.object) {
        return Ok(());
    }
    let snapshot = request.server.store.snapshot();
    let classes = snapshot.range(PREFIX, None).filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    if let Some(name) = default_of(classes) {
        let spec = meta::child_mut(meta::object_mut(request.object), "spec");
        spec.insert("ingressClassName".to_owned(), Value::from(name));
    }
    Ok(())
}

fn names_class(ingress: &Value) -> bool {
    let set = |path: &str| ingress.pointer(path).is_some_and(|v| !v.is_null());
    set("/spec/ingressClassName") || ingress.pointer("/metadata/annotations").is_some_and(|a| a.get(CLASS).is_some())
}

/// Of several defaults the newest counts, then the first by name.
fn default_of(classes: impl Iterator<Item = Value>) -> Option<String> {
    classes
        .filter(|class| class.text(&["metadata", "annotations", IS_DEFAULT]) == "true")
        .map(|class| (Reverse(class.text(&["metadata", "creationTimestamp"]).to_owned()), class.name().to_owned()))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_counts() {
        let class = |name: &str, made: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {IS_DEFAULT: default}}});
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        assert_eq!(default_of([class("a", new, "false")].into_iter()), None);
        let several = [class("a", old, "true"), class("c", new, "true"), class("b", new, "true")];
        assert_eq!(default_of(several.into_iter()).as_deref(), Some("b"));
    }

    #[test]
    fn a_named_class_stays() {
        assert!(names_class(&json!({"spec": {"ingressClassName": "a"}})));
        assert!(names_class(&json!({"metadata": {"annotations": {CLASS: ""}}, "spec": {}})));
        assert!(!names_class(&json!({"spec": {"rules": []}})));
    }
}
