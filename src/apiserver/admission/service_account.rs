//! `ServiceAccount`: every pod runs as an account of its namespace, and has its token mounted unless it says no.

use super::{Operation, Request};
use crate::authz::{Referent, references};
use futures::FutureExt;
use futures::future::BoxFuture;
use mini_api::{Meta, Status, Value, meta};
use rand::Rng;
use serde_json::{Map, json};
use std::time::Duration;

/// What marks a pod that a kubelet runs from a file and only shows.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
const TOKEN_SECONDS: i64 = 3607;
/// A namespace's `default` account comes a moment after the namespace.
const PATIENCE: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(10);

pub(super) fn mutate<'a>(request: &'a mut Request<'_>) -> BoxFuture<'a, Result<(), Status>> {
    async move {
        if !is_new_pod(request) || is_mirror(request.object) {
            return Ok(());
        }
        let spec = meta::child_mut(meta::object_mut(request.object), "spec");
        let named = |field: &str| spec.get(field).and_then(Value::as_str).filter(|n| !n.is_empty()).map(str::to_owned);
        let name =
            named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or_else(|| "default".to_owned());
        spec.insert("serviceAccountName".to_owned(), Value::from(name.as_str()));
        spec.insert("serviceAccount".to_owned(), Value::from(name.as_str()));
        let account = account(request, &name).await?;
        let spec = meta::child_mut(meta::object_mut(request.object), "spec");
        if automounts(&account, spec) {
            mount(spec);
        }
        let pull = account.get("imagePullSecrets").filter(|s| s.as_array().is_some_and(|s| !s.is_empty()));
        let has_own = spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|s| !s.is_empty());
        if let Some(pull) = pull
            && !has_own
        {
            spec.insert("imagePullSecrets".to_owned(), pull.clone());
        }
        Ok(())
    }
    .boxed()
}

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    if !is_new_pod(request) || !is_mirror(request.object) {
        return Ok(());
    }
    let refers = references(request.object);
    let refers_to = |kind| refers.iter().any(|(k, _)| *k == kind);
    let why = if refers_to(Referent::ServiceAccount) {
        "a mirror pod may not reference service accounts"
    } else if refers_to(Referent::Secret) {
        "a mirror pod may not reference secrets"
    } else if projects(request.object, "serviceAccountToken") {
        "a mirror pod may not use ServiceAccountToken volume projections"
    } else if projects(request.object, "podCertificate") {
        "a mirror pod may not use PodCertificate volume projections"
    } else {
        return Ok(());
    };
    Err(Status::forbidden("", "pods", request.name, why))
}

/// Whether a projected volume has a source of this kind.
fn projects(pod: &Value, source: &str) -> bool {
    let list = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_array).cloned();
    let volumes = list(pod, "/spec/volumes").unwrap_or_default();
    let sources = volumes.iter().flat_map(|volume| list(volume, "/projected/sources").unwrap_or_default());
    sources.into_iter().any(|projection| projection.get(source).is_some_and(|s| !s.is_null()))
}

fn is_new_pod(request: &Request<'_>) -> bool {
    request.operation == Operation::Create
        && request.resource.group.is_empty()
        && request.resource.plural == "pods"
        && request.subresource.is_empty()
}

pub(super) fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations").is_some_and(|a| a.get(MIRROR).is_some())
}

async fn account(request: &Request<'_>, name: &str) -> Result<Value, Status> {
    let key = format!("/registry/serviceaccounts/{}/{name}", request.namespace);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(entry) = request.server.store.snapshot().get(&key) {
            return serde_json::from_slice(&entry.bytes).map_err(Status::internal);
        }
        if name != "default" || waited >= PATIENCE {
            let namespace = request.namespace;
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(Status::forbidden("", "pods", request.name, &why));
        }
        tokio::time::sleep(GLANCE).await;
        waited += GLANCE;
    }
}

/// The pod's wish counts before the account's.
fn automounts(account: &Value, spec: &Map<String, Value>) -> bool {
    const FIELD: &str = "automountServiceAccountToken";
    spec.get(FIELD).and_then(Value::as_bool).or_else(|| account.get(FIELD).and_then(Value::as_bool)).unwrap_or(true)
}

/// Mounts the token into every container that has nothing at its place.
fn mount(spec: &mut Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let existing = volumes.iter().map(|v| v.text(&["name"])).find(|name| name.starts_with(VOLUME)).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME}{}", suffix()));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let container = meta::object_mut(container);
            let mounts = container.entry("volumeMounts").or_insert(Value::Null);
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|m| m.text(&["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            needed = true;
        }
    }
    if !needed || existing.is_some() {
        return;
    }
    let volumes = spec.entry("volumes").or_insert(Value::Null);
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// Five characters as upstream's name generator picks them: no vowels, so no words.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).filter_map(|_| LETTERS.get(rng.random_range(0..LETTERS.len()))).map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(mut spec: Value) -> Value {
        mount(meta::object_mut(&mut spec));
        spec
    }

    #[test]
    fn every_container_gets_the_token() {
        let spec = mounted(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        let name = spec["volumes"][1]["name"].as_str().unwrap();
        assert!(name.starts_with(VOLUME) && name.len() == VOLUME.len() + 5, "{name}");
        for mounts in [&spec["initContainers"][0], &spec["containers"][0]] {
            assert_eq!(mounts["volumeMounts"], json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]));
        }
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 2);
        let sources = spec["volumes"][1]["projected"]["sources"].as_array().unwrap();
        assert_eq!(sources[0]["serviceAccountToken"], json!({"expirationSeconds": 3607, "path": "token"}));
    }

    #[test]
    fn a_mount_at_the_place_keeps_it() {
        let spec = json!({"containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]}],
                          "volumes": [{"name": "v", "emptyDir": {}}]});
        assert_eq!(mounted(spec.clone()), spec);
    }

    #[test]
    fn the_pods_wish_counts_first() {
        let (yes, no, none) =
            (json!({"automountServiceAccountToken": true}), json!({"automountServiceAccountToken": false}), json!({}));
        for (account, pod, want) in
            [(&none, &none, true), (&no, &none, false), (&no, &yes, true), (&yes, &no, false), (&none, &no, false)]
        {
            assert_eq!(automounts(account, pod.as_object().unwrap()), want, "{account} {pod}");
        }
    }
}
