//! Ingress and IngressClass.

use super::service::{load_balancer, rules};
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, list, text_or};
use crate::defaults::{self, Default};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::net::IpAddr;

const HOSTS_SHOWN: usize = 3;
const CONTROLLER_MAX: usize = 250;
/// The older way to name a class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const NO_IP: &str = "must be a DNS name, not an IP address";

pub(crate) const INGRESS: Hooks = Hooks {
    status: &[("status", Default::Map), ("status.loadBalancer", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| validate_ingress(&At::root(v).get("spec"), errors),
    validate_create: |v, errors| {
        let class = At::root(v).get("spec").get("ingressClassName");
        let annotation = v.get("metadata").and_then(|m| m.get("annotations")).and_then(|a| a.get(CLASS_ANNOTATION));
        if let Some(annotation) = annotation
            && class.is_set()
            && annotation != class.value
        {
            let path = mini_api::FieldPath::new("annotations").child(CLASS_ANNOTATION);
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(&path, annotation.clone(), detail));
        }
    },
    validate_update: |new, _, subresource, errors| {
        if subresource == Some("status") {
            validate_status(&At::root(new).get("status").get("loadBalancer"), errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Class", "Class of the ingress."),
        Column::text("Hosts", "Hosts it serves."),
        Column::text("Address", "Where it is reached."),
        Column::text("Ports", "Ports it is reached at."),
        AGE,
    ],
    cells: |v, now| {
        vec![
            columns::name(v),
            text_or(v, &["spec", "ingressClassName"], NONE),
            hosts(list(v, &["spec", "rules"])).into(),
            load_balancer(v).join(",").into(),
            if list(v, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" }.into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const CLASS: Hooks = Hooks {
    default: |v| defaults::apply(&[("spec.parameters.scope", Default::Str("Cluster"))], v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        controller(&spec.get("controller"), errors);
        parameters(&spec.get("parameters"), errors);
    },
    validate_update: |new, old, _, errors| {
        let of = |v| At::root(v).get("spec").get("controller");
        of(new).immutable(&of(old), errors);
    },
    columns: &[
        NAME,
        Column::text("Controller", "Who serves ingresses of this class."),
        Column::text("Parameters", "Where its parameters are."),
        AGE,
    ],
    cells: |v, now| {
        let parameters = v.get("spec").and_then(|s| s.get("parameters")).filter(|p| p.is_object());
        let parameters = parameters.map_or_else(
            || NONE.to_owned(),
            |p| match p.text(&["apiGroup"]) {
                "" => format!("{}/{}", p.text(&["kind"]), p.text(&["name"])),
                group => format!("{}.{group}/{}", p.text(&["kind"]), p.text(&["name"])),
            },
        );
        vec![columns::name(v), v.text(&["spec", "controller"]).into(), parameters.into(), columns::age(v, now)]
    },
    generation: true,
    ..Hooks::NONE
};

/// The first few hosts, and how many rules there are beyond.
fn hosts(rules: &[Value]) -> String {
    let mut shown = Vec::new();
    let mut more = false;
    for host in rules.iter().map(|rule| rule.text(&["host"])) {
        more |= shown.len() == HOSTS_SHOWN;
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (_, true) => format!("{} + {} more...", shown.join(","), rules.len() - HOSTS_SHOWN),
        _ => shown.join(","),
    }
}

fn validate_ingress(spec: &At<'_>, errors: &mut Errors) {
    let (rules, backend, class) = (spec.get("rules"), spec.get("defaultBackend"), spec.get("ingressClassName"));
    if rules.is_empty() && !backend.is_set() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&spec.path, rules.value.clone(), detail));
    }
    if backend.is_set() {
        validate_backend(&backend, errors);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.is_empty() {
            if host.text().parse::<IpAddr>().is_ok() {
                errors.push(host.invalid(NO_IP));
            }
            validate_host(&host, errors);
        }
        let http = rule.get("http");
        if http.is_set() && http.get("paths").is_empty() {
            errors.push(http.get("paths").required(""));
        }
        http.get("paths").items().iter().for_each(|path| validate_path(path, errors));
    }
    for tls in spec.get("tls").items() {
        tls.get("hosts").items().iter().for_each(|host| validate_host(host, errors));
        let secret = tls.get("secretName");
        if !secret.is_empty() {
            secret.messages(names::is_dns1123_subdomain(secret.text()), errors);
        }
    }
    if class.is_set() {
        class.messages(names::is_dns1123_subdomain(class.text()), errors);
    }
}

fn validate_host(host: &At<'_>, errors: &mut Errors) {
    let wildcard = host.text().contains('*');
    let check = if wildcard { names::is_wildcard_dns1123_subdomain } else { names::is_dns1123_subdomain };
    host.messages(check(host.text()), errors);
}

fn validate_path(at: &At<'_>, errors: &mut Errors) {
    let (kind, path) = (at.get("pathType"), at.get("path"));
    let relative = |errors: &mut Errors| {
        if !path.text().starts_with('/') {
            errors.push(FieldError::invalid(&path.path, path.text(), "must be an absolute path"));
        }
    };
    match kind.text() {
        _ if !kind.is_set() => {
            // Without a type nothing else can be said of the path.
            errors.push(kind.required("pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            relative(errors);
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if path.text().contains(sequence) {
                    errors.push(path.invalid(format!("must not contain '{sequence}'")));
                }
            }
            for end in ["/..", "/."] {
                if path.text().ends_with(end) {
                    errors.push(path.invalid(format!("cannot end with '{end}'")));
                }
            }
        }
        "ImplementationSpecific" if path.is_empty() => {}
        "ImplementationSpecific" => relative(errors),
        _ => errors.push(kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"])),
    }
    validate_backend(&at.get("backend"), errors);
}

fn validate_backend(at: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (at.get("service"), at.get("resource"));
    let invalid = |detail: &str| FieldError::invalid(&at.path, "", detail);
    match (service.is_set(), resource.is_set()) {
        (true, true) => errors.push(invalid("cannot set both resource and service backends")),
        (false, true) => reference(&resource, errors),
        (false, false) => errors.push(invalid("resource or service backend is required")),
        (true, false) => {
            let (name, port) = (service.get("name"), service.get("port"));
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                name.messages(names::is_dns1035_label(name.text()), errors);
            }
            match (port.get("name").text(), port.get("number").int().unwrap_or(0)) {
                ("", 0) => errors.push(at.required("port name or number is required")),
                ("", _) => port.get("number").port(errors),
                (name, 0) => port.get("name").messages(names::is_port_name(name), errors),
                _ => errors.push(invalid("cannot set both port name & port number")),
            }
        }
    }
}

/// A `TypedLocalObjectReference`.
fn reference(at: &At<'_>, errors: &mut Errors) {
    let group = at.get("apiGroup");
    if group.is_set() {
        group.messages(names::is_dns1123_subdomain(group.text()), errors);
    }
    for field in ["kind", "name"] {
        let field = at.get(field);
        field.must_be_set(errors);
        field.messages(names::is_path_segment(field.text()), errors);
    }
}

fn controller(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if at.text().len() > CONTROLLER_MAX {
        errors.push(FieldError::too_long(&at.path, CONTROLLER_MAX));
    }
    let Some((domain, path)) =
        at.text().split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        errors.push(at.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    let messages = names::is_dns1123_subdomain(domain);
    errors.extend(messages.into_iter().map(|message| FieldError::invalid(&at.path, domain, message)));
    let good = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
    if !path.bytes().all(good) {
        let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(&at.path, path, detail));
    }
}

fn parameters(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    reference(at, errors);
    let (scope, namespace) = (at.get("scope"), at.get("namespace"));
    match scope.text() {
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Namespace" if !namespace.is_set() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => namespace.messages(names::is_dns1123_label(namespace.text()), errors),
        "Cluster" => {}
        _ => errors.push(scope.not_supported(&["Cluster", "Namespace"])),
    }
}

fn validate_status(balancer: &At<'_>, errors: &mut Errors) {
    for entry in balancer.get("ingress").items() {
        let (ip, host) = (entry.get("ip"), entry.get("hostname"));
        if !ip.is_empty() && ip.text().parse::<IpAddr>().is_err() {
            errors.push(ip.invalid(rules::BAD_IP));
        }
        if !host.is_empty() {
            host.messages(names::is_dns1123_subdomain(host.text()), errors);
            if host.text().parse::<IpAddr>().is_ok() {
                errors.push(host.invalid(NO_IP));
            }
        }
    }
}

#[cfg(test)]
mod tests;
