//! The kinds that are asked and never stored: TokenReview, the SubjectAccessReview family, SelfSubjectReview.

use crate::authz::Attributes;
use crate::{Call, UserInfo};
use mini_api::{FieldError, FieldPath, FieldSelector, FieldTerm, Meta, Status, Value, meta};
use serde_json::{Map, json};
use std::collections::BTreeMap;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// True if objects of this resource are answered by [`create`] instead of being stored.
#[must_use]
pub fn is_review(group: &str) -> bool {
    matches!(group, AUTHENTICATION | AUTHORIZATION)
}

/// Fills the status of `object`, which is normalized, defaulted and validated.
///
/// # Errors
/// The review cannot be answered.
pub async fn create(call: &Call, mut object: Value) -> Result<Value, Status> {
    let status = match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        (AUTHENTICATION, "tokenreviews") => token_review(call, &object)?,
        (AUTHENTICATION, "selfsubjectreviews") => {
            object.meta_mut().insert("creationTimestamp".to_owned(), Value::from(mini_api::time::now()));
            json!({"userInfo": user_value(&call.user)})
        }
        (AUTHORIZATION, "selfsubjectaccessreviews") => access(call, &call.user, &object)?,
        (AUTHORIZATION, "subjectaccessreviews" | "localsubjectaccessreviews") => {
            access(call, &subject(&object), &object)?
        }
        (AUTHORIZATION, "selfsubjectrulesreviews") => rules(call, &object)?,
        _ => return Err(crate::handler::no_such_path()),
    };
    meta::object_mut(&mut object).insert("status".to_owned(), status);
    Ok(object)
}

fn token_review(call: &Call, object: &Value) -> Result<Value, Status> {
    let token = object.text(&["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    Ok(match call.server.authn.token(token, &strings(object.pointer("/spec/audiences"))) {
        Ok(found) => {
            let mut status = json!({"authenticated": true, "user": user_value(&found.user)});
            if !found.audiences.is_empty() {
                status["audiences"] = json!(found.audiences);
            }
            status
        }
        Err(why) => json!({"authenticated": false, "error": format!("[{why}]"), "user": {}}),
    })
}

/// The `UserInfo` of `authentication/v1`.
pub(crate) fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

/// The user whose access is asked for.
fn subject(object: &Value) -> UserInfo {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let groups = strings(spec.get("groups"));
    let name = spec.text(&["user"]).to_owned();
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    let extra: BTreeMap<_, _> = extra.map(|(key, values)| (key.to_lowercase(), strings(Some(values)))).collect();
    UserInfo { name, uid: spec.text(&["uid"]).to_owned(), groups, extra }
}

/// What is wrong with a question about access, in upstream's words.
fn wrong(call: &Call, object: &Value) -> Vec<FieldError> {
    let plural = call.resource.plural.as_str();
    let (local, own) = (plural == "localsubjectaccessreviews", plural == "selfsubjectaccessreviews");
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let at = |name: &str| FieldPath::new("spec").child(name);
    let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let mut errors = Vec::new();
    match (resource, path) {
        (Some(_), Some(path)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(&at("nonResourceAttributes"), path.clone(), why));
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid(&at("resourceAttributes"), Value::Null, why));
        }
        _ => {}
    }
    if !own && spec.text(&["user"]).is_empty() && strings(spec.get("groups")).is_empty() {
        errors.push(FieldError::invalid(&at("user"), "", "at least one of user or group must be specified"));
    }
    let mut metadata = object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    metadata.retain(|name, value| {
        name != "managedFields" && !(local && name == "namespace") && !matches!(value.as_str(), Some(""))
    });
    if !metadata.is_empty() {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid(&FieldPath::new("metadata"), Value::Object(metadata), why));
    }
    let asked = object.text(&["spec", "resourceAttributes", "namespace"]);
    if local && resource.is_some() && asked != call.info.namespace {
        let path = at("resourceAttributes").child("namespace");
        errors.push(FieldError::invalid(&path, asked, "must match metadata.namespace"));
    }
    if let (true, Some(path)) = (local, path) {
        let why = "disallowed on this kind of request";
        errors.push(FieldError::invalid(&at("nonResourceAttributes"), path.clone(), why));
    }
    errors
}

fn access(call: &Call, user: &UserInfo, object: &Value) -> Result<Value, Status> {
    let errors = wrong(call, object);
    if !errors.is_empty() {
        // Upstream has lost the kind by then.
        return Err(Status::invalid(AUTHORIZATION, "", "", &errors));
    }
    let part = |field: &str| object.get("spec").and_then(|s| s.get(field)).filter(|v| v.is_object());
    let fields = part("resourceAttributes").and_then(|resource| fields(resource.get("fieldSelector")?));
    let attributes = match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(resource), _) => Attributes {
            user,
            verb: resource.text(&["verb"]),
            group: resource.text(&["group"]),
            version: resource.text(&["version"]),
            resource: resource.text(&["resource"]),
            subresource: resource.text(&["subresource"]),
            namespace: resource.text(&["namespace"]),
            name: resource.text(&["name"]),
            path: "",
            fields: fields.as_ref(),
            resource_request: true,
        },
        (None, path) => {
            let path = path.unwrap_or(&Value::Null);
            Attributes {
                path: path.text(&["path"]),
                resource_request: false,
                ..Attributes::resource(user, path.text(&["verb"]), "", "")
            }
        }
    };
    let (allowed, reason) = call.server.authz.explain(&attributes);
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = Value::from(reason);
    }
    Ok(status)
}

/// The `fieldSelector` of a question: its text, or those of its requirements that one value answers. What cannot be
/// understood narrows nothing, which can only take rights away.
fn fields(selector: &Value) -> Option<FieldSelector> {
    let raw = selector.text(&["rawSelector"]);
    if !raw.is_empty() {
        return FieldSelector::parse(raw).ok();
    }
    let requirements = selector.get("requirements").and_then(Value::as_array)?.iter();
    let terms = requirements.filter_map(|requirement| {
        let value = match requirement.get("values").and_then(Value::as_array).map(Vec::as_slice) {
            Some([one]) => one.as_str()?.to_owned(),
            _ => return None,
        };
        let equal = match requirement.text(&["operator"]) {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        Some(FieldTerm { path: requirement.text(&["key"]).to_owned(), equal, value })
    });
    Some(FieldSelector { terms: terms.collect() })
}

fn rules(call: &Call, object: &Value) -> Result<Value, Status> {
    let namespace = object.text(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let all = call.server.authz.rules_of(&call.user, namespace);
    let part = |paths: bool| -> Vec<Value> {
        all.rules.iter().filter(|rule| rule.urls.is_empty() != paths).map(crate::authz::rule::Rule::to_value).collect()
    };
    let mut status: Map<String, Value> = Map::new();
    status.insert("resourceRules".to_owned(), Value::from(part(false)));
    status.insert("nonResourceRules".to_owned(), Value::from(part(true)));
    status.insert("incomplete".to_owned(), Value::from(!all.error.is_empty()));
    if !all.error.is_empty() {
        status.insert("evaluationError".to_owned(), Value::from(all.error));
    }
    Ok(Value::Object(status))
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
