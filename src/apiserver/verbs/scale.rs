//! The `scale` subresource: an `autoscaling/v1.Scale` seen through the object's `spec.replicas`.

use super::patch::Patch;
use super::update::change_object;
use crate::body::Body;
use crate::decode::{self, Warnings};
use crate::negotiate::{self, Output};
use crate::options::WriteOptions;
use crate::{Call, object};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{FieldError, FieldPath, Meta, Status, Value, patch};
use serde_json::json;

pub(super) fn get(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let entry = call.server.store.snapshot().get(&call.key(&call.info.name)).ok_or_else(|| call.not_found())?;
    output.respond(StatusCode::OK, Bytes::from(scale_of(&object::read(&call.resource, &entry)?).to_string()))
}

pub(super) async fn update(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let scale = negotiate::parse(negotiate::media(&call.headers)?, &body)?;
    if scale.name() != call.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            scale.name(),
            call.info.name
        )));
    }
    change(call, "UpdateOptions", |_| Ok(scale.clone())).await
}

pub(super) async fn patch(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let patch = Patch::parse(call, &body)?;
    change(call, "PatchOptions", |old| match &patch {
        Patch::Json(operations) => patch::json::apply(old, operations),
        // A Scale has no lists, so strategic is plain merge.
        Patch::Merge(merge) | Patch::Strategic(merge) => {
            let mut new = old.clone();
            patch::merge::apply(&mut new, merge.clone());
            Ok(new)
        }
    })
    .await
}

async fn change(
    call: &Call,
    options: &str,
    make: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, options)?;
    let change = |old: &Value| -> Result<(Value, Warnings), Status> {
        let scale = make(&scale_of(old))?;
        let mut new = old.clone();
        let replicas = scale.get("spec").and_then(|s| s.get("replicas")).cloned().unwrap_or_else(|| 0.into());
        if replicas.as_i64().is_none_or(|n| n < 0) {
            let path = FieldPath::new("spec").child("replicas");
            let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", old.name(), &[error]));
        }
        new["spec"]["replicas"] = replicas;
        let (version, uid) = (scale.resource_version().to_owned(), scale.uid().to_owned());
        let meta = new.meta_mut();
        if !version.is_empty() {
            meta.insert("resourceVersion".to_owned(), version.into());
        }
        if !uid.is_empty() {
            meta.insert("uid".to_owned(), uid.into());
        }
        let warnings = decode::settle(&call.resource, &mut new, Vec::new(), options.fields)?;
        Ok((new, warnings))
    };
    let changed = change_object(call, "", options.dry_run, change).await?;
    let object: Value = serde_json::from_slice(&changed.bytes).map_err(Status::internal)?;
    output.respond(StatusCode::OK, Bytes::from(scale_of(&object).to_string()))
}

/// The Scale of a scalable object.
fn scale_of(object: &Value) -> Value {
    let meta = |name: &str| object.get("metadata").and_then(|m| m.get(name)).cloned();
    let mut metadata = json!({});
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta(name) {
            metadata[name] = value;
        }
    }
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": number("/spec/replicas")},
        "status": {"replicas": number("/status/replicas")},
    });
    let selector = object.pointer("/spec/selector").map(selector_text).unwrap_or_default();
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A selector, labels alone or a whole `LabelSelector`, in query syntax.
fn selector_text(selector: &Value) -> String {
    let is_whole = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if is_whole { selector.get("matchLabels") } else { Some(selector) };
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    for e in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let values = e.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        let key = e.text(&["key"]);
        terms.push(match e.text(&["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}
