//! Endpoints and EndpointSlice.

use super::service::rules::reachable_ip;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, UNSET, list};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// So many entries are printed before the rest is only counted.
const SHOWN: usize = 3;
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20000;
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub(crate) const ENDPOINTS: Hooks = Hooks {
    default: |v| defaults::apply(&[("subsets[].ports[].protocol", Default::Str("TCP"))], v),
    name: names::is_dns1123_subdomain,
    validate: validate_endpoints,
    columns: &[NAME, Column::text("Endpoints", "Addresses and ports."), AGE],
    cells: |v, now| {
        let mut all = Vec::new();
        for subset in list(v, &["subsets"]) {
            let ports = list(subset, &["ports"]);
            let addresses = list(subset, &["addresses"]);
            if ports.is_empty() {
                all.extend(addresses.iter().map(|a| a.text(&["ip"]).to_owned()));
            }
            for port in ports {
                let number = columns::int(port, &["port"]);
                all.extend(addresses.iter().map(|a| match a.text(&["ip"]) {
                    v6 if v6.contains(':') => format!("[{v6}]:{number}"),
                    v4 => format!("{v4}:{number}"),
                }));
            }
        }
        let shown = if list(v, &["subsets"]).is_empty() { columns::NONE.to_owned() } else { joined(&all) };
        vec![columns::name(v), shown.into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

const SLICE_DEFAULTS: Table = &[("ports[].name", Default::Str("")), ("ports[].protocol", Default::Str("TCP"))];

pub(crate) const SLICE: Hooks = Hooks {
    default: |v| defaults::apply(SLICE_DEFAULTS, v),
    name: names::is_dns1123_subdomain,
    validate: validate_slice,
    validate_update: |new, old, _, errors| {
        At::root(new).get("addressType").immutable(&At::root(old).get("addressType"), errors);
    },
    columns: &[
        NAME,
        Column::text("AddressType", "Kind of the addresses."),
        Column::text("Ports", "Ports of each endpoint."),
        Column::text("Endpoints", "Addresses of the endpoints."),
        AGE,
    ],
    cells: |v, now| {
        let ports: Vec<String> = list(v, &["ports"])
            .iter()
            .map(|p| match (p.get("port").and_then(Value::as_i64), p.text(&["name"])) {
                (Some(port), _) => port.to_string(),
                (None, "") => "*".to_owned(),
                (None, name) => name.to_owned(),
            })
            .collect();
        let addresses: Vec<String> = list(v, &["endpoints"])
            .iter()
            .flat_map(|e| list(e, &["addresses"]))
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let or_unset = |all: &[String]| if all.is_empty() { UNSET.to_owned() } else { joined(all) };
        vec![
            columns::name(v),
            v.text(&["addressType"]).into(),
            or_unset(&ports).into(),
            or_unset(&addresses).into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

fn joined(all: &[String]) -> String {
    let first = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} + {more} more..."),
    }
}

fn validate_endpoints(v: &Value, errors: &mut Errors) {
    for subset in At::root(v).get("subsets").items() {
        let (ready, waiting) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.is_empty() && waiting.is_empty() {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for address in ready.items().into_iter().chain(waiting.items()) {
            reachable_ip(&address.get("ip"), errors);
            let (host, node) = (address.get("hostname"), address.get("nodeName"));
            if !host.is_empty() {
                host.messages(names::is_dns1123_label(host.text()), errors);
            }
            if node.is_set() {
                node.messages(names::is_dns1123_subdomain(node.text()), errors);
            }
        }
        let ports = subset.get("ports").items();
        for port in &ports {
            let name = port.get("name");
            if !name.is_empty() {
                name.messages(names::is_dns1123_label(name.text()), errors);
            } else if ports.len() > 1 {
                errors.push(name.required(""));
            }
            port.get("port").port(errors);
            port.get("protocol").required_one_of(PROTOCOLS, errors);
        }
    }
}

fn too_many(at: &At<'_>, max: usize, errors: &mut Errors) -> bool {
    let count = at.items().len();
    if count > max {
        let mut error = FieldError::invalid(&at.path, count, format!("must have at most {max} items"));
        error.kind = mini_api::FieldErrorType::TooMany;
        errors.push(error);
    }
    count > max
}

fn validate_slice(v: &Value, errors: &mut Errors) {
    let root = At::root(v);
    let kind = root.get("addressType");
    kind.required_one_of(&["FQDN", "IPv4", "IPv6"], errors);
    let (endpoints, ports) = (root.get("endpoints"), root.get("ports"));
    if !too_many(&endpoints, ENDPOINTS_MAX, errors) {
        endpoints.items().iter().for_each(|e| endpoint(e, kind.text(), errors));
    }
    if too_many(&ports, PORTS_MAX, errors) {
        return;
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let (name, protocol) = (port.get("name"), port.get("protocol"));
        if !name.is_empty() {
            name.messages(names::is_dns1123_label(name.text()), errors);
        }
        if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        protocol.required_one_of(PROTOCOLS, errors);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.messages(names::is_qualified_name(application.text()), errors);
        }
    }
}

fn endpoint(at: &At<'_>, kind: &str, errors: &mut Errors) {
    let addresses = at.get("addresses");
    if addresses.is_empty() {
        errors.push(addresses.required("must contain at least 1 address"));
    }
    too_many(&addresses, ADDRESSES_MAX, errors);
    for address in addresses.items() {
        match (kind, address.text().parse::<IpAddr>()) {
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => reachable_ip(&address, errors),
            ("IPv4" | "IPv6", _) => errors.push(address.invalid(format!("must be an {kind} address"))),
            ("FQDN", _) => address.messages(names::is_dns1123_subdomain(address.text()), errors),
            _ => {}
        }
    }
    let (node, host) = (at.get("nodeName"), at.get("hostname"));
    if node.is_set() {
        node.messages(names::is_dns1123_subdomain(node.text()), errors);
    }
    if host.is_set() {
        host.messages(names::is_dns1123_label(host.text()), errors);
    }
    crate::metadata::labels(&at.get("deprecatedTopology"), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_lists_are_cut() {
        let v = json!({"metadata": {"name": "e"}, "subsets": [{"ports": [{"port": 80}],
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}, {"ip": "10.0.0.4"}, {"ip": "10.0.0.5"}]}]});
        let cells = (ENDPOINTS.cells)(&v, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        assert_eq!((ENDPOINTS.cells)(&json!({}), jiff::Timestamp::UNIX_EPOCH)[1], "<none>");
        let v = json!({"addressType": "IPv4", "ports": [{"name": "", "port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(
            (SLICE.cells)(&v, jiff::Timestamp::UNIX_EPOCH)[1..4],
            [json!("IPv4"), json!("80"), json!("10.0.0.1")]
        );
    }

    #[test]
    fn addresses_must_be_reachable() {
        let mut errors = Vec::new();
        let v = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}, {"addresses": ["::2"]}, {}]});
        validate_slice(&v, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "endpoints[1].addresses[0]: Invalid value: \"::2\": must be an IPv4 address",
                "endpoints[2].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
