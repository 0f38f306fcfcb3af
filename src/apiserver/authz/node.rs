//! The Node authorizer: a kubelet reads only what the pods on its node refer to, and writes only what is its own.
//!
//! Upstream keeps a graph; here each pod's references are kept by namespace, and a question looks through the pods of
//! the node in that namespace.

use super::feed::{Change, Feed};
use super::rule::Rule;
use super::{Attributes, Decision, roles};
use crate::UserInfo;
use mini_api::{Meta, Value};
use mini_store::Store;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;

const PODS: &str = "/registry/pods/";

/// The node whose kubelet this is.
pub(crate) fn name_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.is_in("system:nodes").then_some(name)
}

/// What pods refer to, in the order in which upstream looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ServiceAccount,
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    TrustBundle,
}

/// What a pod refers to.
struct Pod {
    node: String,
    refers: Vec<(Kind, String)>,
}

#[derive(Default)]
struct Pods {
    at: u64,
    /// Namespace, then name.
    by_namespace: HashMap<String, HashMap<String, Pod>>,
}

pub(super) struct NodeAuthorizer {
    store: Store,
    rules: Vec<Rule>,
    feed: Mutex<Feed>,
    pods: RwLock<Pods>,
}

impl NodeAuthorizer {
    pub(super) fn new(store: &Store) -> Self {
        let rules = roles::node_rules();
        Self { store: store.clone(), rules, feed: Mutex::new(Feed::new(PODS)), pods: RwLock::default() }
    }

    /// `None`: the user is no node.
    pub(super) fn authorize(&self, a: &Attributes<'_>) -> Option<Decision> {
        let node = name_of(a.user)?;
        if node.is_empty() {
            return Some(Decision::NoOpinion(format!("unknown node for user {:?}", a.user.name)));
        }
        Some(match self.check(node, a) {
            Ok(()) => Decision::Allow,
            Err(reason) => Decision::NoOpinion(reason),
        })
    }

    fn check(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        let resource = if a.resource_request { (a.group, a.resource) } else { ("", "") };
        match resource {
            ("", "secrets") => self.read(node, Kind::Secret, a),
            ("", "configmaps") => self.read(node, Kind::ConfigMap, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "get" | "update" | "patch" => self.related(node, Kind::Claim, a.namespace, a.name),
                _ => Err("can only get/update/patch this type".to_owned()),
            },
            ("", "persistentvolumeclaims") => {
                only_get(a)?;
                self.related(node, Kind::Claim, a.namespace, a.name)
            }
            ("", "persistentvolumes") => {
                only_get(a)?;
                let volume = self.object(&format!("/registry/persistentvolumes/{}", a.name), node)?;
                let claim = |field| volume.text(&["spec", "claimRef", field]).to_owned();
                self.related(node, Kind::Claim, &claim("namespace"), &claim("name"))
            }
            ("storage.k8s.io", "volumeattachments") => {
                only_get(a)?;
                let attachment =
                    self.object(&format!("/registry/volumeattachments.storage.k8s.io/{}", a.name), node)?;
                if attachment.text(&["spec", "nodeName"]) == node { Ok(()) } else { Err(unrelated(node)) }
            }
            // Reading one that a pod of the node runs as, and making tokens for it.
            ("", "serviceaccounts") if a.subresource.is_empty() && a.verb == "get" => {
                self.related(node, Kind::ServiceAccount, a.namespace, a.name)
            }
            ("", "serviceaccounts") if a.verb != "create" || a.name.is_empty() => {
                Err("can only create tokens for individual service accounts".to_owned())
            }
            ("", "serviceaccounts") if a.subresource != "token" => {
                Err("can only create token subresource of serviceaccount".to_owned())
            }
            ("", "serviceaccounts") => self.related(node, Kind::ServiceAccount, a.namespace, a.name),
            ("coordination.k8s.io", "leases") => own(node, a, "a node lease", "node lease", Some("kube-node-lease")),
            ("storage.k8s.io", "csinodes") if !a.subresource.is_empty() => {
                Err("cannot authorize CSINode subresources".to_owned())
            }
            ("storage.k8s.io", "csinodes") => own(node, a, "a CSINode", "CSINode", None),
            ("", "pods") if a.subresource.is_empty() && a.verb == "get" => self.own_pod(node, a),
            ("", "pods") if matches!(a.verb, "list" | "watch") => {
                if a.fields.and_then(|fields| fields.exact("spec.nodeName")) == Some(node) {
                    return Ok(());
                }
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            ("", "nodes") if matches!(a.verb, "list" | "watch") && a.name.is_empty() => {
                Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("resource.k8s.io", "resourceclaims") => {
                only_get(a)?;
                self.related(node, Kind::ResourceClaim, a.namespace, a.name)
            }
            // The name of an update must be the node's own; NodeRestriction looks at what is in it.
            ("", "nodes") if !matches!(a.verb, "create" | "delete") && a.name != node => {
                let doing = if matches!(a.verb, "update" | "patch") { a.verb } else { "read" };
                Err(format!("node '{node}' cannot {doing} '{}', only its own Node object", a.name))
            }
            _ if self.rules.iter().any(|rule| rule.allows(a)) => Ok(()),
            _ => Err(String::new()),
        }
    }

    fn read(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Result<(), String> {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !a.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if a.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        self.related(node, kind, a.namespace, a.name)
    }

    fn own_pod(&self, node: &str, a: &Attributes<'_>) -> Result<(), String> {
        self.catch_up();
        let pods = self.pods.read();
        let pod = pods.by_namespace.get(a.namespace).and_then(|pods| pods.get(a.name));
        if pod.is_some_and(|pod| pod.node == node) { Ok(()) } else { Err(unrelated(node)) }
    }

    fn related(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        self.catch_up();
        let pods = self.pods.read();
        let found = pods.by_namespace.get(namespace).is_some_and(|pods| {
            let mut own = pods.values().filter(|pod| pod.node == node);
            own.any(|pod| pod.refers.iter().any(|(k, n)| *k == kind && n == name))
        });
        if found { Ok(()) } else { Err(unrelated(node)) }
    }

    fn object(&self, key: &str, node: &str) -> Result<Value, String> {
        let entry = self.store.snapshot().get(key).ok_or_else(|| unrelated(node))?;
        serde_json::from_slice(&entry.bytes).map_err(|_| unrelated(node))
    }

    fn catch_up(&self) {
        let head = self.store.revision();
        if self.pods.read().at >= head && head > 0 {
            return;
        }
        let mut feed = self.feed.lock();
        let mut pods = self.pods.write();
        feed.drain(&self.store, |change| pods.apply(&change));
        pods.at = pods.at.max(head);
    }
}

impl Pods {
    fn apply(&mut self, change: &Change<'_>) {
        let split = |key: &str| -> Option<(String, String)> {
            let (namespace, name) = key.strip_prefix(PODS)?.split_once('/')?;
            Some((namespace.to_owned(), name.to_owned()))
        };
        match change {
            Change::Reset => self.by_namespace.clear(),
            Change::Delete(key) => {
                if let Some((namespace, name)) = split(key)
                    && let Some(pods) = self.by_namespace.get_mut(&namespace)
                {
                    pods.remove(&name);
                    if pods.is_empty() {
                        self.by_namespace.remove(&namespace);
                    }
                }
            }
            Change::Put(entry) => {
                let (Some((namespace, name)), Ok(object)) = (split(&entry.key), serde_json::from_slice(&entry.bytes))
                else {
                    return;
                };
                self.by_namespace.entry(namespace).or_default().insert(name, Pod::parse(&object));
            }
        }
    }
}

impl Pod {
    fn parse(pod: &Value) -> Self {
        Self { node: pod.text(&["spec", "nodeName"]).to_owned(), refers: references(pod) }
    }
}

/// Everything that a pod refers to: kind and name, sorted. The kubelet needs to read it; whoever only runs a pod that is
/// not the API server's may refer to none of it.
pub(crate) fn references(pod: &Value) -> Vec<(Kind, String)> {
    let mut refers = Vec::new();
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    walk(spec, &mut refers);
    let mut refer = |kind, name: &str| {
        if !name.is_empty() {
            refers.push((kind, name.to_owned()));
        }
    };
    for volume in list(spec, "volumes") {
        // A generic ephemeral volume's claim is named after the pod and the volume.
        if volume.get("ephemeral").is_some() {
            refer(Kind::Claim, &format!("{}-{}", pod.name(), volume.text(&["name"])));
        }
    }
    for field in ["serviceAccountName", "serviceAccount"] {
        refer(Kind::ServiceAccount, spec.text(&[field]));
    }
    for secret in list(spec, "imagePullSecrets") {
        refer(Kind::Secret, secret.text(&["name"]));
    }
    for claim in list(spec, "resourceClaims") {
        refer(Kind::ResourceClaim, claim.text(&["resourceClaimName"]));
    }
    for claim in list(pod.get("status").unwrap_or(&Value::Null), "resourceClaimStatuses") {
        refer(Kind::ResourceClaim, claim.text(&["resourceClaimName"]));
    }
    refers.sort_unstable();
    refers.dedup();
    refers
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Everything in a pod's spec that names a Secret, ConfigMap or claim does so under one of these fields, at whatever depth.
fn walk(value: &Value, refers: &mut Vec<(Kind, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, refers)),
        Value::Object(map) => {
            for (field, inner) in map {
                let found = match field.as_str() {
                    "secretKeyRef" | "secretRef" | "nodePublishSecretRef" => {
                        Some((Kind::Secret, inner.text(&["name"])))
                    }
                    "azureFile" => Some((Kind::Secret, inner.text(&["secretName"]))),
                    "secret" if inner.get("secretName").is_some() => Some((Kind::Secret, inner.text(&["secretName"]))),
                    "secret" => Some((Kind::Secret, inner.text(&["name"]))),
                    "configMapKeyRef" | "configMapRef" | "configMap" => Some((Kind::ConfigMap, inner.text(&["name"]))),
                    "clusterTrustBundle" => Some((Kind::TrustBundle, trust_bundle(inner))),
                    "persistentVolumeClaim" => Some((Kind::Claim, inner.text(&["claimName"]))),
                    _ => None,
                };
                match found {
                    Some((kind, name)) if !name.is_empty() => refers.push((kind, name.to_owned())),
                    _ => walk(inner, refers),
                }
            }
        }
        _ => {}
    }
}

/// Bundles are named, or chosen by who signed them.
fn trust_bundle(source: &Value) -> &str {
    match source.text(&["name"]) {
        "" => source.text(&["signerName"]),
        name => name,
    }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn only_get(a: &Attributes<'_>) -> Result<(), String> {
    if a.verb != "get" {
        return Err("can only get individual resources of this type".to_owned());
    }
    if !a.subresource.is_empty() {
        return Err("cannot get subresource".to_owned());
    }
    if a.name.is_empty() {
        return Err("No Object name found".to_owned());
    }
    Ok(())
}

/// An object that has the node's name.
fn own(node: &str, a: &Attributes<'_>, a_what: &str, what: &str, namespace: Option<&str>) -> Result<(), String> {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err(format!("can only get, create, update, patch, or delete {a_what}"));
    }
    if let Some(namespace) = namespace
        && a.namespace != namespace
    {
        return Err(format!("can only access leases in the {namespace:?} system namespace"));
    }
    // A create does not say the name here; NodeRestriction checks it.
    if a.verb != "create" && a.name != node {
        return Err(format!("can only access {what} with the same name as the requesting node"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_of_a_pod() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}}]}],
            "volumes": [{"name": "v1", "secret": {"secretName": "s3"}}, {"name": "v2", "configMap": {"name": "c3"}},
                {"name": "v6", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s5"}}},
                {"name": "v7", "azureFile": {"secretName": "s6", "shareName": "x"}},
                {"name": "v3", "persistentVolumeClaim": {"claimName": "pvc"}}, {"name": "v4", "ephemeral": {}},
                {"name": "v5", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c4"}}]}}]}});
        let parsed = Pod::parse(&pod);
        assert_eq!(parsed.node, "n1");
        let mut names: Vec<_> = parsed.refers.iter().map(|(k, n)| format!("{k:?} {n}")).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "Claim p-v4",
                "Claim pvc",
                "ConfigMap c1",
                "ConfigMap c2",
                "ConfigMap c3",
                "ConfigMap c4",
                "Secret pull",
                "Secret s1",
                "Secret s2",
                "Secret s3",
                "Secret s4",
                "Secret s5",
                "Secret s6",
                "ServiceAccount sa"
            ]
        );
    }

    #[test]
    fn only_members_of_the_group_are_nodes() {
        assert_eq!(name_of(&UserInfo::new("system:node:n1", &["system:nodes"])), Some("n1"));
        assert_eq!(name_of(&UserInfo::new("system:node:n1", &[])), None);
        assert_eq!(name_of(&UserInfo::new("n1", &["system:nodes"])), None);
    }
}
