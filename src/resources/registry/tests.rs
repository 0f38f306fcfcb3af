//! Rules that hold for every row of the table.

use super::*;
use crate::schema;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What a cell of each column type may be.
fn fits(type_: &str, cell: &Value) -> bool {
    match type_ {
        "integer" => cell.is_i64() || cell.is_u64(),
        "boolean" => cell.is_boolean() || cell.is_string(),
        // Upstream declares counts of entries as strings too.
        "string" => cell.is_string() || cell.is_number() || cell.is_boolean(),
        "date" => cell.is_string(),
        _ => false,
    }
}

#[test]
fn every_row_is_coherent() {
    let registry = Registry::builtin();
    let mut seen = BTreeSet::new();
    for r in registry.iter() {
        let row = format!("{}/{}", r.api_version(), r.kind);
        assert!(schema::definition(&r.definition).is_some(), "{row}: no schema {}", r.definition);
        assert_eq!(r.singular, r.kind.to_lowercase(), "{row}");
        assert_eq!(r.plural, r.plural.to_lowercase(), "{row}");
        assert!(r.plural.ends_with('s'), "{row}");
        assert!(!r.verbs.is_empty() && r.verbs.is_sorted(), "{row}: {:?}", r.verbs);
        assert!(seen.insert((r.group.clone(), r.version.clone(), r.plural.clone())), "{row} twice");
        let columns: BTreeSet<&str> = r.columns.iter().map(|c| c.name.as_ref()).collect();
        assert_eq!(columns.len(), r.columns.len(), "{row}: a column twice");
        for s in &r.subresources {
            assert!(!s.verbs.is_empty() && s.verbs.is_sorted(), "{row}/{}", s.name);
        }
        assert!(r.subresources.is_sorted_by_key(|s| s.name), "{row}: subresources are listed in order");
        assert_eq!(registry.get(&r.group, &r.version, &r.plural).unwrap().kind, r.kind);
        assert_eq!(registry.by_kind(&r.group, &r.version, &r.kind).unwrap().plural, r.plural);
    }
}

#[test]
fn every_row_bears_any_object() {
    for r in Registry::builtin().iter() {
        let row = format!("{}/{}", r.api_version(), r.kind);
        for odd in
            [json!({}), json!({"spec": {}}), json!({"metadata": 1, "spec": [], "status": "x"}), json!({"spec": null})]
        {
            let mut v = odd.clone();
            r.default(&mut v);
            let once = v.clone();
            r.default(&mut v);
            assert_eq!(v, once, "{row}: defaults are not idempotent");
            let cells = r.cells(&v, NOW);
            assert_eq!(cells.len(), r.columns.len(), "{row}");
            for (column, cell) in r.columns.iter().zip(&cells) {
                assert!(fits(&column.type_, cell), "{row}: {} is {cell}", column.name);
            }
            let mut new = v.clone();
            r.prepare_create(&mut new);
            let _ = r.validate(&new);
            for sub in std::iter::once(None).chain(r.subresources.iter().map(|s| Some(s.name))) {
                let mut changed = odd.clone();
                r.prepare_update(&mut changed, &new, sub);
                let _ = r.validate_update(&changed, &new, sub);
            }
            for field in &r.fields {
                assert!(r.field(&v, field).is_some(), "{row}: {field}");
            }
            assert_eq!(r.field(&v, "spec.nope"), None, "{row}");
        }
    }
}

/// Defaults write only fields that the schema has: normalizing finds nothing unknown.
#[test]
fn defaults_fit_the_schema() {
    let container = json!({"name": "a", "image": "x", "ports": [{"containerPort": 1}],
        "env": [{"name": "e", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "livenessProbe": {"httpGet": {"port": 1}}, "readinessProbe": {"grpc": {"port": 1}},
        "startupProbe": {"tcpSocket": {"port": 1}},
        "lifecycle": {"preStop": {"httpGet": {"port": 1}}, "postStart": {"httpGet": {"port": 1}}},
        "resources": {"limits": {"cpu": "1"}}});
    let pod = json!({"containers": [container], "initContainers": [container], "hostNetwork": true,
        "serviceAccountName": "s",
        "volumes": [{"name": "a"}, {"name": "b", "secret": {}}, {"name": "c", "configMap": {}},
            {"name": "d", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "f", "hostPath": {"path": "/"}}, {"name": "g", "iscsi": {"targetPortal": "t", "iqn": "i", "lun": 1}},
            {"name": "h", "rbd": {"monitors": [], "image": "i"}}, {"name": "i", "azureDisk": {"diskName": "d", "diskURI": "u"}},
            {"name": "j", "scaleIO": {"gateway": "g", "system": "s", "secretRef": {}}},
            {"name": "k", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    for r in Registry::builtin().iter() {
        let row = format!("{}/{}", r.api_version(), r.kind);
        let spec = match r.kind.as_str() {
            "Pod" => pod.clone(),
            "CronJob" => json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
            "Service" => json!({"type": "LoadBalancer", "ports": [{"port": 1}], "sessionAffinity": "ClientIP"}),
            "NetworkPolicy" => json!({"egress": [{"ports": [{"port": 1}]}]}),
            "LimitRange" => json!({"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "1m"}}]}),
            "StatefulSet" => json!({"template": template, "serviceName": "s", "selector": {},
                "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {}}]}),
            "ReplicationController" | "ReplicaSet" | "Deployment" | "DaemonSet" | "Job" => {
                json!({"template": template, "selector": {}})
            }
            _ => json!({}),
        };
        let mut v = json!({"apiVersion": r.api_version(), "kind": r.kind, "metadata": {"name": "n"}, "spec": spec});
        // Sorts out what this kind has no such field for.
        r.normalize(&mut v).unwrap_or_else(|e| panic!("{row}: {e}"));
        r.default(&mut v);
        r.prepare_create(&mut v);
        let filled = v.clone();
        let unknown = r.normalize(&mut v).unwrap_or_else(|e| panic!("{row}: {e}"));
        assert_eq!(unknown, Vec::<String>::new(), "{row}");
        r.default(&mut v);
        assert_eq!(v, filled, "{row}: normalizing undoes a default");
    }
}

#[test]
fn groups_are_ordered_and_storage_is_shared_only_on_purpose() {
    let registry = Registry::builtin();
    let groups = registry.groups();
    assert_eq!(groups[0].name, "");
    assert_eq!((groups[1].name.as_str(), groups[2].name.as_str()), ("apiregistration.k8s.io", "apps"));
    assert!(groups.iter().all(|g| g.versions.first() == Some(&g.preferred)));
    for r in registry.iter().filter(|r| r.stored()) {
        let home = registry.stored_as(r).unwrap();
        let same = (&home.group, &home.version) == (&r.group, &r.version);
        assert_eq!(same, !r.converts(), "{}", r.kind);
    }
    let events = registry.get("events.k8s.io", "v1", "events").unwrap();
    assert_eq!(registry.stored_as(&events).unwrap().group, "");
}

#[test]
fn metadata_of_every_kind() {
    let registry = Registry::builtin();
    let errors = |plural: &str, meta: Value| -> Vec<String> {
        let r = registry.get("", "v1", plural).unwrap();
        r.validate(&json!({"metadata": meta})).iter().map(ToString::to_string).collect()
    };
    assert_eq!(errors("configmaps", json!({"name": "a", "namespace": "d"})), Vec::<String>::new());
    assert_eq!(
        errors("configmaps", json!({})),
        ["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"]
    );
    let namespaced = errors("namespaces", json!({"name": "a", "namespace": "d"}));
    assert_eq!(namespaced, ["metadata.namespace: Forbidden: not allowed on this type"]);
    let bad = errors("configmaps", json!({"name": "A_b", "namespace": "d", "labels": {"a b": "c", "ok": "-"}}));
    assert_eq!(bad.len(), 3, "{bad:?}");
    assert!(
        bad[0].starts_with("metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must"),
        "{bad:?}"
    );
    assert!(bad[1].starts_with("metadata.labels: Invalid value: \"a b\": name part must consist"), "{bad:?}");
    assert!(bad[2].starts_with("metadata.labels: Invalid value: \"-\": a valid label must be"), "{bad:?}");
    let large = errors("configmaps", json!({"name": "a", "namespace": "d", "annotations": {"k": "x".repeat(262_144)}}));
    assert_eq!(large, ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    let generated = errors("configmaps", json!({"generateName": "a-", "name": "a-1", "namespace": "d"}));
    assert_eq!(generated, Vec::<String>::new());
}

#[test]
fn updates_keep_what_the_system_wrote() {
    let r = Registry::builtin().get("apps", "v1", "deployments").unwrap();
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]}}});
    let mut old = json!({"metadata": {"name": "d", "namespace": "n", "creationTimestamp": "t"}, "spec": spec,
        "status": {"replicas": 9}});
    r.default(&mut old);
    r.prepare_create(&mut old);
    assert_eq!(old["metadata"]["generation"], 1);
    assert_eq!(old["status"], json!({}));
    assert_eq!(r.validate(&old), []);
    old["status"] = json!({"replicas": 1});
    old["metadata"]["uid"] = "u".into();

    let mut new = old.clone();
    new["metadata"] = json!({"name": "d", "namespace": "n", "generation": 99, "creationTimestamp": "other"});
    new["status"] = json!({"replicas": 5});
    r.prepare_update(&mut new, &old, None);
    assert_eq!(new, old);

    new["spec"]["replicas"] = 3.into();
    r.prepare_update(&mut new, &old, None);
    assert_eq!(new["metadata"]["generation"], 2);
    assert_eq!(new["status"], json!({"replicas": 1}));

    let mut new = old.clone();
    new["metadata"]["annotations"] = json!({"a": "b"});
    r.prepare_update(&mut new, &old, None);
    assert_eq!(new["metadata"]["generation"], 2, "annotations are copied to ReplicaSets");

    let mut new = old.clone();
    new["spec"]["replicas"] = 7.into();
    new["status"] = json!({"replicas": 2});
    r.prepare_update(&mut new, &old, Some("status"));
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!((&new["status"], &new["metadata"]["generation"]), (&json!({"replicas": 2}), &json!(1)));

    let mut new = old.clone();
    new["spec"]["selector"] = json!({"matchLabels": {"a": "c"}});
    let errors: Vec<String> = r.validate_update(&new, &old, None).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable",
        ]
    );
}

#[test]
fn deleting_objects_get_no_new_finalizers() {
    let r = Registry::builtin().get("", "v1", "configmaps").unwrap();
    let old = json!({"metadata": {"name": "c", "namespace": "n", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
    let mut new = json!({"metadata": {"name": "c", "namespace": "n", "finalizers": ["a/b", "c/d"]}});
    r.prepare_update(&mut new, &old, None);
    assert_eq!(new["metadata"]["deletionTimestamp"], "t");
    let errors: Vec<String> = r.validate_update(&new, &old, None).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers []string{\"c/d\"}"]
    );
}

#[test]
fn selectable_fields_have_values() {
    let registry = Registry::builtin();
    let pods = registry.get("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "m"}, "status": {"podIPs": [{"ip": "10.1.0.2"}]}});
    let field = |path: &str| pods.field(&pod, path);
    assert_eq!(field("spec.nodeName").as_deref(), Some("m"));
    assert_eq!(field("spec.hostNetwork").as_deref(), Some("false"));
    assert_eq!(field("status.podIP").as_deref(), Some("10.1.0.2"));
    assert_eq!(field("status.phase").as_deref(), Some(""));
    assert_eq!(field("metadata.namespace").as_deref(), Some("n"));
    assert_eq!(field("spec.containers"), None);
    let events = registry.get("", "v1", "events").unwrap();
    let event = json!({"reportingComponent": "kubelet", "involvedObject": {"name": "p"}});
    assert_eq!(events.field(&event, "source").as_deref(), Some("kubelet"));
    assert_eq!(events.field(&event, "involvedObject.name").as_deref(), Some("p"));
}
