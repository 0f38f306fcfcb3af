//! From a request to what the fake server does about it.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::kinds::{self, KINDS, Row};
use super::patch;
use super::store::{Store, now, selected};

pub(super) enum Answer {
    Object(u16, Value),
    Watch(mpsc::UnboundedReceiver<String>),
}

fn failure(code: u16, reason: &str, message: impl Into<String>) -> Answer {
    let message = message.into();
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message});
    Answer::Object(code, status)
}

struct Target {
    row: &'static Row,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

fn parse(path: &str) -> Option<Target> {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts.first() == Some(&"api") { 2 } else { 3 });
    let mut namespace = None;
    if parts.len() > 2 && parts[0] == "namespaces" && !["status", "finalize"].contains(&parts[2]) {
        namespace = Some(parts[1].to_owned());
        parts.drain(..2);
    }
    let own = |at: usize| parts.get(at).map(|part| (*part).to_owned());
    Some(Target { row: kinds::by_plural(parts.first()?)?, namespace, name: own(1), subresource: own(2) })
}

fn query(uri: &str) -> (String, Vec<(String, String)>) {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let decode = |text: &str| {
        text.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%21", "!").replace('+', " ")
    };
    (path.to_owned(), pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect())
}

pub(super) fn answer(store: &mut Store, method: &str, uri: &str, content: &str, body: Value) -> Answer {
    let (path, query) = query(uri);
    if let Some(document) = discovery(&path) {
        return Answer::Object(200, document);
    }
    let Some(target) = parse(&path) else { return failure(404, "NotFound", "the server could not find the resource") };
    let value_of = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let Some(name) = target.name.clone() else {
        let namespace = target.namespace.as_deref();
        return match method {
            "GET" if value_of("watch").is_some() => {
                let after = value_of("resourceVersion").and_then(|rv| rv.parse().ok()).unwrap_or_default();
                match store.watch(target.row.plural, namespace, query, after) {
                    Ok(receiver) => Answer::Watch(receiver),
                    Err(code) => failure(code, "Expired", "too old resource version"),
                }
            }
            "GET" if store.list_refusal(target.row.plural).is_some() => {
                failure(store.list_refusal(target.row.plural).unwrap_or(500), "InternalError", "lists are refused")
            }
            "GET" => {
                let items: Vec<_> =
                    store.all(target.row.plural, namespace).into_iter().filter(|o| selected(o, &query)).collect();
                let list = json!({"apiVersion": target.row.api_version(), "kind": format!("{}List", target.row.kind),
                    "metadata": {"resourceVersion": store.revision.to_string()}, "items": items});
                Answer::Object(200, list)
            }
            "POST" => create(store, &target, body),
            "DELETE" => {
                for object in store.all(target.row.plural, namespace).into_iter().filter(|o| selected(o, &query)) {
                    delete(store, &target, object, &body);
                }
                Answer::Object(200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "metadata": {}}))
            }
            _ => failure(405, "MethodNotAllowed", "not allowed"),
        };
    };
    let namespace = target.namespace.clone().unwrap_or_default();
    let Some(current) = store.get(target.row.plural, &namespace, &name) else {
        return failure(404, "NotFound", format!("{} \"{name}\" not found", target.row.plural));
    };
    if let Some((code, message)) = store.refusal(&format!("{method} {}", target.row.plural)) {
        return failure(code, "Refused", message);
    }
    match (method, target.subresource.as_deref()) {
        ("GET", _) => Answer::Object(200, current),
        ("POST", Some("binding")) => {
            let mut pod = current;
            if pod["spec"]["nodeName"].is_string() {
                return failure(409, "Conflict", format!("pod {name} is already assigned to a node"));
            }
            pod["spec"]["nodeName"] = body["target"]["name"].clone();
            let bound = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}});
            patch::merge(&mut pod, bound, true);
            store.put(pod);
            Answer::Object(201, json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "metadata": {}}))
        }
        ("PATCH", subresource) => {
            let mut next = current.clone();
            patch::merge(&mut next, body, content.contains("strategic"));
            update(store, &target, subresource, &current, next)
        }
        ("PUT", subresource) => update(store, &target, subresource, &current, body),
        ("DELETE", _) => delete(store, &target, current, &body),
        _ => failure(405, "MethodNotAllowed", "not allowed"),
    }
}

fn create(store: &mut Store, target: &Target, mut object: Value) -> Answer {
    if let Some((code, message)) = store.refusal(target.row.plural) {
        return failure(code, if code == 403 { "Forbidden" } else { "InternalError" }, message);
    }
    let meta = &mut object["metadata"];
    if let Some(namespace) = &target.namespace {
        meta["namespace"] = json!(namespace);
    }
    if let (true, Some(prefix)) = (meta["name"].is_null(), meta["generateName"].as_str()) {
        meta["name"] = json!(format!("{prefix}{:05}", store.revision));
    }
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    meta["generation"] = json!(1);
    if store.get(target.row.plural, target.namespace.as_deref().unwrap_or_default(), &name).is_some() {
        return failure(409, "AlreadyExists", format!("{} \"{name}\" already exists", target.row.plural));
    }
    object["apiVersion"] = json!(target.row.api_version());
    object["kind"] = json!(target.row.kind);
    if target.row.kind == "Pod" {
        object["status"] = json!({"phase": "Pending"});
    }
    store.put(object.clone());
    let stored = store.get(target.row.plural, target.namespace.as_deref().unwrap_or_default(), &name);
    Answer::Object(201, stored.unwrap_or(object))
}

fn update(store: &mut Store, target: &Target, subresource: Option<&str>, current: &Value, mut next: Value) -> Answer {
    for field in ["resourceVersion", "uid"] {
        let wanted = &next["metadata"][field];
        if !wanted.is_null() && *wanted != current["metadata"][field] {
            return failure(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            );
        }
    }
    match subresource {
        Some("status") => {
            let status = next["status"].take();
            next = current.clone();
            next["status"] = status;
        }
        Some("finalize") => {
            let finalizers = next["spec"]["finalizers"].take();
            next = current.clone();
            next["spec"]["finalizers"] = finalizers;
        }
        _ => {
            next["status"] = current["status"].clone();
            if next["status"].is_null()
                && let Some(map) = next.as_object_mut()
            {
                map.remove("status");
            }
        }
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
        next["metadata"][field] = current["metadata"][field].clone();
    }
    if next["metadata"]["deletionTimestamp"].is_null()
        && let Some(meta) = next["metadata"].as_object_mut()
    {
        meta.remove("deletionTimestamp");
    }
    if next["spec"] != current["spec"] {
        next["metadata"]["generation"] = json!(current["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
    }
    if next == *current {
        return Answer::Object(200, next);
    }
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let leaving = !next["metadata"]["deletionTimestamp"].is_null() && empty(&next["metadata"]["finalizers"]);
    let waits = match target.row.kind {
        "Namespace" => !empty(&next["spec"]["finalizers"]),
        "Pod" => runs(&next),
        _ => false,
    };
    let (namespace, name) = key(&next);
    if leaving && !waits {
        store.remove(target.row.plural, &namespace, &name);
        return Answer::Object(200, next);
    }
    store.put(next);
    Answer::Object(200, store.get(target.row.plural, &namespace, &name).unwrap_or_default())
}

/// Whether a kubelet still has to end a pod.
fn runs(pod: &Value) -> bool {
    pod["spec"]["nodeName"].is_string()
        && !["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn delete(store: &mut Store, target: &Target, mut object: Value, options: &Value) -> Answer {
    for field in ["resourceVersion", "uid"] {
        let wanted = &options["preconditions"][field];
        if !wanted.is_null() && *wanted != object["metadata"][field] {
            return failure(409, "Conflict", "Precondition failed");
        }
    }
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|f| f != "orphan" && f != "foregroundDeletion");
    match options["propagationPolicy"].as_str() {
        Some("Orphan") => finalizers.push(json!("orphan")),
        Some("Foreground") => finalizers.push(json!("foregroundDeletion")),
        _ => {}
    }
    let pod_runs = target.row.kind == "Pod" && options["gracePeriodSeconds"] != 0 && runs(&object);
    let (namespace, name) = key(&object);
    if finalizers.is_empty() && !pod_runs && target.row.kind != "Namespace" {
        store.remove(target.row.plural, &namespace, &name);
        return Answer::Object(200, object);
    }
    if !finalizers.is_empty() {
        object["metadata"]["finalizers"] = Value::Array(finalizers);
    }
    if object["metadata"]["deletionTimestamp"].is_null() {
        object["metadata"]["deletionTimestamp"] = json!(now());
        if target.row.kind == "Namespace" {
            object["status"]["phase"] = json!("Terminating");
        }
        store.put(object);
    }
    Answer::Object(200, store.get(target.row.plural, &namespace, &name).unwrap_or_default())
}

fn discovery(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version) = match parts[..] {
        ["api"] => return Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let mut groups: Vec<_> = KINDS.iter().filter(|row| !row.group.is_empty()).collect();
            groups.dedup_by_key(|row| row.group);
            let groups: Vec<_> = groups
                .iter()
                .map(|row| {
                    let version = json!({"groupVersion": row.api_version(), "version": row.version});
                    json!({"name": row.group, "versions": [version], "preferredVersion": version})
                })
                .collect();
            return Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
        }
        ["api", version] => ("", version),
        ["apis", group, version] => (group, version),
        _ => return None,
    };
    let resources: Vec<_> = KINDS
        .iter()
        .filter(|row| row.group == group && row.version == version)
        .map(|row| {
            json!({"name": row.plural, "singularName": "", "namespaced": row.namespaced, "kind": row.kind,
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]})
        })
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}
