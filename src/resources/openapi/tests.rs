use super::*;
use std::collections::BTreeSet;

fn registry() -> Registry {
    Registry::builtin()
}

fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("a document is JSON")
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

/// Every reference leads somewhere, and nothing is there that none leads to.
fn assert_closed(document: &Value, definitions: &Value, prefix: &str) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    let wanted: BTreeSet<_> = found.iter().map(|r| r.strip_prefix(prefix).expect(r).to_owned()).collect();
    let there: BTreeSet<_> = definitions.as_object().expect("definitions").keys().cloned().collect();
    assert_eq!(wanted, there);
}

#[test]
fn version_2_is_closed_and_complete() {
    let registry = registry();
    let document = parsed(&v2(&registry));
    assert_closed(&document, &document["definitions"], "#/definitions/");
    for row in registry.iter() {
        let definition = &document["definitions"][&row.definition];
        let kind = json!({"group": row.group, "version": row.version, "kind": row.kind});
        assert_eq!(definition["x-kubernetes-group-version-kind"], json!([kind]), "{}", row.definition);
        assert!(definition["description"].is_string(), "{}", row.definition);
    }
    let undescribed: Vec<_> = document["definitions"]
        .as_object()
        .expect("definitions")
        .iter()
        .filter(|(_, d)| !d["description"].is_string())
        .map(|(name, _)| name)
        .collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
}

#[test]
fn every_group_version_has_a_closed_document() {
    let registry = registry();
    for group in registry.groups() {
        for version in group.versions {
            let document = parsed(&v3(&registry, &group.name, &version).expect("served"));
            assert_closed(&document, &document["components"]["schemas"], "#/components/schemas/");
        }
    }
    assert!(v3(&registry, "nobody", "v1").is_none());
}

#[test]
fn operations_tell_what_kubectl_asks() {
    let document = parsed(&v3(&registry(), "apps", "v1").expect("served"));
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let parameters: Vec<_> = patch["parameters"].as_array().expect("parameters").iter().map(|p| &p["name"]).collect();
    assert_eq!(parameters, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(document["paths"]["/apis/apps/v1/deployments"]["get"]["x-kubernetes-group-version-kind"], kind);
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["group"], "autoscaling");
    assert_eq!(scale["operationId"], "readAppsV1NamespacedDeploymentScale");

    let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    let reference = json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]);
    assert_eq!(spec["containers"]["items"]["allOf"], reference);
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(spec["containers"]["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(spec["containers"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(spec["containers"]["description"].as_str().is_some_and(|d| d.starts_with("List of containers")));
}

/// One definition of each form, whole.
#[test]
fn definitions_look_as_upstreams() {
    let core = parsed(&v3(&registry(), "", "v1").expect("served"));
    assert_eq!(
        core["components"]["schemas"]["io.k8s.api.core.v1.LocalObjectReference"],
        json!({
            "type": "object",
            "description": "LocalObjectReference contains enough information to let you locate the referenced object inside the same namespace.",
            "properties": {"name": {"type": "string", "description": "Name of the referent. This field is effectively required, but due to backwards compatibility is allowed to be empty. Instances of this type with an empty value here are almost certainly wrong. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#names"}},
            "x-kubernetes-map-type": "atomic",
        })
    );
    let list = &core["components"]["schemas"]["io.k8s.api.core.v1.PodList"];
    assert_eq!(list["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "PodList"}]));
    assert_eq!(list["required"], json!(["items"]));
    let old = parsed(&v2(&registry()));
    let limits = &old["definitions"]["io.k8s.api.core.v1.ResourceRequirements"]["properties"]["limits"];
    let quantity = json!({"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"});
    assert_eq!((&limits["type"], &limits["additionalProperties"]), (&json!("object"), &quantity));
}

#[test]
fn the_index_names_each_group_version_and_changes_with_the_table() {
    let mut registry = registry();
    let index = v3_index(&registry);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("url");
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert_eq!(index, v3_index(&self::registry()));
    let mut row = registry.get("", "v1", "pods").expect("pods").as_ref().clone();
    row.kind = "Peapod".to_owned();
    registry.insert(row);
    let changed = v3_index(&registry);
    assert_ne!(index["paths"]["api/v1"], changed["paths"]["api/v1"]);
    assert_eq!(index["paths"]["apis/apps/v1"], changed["paths"]["apis/apps/v1"]);
}

/// Reads the wire format back as far as it must be right for any reader: fields and lengths nest.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a whole varint");
            *bytes = rest;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        n
    }
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        if tag & 7 == 0 {
            varint(&mut bytes);
            continue;
        }
        assert_eq!(tag & 7, 2, "only varints and bytes are written");
        let length = usize::try_from(varint(&mut bytes)).expect("length");
        let (value, rest) = bytes.split_at_checked(length).expect("a whole value");
        found.push((tag >> 3, value));
        bytes = rest;
    }
    found
}

fn within<'a>(message: &[(u64, &'a [u8])], field: u64) -> &'a [u8] {
    message.iter().find(|(f, _)| *f == field).map(|(_, value)| *value).expect("the field is there")
}

#[test]
fn protobuf_says_what_json_says() {
    let registry = registry();
    let json = parsed(&v2(&registry));
    let bytes = v2_protobuf(&registry);
    let document = fields(&bytes);
    assert_eq!(within(&document, 1), b"2.0");
    let definitions = fields(within(&document, 9));
    assert_eq!(definitions.len(), json["definitions"].as_object().expect("definitions").len());
    assert_eq!(fields(within(&document, 8)).len(), json["paths"].as_object().expect("paths").len());
    let pod = definitions.iter().map(|(_, entry)| fields(entry)).find(|e| within(e, 1) == b"io.k8s.api.core.v1.Pod");
    let pod = fields(within(&pod.expect("Pod"), 2));
    let description = json["definitions"]["io.k8s.api.core.v1.Pod"]["description"].as_str().expect("description");
    assert_eq!(within(&pod, 4), description.as_bytes());
    let extension = fields(within(&pod, 31));
    assert_eq!(within(&extension, 1), b"x-kubernetes-group-version-kind");
    assert_eq!(within(&fields(within(&extension, 2)), 2), b"[{\"group\":\"\",\"kind\":\"Pod\",\"version\":\"v1\"}]\n");
}
