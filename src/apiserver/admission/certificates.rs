//! Who asks for a certificate is what the server knows, not what the request says; and `CertificateApproval`,
//! `CertificateSigning`, `CertificateSubjectRestriction` and `ClusterTrustBundleAttest`: who may approve, sign and attest
//! for which signer. So may who signs for a pod, which upstream asks where it validates the status.

use super::{Operation, Request};
use crate::authz::{Attributes, Decision, MASTERS, escalation};
use crate::verbs::invalid;
use base64::Engine;
use mini_api::{FieldError, FieldPath, Meta, Status, Value, meta};
use serde_json::{Map, json};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

const REQUESTS: &str = "certificatesigningrequests";

fn concerns(request: &Request<'_>, plural: &str, subresource: &str) -> bool {
    request.resource.group == "certificates.k8s.io"
        && request.resource.plural == plural
        && request.subresource == subresource
}

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    if request.operation != Operation::Create || !concerns(request, REQUESTS, "") {
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
        Operation::Create if concerns(request, REQUESTS, "") => requested(request, &signer),
        Operation::Update if concerns(request, REQUESTS, "approval") => must(request, "approve", &signer),
        Operation::Create | Operation::Update if concerns(request, "clustertrustbundles", "") => {
            attested(request, &signer)
        }
        Operation::Update if concerns(request, "podcertificaterequests", "status") => signed_for_pod(request, &signer),
        Operation::Update if concerns(request, REQUESTS, "status") => {
            let certificate = |v: &Value| v.text(&["status", "certificate"]).to_owned();
            let failed = |v: &Value| {
                let conditions = v.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
                conditions.filter(|c| c.text(&["type"]) == "Failed").cloned().collect::<Vec<_>>()
            };
            let same =
                |old: &Value| certificate(old) == certificate(request.object) && failed(old) == failed(request.object);
            if request.old.is_some_and(same) { Ok(()) } else { must(request, "sign", &signer) }
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
            return Err(invalid(request.resource, request.object.name(), &[error]));
        }
    };
    if signer == CLIENT && read.organizations.iter().any(|group| group == MASTERS) {
        return Err(refused(request, &format!("use of {CLIENT} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}

/// What a bundle says of a signer's roots is for those to say who may attest for the signer.
fn attested(request: &Request<'_>, signer: &str) -> Result<(), Status> {
    if signer.is_empty() || escalation::only_collected(request) || may(request, "attest", signer) {
        return Ok(());
    }
    Err(refused(request, &format!("user not permitted to attest for signerName {signer:?}")))
}

fn signed_for_pod(request: &Request<'_>, signer: &str) -> Result<(), Status> {
    let status = |v: &Value| v.get("status").cloned().unwrap_or_default();
    if request.old.is_some_and(|old| status(old) == status(request.object)) || may(request, "sign", signer) {
        return Ok(());
    }
    let why = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", request.user.name);
    let error = FieldError::forbidden(&FieldPath::new("spec").child("signerName"), why);
    Err(invalid(request.resource, request.object.name(), &[error]))
}

/// Whether the user has the verb on the signer, or on all of its domain.
fn may(request: &Request<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].iter().any(|name| {
        let attributes = Attributes {
            version: "*",
            name,
            ..Attributes::resource(request.user, verb, "certificates.k8s.io", "signers")
        };
        request.server.authz.authorize(&attributes) == Decision::Allow
    })
}

fn must(request: &Request<'_>, verb: &str, signer: &str) -> Result<(), Status> {
    if may(request, verb, signer) {
        return Ok(());
    }
    Err(refused(request, &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn refused(request: &Request<'_>, why: &str) -> Status {
    Status::forbidden(&request.resource.group, &request.resource.plural, request.object.name(), why)
}
