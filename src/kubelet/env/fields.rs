//! The downward API: values of `fieldRef` and `resourceFieldRef`.

use crate::{Config, pod, resources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use mini_api::quantity::Quantity;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The value of a pod field, as text.
pub(crate) fn of_pod(pod: &Pod, path: &str, pod_ips: &[String], config: &Config) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    // The host's network gives the pod the host's address.
    let host_ip = config.node_ip.to_string();
    let ips = if pod_ips.is_empty() && pod::host_network(pod) { vec![host_ip.clone()] } else { pod_ips.to_vec() };
    Ok(match path {
        "metadata.name" => pod::name(pod).to_owned(),
        "metadata.namespace" => pod::namespace(pod).to_owned(),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_else(|| config.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => host_ip,
        "status.podIP" => ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// One `key="value"` on each line, keys in order, values quoted.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (i, (key, value)) in map.into_iter().flatten().enumerate() {
        let _ = write!(out, "{}{key}=\"{}\"", if i == 0 { "" } else { "\n" }, quoted(value));
    }
    out
}

fn quoted(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A request or limit in units of its divisor, rounded up. A limit that is not set is what the node has.
pub(crate) fn of_resource(pod: &Pod, own: &Container, selector: &ResourceFieldSelector) -> Result<String, String> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => pod::find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
        None => own,
    };
    let (limits, requests) = (resources::limits(container), resources::requests(container));
    let divisor = match selector.divisor.as_ref().map(|d| d.0.as_str()).filter(|d| !d.is_empty() && *d != "0") {
        Some(text) => Quantity::parse(text).map_err(|e| e.to_string())?,
        None => Quantity::parse("1").map_err(|e| e.to_string())?,
    };
    let (milli, value) = match selector.resource.as_str() {
        "limits.cpu" => {
            (true, resources::milli_cpu(&limits).filter(|v| *v > 0).unwrap_or(resources::machine_cpus() * 1000))
        }
        "requests.cpu" => (true, resources::milli_cpu(&requests).unwrap_or(0)),
        "limits.memory" => {
            (false, resources::whole(&limits, "memory").filter(|v| *v > 0).unwrap_or_else(resources::machine_memory))
        }
        "requests.memory" => (false, resources::whole(&requests, "memory").unwrap_or(0)),
        "limits.ephemeral-storage" => (false, resources::whole(&limits, "ephemeral-storage").unwrap_or(0)),
        "requests.ephemeral-storage" => (false, resources::whole(&requests, "ephemeral-storage").unwrap_or(0)),
        other => return Err(format!("unsupported container resource : {other}")),
    };
    let divisor = if milli { divisor.milli() } else { divisor.value() }.max(1);
    Ok(((value + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_are_written_quoted_and_in_order() {
        let map = BTreeMap::from([("b".to_owned(), "say \"x\"\n".to_owned()), ("a".to_owned(), "1".to_owned())]);
        assert_eq!(format_map(Some(&map)), "a=\"1\"\nb=\"say \\\"x\\\"\\n\"");
    }

    #[test]
    fn resources_are_rounded_up_by_the_divisor() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c",
            "resources": {"limits": {"cpu": "1250m", "memory": "64Mi"}}}]}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let get = |resource: &str, divisor: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            of_resource(&pod, container, &selector).unwrap()
        };
        assert_eq!(get("limits.cpu", "1"), "2");
        assert_eq!(get("limits.cpu", "1m"), "1250");
        assert_eq!(get("limits.memory", "1Mi"), "64");
        assert_eq!(get("limits.memory", "0"), (64 << 20).to_string());
    }
}
