//! Rules of a Service.

use super::{cluster_ips, is_headless};
use crate::check::{At, Errors};
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(crate) const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const KUBELET_PORT: i64 = 10250;
const AFFINITY_MAX: i64 = 86400;

pub(super) fn validate(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let ports = spec.get("ports");
    let kind = spec.get("type");
    let headless = is_headless(v);
    if ports.is_empty() && !headless && kind.text() != "ExternalName" {
        errors.push(ports.required(""));
    }
    match kind.text() {
        "LoadBalancer" => {
            for port in ports.items() {
                if port.get("port").int() == Some(KUBELET_PORT) {
                    let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                    errors.push(FieldError::invalid(&port.path, KUBELET_PORT, detail));
                }
            }
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    if headless && matches!(kind.text(), "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {} services", kind.text());
        errors.push(FieldError::invalid(&spec.get("clusterIPs").path.index(0), "None", detail));
    }
    service_ports(&ports, kind.text(), errors);
    crate::metadata::labels(&spec.get("selector"), errors);
    affinity(&spec, errors);
    if kind.text() != "ExternalName" {
        addresses(v, &spec, errors);
    }
    for ip in spec.get("externalIPs").items() {
        reachable_ip(&ip, errors);
    }
    kind.required_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    traffic(&spec, kind.text(), errors);
    let ranges = spec.get("loadBalancerSourceRanges");
    for range in ranges.items() {
        if range.text().trim().parse::<ipnet::IpNet>().is_err() {
            errors.push(range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
        }
    }
    for field in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let at = spec.get(field);
        if !at.is_empty() && kind.text() != "LoadBalancer" {
            errors.push(at.forbidden("may only be used when `type` is 'LoadBalancer'"));
        }
    }
}

fn external_name(spec: &At<'_>, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let at = spec.get(field);
        if !at.is_empty() {
            errors.push(at.forbidden("may not be set for ExternalName services"));
        }
    }
    let name = spec.get("externalName");
    let stripped = name.text().strip_suffix('.').unwrap_or(name.text());
    if stripped.is_empty() {
        errors.push(name.required(""));
    } else {
        name.messages(names::is_dns1123_subdomain(stripped), errors);
    }
}

fn service_ports(ports: &At<'_>, kind: &str, errors: &mut Errors) {
    let items = ports.items();
    let (mut seen_names, mut seen_ports, mut seen_nodes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in &items {
        let (name, protocol, node) = (port.get("name"), port.get("protocol"), port.get("nodePort"));
        if !name.is_empty() {
            name.messages(names::is_dns1123_label(name.text()), errors);
            if !seen_names.insert(name.text()) {
                errors.push(name.duplicate());
            }
        } else if items.len() > 1 {
            errors.push(name.required(""));
        }
        port.get("port").port(errors);
        protocol.required_one_of(&["SCTP", "TCP", "UDP"], errors);
        port.get("targetPort").port_or_name(errors);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.messages(names::is_qualified_name(application.text()), errors);
        }
        let number = node.int().unwrap_or(0);
        if number != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            errors.push(node.forbidden(&format!("may not be used when `type` is '{kind}'")));
        }
        if number != 0 && !seen_nodes.insert((protocol.text(), number)) {
            errors.push(node.duplicate());
        }
        if !seen_ports.insert((protocol.text(), port.get("port").int())) {
            let key = serde_json::json!({"protocol": protocol.value, "port": port.get("port").value});
            errors.push(FieldError::duplicate(&port.path, key));
        }
    }
}

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let (kind, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    kind.required_one_of(&["ClientIP", "None"], errors);
    match kind.text() {
        "ClientIP" => {
            let seconds = config.get("clientIP").get("timeoutSeconds");
            match seconds.int() {
                None => errors.push(seconds.required("when session affinity type is ClientIP")),
                Some(n) if !(1..=AFFINITY_MAX).contains(&n) => {
                    errors.push(seconds.invalid(format!("must be greater than 0 and less than {AFFINITY_MAX}")));
                }
                Some(_) => {}
            }
        }
        "None" if config.is_set() => {
            errors.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn addresses(v: &Value, spec: &At<'_>, errors: &mut Errors) {
    let (one, all) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let (families, policy) = (spec.get("ipFamilies"), spec.get("ipFamilyPolicy"));
    match (one.text(), all.items().first()) {
        ("", Some(_)) => errors.push(all.invalid("must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => errors.push(all.required("")),
        (ip, Some(first)) if first.text() != ip => {
            errors.push(all.invalid("first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in families.items() {
        family.one_of(&["IPv4", "IPv6"], errors);
        if !seen.insert(family.text()) {
            errors.push(family.duplicate());
        }
    }
    policy.one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    if cluster_ips(v).len() > 2 {
        errors.push(all.invalid("may only hold up to 2 values"));
    }
    for (i, ip) in all.items().iter().enumerate() {
        if ip.text() == "None" {
            if i != 0 || cluster_ips(v).len() > 1 {
                errors.push(all.invalid("'None' must be the first and only value"));
            }
            continue;
        }
        match (ip.text().parse::<IpAddr>(), families.items().get(i).map(At::text)) {
            (Err(_), _) => errors.push(ip.invalid(BAD_IP)),
            (Ok(address), Some(family)) if (family == "IPv4") != address.is_ipv4() => {
                errors.push(ip.invalid(format!("expected an {family} value as indicated by `ipFamilies[{i}]`")));
            }
            _ => {}
        }
    }
}

fn traffic(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let (external, internal) = (spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy"));
    let reachable = matches!(kind, "NodePort" | "LoadBalancer") || !spec.get("externalIPs").is_empty();
    if !external.is_empty() {
        external.one_of(&["Cluster", "Local"], errors);
        if !reachable {
            errors.push(external.invalid("may only be set for externally-accessible services"));
        }
    } else if reachable {
        errors.push(external.required(""));
    }
    internal.one_of(&["Cluster", "Local"], errors);
    let health = spec.get("healthCheckNodePort");
    if health.int().unwrap_or(0) != 0 && !(kind == "LoadBalancer" && external.text() == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(health.invalid(detail));
    }
}

/// An address that others can reach: not loopback, not link-local, not 0.0.0.0.
pub(crate) fn reachable_ip(at: &At<'_>, errors: &mut Errors) {
    let Ok(ip) = at.text().parse::<IpAddr>() else {
        errors.push(at.invalid(BAD_IP));
        return;
    };
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        errors.push(at.invalid(format!("may not be unspecified ({ip})")));
    }
    if ip.is_loopback() {
        errors.push(at.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        errors.push(at.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
}

pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let external = |v: &Value| v.text(&["spec", "type"]) == "ExternalName";
    if external(new) || external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let all = At::root(new).get("spec").get("clusterIPs");
    let first = all.path.index(0);
    match (cluster_ips(old).first(), cluster_ips(new).first()) {
        (Some(_), None) => {
            errors.push(FieldError::invalid(&first, all.value.clone(), "primary clusterIP can not be unset"))
        }
        (Some(before), Some(now)) if before != now => {
            errors.push(FieldError::invalid(&first, all.value.clone(), "may not change once set"));
        }
        _ => {}
    }
}
