//! Objects that say what this server is: the groups it serves (APIService), its range of addresses (ServiceCIDR), and the
//! schemas of flow control that every cluster has.
//!
//! Written in one transaction where they are missing, and looked after by key alone: an idle server parses nothing.

use crate::call::object_key;
use crate::object::Template;
use crate::{ApiServer, allocate};
use mini_api::{Meta, Value, meta};
use mini_store::{Expect, Op};
use serde_json::json;
use std::sync::Arc;

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const API_SERVICES: &str = "/registry/apiservices.apiregistration.k8s.io/";

/// Upstream's priorities of groups, and of their versions where there are several.
const PRIORITIES: [(&str, i64); 24] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
    // The group of APIService itself has none upstream, where another server serves it.
    ("apiregistration.k8s.io", 17_900),
    ("metrics.k8s.io", 100),
];
/// Of groups that are not built in.
const CUSTOM: i64 = 1000;

/// Makes what is missing, at the start.
///
/// # Errors
/// The store fails.
pub(crate) async fn make(server: &ApiServer) -> Result<(), mini_store::Error> {
    let mut ops = install(server, true);
    ops.extend(allocate::repair(server));
    write(server, ops).await
}

/// Makes again what somebody deleted, and keeps the APIServices those of the groups there are.
///
/// # Errors
/// The store fails.
pub(crate) async fn keep(server: &ApiServer) -> Result<(), mini_store::Error> {
    write(server, install(server, false)).await
}

async fn write(server: &ApiServer, ops: Vec<Op>) -> Result<(), mini_store::Error> {
    if ops.is_empty() {
        return Ok(());
    }
    match server.store.write(ops).await {
        // Somebody else was at it; the next round looks again.
        Err(mini_store::Error::Exists { .. } | mini_store::Error::Changed { .. }) => Ok(()),
        other => other.map(drop),
    }
}

fn install(server: &ApiServer, update: bool) -> Vec<Op> {
    let snapshot = server.store.snapshot();
    let mut ops = Vec::new();
    let mut served = std::collections::BTreeSet::new();
    for wanted in wanted(server) {
        let (group, version) = wanted.text(&["apiVersion"]).split_once('/').unwrap_or_default();
        let Some(resource) = server.registry.current().by_kind(group, version, wanted.text(&["kind"])) else {
            continue;
        };
        let key: Arc<str> = object_key(&resource, "", wanted.name()).into();
        served.insert(key.clone());
        let stored = snapshot.get(&key);
        let (object, expect) = match &stored {
            None => {
                let mut object = wanted.clone();
                resource.default(&mut object);
                resource.prepare_create(&mut object);
                if let Some(status) = wanted.get("status") {
                    object["status"] = status.clone();
                }
                let metadata = object.meta_mut();
                metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
                metadata.insert("creationTimestamp".to_owned(), mini_api::time::now().into());
                (object, Expect::Absent)
            }
            Some(entry) if update && wanted.get("metadata").is_some_and(|m| m.get("annotations").is_some()) => {
                let Ok(mut object) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
                let ours = object.text(&["metadata", "annotations", AUTO_UPDATE]) == "true";
                if !ours || object.get("spec") == wanted.get("spec") {
                    continue;
                }
                object["spec"] = wanted["spec"].clone();
                let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0) + 1;
                object.meta_mut().insert("generation".to_owned(), generation.into());
                (object, Expect::Revision(entry.revision))
            }
            Some(_) => continue,
        };
        ops.push(Op::Put { key, expect, finish: Template::new(&object).finish() });
    }
    // A group that is gone is no longer announced.
    for entry in snapshot.range(API_SERVICES, None).filter(|entry| !served.contains(&entry.key)) {
        let Ok(object) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        if !object.text(&["metadata", "labels", AUTOMANAGED]).is_empty() {
            let finish = Template::new(&object).finish();
            ops.push(Op::Delete { key: entry.key.clone(), expect: Expect::Revision(entry.revision), finish });
        }
    }
    ops
}

fn wanted(server: &ApiServer) -> Vec<Value> {
    let mut objects: Vec<Value> =
        [true, false].into_iter().flat_map(mini_resources::bootstrap_flow).map(with_condition).collect();
    objects.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": [server.config.service_cidr.trunc().to_string()]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": mini_api::time::now()}]}}));
    for group in server.registry.current().filtered(|row| !row.hooks.optional).groups() {
        let built_in = PRIORITIES.iter().find(|(name, _)| *name == group.name);
        let versions = group.versions.len();
        for (i, version) in group.versions.iter().enumerate() {
            let mut spec = json!({"version": version, "groupPriorityMinimum": built_in.map_or(CUSTOM, |(_, p)| *p),
                "versionPriority": if built_in.is_some() && versions == 1 { 15 } else { 100 - i.min(99) }});
            if !group.name.is_empty() {
                spec["group"] = group.name.clone().into();
            }
            let managed = if built_in.is_some() { "onstart" } else { "true" };
            objects.push(json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": format!("{version}.{}", group.name), "labels": {AUTOMANAGED: managed}},
                "spec": spec}));
        }
    }
    objects
}

/// A FlowSchema of ours never dangles.
fn with_condition(mut object: Value) -> Value {
    let level = object.text(&["spec", "priorityLevelConfiguration", "name"]).to_owned();
    if !level.is_empty() {
        let message =
            format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists");
        let status = json!({"conditions": [{"type": "Dangling", "status": "False", "reason": "Found",
            "message": message, "lastTransitionTime": mini_api::time::now()}]});
        meta::object_mut(&mut object).insert("status".to_owned(), status);
    }
    object
}
