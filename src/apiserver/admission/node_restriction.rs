//! `NodeRestriction`: a kubelet changes its own node, its own lease and the pods that run on it, and nothing else.

use super::service_account::{MIRROR, is_mirror};
use super::{Operation, Request};
use crate::authz::{Attributes, Decision, Referent, references};
use mini_api::{Meta, Status, Value};

/// Labels of its own node that a kubelet may set, of those that are Kubernetes' own.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Prefixes whose labels are a kubelet's to set, also below another domain.
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    let Some(node) = crate::authz::node_name(request.user) else { return Ok(()) };
    let resource = (request.resource.group.as_str(), request.resource.plural.as_str(), request.subresource);
    let refused = match resource {
        ("", "pods", "") => pod(request, node),
        ("", "pods", "status") => bound_pod(request, node).or_else(|| pod_status(request, node)),
        ("", "pods", "eviction") => bound_pod(request, node),
        ("", "nodes", "" | "status") => own_node(request, node),
        ("", "persistentvolumeclaims", "status") => claim_status(request, node),
        ("", "serviceaccounts", "token") => token(request, node).or_else(|| audience(request)),
        ("coordination.k8s.io", "leases", _) => named(request, node, "lease"),
        ("storage.k8s.io", "csinodes", _) => named(request, node, "CSINode"),
        _ => None,
    };
    let (group, plural) = (&request.resource.group, &request.resource.plural);
    refused.map_or(Ok(()), |why| Err(Status::forbidden(group, plural, request.name, &why)))
}

fn pod(request: &Request<'_>, node: &str) -> Option<String> {
    match request.operation {
        Operation::Create => mirror_pod(request, node),
        Operation::Delete => bound_pod(request, node),
        Operation::Update => {
            Some(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
        Operation::Connect => None,
    }
}

/// A kubelet shows the pods that it runs from files, as its node's own, and gets nothing through them.
fn mirror_pod(request: &Request<'_>, node: &str) -> Option<String> {
    let pod = &*request.object;
    let only = |what: String| Some(format!("node {node:?} can only create {what}"));
    if !is_mirror(pod) {
        return Some(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return only("pods with spec.nodeName set to itself".to_owned());
    }
    let owner = match items(pod, "/metadata/ownerReferences") {
        [] => return only("pods with an owner reference set to itself".to_owned()),
        [owner] => owner,
        _ => return only("pods with a single owner reference set to itself".to_owned()),
    };
    if [owner.text(&["apiVersion"]), owner.text(&["kind"]), owner.text(&["name"])] != ["v1", "Node", node] {
        return only("pods with an owner reference set to itself".to_owned());
    }
    let says = |field| owner.get(field).and_then(Value::as_bool).unwrap_or(false);
    if !says("controller") {
        return only("pods with a controller owner reference set to itself".to_owned());
    }
    if says("blockOwnerDeletion") {
        return Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(own) = stored(request, &format!("/registry/nodes/{node}")) else {
        return Some(format!("error looking up node {node} to verify uid: node {node:?} not found"));
    };
    if own.uid() != owner.text(&["uid"]) {
        let got = owner.text(&["uid"]);
        return Some(format!("node {node} UID mismatch: expected {} got {got}", own.uid()));
    }
    let (kind, _) = references(pod).into_iter().next()?;
    let what = match kind {
        Referent::ServiceAccount => "a service account",
        Referent::Secret => "secrets",
        Referent::ConfigMap => "configmaps",
        Referent::Claim => "persistentvolumeclaims",
        Referent::ResourceClaim => "resourceclaims",
        Referent::TrustBundle => "clustertrustbundles",
    };
    Some(format!("node {node:?} can not create pods that reference {what}"))
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

/// What selects pods, and what they were given, is not the kubelet's to change.
fn pod_status(request: &Request<'_>, node: &str) -> Option<String> {
    let old = request.old?;
    let changed = |pointer| !same(old, request.object, pointer);
    if changed("/metadata/labels") {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    if changed("/status/resourceClaimStatuses") || changed("/status/extendedResourceClaimStatus") {
        return Some(format!("node {node:?} cannot update resource claim statuses"));
    }
    None
}

fn claim_status(request: &Request<'_>, node: &str) -> Option<String> {
    let without = |claim: &Value| {
        let mut claim = claim.clone();
        let metadata = claim.meta_mut();
        ["managedFields", "resourceVersion"].iter().for_each(|field| drop(metadata.remove(*field)));
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            let own = ["allocatedResourceStatuses", "allocatedResources", "capacity", "conditions"];
            own.iter().for_each(|field| drop(status.remove(*field)));
        }
        claim
    };
    let changed = without(request.old?) != without(request.object);
    let why = "is not allowed to update fields other than status.capacity and status.conditions";
    changed.then(|| format!("node {node:?} {why}"))
}

fn own_node(request: &Request<'_>, node: &str) -> Option<String> {
    let name = if request.name.is_empty() { request.object.name() } else { request.name };
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let labels = |value: &Value| value.pointer("/metadata/labels").cloned().unwrap_or_default();
    match request.operation {
        Operation::Delete | Operation::Connect => None,
        Operation::Create => forbidden_labels(&labels(request.object), &Value::Null)
            .map(|labels| format!("node {node:?} is not allowed to set the following labels: {labels}")),
        Operation::Update => {
            let old = request.old?;
            for (pointer, what) in [("/spec/taints", "taints"), ("/metadata/ownerReferences", "ownerReferences")] {
                if !same(old, request.object, pointer) {
                    return Some(format!("node {node:?} is not allowed to modify {what}"));
                }
            }
            forbidden_labels(&labels(request.object), &labels(old))
                .map(|labels| format!("node {node:?} is not allowed to modify labels: {labels}"))
        }
    }
}

/// Those of the labels that differ which a kubelet must leave alone: what admins place pods by, and what means something
/// to Kubernetes that is not known to be a kubelet's.
fn forbidden_labels(new: &Value, old: &Value) -> Option<String> {
    let below = |prefix: &str, domain: &str| {
        prefix.strip_suffix(domain).is_some_and(|head| head.is_empty() || head.ends_with('.'))
    };
    let restricted = |key: &String| {
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        let system = below(prefix, "kubernetes.io") || below(prefix, "k8s.io");
        let own = OWN_LABELS.contains(&key.as_str()) || OWN_PREFIXES.iter().any(|own| below(prefix, own));
        below(prefix, "node-restriction.kubernetes.io") || system && !own
    };
    let keys = new.as_object().into_iter().chain(old.as_object()).flat_map(|map| map.keys());
    let mut changed: Vec<&str> =
        keys.filter(|key| restricted(key) && new.get(key) != old.get(key)).map(String::as_str).collect();
    changed.sort_unstable();
    changed.dedup();
    (!changed.is_empty()).then(|| changed.join(", "))
}

/// Tokens are made for a pod of the node, and bound to it.
fn token(request: &Request<'_>, node: &str) -> Option<String> {
    let reference = request.object.pointer("/spec/boundObjectRef").unwrap_or(&Value::Null);
    let text = |field| reference.text(&[field]);
    if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return Some("node requested token not bound to a pod".to_owned());
    }
    if text("uid").is_empty() {
        return Some("node requested token with a pod binding without a uid".to_owned());
    }
    let pod = stored(request, &format!("/registry/pods/{}/{}", request.namespace, text("name")))?;
    if pod.uid() != text("uid") {
        let (asked, is) = (text("uid"), pod.uid());
        return Some(format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record ({is}). The object might have been deleted and then recreated"
        ));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return Some("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    None
}

/// Upstream's `ServiceAccountNodeAudienceRestriction`: a node gets tokens for those that its pods speak to, or for whom it
/// was given the verb `request-serviceaccounts-token-audience`.
fn audience(request: &Request<'_>) -> Option<String> {
    let audience = match items(request.object, "/spec/audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Some("node may only request 0 or 1 audiences".to_owned()),
    };
    let name = request.object.text(&["spec", "boundObjectRef", "name"]);
    let pod = stored(request, &format!("/registry/pods/{}/{name}", request.namespace))?;
    if speaks_to(request, &pod, audience) {
        return None;
    }
    let question = Attributes {
        version: "v1",
        namespace: request.namespace,
        name: request.name,
        ..Attributes::resource(request.user, "request-serviceaccounts-token-audience", "", audience)
    };
    match request.server.authz.authorize(&question) {
        Decision::Allow => None,
        Decision::NoOpinion(reason) => Some(format!("audience {audience:?} not found in pod spec volume, {reason}")),
    }
}

/// Whether a volume of the pod has tokens for `audience`: a projected one, or one of a CSI driver that asks for them.
fn speaks_to(request: &Request<'_>, pod: &Value, audience: &str) -> bool {
    let driver_asks = |name: &str| {
        let driver = stored(request, &format!("/registry/csidrivers.storage.k8s.io/{name}")).unwrap_or_default();
        items(&driver, "/spec/tokenRequests").iter().any(|token| token.text(&["audience"]) == audience)
    };
    items(pod, "/spec/volumes").iter().any(|volume| {
        let mut tokens = items(volume, "/projected/sources").iter().filter_map(|s| s.get("serviceAccountToken"));
        if tokens.any(|token| !token.is_null() && token.text(&["audience"]) == audience) {
            return true;
        }
        if let Some(driver) = volume.pointer("/csi/driver").and_then(Value::as_str) {
            return driver_asks(driver);
        }
        let claim = match volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
            Some(claim) => claim.to_owned(),
            None if volume.get("ephemeral").is_some() => format!("{}-{}", pod.name(), volume.text(&["name"])),
            None => return false,
        };
        let key = format!("/registry/persistentvolumeclaims/{}/{claim}", request.namespace);
        let claim = stored(request, &key).unwrap_or_default();
        let key = format!("/registry/persistentvolumes/{}", claim.text(&["spec", "volumeName"]));
        let volume = stored(request, &key).unwrap_or_default();
        volume.pointer("/spec/csi/driver").and_then(Value::as_str).is_some_and(driver_asks)
    })
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether both have the same at `pointer`; nothing there and nothing in there are the same.
fn same(one: &Value, other: &Value, pointer: &str) -> bool {
    let at = |value: &'_ Value| {
        let found = value.pointer(pointer).cloned().unwrap_or_default();
        if found == serde_json::json!([]) || found == serde_json::json!({}) { Value::Null } else { found }
    };
    at(one) == at(other)
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
        for (key, free) in [
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/anything", true),
            ("a.kubelet.kubernetes.io/b", true),
            ("example.com/role", true),
            ("plain", true),
            ("notkubernetes.io/x", true),
            ("x.node-restriction.kubernetes.io/a", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("kubernetes.io/unknown", false),
            ("cloud.k8s.io/pool", false),
        ] {
            let label = json!({key: "b"});
            assert_eq!(forbidden_labels(&label, &none).is_none(), free, "{key} is added");
            assert_eq!(forbidden_labels(&none, &label).is_none(), free, "{key} is removed");
            assert_eq!(forbidden_labels(&label, &json!({key: "c"})).is_none(), free, "{key} is changed");
            assert!(forbidden_labels(&label, &label).is_none(), "{key} stays");
        }
    }
}
