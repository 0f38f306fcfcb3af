//! NetworkPolicy.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, list};
use crate::defaults::{self, Default};
use crate::kinds::pod::spec::label_selector;
use crate::resource::Hooks;
use mini_api::names;
use serde_json::{Value, json};

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

fn validate_policy(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    label_selector(&spec.get("podSelector"), errors);
    for kind in spec.get("policyTypes").items() {
        kind.one_of(&["Ingress", "Egress"], errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            for port in rule.get("ports").items() {
                port.get("protocol").one_of(&["TCP", "UDP", "SCTP"], errors);
                if port.get("port").is_set() {
                    port.get("port").port_or_name(errors);
                }
                end_port(&port, errors);
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
                    (false, true) => ip_block(&block, errors),
                    (true, false) => {}
                }
            }
        }
    }
}

fn ip_block(block: &At<'_>, errors: &mut Errors) {
    const VALID: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let cidr = block.get("cidr");
    if cidr.is_empty() {
        errors.push(cidr.required(""));
        return;
    }
    let Ok(range) = cidr.text().parse::<ipnet::IpNet>() else {
        errors.push(cidr.invalid(VALID));
        return;
    };
    for except in block.get("except").items() {
        match except.text().parse::<ipnet::IpNet>() {
            Err(_) => errors.push(except.invalid(VALID)),
            Ok(inner) if !range.contains(&inner.addr()) || range.prefix_len() >= inner.prefix_len() => {
                errors.push(except.invalid("must be a strict subset of `cidr`"));
            }
            Ok(_) => {}
        }
    }
}

fn end_port(port: &At<'_>, errors: &mut Errors) {
    let (first, last) = (port.get("port"), port.get("endPort"));
    if !last.is_set() {
        return;
    }
    match first.int() {
        None if first.is_set() => errors.push(last.invalid("may not be specified when `port` is non-numeric")),
        None => errors.push(last.invalid("may not be specified when `port` is not specified")),
        Some(number) if last.int().is_some_and(|end| end < number) => {
            errors.push(last.invalid("must be greater than or equal to `port`"));
        }
        Some(_) => last.port(errors),
    }
}
