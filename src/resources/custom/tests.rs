use super::*;
use serde_json::json;

fn definition(versions: Value) -> Value {
    json!({"metadata": {"name": "crontabs.stable.example.com", "uid": "u", "generation": 1},
        "spec": {"group": "stable.example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList",
                      "shortNames": ["ct"], "categories": ["all"]},
            "versions": versions}})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "cron": {"type": "string", "default": "* * * * *"},
            "replicas": {"type": "integer"},
            "note": {"type": "string", "nullable": true},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                         "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                      "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}}})
}

fn row() -> Resource {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema()},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
        "selectableFields": [{"jsonPath": ".spec.cron"}],
        "additionalPrinterColumns": [{"name": "Cron", "type": "string", "jsonPath": ".spec.cron"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]});
    rows(&definition(json!([version]))).remove(0)
}

#[test]
fn a_definition_makes_a_row() {
    let row = row();
    assert_eq!(row.api_version(), "stable.example.com/v1");
    assert_eq!((row.storage.as_str(), row.list_kind().as_str()), ("custom:crontabs.stable.example.com", "CronTabList"));
    assert_eq!(row.definition, "com.example.stable.v1.CronTab");
    assert_eq!(row.subresources.iter().map(|s| s.name).collect::<Vec<_>>(), ["status", "scale"]);
    assert_eq!(row.field(&json!({"spec": {"cron": "x"}}), "spec.cron").as_deref(), Some("x"));
    assert_eq!(row.field(&json!({}), "spec.cron").as_deref(), Some(""));
    assert!(row.field(&json!({}), "spec.replicas").is_none());
    let names: Vec<_> = row.columns.iter().map(|c| (c.name.as_ref(), c.priority)).collect();
    assert_eq!(names, [("Name", 0), ("Cron", 0), ("Replicas", 1), ("Age", 0)]);
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                        "spec": {"cron": "c", "replicas": 2}});
    let now = "2026-01-01T01:00:00Z".parse().expect("a time");
    assert_eq!(row.cells(&object, now), [json!("a"), json!("c"), json!(2), json!("60m")]);
}

#[test]
fn unknown_fields_go_and_are_reported() {
    let mut object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": "a", "unknownMeta": 1},
        "spec": {"cron": "x", "extra": {"a": 1}, "note": null, "replicas": null, "any": {"thing": {"b": null}},
                 "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "unknownSub": 1},
                              "spec": {"kept": true}, "gone": 1},
                 "parts": [{"name": "n", "no": 1}]},
        "other": 1});
    let unknown = row().normalize(&mut object).expect("normal");
    assert_eq!(
        unknown,
        [
            "unknown field \"metadata.unknownMeta\"",
            "unknown field \"other\"",
            "unknown field \"spec.extra\"",
            "unknown field \"spec.parts[0].no\"",
            "unknown field \"spec.template.gone\"",
            "unknown field \"spec.template.metadata.unknownSub\"",
        ]
    );
    assert_eq!(
        object["spec"],
        json!({"cron": "x", "note": null, "any": {"thing": {"b": null}}, "parts": [{"name": "n"}],
               "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"kept": true}}})
    );
    let mut wrong = json!({"metadata": {"labels": {"a": 1}}});
    let why = row().normalize(&mut wrong).expect_err("a label must be a string");
    assert!(why.message.contains("metadata: Invalid value: "), "{}", why.message);
}

#[test]
fn the_generation_counts_changes_of_what_is_desired() {
    let row = row();
    let mut made = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"replicas": 1}});
    row.default(&mut made);
    row.prepare_create(&mut made);
    assert_eq!(made, json!({"metadata": {"name": "a", "generation": 1}, "spec": {"cron": "* * * * *"}}));
    let mut changed = made.clone();
    changed["spec"]["replicas"] = 2.into();
    changed["status"] = json!({"replicas": 5});
    row.prepare_update(&mut changed, &made, None);
    assert_eq!((&changed["metadata"]["generation"], changed.get("status")), (&json!(2), None));
    let mut reported = changed.clone();
    reported["spec"]["replicas"] = 9.into();
    reported["metadata"]["labels"] = json!({"a": "b"});
    reported["status"] = json!({"replicas": 2});
    row.prepare_update(&mut reported, &changed, Some("status"));
    assert_eq!(reported["spec"], changed["spec"]);
    assert_eq!(reported["metadata"], changed["metadata"]);
    assert_eq!(reported["status"], json!({"replicas": 2}));
}

#[test]
fn what_is_in_a_map_twice_is_refused() {
    let object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": "a", "namespace": "d"}, "spec": {"parts": [{"name": "n"}, {"name": "n"}],
        "template": {"kind": "Pod"}, "replicas": -1}});
    let errors: Vec<String> = row().validate(&object).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            ".spec.replicas: Invalid value: -1: should be a non-negative integer",
            "spec.template.apiVersion: Required value",
            r#"spec.parts[1]: Duplicate value: {"name":"n"}"#,
        ]
    );
}

#[test]
fn versions_without_conversion_share_what_is_stored() {
    let version = |name: &str, storage: bool, field: &str| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"both": {"type": "string"},
                field: {"type": "string", "default": name}}}}}}})
    };
    let definition = definition(json!([version("v1", true, "one"), version("v2", false, "two")]));
    let rows = rows(&definition);
    let mut object = json!({"apiVersion": "stable.example.com/v2", "spec": {"both": "b", "two": "2"}});
    rows[1].to_stored(&mut object);
    assert_eq!(object, json!({"apiVersion": "stable.example.com/v1", "spec": {"both": "b"}}));
    rows[1].read_stored(&mut object).expect("converted");
    assert_eq!(object, json!({"apiVersion": "stable.example.com/v2", "spec": {"both": "b", "two": "v2"}}));
    assert!(rows.iter().all(Resource::converts));
}

#[test]
fn what_was_never_changed_is_served_as_it_is_stored() {
    let plain = json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
        {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]);
    let mut definition = definition(plain);
    assert!(!rows(&definition)[0].converts());
    let before = identity(&definition);
    definition["metadata"]["generation"] = 2.into();
    assert!(rows(&definition)[0].converts());
    assert_eq!(identity(&definition), before);
    definition["spec"]["scope"] = "Cluster".into();
    assert_ne!(identity(&definition), before);
}

#[test]
fn deprecated_versions_say_what_to_use() {
    let version = |name: &str, deprecated: bool| {
        json!({"name": name, "served": true, "storage": name == "v1", "deprecated": deprecated,
               "schema": {"openAPIV3Schema": {"type": "object"}}})
    };
    let rows = rows(&definition(json!([version("v1beta1", true), version("v1", false)])));
    let warning = rows[0].custom.as_ref().and_then(|kind| kind.warning.as_deref());
    assert_eq!(warning, Some("stable.example.com/v1beta1 CronTab is deprecated; use stable.example.com/v1 CronTab"));
    assert_eq!(rows[1].custom.as_ref().and_then(|kind| kind.warning.as_deref()), None);
}

#[test]
fn what_only_a_webhook_converts_is_not_served_in_another_version() {
    let version = |name: &str| json!({"name": name, "served": true, "storage": name == "v2", "schema": {"openAPIV3Schema": {"type": "object"}}});
    let mut definition = definition(json!([version("v1"), version("v2")]));
    definition["metadata"]["generation"] = 2.into();
    definition["spec"]["conversion"]["strategy"] = "Webhook".into();
    let object = |version: &str| json!({"apiVersion": format!("stable.example.com/{version}"), "old": 1});
    let read = |row: &Resource, version| row.read_stored(&mut object(version)).map_err(|status| status.code);
    let rows = rows(&definition);
    assert_eq!((read(&rows[1], "v1"), read(&rows[1], "v2")), (Err(500), Ok(())));
    // What is to be deleted is read in any case.
    assert_eq!(read(&stored_row(&definition), "v1"), Ok(()));
}
