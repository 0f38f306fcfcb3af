//! `NamespaceLifecycle`: nothing is made in a namespace that is absent or going, and the system's own stay.

use super::{Operation, Request};
use mini_api::{Meta, Reason, Status, StatusCause, Value};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn admit(request: &mut Request<'_>) -> Result<(), Status> {
    let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
    if request.operation == Operation::Delete && is_namespace && IMMORTAL.contains(&request.name) {
        return Err(Status::forbidden("", "namespaces", request.name, "this namespace may not be deleted"));
    }
    if !request.resource.namespaced || request.operation != Operation::Create || request.namespace.is_empty() {
        return Ok(());
    }
    // A review of access is about a namespace that need not be there.
    if request.resource.group == "authorization.k8s.io" {
        return Ok(());
    }
    let key = format!("/registry/namespaces/{}", request.namespace);
    let Some(entry) = request.server.store.snapshot().get(&key) else {
        return Err(Status::not_found("", "namespaces", request.namespace));
    };
    // The word is searched first: parsing the object costs more than the rest of this function.
    if !contains(&entry.bytes, b"Terminating") {
        return Ok(());
    }
    let namespace: Value = serde_json::from_slice(&entry.bytes).map_err(Status::internal)?;
    if namespace.text(&["status", "phase"]) != "Terminating" {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {} because it is being terminated", request.namespace);
    let mut status = Status::forbidden(&request.resource.group, &request.resource.plural, request.name, &why);
    debug_assert_eq!(status.reason, Reason::Forbidden);
    status.causes.push(StatusCause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {} is being terminated", request.namespace),
        field: "metadata.namespace".to_owned(),
    });
    Err(status)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
