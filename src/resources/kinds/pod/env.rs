//! Environment variables and the downward API.

use crate::check::{At, Errors};
use mini_api::{FieldError, names};

/// Pod fields that a variable may take, sorted as messages list them.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Pod fields that a file may take.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn variables(at: &At<'_>, errors: &mut Errors) {
    for variable in at.items() {
        let name = variable.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            // Anything but `=` and control characters is a name since relaxed validation became stable.
            let bad = !name.text().chars().all(|c| c.is_ascii() && !c.is_ascii_control() && c != '=');
            if bad {
                name.messages(names::is_env_var_name(name.text()), errors);
            }
        }
        let from = variable.get("valueFrom");
        if from.is_set() {
            value_from(&from, !variable.get("value").is_empty(), errors);
        }
    }
}

fn value_from(from: &At<'_>, has_value: bool, errors: &mut Errors) {
    let mut sources = 0;
    for source in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let one = from.get(source);
        if !one.is_set() {
            continue;
        }
        sources += 1;
        match source {
            "fieldRef" => field_ref(&one, ENV_FIELDS, errors),
            "resourceFieldRef" => resource_field_ref(&one, false, errors),
            "fileKeyRef" => ["volumeName", "path", "key"].iter().for_each(|f| one.get(f).must_be_set(errors)),
            _ => key_ref(&one, errors),
        }
    }
    let detail = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(&from.path, "", detail));
}

/// A key of a ConfigMap or Secret.
fn key_ref(at: &At<'_>, errors: &mut Errors) {
    let (name, key) = (at.get("name"), at.get("key"));
    for message in names::is_dns1123_subdomain(name.text()) {
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
    if key.is_empty() {
        errors.push(key.required(""));
    } else {
        key.messages(names::is_config_map_key(key.text()), errors);
    }
}

/// A field of the pod in a file of a downward API volume.
pub(super) fn file_field_ref(at: &At<'_>, errors: &mut Errors) {
    field_ref(at, FILE_FIELDS, errors);
}

fn field_ref(at: &At<'_>, supported: &[&str], errors: &mut Errors) {
    let path = at.get("fieldPath");
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let subscripted = path.text().strip_suffix("']").and_then(|p| p.split_once("['"));
    let Some((map, key)) = subscripted else {
        if !supported.contains(&path.text()) {
            errors.push(if ENV_FIELDS.contains(&path.text()) || FILE_FIELDS.contains(&path.text()) {
                path.not_supported(supported)
            } else {
                path.invalid(format!("error converting fieldPath: field label not supported: {}", path.text()))
            });
        }
        return;
    };
    let messages = match map {
        "metadata.annotations" => names::is_qualified_name(&key.to_lowercase()),
        "metadata.labels" => names::is_qualified_name(key),
        _ => {
            errors.push(
                path.invalid(format!("error converting fieldPath: field label does not support subscript: {map}")),
            );
            return;
        }
    };
    errors.extend(messages.into_iter().map(|m| FieldError::invalid(&at.path, key, m)));
}

pub(super) fn resource_field_ref(at: &At<'_>, in_volume: bool, errors: &mut Errors) {
    let (container, resource) = (at.get("containerName"), at.get("resource"));
    let name = resource.text();
    if in_volume && container.is_empty() {
        errors.push(container.required(""));
    } else if name.is_empty() {
        errors.push(resource.required(""));
    } else if !RESOURCES.contains(&name)
        && !name.starts_with("limits.hugepages-")
        && !name.starts_with("requests.hugepages-")
    {
        errors.push(resource.not_supported(RESOURCES));
    }
    let divisor = at.get("divisor");
    let Some(quantity) = divisor.quantity().filter(|q| !q.is_zero()) else { return };
    let shown = quantity.to_string();
    let (fine, what) = match name.split_once('.').map_or("", |(_, r)| r) {
        "cpu" => (matches!(shown.as_str(), "1m" | "1"), "1m and 1 are supported with the cpu resource"),
        what => (
            matches!(
                shown.as_str(),
                "1" | "1k" | "1M" | "1G" | "1T" | "1P" | "1E" | "1Ki" | "1Mi" | "1Gi" | "1Ti" | "1Pi" | "1Ei"
            ),
            match what {
                "memory" => {
                    "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
                }
                _ => {
                    "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral \
                     storage resource"
                }
            },
        ),
    };
    if !fine {
        errors.push(FieldError::invalid(&divisor.path, name, format!("only divisor's values {what}")));
    }
}

/// `envFrom`: whole ConfigMaps and Secrets.
pub(super) fn sources(at: &At<'_>, errors: &mut Errors) {
    for from in at.items() {
        let refs: Vec<At<'_>> = ["configMapRef", "secretRef"].iter().map(|f| from.get(f)).filter(At::is_set).collect();
        for source in &refs {
            let name = source.get("name");
            for message in names::is_dns1123_subdomain(name.text()) {
                errors.push(FieldError::invalid(&name.path, name.text(), message));
            }
        }
        match refs.len() {
            0 => errors.push(FieldError::invalid(&at.path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(FieldError::invalid(&at.path, "", "may not have more than one field specified at a time")),
        }
    }
}
