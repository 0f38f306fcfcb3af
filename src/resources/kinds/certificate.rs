//! CertificateSigningRequest, ClusterTrustBundle and PodCertificateRequest.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, int, list, text_or};
use crate::defaults::{self, Default};
use crate::resource::{Hooks, set_or_remove};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mini_api::meta::object_mut;
use mini_api::{FieldError, Meta, names, time};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use x509_parser::prelude::{FromDer, Pem, X509Certificate, X509CertificationRequest};

/// Domain, slash, namespace, dot and name.
const SIGNER_MAX: usize = 253 + 1 + 253 + 63 + 1;
const BUNDLE_MAX: usize = 1 << 20;
const SHORTEST: i64 = 3600;
const LONGEST: i64 = 91 * 86_400;
const LONGEST_OWN: i64 = 86_400;
/// Stands for what is too long to be shown.
const OMITTED: &str = "<value omitted>";

/// Upstream's order: sorted.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(crate) const SIGNING_REQUEST: Hooks = Hooks {
    status: &[("status", Default::Map)],
    validate: |v, errors| {
        validate_request(&At::root(v).get("spec"), errors);
        validate_status(v, errors);
    },
    prepare_update: prepare_request,
    validate_update: |new, old, subresource, errors| {
        if subresource == Some("status") {
            validate_status(new, errors);
        }
        validate_change(new, old, subresource, errors);
    },
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who signs."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "How long the certificate shall hold."),
        Column::text("Condition", "How the request stands."),
    ],
    cells: |v, now| {
        let has = |name: &str| list(v, &["status", "conditions"]).iter().any(|c| c.text(&["type"]) == name);
        let mut condition = match (has("Denied"), has("Approved")) {
            (true, _) => "Denied",
            (_, true) => "Approved",
            _ => "Pending",
        }
        .to_owned();
        if has("Failed") {
            condition.push_str(",Failed");
        }
        if !v.text(&["status", "certificate"]).is_empty() {
            condition.push_str(",Issued");
        }
        let duration = match int(v, &["spec", "expirationSeconds"]) {
            0 => NONE.to_owned(),
            seconds => columns::human_duration(seconds),
        };
        vec![
            columns::name(v),
            columns::age(v, now),
            text_or(v, &["spec", "signerName"], NONE),
            v.text(&["spec", "username"]).into(),
            duration.into(),
            condition.into(),
        ]
    },
    ..Hooks::NONE
};

fn conditions<'a>(v: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(v, &["status", "conditions"]).iter().filter(|c| c.text(&["type"]) == kind).collect()
}

fn prepare_request(new: &mut Value, old: &Value, subresource: Option<&str>) {
    set_or_remove(object_mut(new), "spec", old.get("spec").cloned());
    match subresource {
        // An approver decides and issues nothing.
        Some("approval") => {
            let decided = new.get("status").and_then(|s| s.get("conditions")).cloned();
            new["status"] = old.get("status").filter(|s| s.is_object()).cloned().unwrap_or_else(|| json!({}));
            set_or_remove(object_mut(&mut new["status"]), "conditions", decided);
        }
        // A signer issues and decides nothing.
        Some("status") => {
            for kind in ["Approved", "Denied"] {
                let kept: Vec<Value> = conditions(old, kind).into_iter().cloned().collect();
                if kept.len() != conditions(new, kind).len() {
                    continue;
                }
                let given = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
                let same = given.into_iter().flatten().filter(|c| c.text(&["type"]) == kind);
                same.zip(kept).for_each(|(given, kept)| *given = kept);
            }
        }
        _ => return,
    }
    let now = time::now();
    let Some(given) = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    for condition in given {
        let before = conditions(old, condition.text(&["type"]));
        let before = before.into_iter().find(|c| c.text(&["status"]) == condition.text(&["status"]));
        let since = before.map(|c| c.text(&["lastTransitionTime"])).filter(|t| !t.is_empty());
        let since = since.unwrap_or(&now).to_owned();
        let condition = object_mut(condition);
        condition.entry("lastUpdateTime").or_insert_with(|| now.clone().into());
        condition.entry("lastTransitionTime").or_insert_with(|| since.into());
    }
}

fn decoded(at: &At<'_>) -> Vec<u8> {
    STANDARD.decode(at.text()).unwrap_or_default()
}

fn validate_request(spec: &At<'_>, errors: &mut Errors) {
    let request = spec.get("request");
    match x509_parser::pem::parse_x509_pem(&decoded(&request)) {
        Ok((_, pem)) if pem.label == "CERTIFICATE REQUEST" => {
            if let Err(error) = X509CertificationRequest::from_der(&pem.contents) {
                errors.push(request.invalid(format!("asn1: structure error: {error}")));
            }
        }
        _ => errors.push(FieldError::invalid(
            &request.path,
            request.text(),
            "PEM block type must be CERTIFICATE REQUEST",
        )),
    }
    let usages = spec.get("usages");
    if usages.is_empty() {
        errors.push(usages.required("usages must be provided"));
    }
    usages.items().iter().for_each(|usage| usage.one_of(&USAGES, errors));
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !seen.insert(usage.text()) {
            errors.push(usage.duplicate());
        }
    }
    let signer = spec.get("signerName");
    if signer.text() == "kubernetes.io/legacy-unknown" {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|n| n < 600) {
        errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
}

/// `example.com/name`.
pub(crate) fn signer_name(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required("signerName must be provided"));
        return;
    }
    let Some((domain, path)) = at.text().split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(at.invalid(detail));
        return;
    };
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.push(FieldError::too_long(&at.path, names::SUBDOMAIN_MAX));
    }
    let labels = |part: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors| {
        let bad = part.split('.').map(|label| (label, check(label))).find(|(_, messages)| !messages.is_empty());
        for (label, message) in bad.iter().flat_map(|(label, messages)| messages.iter().map(move |m| (label, m))) {
            errors.push(FieldError::invalid(&at.path, part, format!("validating label {label:?}: {message}")));
        }
    };
    labels(domain, names::is_dns1123_label, errors);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(&at.path, domain, detail));
    }
    labels(path, names::is_dns1123_subdomain, errors);
    if at.text().len() > SIGNER_MAX {
        errors.push(FieldError::too_long(&at.path, SIGNER_MAX));
    }
}

fn validate_status(v: &Value, errors: &mut Errors) {
    let status = At::root(v).get("status");
    let (mut seen, mut decided) = (BTreeSet::new(), None);
    for condition in status.get("conditions").items() {
        let (kind, state) = (condition.get("type"), condition.get("status"));
        kind.must_be_set(errors);
        let only_true = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        let known = if only_true { &["True"][..] } else { &["False", "True", "Unknown"] };
        state.required_one_of(known, errors);
        if matches!(kind.text(), "Approved" | "Denied") {
            if decided.is_some_and(|other| other != kind.text()) {
                errors.push(kind.invalid("Approved and Denied conditions are mutually exclusive"));
            }
            decided = Some(kind.text());
        }
        if !seen.insert(kind.text()) {
            errors.push(kind.duplicate());
        }
    }
    let certificate = status.get("certificate");
    if let Some(why) = bad_certificate(&decoded(&certificate)) {
        errors.push(FieldError::invalid(&certificate.path, "<certificate data>", why));
    }
}

fn bad_certificate(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let mut blocks = 0;
    for pem in Pem::iter_from_buffer(bytes).filter_map(Result::ok) {
        blocks += 1;
        if pem.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", pem.label));
        }
        if let Err(error) = X509Certificate::from_der(&pem.contents) {
            return Some(format!("x509: malformed certificate: {error}"));
        }
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn validate_change(new: &Value, old: &Value, subresource: Option<&str>, errors: &mut Errors) {
    let status = At::root(new).get("status");
    let at = status.get("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions(new, kind).len() < conditions(old, kind).len() {
            errors.push(at.forbidden(&format!("updates may not remove a condition of type {kind:?}")));
        }
    }
    if subresource != Some("approval") {
        for kind in ["Approved", "Denied"] {
            let (now, before) = (conditions(new, kind), conditions(old, kind));
            if now.len() > before.len() {
                errors.push(at.forbidden(&format!("updates may not add a condition of type {kind:?}")));
            } else if now.len() == before.len() && now != before {
                errors.push(at.forbidden(&format!("updates may not modify a condition of type {kind:?}")));
            }
        }
    }
    let (certificate, before) = (status.get("certificate"), At::root(old).get("status").get("certificate"));
    if certificate.text() != before.text() {
        if subresource != Some("status") {
            errors.push(certificate.forbidden("updates may not set certificate content"));
        } else if !before.is_empty() {
            errors.push(certificate.forbidden("updates may not modify existing certificate content"));
        }
    }
}

pub(crate) const TRUST_BUNDLE: Hooks = Hooks {
    validate: |v, errors| {
        let (root, spec) = (At::root(v), At::root(v).get("spec"));
        let (name, signer) = (root.get("metadata").get("name"), spec.get("signerName"));
        if !name.is_empty() {
            name.messages(bundle_name(name.text(), signer.text()), errors);
        }
        if !signer.is_empty() {
            signer_name(&signer, errors);
        }
        trust_bundle(&spec.get("trustBundle"), errors);
    },
    validate_update: |new, old, _, errors| {
        let of = |v| At::root(v).get("spec").get("signerName");
        of(new).immutable(&of(old), errors);
    },
    columns: &[NAME, Column::text("SignerName", "Signer whose anchors these are.")],
    cells: |v, _| vec![columns::name(v), text_or(v, &["spec", "signerName"], NONE)],
    ..Hooks::NONE
};

fn bundle_name(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()];
        }
        return names::is_dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::is_dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

fn trust_bundle(at: &At<'_>, errors: &mut Errors) {
    if at.text().len() > BUNDLE_MAX {
        errors.push(FieldError::too_long(&at.path, BUNDLE_MAX));
        return;
    }
    let mut invalid = |detail: String| errors.push(FieldError::invalid(&at.path, OMITTED, detail));
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut found = false;
    for (i, pem) in Pem::iter_from_buffer(at.text().as_bytes()).filter_map(Result::ok).enumerate() {
        found = true;
        if pem.label != "CERTIFICATE" {
            invalid(format!("entry {i} has bad block type: {}", pem.label));
            continue;
        }
        match X509Certificate::from_der(&pem.contents) {
            Err(_) => {
                invalid(format!("entry {i} does not parse as a certificate"));
                continue;
            }
            Ok((_, certificate)) if !certificate.is_ca() => {
                invalid(format!("entry {i} does not have the CA bit set"));
            }
            Ok(_) => {}
        }
        match seen.iter().position(|other| *other == pem.contents) {
            Some(first) => invalid(format!("duplicate trust anchor (indices {first}, {i})")),
            None => seen.push(pem.contents),
        }
    }
    if !found {
        invalid("at least one trust anchor must be provided".to_owned());
    }
}

pub(crate) const POD_REQUEST: Hooks = Hooks {
    default: |v| defaults::apply(&[("spec.maxExpirationSeconds", Default::Int(86_400))], v),
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        signer_name(&spec.get("signerName"), errors);
        for field in ["podName", "serviceAccountName", "nodeName"] {
            let at = spec.get(field);
            at.messages(names::is_dns1123_subdomain(at.text()), errors);
        }
        for field in ["podUID", "serviceAccountUID", "nodeUID", "stubPKCS10Request"] {
            let at = spec.get(field);
            if at.is_empty() {
                errors.push(at.required("must not be empty"));
            }
        }
        let seconds = spec.get("maxExpirationSeconds");
        let own = spec
            .get("signerName")
            .text()
            .split('/')
            .next()
            .is_some_and(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"));
        let most = if own { LONGEST_OWN } else { LONGEST };
        if !seconds.int().is_some_and(|n| (SHORTEST..=most).contains(&n)) {
            errors.push(seconds.invalid(format!("must be in the range [{SHORTEST}, {most}]")));
        }
    },
    validate_update: |new, old, _, errors| {
        At::root(new).get("spec").immutable(&At::root(old).get("spec"), errors);
    },
    columns: &[
        NAME,
        Column::text("PodName", "Pod that asks."),
        Column::text("ServiceAccountName", "Account of the pod."),
        Column::text("NodeName", "Node of the pod."),
        Column::text("SignerName", "Who signs."),
        Column::text("State", "How the request stands."),
    ],
    cells: |v, _| {
        let is = |name: &str| list(v, &["status", "conditions"]).iter().any(|c| c.text(&["type"]) == name);
        let state = ["Denied", "Failed", "Issued"].into_iter().find(|name| is(name)).unwrap_or("Pending");
        let spec = |field: &str| Value::from(v.text(&["spec", field]));
        vec![
            columns::name(v),
            spec("podName"),
            spec("serviceAccountName"),
            spec("nodeName"),
            spec("signerName"),
            state.into(),
        ]
    },
    ..Hooks::NONE
};

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(name: &str) -> Vec<String> {
        let (value, mut errors) = (json!(name), Errors::new());
        signer_name(&At { value: &value, path: mini_api::FieldPath::new("s") }, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_of_signers() {
        assert!(signer("kubernetes.io/kube-apiserver-client").is_empty());
        assert_eq!(
            signer("a/b/c"),
            [
                "s: Invalid value: \"a/b/c\": must be a fully qualified domain and path of the form 'example.com/signer-name'"
            ]
        );
        assert_eq!(
            signer("x/b"),
            ["s: Invalid value: \"x\": should be a domain with at least two segments separated by dots"]
        );
        assert!(signer("A.b/c")[0].starts_with("s: Invalid value: \"A.b\": validating label \"A\": a lowercase"));
    }

    #[test]
    fn an_approver_and_a_signer_keep_to_their_parts() {
        let old = json!({"spec": {"username": "u"}, "status": {"conditions": [
            {"type": "Approved", "status": "True", "lastTransitionTime": "t", "lastUpdateTime": "t"}]}});
        let mut new = json!({"spec": {"username": "x"}, "status": {"certificate": "QQ==", "conditions": [
            {"type": "Approved", "status": "True", "reason": "forged"}, {"type": "Failed", "status": "True"}]}});
        prepare_request(&mut new, &old, Some("status"));
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(new["status"]["conditions"][0], old["status"]["conditions"][0]);
        assert!(new["status"]["conditions"][1]["lastTransitionTime"].is_string());
        let said = |new: &Value, subresource| {
            let mut errors = Errors::new();
            validate_change(new, &old, subresource, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(said(&new, Some("status")).is_empty());
        assert_eq!(
            said(&json!({"status": {}}), Some("approval")),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        assert_eq!(
            said(&new, Some("approval")),
            ["status.certificate: Forbidden: updates may not set certificate content"]
        );
    }

    #[test]
    fn names_of_bundles() {
        assert!(bundle_name("a", "").is_empty());
        assert!(bundle_name("example.com:s:a", "example.com/s").is_empty());
        assert_eq!(
            bundle_name("a", "example.com/s"),
            ["ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:"]
        );
    }
}
