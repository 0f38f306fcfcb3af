//! `PodTemplateSpec` and `PodSpec`: the defaults and rules that pods share with everything that makes pods.

use crate::check::{At, Errors};
use crate::defaults::{self, Default, Table};
use crate::kinds::pod::spec;
use crate::metadata;
use mini_api::meta::object_mut;
use mini_api::selector::LabelSelector;
use serde_json::Value;

/// Below a `PodSpec`.
const POD_SPEC: Table = &[
    ("restartPolicy", Default::Str("Always")),
    ("dnsPolicy", Default::Str("ClusterFirst")),
    ("schedulerName", Default::Str("default-scheduler")),
    ("securityContext", Default::Map),
    ("terminationGracePeriodSeconds", Default::Int(30)),
    ("volumes[].secret.defaultMode", Default::Int(0o644)),
    ("volumes[].configMap.defaultMode", Default::Int(0o644)),
    ("volumes[].downwardAPI.defaultMode", Default::Int(0o644)),
    ("volumes[].downwardAPI.items[].fieldRef.apiVersion", Default::Str("v1")),
    ("volumes[].projected.defaultMode", Default::Int(0o644)),
    ("volumes[].projected.sources[].downwardAPI.items[].fieldRef.apiVersion", Default::Str("v1")),
    ("volumes[].projected.sources[].serviceAccountToken.expirationSeconds", Default::Int(3600)),
    ("volumes[].hostPath.type", Default::Str("")),
    ("volumes[].ephemeral.volumeClaimTemplate.spec.volumeMode", Default::Str("Filesystem")),
    ("volumes[].iscsi.iscsiInterface", Default::Str("default")),
    ("volumes[].rbd.pool", Default::Str("rbd")),
    ("volumes[].rbd.user", Default::Str("admin")),
    ("volumes[].rbd.keyring", Default::Str("/etc/ceph/keyring")),
    ("volumes[].azureDisk.cachingMode", Default::Str("ReadWrite")),
    ("volumes[].azureDisk.kind", Default::Str("Shared")),
    ("volumes[].azureDisk.fsType", Default::Str("ext4")),
    ("volumes[].azureDisk.readOnly", Default::Bool(false)),
    ("volumes[].scaleIO.storageMode", Default::Str("ThinProvisioned")),
    ("volumes[].scaleIO.fsType", Default::Str("xfs")),
];

/// Below a container of any sort.
const CONTAINER: Table = &[
    ("resources", Default::Map),
    ("terminationMessagePath", Default::Str("/dev/termination-log")),
    ("terminationMessagePolicy", Default::Str("File")),
    ("ports[].protocol", Default::Str("TCP")),
    ("env[].valueFrom.fieldRef.apiVersion", Default::Str("v1")),
    ("env[].valueFrom.fileKeyRef.optional", Default::Bool(false)),
    ("lifecycle.postStart.httpGet.path", Default::Str("/")),
    ("lifecycle.postStart.httpGet.scheme", Default::Str("HTTP")),
    ("lifecycle.preStop.httpGet.path", Default::Str("/")),
    ("lifecycle.preStop.httpGet.scheme", Default::Str("HTTP")),
];

/// Below a probe.
const PROBE: Table = &[
    ("timeoutSeconds", Default::NonZero(1)),
    ("periodSeconds", Default::NonZero(10)),
    ("successThreshold", Default::NonZero(1)),
    ("failureThreshold", Default::NonZero(3)),
    ("httpGet.path", Default::Str("/")),
    ("httpGet.scheme", Default::Str("HTTP")),
    ("grpc.service", Default::Str("")),
];

pub(crate) const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
const VOLUME_NAME_ONLY: usize = 1;

/// Defaults of a `PodSpec`.
pub(crate) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    // The deprecated alias and the field hold the same name.
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|f| spec.get(f).and_then(Value::as_str).filter(|s| !s.is_empty()))
        .map(str::to_owned);
    if let Some(account) = account {
        spec["serviceAccountName"] = account.clone().into();
        spec["serviceAccount"] = account.into();
    }
    for list in CONTAINER_LISTS {
        defaults::each(spec, &format!("{list}[]"), &mut default_container);
    }
    defaults::each(spec, "volumes[]", &mut |volume| {
        if let Value::Object(map) = volume
            && map.len() == VOLUME_NAME_ONLY
            && map.contains_key("name")
        {
            map.insert("emptyDir".to_owned(), Value::Object(serde_json::Map::new()));
        }
    });
    defaults::apply(POD_SPEC, spec);
}

fn default_container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    if container.get("imagePullPolicy").and_then(Value::as_str).unwrap_or_default().is_empty() {
        let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
        container["imagePullPolicy"] = if is_latest(image) { "Always" } else { "IfNotPresent" }.into();
    }
    defaults::apply(CONTAINER, container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        defaults::apply_at(probe, PROBE, container);
    }
}

/// Whether an image reference means the moving tag `latest`, spelled or implied.
fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    match name.rsplit('/').next().unwrap_or(name).split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !name.is_empty(),
    }
}

/// Defaults of the `PodTemplateSpec` at `path` below `v`.
pub(crate) fn default_at(path: &str, v: &mut Value) {
    defaults::each(v, path, &mut |template| {
        if let Some(spec) = template.get_mut("spec") {
            default_spec(spec);
        }
    });
}

/// Rules of a `PodTemplateSpec`.
pub(crate) fn validate(template: &At<'_>, errors: &mut Errors) {
    let meta = template.get("metadata");
    metadata::labels(&At { value: meta.get("labels").value, path: template.path.child("labels") }, errors);
    metadata::annotations(
        &At { value: meta.get("annotations").value, path: template.path.child("annotations") },
        errors,
    );
    let pod = template.get("spec");
    spec::validate(&pod, errors);
    if !pod.get("ephemeralContainers").is_empty() {
        errors.push(pod.get("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// Rules of the template of something that keeps pods running: the labels match, and pods always restart.
pub(crate) fn validate_replicated(template: &At<'_>, selector: &LabelSelector, owner: &str, errors: &mut Errors) {
    // What is not there has upstream's defaults all the same.
    let mut filled = template.value.clone();
    let template = if template.get("spec").is_set() {
        template.clone()
    } else {
        default_spec(child_value(&mut filled, "spec"));
        At { value: &filled, path: template.path.clone() }
    };
    let labels = template.get("metadata").get("labels");
    if !selector.is_everything() && !selector.matches(labels.value.as_object()) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    validate(&template, errors);
    let pod = template.get("spec");
    if pod.get("restartPolicy").text() != "Always" {
        errors.push(pod.get("restartPolicy").not_supported(&["Always"]));
    }
    let deadline = pod.get("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden(&format!("activeDeadlineSeconds in {owner} is not Supported")));
    }
}

/// The empty map that is put in place of a field.
fn child_value<'a>(v: &'a mut Value, name: &str) -> &'a mut Value {
    let child = object_mut(v).entry(name).or_insert_with(Value::default);
    object_mut(child).clear();
    child
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("reg:5000/nginx", true),
            ("reg:5000/a/nginx:2", false),
            ("nginx@sha256:abc", false),
            ("nginx:latest@sha256:abc", true),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn pod_spec_is_filled_as_upstream_fills_it() {
        let mut spec = json!({
            "serviceAccount": "builder",
            "containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/"}}],
        });
        default_spec(&mut spec);
        assert_eq!(
            spec,
            json!({
                "serviceAccount": "builder", "serviceAccountName": "builder",
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "a", "image": "x:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 5,
                        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                    {"name": "h", "hostPath": {"path": "/", "type": ""}}],
            })
        );
    }
}
