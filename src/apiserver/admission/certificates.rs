//! Who asks for a certificate is what the server knows, not what the request says; and `CertificateApproval`,
//! `CertificateSigning` and `CertificateSubjectRestriction`: who may approve and sign for which signer.

use super::{Operation, Request};
use crate::authz::{Attributes, Decision, MASTERS};
use base64::Engine;
use mini_api::{FieldError, FieldPath, Meta, Status, Value, meta};
use serde_json::{Map, json};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn concerns(request: &Request<'_>, subresource: &str) -> bool {
    request.resource.group == "certificates.k8s.io"
        && request.resource.plural == "certificatesigningrequests"
        && request.subresource == subresource
}

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    if request.operation != Operation::Create || !concerns(request, "") {
        return Ok(());
    }
    let user = request.user;
    let spec = meta::child_mut(meta::object_mut(request.object), "spec");
    let extra: Map<String, Value> = user.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
    for (field, value, nothing) in [
        ("username", json!(user.name), user.name.is_empty()),
        ("uid", json!(user.uid), user.uid.is_empty()),
        ("groups", json!(user.groups), user.groups.is_empty()),
        ("extra", Value::Object(extra), user.extra.is_empty()),
    ] {
        if nothing {
            spec.remove(field);
        } else {
            spec.insert(field.to_owned(), value);
        }
    }
    Ok(())
}

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    let signer = request.object.text(&["spec", "signerName"]).to_owned();
    match request.operation {
        Operation::Create if concerns(request, "") => requested(request, &signer),
        Operation::Update if concerns(request, "approval") => may(request, "approve", &signer),
        Operation::Update if concerns(request, "status") => {
            let certificate = |v: &Value| v.text(&["status", "certificate"]).to_owned();
            let failed = |v: &Value| {
                let conditions = v.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
                conditions.filter(|c| c.text(&["type"]) == "Failed").cloned().collect::<Vec<_>>()
            };
            let same =
                |old: &Value| certificate(old) == certificate(request.object) && failed(old) == failed(request.object);
            if request.old.is_some_and(same) { Ok(()) } else { may(request, "sign", &signer) }
        }
        _ => Ok(()),
    }
}

/// The signature of a new request, and the group that no certificate may give.
fn requested(request: &Request<'_>, signer: &str) -> Result<(), Status> {
    let text = request.object.text(&["spec", "request"]);
    let pem = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let read = match mini_pki::Request::read(&pem) {
        Ok(read) => read,
        Err(why) => {
            let error = FieldError::invalid(&FieldPath::new("spec").child("request"), text, why);
            let (group, kind) = (&request.resource.group, &request.resource.kind);
            return Err(Status::invalid(group, kind, request.object.name(), &[error]));
        }
    };
    if signer == CLIENT && read.organizations.iter().any(|group| group == MASTERS) {
        return Err(refused(request, &format!("use of {CLIENT} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}

/// Whether the user has the verb on the signer, or on all of its domain.
fn may(request: &Request<'_>, verb: &str, signer: &str) -> Result<(), Status> {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let allowed = [signer, &domain].iter().any(|name| {
        let attributes = Attributes {
            version: "*",
            name,
            ..Attributes::resource(request.user, verb, "certificates.k8s.io", "signers")
        };
        request.server.authz.authorize(&attributes) == Decision::Allow
    });
    if allowed {
        return Ok(());
    }
    Err(refused(request, &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn refused(request: &Request<'_>, why: &str) -> Status {
    Status::forbidden(&request.resource.group, &request.resource.plural, request.object.name(), why)
}
