//! Containers: names, images, ports, resources, security contexts.

use super::{env, probes, volumes};
use crate::check::{At, Errors};
use mini_api::quantity::Quantity;
use mini_api::{FieldError, names};
use std::collections::{BTreeMap, BTreeSet};

/// What a container may reserve without a domain before its name.
const STANDARD_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
pub(crate) const MAX_ID: i64 = i32::MAX as i64;

/// The three lists of containers of a pod spec. `volume_kinds` are the pod's volumes by name.
pub(super) fn all(spec: &At<'_>, volume_kinds: &BTreeMap<&str, &str>, errors: &mut Errors) {
    let (mains, inits) = (spec.get("containers"), spec.get("initContainers"));
    if mains.is_empty() {
        errors.push(mains.required(""));
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for container in mains.items() {
        one(&container, volume_kinds, errors);
        unique_name(&container, &mut names, errors);
        unique_host_ports(&container, &mut host_ports, errors);
        let policy = container.get("restartPolicy");
        policy.one_of(&["Always", "Never", "OnFailure"], errors);
    }
    for container in inits.items() {
        one(&container, volume_kinds, errors);
        unique_name(&container, &mut names, errors);
        unique_host_ports(&container, &mut BTreeSet::new(), errors);
        let policy = container.get("restartPolicy");
        policy.one_of(&["Always", "Never", "OnFailure"], errors);
        if policy.text() != "Always" {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                let forbidden = container.get(field);
                if forbidden.is_set() {
                    errors.push(forbidden.forbidden("may not be set for init containers without restartPolicy=Always"));
                }
            }
        }
    }
    ephemeral(&spec.get("ephemeralContainers"), volume_kinds, &mut names, errors);
    if spec.get("hostNetwork").is_true() {
        host_network_ports(&mains, errors);
    }
}

fn ephemeral<'a>(at: &At<'a>, volume_kinds: &BTreeMap<&str, &str>, names: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    for container in at.items() {
        let target = container.get("targetContainerName");
        if !target.is_empty() && !names.contains(target.text()) {
            errors.push(FieldError::not_found(&target.path, target.text()));
        }
        if container.get("name").is_empty() {
            errors.push(container.required("ephemeralContainer requires a name"));
            continue;
        }
        one(&container, volume_kinds, errors);
        unique_name(&container, names, errors);
        for field in ["ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "restartPolicy"] {
            let forbidden = container.get(field);
            if !forbidden.is_empty() {
                errors.push(forbidden.forbidden("cannot be set for an Ephemeral Container"));
            }
        }
        let resources = container.get("resources");
        if !resources.is_empty() {
            errors.push(resources.forbidden("cannot be set for an Ephemeral Container"));
        }
    }
}

fn unique_name<'a>(container: &At<'a>, seen: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let name = container.get("name");
    if !name.is_empty() && !seen.insert(name.text()) {
        errors.push(name.duplicate());
    }
}

/// What holds for a container of any sort.
fn one(at: &At<'_>, volume_kinds: &BTreeMap<&str, &str>, errors: &mut Errors) {
    let (name, image) = (at.get("name"), at.get("image"));
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        name.messages(names::is_dns1123_label(name.text()), errors);
    }
    if image.is_empty() {
        errors.push(image.required(""));
    } else if image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
    probes::lifecycle(&at.get("lifecycle"), errors);
    probes::probe(&at.get("livenessProbe"), true, errors);
    probes::probe(&at.get("startupProbe"), true, errors);
    probes::probe(&at.get("readinessProbe"), false, errors);
    let policy = at.get("terminationMessagePolicy");
    if !matches!(policy.text(), "File" | "FallbackToLogsOnError") {
        errors.push(policy.not_supported(&["File", "FallbackToLogsOnError"]));
    }
    ports(&at.get("ports"), errors);
    env::variables(&at.get("env"), errors);
    env::sources(&at.get("envFrom"), errors);
    volumes::mounts(at, volume_kinds, errors);
    at.get("imagePullPolicy").required_one_of(&["Always", "IfNotPresent", "Never"], errors);
    resources(&at.get("resources"), errors);
    security_context(&at.get("securityContext"), errors);
}

fn ports(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in at.items() {
        let name = port.get("name");
        if !name.is_empty() {
            let messages = names::is_port_name(name.text());
            if messages.is_empty() && !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            name.messages(messages, errors);
        }
        let (inside, outside) = (port.get("containerPort"), port.get("hostPort"));
        if inside.int().unwrap_or(0) == 0 {
            errors.push(inside.required(""));
        } else {
            inside.port(errors);
        }
        if outside.int().unwrap_or(0) != 0 {
            outside.port(errors);
        }
        port.get("protocol").required_one_of(&["SCTP", "TCP", "UDP"], errors);
    }
}

fn unique_host_ports(container: &At<'_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    for port in container.get("ports").items() {
        let host = port.get("hostPort");
        let number = host.int().unwrap_or(0);
        let key = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
        if number != 0 && !seen.insert(key.clone()) {
            errors.push(FieldError::duplicate(&host.path, key));
        }
    }
}

fn host_network_ports(containers: &At<'_>, errors: &mut Errors) {
    for container in containers.items() {
        for port in container.get("ports").items() {
            let (inside, outside) = (port.get("containerPort"), port.get("hostPort").int().unwrap_or(0));
            if outside != 0 && inside.int() != Some(outside) {
                errors.push(inside.invalid("must match `hostPort` when `hostNetwork` is true"));
            }
        }
    }
}

/// Requests and limits of a container or of a whole pod.
pub(super) fn resources(at: &At<'_>, errors: &mut Errors) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    for (name, amount) in limits.entries() {
        container_resource(name, &amount, errors);
    }
    let mut compute = false;
    let mut huge_pages = false;
    for (name, amount) in requests.entries() {
        container_resource(name, &amount, errors);
        let overcommit = may_overcommit(name);
        let limit = limits.value.get(name).map(|v| At { value: v, path: limits.path.clone() });
        let Some(limit) = limit.and_then(|l| l.quantity()) else {
            if !overcommit {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            continue;
        };
        let Some(asked) = amount.quantity() else { continue };
        if asked != limit && !overcommit {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&requests.path, asked.to_string(), detail));
        } else if asked > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&requests.path, asked.to_string(), detail));
        }
    }
    for (name, _) in limits.entries().into_iter().chain(requests.entries()) {
        compute |= matches!(name, "cpu" | "memory");
        huge_pages |= name.starts_with("hugepages-");
    }
    if huge_pages && !compute {
        errors.push(at.forbidden("HugePages require cpu or memory"));
    }
}

/// Only resources without a domain, or of the `kubernetes.io` domain, may be promised more often than they exist.
fn may_overcommit(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    native && !name.starts_with("hugepages-")
}

fn container_resource(name: &str, amount: &At<'_>, errors: &mut Errors) {
    let messages = names::is_qualified_name(name);
    if !messages.is_empty() {
        errors.extend(messages.into_iter().map(|m| FieldError::invalid(&amount.path, name, m)));
        return;
    }
    if !name.contains('/') && !STANDARD_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
        if name != "storage" && !crate::kinds::quota::is_standard(name) {
            errors.push(FieldError::invalid(&amount.path, name, "must be a standard resource type or fully qualified"));
        }
        errors.push(FieldError::invalid(&amount.path, name, "must be a standard resource for containers"));
    }
    resource_amount(name, amount, errors);
}

/// A quantity that is not negative and, for what cannot be split, whole.
pub(crate) fn resource_amount(name: &str, amount: &At<'_>, errors: &mut Errors) {
    let Some(quantity) = amount.quantity() else { return };
    if quantity.is_negative() {
        errors.push(FieldError::invalid(&amount.path, quantity.to_string(), crate::check::NON_NEGATIVE));
    }
    let whole = name.contains('/') || name.starts_with("count/") || matches!(name, "pods" | "services" | "secrets");
    if whole && quantity != Quantity::from_value(quantity.value(), quantity.format()) {
        errors.push(amount.invalid("must be an integer"));
    }
}

fn security_context(at: &At<'_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        at.get(field).in_range(0, MAX_ID, errors);
    }
    at.get("procMount").one_of(&["Default", "Unmasked"], errors);
    seccomp(&at.get("seccompProfile"), errors);
    if at.get("allowPrivilegeEscalation").value.as_bool() == Some(false) {
        if at.get("privileged").is_true() {
            errors.push(at.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
        }
        if at.get("capabilities").get("add").items().iter().any(|c| c.text() == "CAP_SYS_ADMIN") {
            errors.push(
                at.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"),
            );
        }
    }
}

/// A seccomp or AppArmor profile: only a localhost one has a file.
pub(super) fn seccomp(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let (kind, file) = (at.get("type"), at.get("localhostProfile"));
    kind.required_one_of(&["Localhost", "RuntimeDefault", "Unconfined"], errors);
    match (kind.text(), file.is_empty()) {
        ("Localhost", true) => errors.push(file.required("must be set when seccomp type is Localhost")),
        ("Localhost", false) => volumes::descending_path(&file, errors),
        (_, true) => {}
        (_, false) => errors.push(file.invalid("can only be set when seccomp type is Localhost")),
    }
}
