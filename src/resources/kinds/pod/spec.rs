//! Rules of a `PodSpec`, in a pod or in a template.

use super::containers::{self, MAX_ID};
use super::{scheduling, volumes};
use crate::check::{At, Errors, between};
use mini_api::{FieldError, names};
use std::net::IpAddr;

pub(crate) use super::containers::resource_amount;
pub(crate) use super::scheduling::{label_selector, node_selector, taints};
pub(crate) use super::volumes::host_path;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

pub(crate) fn validate(spec: &At<'_>, errors: &mut Errors) {
    let volume_kinds = volumes::all(&spec.get("volumes"), errors);
    containers::all(spec, &volume_kinds, errors);
    containers::resources(&spec.get("resources"), errors);
    spec.get("restartPolicy").required_one_of(&["Always", "OnFailure", "Never"], errors);
    spec.get("dnsPolicy").required_one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    security_context(spec, errors);
    scheduling::all(spec, errors);
    dns(spec, errors);
    for gate in spec.get("readinessGates").items() {
        let condition = gate.get("conditionType");
        condition.messages(names::is_qualified_name(condition.text()), errors);
    }
    for (field, is_label) in [
        ("serviceAccountName", false),
        ("nodeName", false),
        ("priorityClassName", false),
        ("runtimeClassName", false),
        ("hostname", true),
        ("subdomain", true),
    ] {
        let at = spec.get(field);
        if !at.is_empty() {
            let messages =
                if is_label { names::is_dns1123_label(at.text()) } else { names::is_dns1123_subdomain(at.text()) };
            at.messages(messages, errors);
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.int().is_some_and(|s| !(1..=i64::from(i32::MAX)).contains(&s)) {
        errors.push(deadline.invalid(between(1, i64::from(i32::MAX))));
    }
    spec.get("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"], errors);
    let aliases = spec.get("hostAliases");
    for alias in aliases.items() {
        let ip = alias.get("ip");
        if ip.text().parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                &ip.path,
                ip.text(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
        for name in alias.get("hostnames").items() {
            name.messages(names::is_dns1123_subdomain(name.text()), errors);
        }
    }
    for (name, amount) in spec.get("overhead").entries() {
        resource_amount(name, &amount, errors);
    }
}

fn security_context(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        at.get(field).in_range(0, MAX_ID, errors);
    }
    for group in at.get("supplementalGroups").items() {
        group.in_range(0, MAX_ID, errors);
    }
    let shared = spec.get("shareProcessNamespace");
    if shared.is_true() && spec.get("hostPID").is_true() {
        errors.push(shared.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    for sysctl in at.get("sysctls").items() {
        let name = sysctl.get("name");
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | '/');
        if name.is_empty() {
            errors.push(name.required(""));
        } else if name.text().len() > 253 || !name.text().chars().all(word) {
            errors.push(name.invalid("must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"));
        }
    }
    at.get("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"], errors);
    containers::seccomp(&at.get("seccompProfile"), errors);
}

fn dns(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errors.push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.items().len() > MAX_NAMESERVERS {
        errors.push(servers.invalid(format!("must not have more than {MAX_NAMESERVERS} nameservers")));
    }
    for server in servers.items() {
        if server.text().parse::<IpAddr>().is_err() {
            errors.push(server.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
        }
    }
    let paths = searches.items();
    if paths.len() > MAX_SEARCHES {
        errors.push(searches.invalid(format!("must not have more than {MAX_SEARCHES} search paths")));
    }
    if paths.iter().map(|p| p.text().len() + 1).sum::<usize>() > MAX_SEARCH_CHARACTERS + 1 {
        errors.push(searches.invalid(format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        )));
    }
    for path in paths {
        let name = path.text().strip_suffix('.').unwrap_or(path.text());
        // A lone dot and underscores are legal since relaxed search validation became stable.
        if !name.is_empty() {
            path.messages(names::is_dns1123_subdomain(&name.replace('_', "-").replace("-.", "a.")), errors);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}
