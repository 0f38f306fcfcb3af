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
