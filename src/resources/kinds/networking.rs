//! Ingress, IngressClass and NetworkPolicy.

use super::service::load_balancer;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, list, text_or};
use crate::defaults::{self, Default};
use crate::kinds::pod::spec::label_selector;
use crate::resource::Hooks;
use mini_api::{Meta, names};
use serde_json::{Value, json};

const HOSTS_SHOWN: usize = 3;

pub(crate) const INGRESS: Hooks = Hooks {
    status: &[("status", Default::Map), ("status.loadBalancer", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: validate_ingress,
    columns: &[
        NAME,
        Column::text("Class", "Class of the ingress."),
        Column::text("Hosts", "Hosts it serves."),
        Column::text("Address", "Where it is reached."),
        Column::text("Ports", "Ports it is reached at."),
        AGE,
    ],
    cells: |v, now| {
        let rules = list(v, &["spec", "rules"]);
        let hosts: Vec<&str> =
            rules.iter().map(|r| r.text(&["host"])).filter(|h| !h.is_empty()).take(HOSTS_SHOWN).collect();
        let hosts = match (hosts.is_empty(), rules.len()) {
            (true, _) => "*".to_owned(),
            (false, n) if n > HOSTS_SHOWN && hosts.len() == HOSTS_SHOWN => {
                format!("{} + {} more...", hosts.join(","), n - HOSTS_SHOWN)
            }
            _ => hosts.join(","),
        };
        vec![
            columns::name(v),
            text_or(v, &["spec", "ingressClassName"], NONE),
            hosts.into(),
            load_balancer(v).join(",").into(),
            if list(v, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" }.into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const CLASS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let controller = At::root(v).get("spec").get("controller");
        if controller.is_empty() {
            errors.push(controller.required(""));
        } else if !controller.text().contains('/') {
            errors.push(controller.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        }
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

pub(crate) const POLICY: Hooks = Hooks {
    default: |v| {
        defaults::apply(&[("spec.ingress|egress[].ports[].protocol", Default::Str("TCP"))], v);
        defaults::apply(&[("spec.podSelector", Default::Map)], v);
        if list(v, &["spec", "policyTypes"]).is_empty() && v.get("spec").is_some_and(Value::is_object) {
            let egress = !list(v, &["spec", "egress"]).is_empty();
            v["spec"]["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    },
    name: names::is_dns1123_subdomain,
    validate: validate_policy,
    columns: &[NAME, Column::text("Pod-Selector", "Pods the policy is for."), AGE],
    cells: |v, now| {
        let selector = columns::selector(v.get("spec").and_then(|s| s.get("podSelector")));
        vec![columns::name(v), selector.into(), columns::age(v, now)]
    },
    generation: true,
    ..Hooks::NONE
};

fn validate_ingress(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !backend.is_set() {
        errors.push(spec.invalid("either `defaultBackend` or `rules` must be specified"));
    }
    if backend.is_set() {
        validate_backend(&backend, errors);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.is_empty() {
            let messages = if host.text().starts_with('*') {
                names::is_wildcard_dns1123_subdomain(host.text())
            } else {
                names::is_dns1123_subdomain(host.text())
            };
            host.messages(messages, errors);
        }
        let http = rule.get("http");
        if http.is_set() && http.get("paths").is_empty() {
            errors.push(http.get("paths").required(""));
        }
        for path in http.get("paths").items() {
            let (kind, at) = (path.get("pathType"), path.get("path"));
            if kind.is_empty() {
                errors.push(kind.required("pathType must be specified"));
            } else {
                kind.one_of(&["Exact", "ImplementationSpecific", "Prefix"], errors);
            }
            if matches!(kind.text(), "Exact" | "Prefix") && !at.text().starts_with('/') {
                errors.push(mini_api::FieldError::invalid(&at.path, at.text(), "must be an absolute path"));
            }
            validate_backend(&path.get("backend"), errors);
        }
    }
}

fn validate_backend(at: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (at.get("service"), at.get("resource"));
    if service.is_set() && resource.is_set() {
        errors.push(at.invalid("cannot set both resource and service backends"));
    } else if service.is_set() {
        let (name, port) = (service.get("name"), service.get("port"));
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            name.messages(names::is_dns1035_label(name.text()), errors);
        }
        match (port.get("name").is_empty(), port.get("number").int().unwrap_or(0)) {
            (false, 0) => port.get("name").messages(names::is_port_name(port.get("name").text()), errors),
            (true, 0) => errors.push(port.required("port name or number is required")),
            (false, _) => errors.push(port.invalid("cannot set both port name & port number")),
            (true, _) => port.get("number").port(errors),
        }
    } else if !resource.is_set() {
        errors.push(at.required("resource or service backend is required"));
    }
}

fn validate_policy(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    label_selector(&spec.get("podSelector"), errors);
    for kind in spec.get("policyTypes").items() {
        kind.one_of(&["Egress", "Ingress"], errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            for port in rule.get("ports").items() {
                port.get("protocol").one_of(&["SCTP", "TCP", "UDP"], errors);
                if port.get("port").is_set() {
                    port.get("port").port_or_name(errors);
                }
            }
            for peer in rule.get(peers).items() {
                let block = peer.get("ipBlock");
                for selector in ["podSelector", "namespaceSelector"] {
                    label_selector(&peer.get(selector), errors);
                }
                let selects = peer.get("podSelector").is_set() || peer.get("namespaceSelector").is_set();
                match (selects, block.is_set()) {
                    (false, false) => errors.push(peer.required("must specify a peer")),
                    (true, true) => {
                        errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
                    }
                    (false, true) => {
                        let range = block.get("cidr");
                        if range.text().parse::<ipnet::IpNet>().is_err() {
                            errors
                                .push(range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
                        }
                    }
                    (true, false) => {}
                }
            }
        }
    }
}
