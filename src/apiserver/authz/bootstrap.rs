//! The default roles and bindings, made or completed at every start as upstream's `rbac/bootstrap-roles` hook does.
//!
//! What is missing is added; what somebody added stays; an object annotated
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

use super::roles::{self, BINDINGS, ROLES};
use super::rule::{self, Rule};
use crate::ApiServer;
use mini_api::{Meta, Value, meta};
use mini_store::{Expect, Op};
use serde_json::{Map, json};
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Makes the store hold the default policy.
///
/// # Errors
/// The store refuses the write.
pub async fn reconcile(server: &ApiServer) -> Result<(), mini_store::Error> {
    // Somebody may write between the look and the transaction, but only other instances of this hook before we serve.
    let snapshot = server.store.snapshot();
    let mut ops = Vec::new();
    for wanted in objects() {
        let key: Arc<str> = key(&wanted).into();
        let stored = snapshot.get(&key);
        let current = stored.as_ref().and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
        let object = match current {
            None => created(wanted),
            Some(current) => match completed(&current, &wanted) {
                Some(object) => object,
                None => continue,
            },
        };
        let expect = stored.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
        ops.push(Op::Put { key, expect, finish: Box::new(move |revision| bytes(object, revision)) });
    }
    if ops.is_empty() {
        return Ok(());
    }
    tracing::debug!(objects = ops.len(), "writing the default roles and bindings");
    server.store.write(ops).await.map(drop)
}

fn bytes(mut object: Value, revision: u64) -> bytes::Bytes {
    object.meta_mut().insert("resourceVersion".to_owned(), Value::from(revision.to_string()));
    object.to_string().into()
}

fn key(object: &Value) -> String {
    let plural = format!("{}s", object.text(&["kind"]).to_lowercase());
    match object.namespace() {
        "" => format!("/registry/{plural}.{GROUP}/{}", object.name()),
        namespace => format!("/registry/{plural}.{GROUP}/{namespace}/{}", object.name()),
    }
}

fn created(mut object: Value) -> Value {
    let metadata = object.meta_mut();
    metadata.insert("uid".to_owned(), Value::from(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), Value::from(mini_api::time::now()));
    object
}

/// All default objects.
fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = ROLES.iter().map(role).collect();
    objects.extend(BINDINGS.iter().map(|b| binding(b.namespace, b.name, b.role, b.subjects.iter().copied())));
    objects.extend(
        roles::controller_bindings()
            .map(|(name, subjects)| binding("", name, name, subjects.iter().map(String::as_str))),
    );
    objects
}

fn object(kind: &str, namespace: &str, name: &str, label: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                     "annotations": {AUTO_UPDATE: "true"}},
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = Value::from(namespace);
    }
    if let Some(label) = label {
        object["metadata"]["labels"][label] = Value::from("true");
    }
    object
}

fn label(sum: &str) -> String {
    format!("{GROUP}/aggregate-to-{sum}")
}

fn role(role: &roles::Role) -> Value {
    let kind = if role.namespace.is_empty() { "ClusterRole" } else { "Role" };
    let mut value = object(kind, role.namespace, role.name, role.part_of.map(label).as_deref());
    let mut rules = role.rules();
    if let Some(sum) = role.sum_of {
        value["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label(sum): "true"}}]});
        sum_up(sum, &mut rules);
    }
    value["rules"] = rules.iter().map(Rule::to_value).collect();
    value
}

/// The rules of all default parts of `admin`, `edit` or `view`, and of their parts.
fn sum_up(sum: &str, rules: &mut Vec<Rule>) {
    for part in ROLES.iter().filter(|role| role.part_of == Some(sum)) {
        match part.sum_of {
            Some(inner) => sum_up(inner, rules),
            None => rules.extend(part.rules()),
        }
    }
}

fn binding<'a>(namespace: &str, name: &str, role: &str, subjects: impl Iterator<Item = &'a str>) -> Value {
    let (kind, role_kind) =
        if namespace.is_empty() { ("ClusterRoleBinding", "ClusterRole") } else { ("RoleBinding", "Role") };
    let mut value = object(kind, namespace, name, None);
    value["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let subjects: Vec<Value> = subjects.filter_map(subject).collect();
    if !subjects.is_empty() {
        value["subjects"] = Value::from(subjects);
    }
    value
}

fn subject(word: &str) -> Option<Value> {
    let (kind, name) = word.split_once(':')?;
    Some(match kind {
        "g" => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        "u" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        _ => {
            let (namespace, name) = name.split_once(':')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    })
}

/// `current` with what it lacks of `wanted`; `None` if it lacks nothing or is not ours to change.
fn completed(current: &Value, wanted: &Value) -> Option<Value> {
    if current.text(&["metadata", "annotations", AUTO_UPDATE]) == "false" {
        return None;
    }
    if current.get("roleRef") != wanted.get("roleRef") {
        // A binding cannot be led elsewhere: upstream deletes it and makes it anew.
        return Some(created(wanted.clone()));
    }
    let mut object = current.clone();
    for field in ["labels", "annotations"] {
        let wanted = wanted.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        let map = meta::child_mut(object.meta_mut(), field);
        wanted.into_iter().flatten().for_each(|(k, v)| drop(map.insert(k.clone(), v.clone())));
    }
    let map: &mut Map<String, Value> = meta::object_mut(&mut object);
    if let Some(aggregation) = wanted.get("aggregationRule") {
        // Their rules are a sum that is taken whenever they are asked.
        map.entry("aggregationRule").or_insert_with(|| aggregation.clone());
    } else if wanted.get("rules").is_some() {
        let missing = rule::missing(&Rule::list(current), &Rule::list(wanted));
        if let Some(rules) = items(map, "rules") {
            rules.extend(missing.iter().map(Rule::to_value));
        }
    }
    for subject in wanted.get("subjects").and_then(Value::as_array).into_iter().flatten() {
        if let Some(subjects) = items(map, "subjects")
            && !subjects.contains(subject)
        {
            subjects.push(subject.clone());
        }
    }
    (object != *current).then_some(object)
}

fn items<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = map.entry(field).or_insert_with(|| json!([]));
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_complete_stays() {
        for wanted in objects() {
            assert_eq!(completed(&created(wanted.clone()), &wanted), None, "{}", wanted.name());
        }
    }

    #[test]
    fn what_is_missing_is_added_and_what_was_added_stays() {
        let wanted = binding("", "b", "r", ["g:one", "u:two"].into_iter());
        let mut current = created(binding("", "b", "r", ["g:one", "u:three"].into_iter()));
        current["metadata"]["labels"] = json!({"own": "yes"});
        let done = completed(&current, &wanted).unwrap();
        assert_eq!(done["subjects"].as_array().unwrap().len(), 3);
        assert_eq!(done["metadata"]["labels"]["own"], "yes");
        assert_eq!(done["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        current["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
        assert_eq!(completed(&current, &wanted), None);
    }

    #[test]
    fn view_is_a_part_of_edit_and_that_of_admin() {
        let of = |name: &str| ROLES.iter().find(|r| r.name == name).map(role).unwrap();
        let (view, edit, admin) = (Rule::list(&of("view")), Rule::list(&of("edit")), Rule::list(&of("admin")));
        assert!(rule::missing(&edit, &view).is_empty() && rule::missing(&admin, &edit).is_empty());
        assert!(!rule::missing(&view, &edit).is_empty());
    }

    #[test]
    fn keys() {
        let keys: Vec<_> = objects().iter().map(key).collect();
        for wanted in [
            "/registry/clusterroles.rbac.authorization.k8s.io/cluster-admin",
            "/registry/clusterrolebindings.rbac.authorization.k8s.io/system:node",
            "/registry/roles.rbac.authorization.k8s.io/kube-public/system:controller:bootstrap-signer",
            "/registry/rolebindings.rbac.authorization.k8s.io/kube-public/system:controller:bootstrap-signer",
        ] {
            assert!(keys.iter().any(|k| k == wanted), "{wanted}");
        }
    }
}
