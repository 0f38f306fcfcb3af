//! Nobody grants what they do not hold: the check on writes of roles and bindings.
//!
//! Upstream's `policybased` storage; here an admission plugin that only looks.

use super::rule::{self, Rule};
use super::{Attributes, Decision};
use crate::UserInfo;
use crate::admission::{Operation, Request};
use mini_api::{Meta, Status, Value};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The admission hook.
///
/// # Errors
/// 403 if the write would grant more than its user has.
pub fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    let resource = request.resource;
    if resource.group != GROUP
        || !request.subresource.is_empty()
        || !matches!(request.operation, Operation::Create | Operation::Update)
        || request.user.is_in(super::MASTERS)
    {
        return Ok(());
    }
    let refused = match resource.plural.as_str() {
        "roles" | "clusterroles" => role(request),
        "rolebindings" | "clusterrolebindings" => binding(request),
        _ => None,
    };
    refused.map_or(Ok(()), |why| Err(Status::forbidden(GROUP, &resource.plural, request.name, &why)))
}

fn may(request: &Request<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let question = Attributes {
        namespace: request.namespace,
        name,
        version: "v1",
        ..Attributes::resource(request.user, verb, GROUP, resource)
    };
    request.server.authz.authorize(&question) == Decision::Allow
}

fn role(request: &Request<'_>) -> Option<String> {
    // A new role has no name yet in what upstream asks, so leave by name does not help.
    let name = if request.operation == Operation::Create { "" } else { request.name };
    if only_collected(request) || may(request, "escalate", &request.resource.plural, name) {
        return None;
    }
    // Also when its rules stay: a label alone makes it part of a role that gathers by labels.
    let refused = lacking(request, &Rule::list(request.object));
    let gathers = |role: &Value| {
        let selectors = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        selectors.is_some_and(|selectors| !selectors.is_empty())
    };
    refused.or_else(|| {
        // Who may gather anything may get anything, and who may change what is gathered may keep it from being less.
        let full = [Rule::everything(), Rule::every_path()];
        let bounded = gathers(request.object) || request.old.is_some_and(gathers);
        let missing = bounded && lacking(request, &full).is_some();
        missing.then(|| "must have cluster-admin privileges to use the aggregationRule".to_owned())
    })
}

fn binding(request: &Request<'_>) -> Option<String> {
    if only_collected(request) {
        return None;
    }
    let reference = |field| request.object.text(&["roleRef", field]);
    let (kind, name) = (reference("kind"), reference("name"));
    let resource = if kind == "Role" { "roles" } else { "clusterroles" };
    if may(request, "bind", resource, name) {
        return None;
    }
    match request.server.authz.role(kind, request.namespace, name) {
        Some(rules) => lacking(request, &rules),
        None => Some(format!("{resource}.{GROUP} {name:?} not found")),
    }
}

/// True for an update that changes only what the garbage collector needs to: it may finish the deletion of roles that it
/// could not have made.
pub(crate) fn only_collected(request: &Request<'_>) -> bool {
    const COLLECTORS: [&str; 4] = ["ownerReferences", "finalizers", "managedFields", "resourceVersion"];
    let without = |object: &Value| {
        let mut object = object.clone();
        COLLECTORS.iter().for_each(|field| drop(object.meta_mut().remove(*field)));
        object
    };
    request.old.is_some_and(|old| without(old) == without(request.object))
}

fn lacking(request: &Request<'_>, wanted: &[Rule]) -> Option<String> {
    let held = request.server.authz.rules_of(request.user, request.namespace).rules;
    let missing = rule::missing(&held, wanted);
    if missing.is_empty() { None } else { Some(message(request.user, missing)) }
}

fn message(user: &UserInfo, missing: Vec<Rule>) -> String {
    let mut lines: Vec<String> = compact(missing).iter().map(ToString::to_string).collect();
    lines.sort();
    let groups = rule::quoted(&user.groups);
    let lines = lines.join("\n");
    format!(
        "user {:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{lines}",
        user.name
    )
}

/// Single-verb rules about the same thing become one.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut compacted: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = |r: &&mut Rule| {
            (&r.groups, &r.resources, &r.names, &r.urls) == (&rule.groups, &rule.resources, &rule.names, &rule.urls)
        };
        match compacted.iter_mut().find(same) {
            Some(existing) => existing.verbs.extend(rule.verbs),
            None => compacted.push(rule),
        }
    }
    compacted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_message_lists_what_is_missing() {
        let wanted = [Rule::from_value(&json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}))];
        let text = message(&UserInfo::new("eve", &[]), rule::missing(&[], &wanted));
        assert_eq!(
            text,
            "user \"eve\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}"
        );
    }
}
