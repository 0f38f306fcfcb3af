//! `NodeRestriction`: a kubelet changes its own node, its own lease and the pods that run on it, and nothing else.

use super::{Operation, Request};
use mini_api::{Meta, Status, Value};

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    let Some(node) = crate::authz::node_name(request.user) else { return Ok(()) };
    let resource = (request.resource.group.as_str(), request.resource.plural.as_str(), request.subresource);
    let refused = match resource {
        ("", "pods", "") => pod(request, node),
        ("", "pods", "status" | "eviction") => bound_pod(request, node),
        ("", "nodes", "" | "status") => own_node(request, node),
        ("", "serviceaccounts", "token") => token(request, node),
        ("coordination.k8s.io", "leases", _) => named(request, node, "lease"),
        ("storage.k8s.io", "csinodes", _) => named(request, node, "CSINode"),
        _ => None,
    };
    let (group, plural) = (&request.resource.group, &request.resource.plural);
    refused.map_or(Ok(()), |why| Err(Status::forbidden(group, plural, request.name, &why)))
}

fn pod(request: &Request<'_>, node: &str) -> Option<String> {
    match request.operation {
        Operation::Create => {
            let pod = &*request.object;
            let mirror = pod.pointer("/metadata/annotations").is_some_and(|a| a.get(MIRROR).is_some());
            if !mirror {
                return Some(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                ));
            }
            let bound = pod.text(&["spec", "nodeName"]);
            if bound == node {
                return None;
            }
            Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
        }
        Operation::Delete => bound_pod(request, node),
        Operation::Update => {
            Some(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
        Operation::Connect => None,
    }
}

/// The pod, as it is stored, runs on the node.
fn bound_pod(request: &Request<'_>, node: &str) -> Option<String> {
    let stored = match request.old {
        Some(old) => Some(old.clone()),
        None => stored(request, &format!("/registry/pods/{}/{}", request.namespace, request.name)),
    };
    // What is not there is told by the verb.
    let pod = stored?;
    if pod.text(&["spec", "nodeName"]) == node {
        return None;
    }
    let what = match (request.operation, request.subresource) {
        (Operation::Delete, _) => "delete pods",
        (_, "eviction") => "evict pods",
        _ => "update pod status for pods",
    };
    Some(format!("node {node:?} can only {what} with spec.nodeName set to itself"))
}

fn own_node(request: &Request<'_>, node: &str) -> Option<String> {
    let name = if request.name.is_empty() { request.object.name() } else { request.name };
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let pointer = |value: &Value, path: &str| value.pointer(path).cloned().unwrap_or(Value::Null);
    match request.operation {
        Operation::Delete => None,
        Operation::Create => forbidden_labels(&pointer(request.object, "/metadata/labels"), &Value::Null, node),
        _ => {
            let old = request.old?;
            if pointer(old, "/spec/taints") != pointer(request.object, "/spec/taints") {
                return Some(format!("node {node:?} is not allowed to modify taints"));
            }
            if pointer(old, "/metadata/ownerReferences") != pointer(request.object, "/metadata/ownerReferences") {
                return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let path = "/metadata/labels";
            forbidden_labels(&pointer(request.object, path), &pointer(old, path), node)
        }
    }
}

/// Labels that admins place pods by are not the kubelet's to set.
fn forbidden_labels(new: &Value, old: &Value, node: &str) -> Option<String> {
    let restricted = |key: &String| {
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        prefix == "node-restriction.kubernetes.io" || prefix.ends_with(".node-restriction.kubernetes.io")
    };
    let keys = new.as_object().into_iter().chain(old.as_object()).flat_map(|map| map.keys());
    let mut changed: Vec<&str> =
        keys.filter(|key| restricted(key) && new.get(key) != old.get(key)).map(String::as_str).collect();
    changed.sort_unstable();
    changed.dedup();
    if changed.is_empty() {
        return None;
    }
    Some(format!("is not allowed to modify labels: {}", changed.join(", "))).map(|why| format!("node {node:?} {why}"))
}

/// Tokens are made for a pod of the node, and bound to it.
fn token(request: &Request<'_>, node: &str) -> Option<String> {
    let Some(reference) = request.object.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) else {
        return Some("node requested token not bound to a pod".to_owned());
    };
    if !matches!(reference.text(&["apiVersion"]), "" | "v1") || reference.text(&["kind"]) != "Pod" {
        return Some("node requested token not bound to a pod".to_owned());
    }
    if reference.text(&["uid"]).is_empty() {
        return Some("node requested token with a pod binding without a uid".to_owned());
    }
    let pod = stored(request, &format!("/registry/pods/{}/{}", request.namespace, reference.text(&["name"])))?;
    if pod.uid() != reference.text(&["uid"]) {
        let (asked, is) = (reference.text(&["uid"]), pod.uid());
        return Some(format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record ({is}). The object might have been deleted and then recreated"
        ));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return Some("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    None
}

fn named(request: &Request<'_>, node: &str, what: &str) -> Option<String> {
    let name = if request.name.is_empty() { request.object.name() } else { request.name };
    if name == node { None } else { Some(format!("can only access {what} with the same name as the requesting node")) }
}

fn stored(request: &Request<'_>, key: &str) -> Option<Value> {
    serde_json::from_slice(&request.server.store.snapshot().get(key)?.bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restricted_labels() {
        let none = json!({});
        let own = json!({"kubernetes.io/hostname": "n"});
        let bad = json!({"x.node-restriction.kubernetes.io/a": "b"});
        assert!(forbidden_labels(&own, &none, "n").is_none());
        assert!(forbidden_labels(&bad, &none, "n").is_some());
        assert!(forbidden_labels(&none, &bad, "n").is_some());
        assert!(forbidden_labels(&bad, &bad, "n").is_none());
    }
}
