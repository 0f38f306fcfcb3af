//! `pods/binding`, and the old `bindings`: puts a pod on a node.

use super::update::{Write, change_object};
use crate::Call;
use crate::body::Body;
use crate::call::{Notices, Query};
use crate::decode::Warnings;
use crate::managed_fields::Owners;
use crate::negotiate::{self, Output};
use crate::options::WriteOptions;
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{FieldError, FieldPath, Meta, Status, Value, meta::child_mut, meta::object_mut};
use serde_json::json;

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::without_tables(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let binding = negotiate::parse(negotiate::media(&call.headers)?, &body)?;
    check_type(&binding, "v1", "Binding")?;
    let name = if call.info.name.is_empty() { binding.name() } else { &call.info.name }.to_owned();
    if !binding.name().is_empty() && binding.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let node = binding.text(&["target", "name"]);
    let mut errors = Vec::new();
    let target = FieldPath::new("target");
    if !matches!(binding.text(&["target", "kind"]), "" | "Node") {
        let kind = binding.text(&["target", "kind"]);
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", &name, &errors));
    }
    let pods = call.server.registry.get("", "v1", "pods").ok_or_else(crate::handler::no_such_path)?;
    let mut info = call.info.clone();
    (info.resource, info.name, info.subresource) = ("pods".to_owned(), name, "binding".to_owned());
    let inner = Call {
        server: call.server.clone(),
        user: call.user.clone(),
        info,
        resource: pods,
        query: Query::default(),
        headers: call.headers.clone(),
        inside: call.inside,
        notices: Notices::default(),
    };
    let change = |old: &Value| Ok((bound(old, &binding, node)?, Warnings::new()));
    let write = Write { owners: Owners::Given, ..Write::new("binding", options.dry_run) };
    change_object(&inner, write, change).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    output.respond(StatusCode::CREATED, Bytes::from(answer.to_string()))
}

/// 400 if the body says that it is something else; what says nothing is taken for what is wanted.
pub(super) fn check_type(body: &Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let (given_version, given_kind) = (body.text(&["apiVersion"]), body.text(&["kind"]));
    if !body.is_object() {
        return Err(Status::bad_request(format!("the object provided is unrecognized (must be of type {kind})")));
    }
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(Status::bad_request(format!(
            "{given_kind} in version {api_version:?} cannot be handled as a {kind}"
        )));
    }
    Ok(())
}

fn bound(old: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let conflict = |why: &str| Err(Status::conflict("", "pods/binding", old.name(), why));
    if !binding.uid().is_empty() && binding.uid() != old.uid() {
        let why =
            format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", binding.uid(), old.uid());
        return conflict(&why);
    }
    let (asked, is) = (binding.resource_version(), old.resource_version());
    if !asked.is_empty() && asked != is {
        return conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {is}"
        ));
    }
    if old.is_deleting() {
        return conflict(&format!("pod {} is being deleted, cannot be assigned to a host", old.name()));
    }
    match old.text(&["spec", "nodeName"]) {
        "" => {}
        other => return conflict(&format!("pod {} is already assigned to node \"{other}\"", old.name())),
    }
    let gated = old.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty());
    if gated {
        return conflict(&format!("pod {} has non-empty .spec.schedulingGates", old.name()));
    }
    let mut new = old.clone();
    child_mut(object_mut(&mut new), "spec").insert("nodeName".to_owned(), node.into());
    for map in ["annotations", "labels"] {
        if let Some(extra) = binding.get("metadata").and_then(|m| m.get(map)).and_then(Value::as_object) {
            child_mut(new.meta_mut(), map).extend(extra.clone());
        }
    }
    let status = child_mut(object_mut(&mut new), "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|c| c.text(&["type"]) != "PodScheduled");
        let now = mini_api::time::now();
        conditions
            .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    }
    Ok(new)
}
