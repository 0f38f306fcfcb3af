//! The `scale` subresource: an `autoscaling/v1.Scale` seen through the object's `spec.replicas`.

use super::apply;
use super::patch::Patch;
use super::update::{Write, change_object};
use crate::body::Body;
use crate::decode::{self, Warnings};
use crate::managed_fields::{self, Owners};
use crate::negotiate::{self, Output, Shape};
use crate::options::WriteOptions;
use crate::{Call, object, table};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::apply::typed::validate;
use mini_api::{FieldError, FieldPath, Meta, Reason, Status, Value, patch};
use mini_resources::custom::Scale;
use mini_resources::{ApplyNode, Resource, SCALE, scale_cells};
use serde_json::json;

pub(super) fn get(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let entry = call.server.store.snapshot().get(&call.key(&call.info.name)).ok_or_else(|| call.not_found())?;
    let object = object::read(&call.resource, &entry)?;
    if let Some(paths) = custom_paths(&call.resource).filter(|paths| paths.desired(&object).is_none()) {
        let path = &paths.spec_replicas;
        return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    answer(output, &scale_of(&call.resource, &object))
}

fn answer(output: Output, scale: &Value) -> Result<Response<Body>, Status> {
    let bytes = Bytes::from(scale.to_string());
    let shaped = match output.shape {
        Shape::Object | Shape::MetadataList => bytes,
        Shape::Metadata => table::metadata_only(output, &bytes)?,
        Shape::Table => {
            let row = table::row_of(scale_cells(scale, jiff::Timestamp::now()), None, output, &bytes)?;
            table::table(output, Some(SCALE), &json!({"resourceVersion": scale.resource_version()}), &[row])
        }
    };
    output.respond(StatusCode::OK, shaped)
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
    change(call, "UpdateOptions", |old, _| with_scale(&call.resource, old, &scale)).await
}

pub(super) async fn patch(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    if apply::asked(call) {
        return applied(call, &body).await;
    }
    let patch = Patch::parse(call, &body)?;
    let make = |old: &Value, _: &WriteOptions| {
        let mut scale = scale_of(&call.resource, old);
        match &patch {
            Patch::Json(operations) => scale = patch::json::apply(&scale, operations)?,
            // A Scale has no lists, so strategic is plain merge.
            Patch::Merge(merge) | Patch::Strategic(merge) => patch::merge::apply(&mut scale, merge.clone()),
        }
        with_scale(&call.resource, old, &scale)
    };
    change(call, "PatchOptions", make).await
}

/// What a Scale says is applied as what the object itself would say.
async fn applied(call: &Call, body: &[u8]) -> Result<Response<Body>, Status> {
    let scale = apply::Config::parse(body, "autoscaling/v1", "Scale")?;
    let mut config = json!({"apiVersion": call.resource.api_version(), "kind": call.resource.kind, "metadata": {}});
    for name in ["name", "resourceVersion", "uid"] {
        if let Some(value) = scale.value.get("metadata").and_then(|m| m.get(name)) {
            config["metadata"][name] = value.clone();
        }
    }
    if let Some(replicas) = scale.value.pointer("/spec/replicas") {
        set_replicas(&call.resource, &mut config, replicas.clone());
    }
    let misfits = validate(&ApplyNode::of("io.k8s.api.autoscaling.v1.Scale"), &scale.value);
    if !misfits.is_empty() {
        let why = misfits.join(", ");
        let about = managed_fields::named(&scale.value);
        return Err(Status::new(Reason::Unknown, format!("failed to create typed patch object ({about}): {why}")));
    }
    let make = |old: &Value, options: &WriteOptions| {
        scale.warnings(options.fields)?;
        let mut new = managed_fields::apply(call, "scale", Some(old), &config, options.force)?;
        apply::check_name(call, Some(old), &new)?;
        // A Scale has a number; left to the object's own default it would be another.
        if asked(&call.resource, &new).is_none() {
            set_replicas(&call.resource, &mut new, 0.into());
        }
        Ok(new)
    };
    change(call, "PatchOptions", make).await
}

/// An object with what its Scale says; an old revision or another uid is found out later.
fn with_scale(resource: &Resource, old: &Value, scale: &Value) -> Result<Value, Status> {
    let mut new = old.clone();
    let replicas = scale.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into());
    set_replicas(resource, &mut new, replicas);
    for field in ["resourceVersion", "uid"] {
        let given = scale.text(&["metadata", field]);
        if !given.is_empty() {
            new.meta_mut().insert(field.to_owned(), given.into());
        }
    }
    Ok(new)
}

async fn change(
    call: &Call,
    options: &str,
    make: impl Fn(&Value, &WriteOptions) -> Result<Value, Status>,
) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, options)?;
    let change = |old: &Value| -> Result<(Value, Warnings), Status> {
        let mut new = make(old, &options)?;
        let replicas = asked(&call.resource, &new).cloned().unwrap_or_else(|| 0.into());
        if replicas.as_i64().is_none_or(|n| n < 0) {
            let path = FieldPath::new("spec").child("replicas");
            let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", old.name(), &[error]));
        }
        let warnings = decode::settle(&call.resource, &mut new, |unknown| unknown, options.fields)?;
        Ok((new, warnings))
    };
    let owners = if apply::asked(call) { Owners::Given } else { Owners::Update("scale") };
    let changed = change_object(call, Write { owners, ..Write::new("", options.dry_run) }, change).await?;
    let object: Value = serde_json::from_slice(&changed.bytes).map_err(Status::internal)?;
    answer(output, &scale_of(&call.resource, &object))
}

/// The Scale of a scalable object.
fn scale_of(resource: &Resource, object: &Value) -> Value {
    let meta = |name: &str| object.get("metadata").and_then(|m| m.get(name)).cloned();
    let mut metadata = json!({});
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta(name) {
            metadata[name] = value;
        }
    }
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let (desired, observed, selector) = match custom_paths(resource) {
        Some(paths) => (paths.desired(object).unwrap_or(0), paths.observed(object), paths.selector(object).to_owned()),
        None => {
            let selector = object.pointer("/spec/selector").map(selector_text).unwrap_or_default();
            (number("/spec/replicas"), number("/status/replicas"), selector)
        }
    };
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": desired},
        "status": {"replicas": observed},
    });
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

fn set_replicas(resource: &Resource, object: &mut Value, replicas: Value) {
    match custom_paths(resource) {
        Some(paths) => paths.set_desired(object, replicas),
        None => object["spec"]["replicas"] = replicas,
    }
}

fn asked<'a>(resource: &Resource, object: &'a Value) -> Option<&'a Value> {
    let replicas = match custom_paths(resource) {
        Some(paths) => paths.asked(object),
        None => object.pointer("/spec/replicas"),
    };
    replicas.filter(|replicas| !replicas.is_null())
}

/// Where the numbers of a custom kind are.
fn custom_paths(resource: &Resource) -> Option<&Scale> {
    resource.custom.as_ref()?.scale.as_ref()
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
