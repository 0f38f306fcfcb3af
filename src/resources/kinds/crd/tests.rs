use super::*;

fn definition(schema: Value) -> Value {
    let mut v = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    default(&mut v);
    (HOOKS.prepare_create)(&mut v);
    v
}

fn errors(v: &Value) -> Vec<String> {
    let mut errors = Errors::new();
    (HOOKS.validate)(v, &mut errors);
    (HOOKS.validate_create)(v, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

const AT: &str = "spec.versions[0].schema.openAPIV3Schema";

#[test]
fn defaults_and_status() {
    let v = definition(
        json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "no": 1}}}}),
    );
    assert_eq!(v["spec"]["names"]["singular"], "foo");
    assert_eq!(v["spec"]["names"]["listKind"], "FooList");
    assert_eq!(v["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(v["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(
        v.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/a/items"),
        Some(&json!({"type": "string"}))
    );
    assert_eq!(errors(&v), [""; 0]);
}

#[test]
fn schemas_that_are_not_structural() {
    for (schema, want) in [
        (json!({}), vec![format!("{AT}.type: Required value: must not be empty at the root")]),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            vec![format!("{AT}.properties[a].type: Required value: must not be empty for specified object fields")],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            vec![format!("{AT}.properties[a].items: Required value: must be specified")],
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            vec![format!("{AT}.properties[b]: Required value: because it is defined in {AT}.anyOf[0].properties[b]")],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "not": {"type": "string"}}}}),
            vec![format!("{AT}.properties[a].not.type: Forbidden: must be empty to be structural")],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            vec![format!(
                "{AT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but \
                 metadata is implicitly specified"
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
            vec![format!(
                "{AT}.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"b": 1}}}}),
            vec![format!("{AT}.properties[a].default: Invalid value: {{\"b\":1}}: must not have unknown fields")],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "strin"}}}),
            vec![format!(
                "{AT}.properties[a].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \
                 \"integer\", \"number\", \"object\", \"string\""
            )],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map",
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-map-keys": ["k"]}}}),
            vec![format!(
                "{AT}.properties[a].items.properties[k].default: Required value: this property is in \
                 x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )],
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            vec![format!("{AT}.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined")],
        ),
    ] {
        assert_eq!(errors(&definition(schema.clone())), want, "{schema}");
    }
}

#[test]
fn int_or_string_may_name_its_types() {
    for field in [
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^a"}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}]}),
        json!({"x-kubernetes-int-or-string": true, "default": "50%"}),
    ] {
        assert_eq!(errors(&definition(json!({"type": "object", "properties": {"a": field}}))), [""; 0]);
    }
}

#[test]
fn names_and_versions() {
    let good = definition(json!({"type": "object"}));
    for (path, value, want) in [
        (
            "/spec/group",
            json!("example"),
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        ),
        (
            "/spec/scope",
            json!("Wide"),
            "spec.scope: Unsupported value: \"Wide\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        ("/spec/versions/0/storage", json!(false), "must have exactly one version marked as storage version"),
        (
            "/spec/names/listKind",
            json!("Foo"),
            "spec.names.listKind: Invalid value: \"Foo\": kind and listKind may not be the same",
        ),
        (
            "/metadata/name",
            json!("bars.example.com"),
            "metadata.name: Invalid value: \"bars.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "/spec/group",
            json!("x.k8s.io"),
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have",
        ),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).expect(path) = value;
        let found = errors(&bad);
        assert!(found.iter().any(|e| e.contains(want)), "{want}: {found:?}");
    }
    let mut column = good.clone();
    column["spec"]["versions"][0]["additionalPrinterColumns"] = json!([{"name": "A", "type": "text", "jsonPath": "a"}]);
    assert_eq!(
        errors(&column),
        [
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of \
             boolean,date,integer,number,string",
            "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": must be a simple json path \
             starting with .",
        ]
    );
}

#[test]
fn what_is_established_keeps_its_kind() {
    let mut old = definition(json!({"type": "object"}));
    crate::custom::names::settle(&mut old, &crate::custom::names::Taken::default(), "t");
    let mut new = old.clone();
    new["spec"]["names"]["kind"] = "Bar".into();
    new["spec"]["group"] = "other.com".into();
    let mut errors = Errors::new();
    (HOOKS.validate_update)(&new, &old, None, &mut errors);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "spec.names.kind: Invalid value: \"Bar\": field is immutable",
            "spec.group: Invalid value: \"other.com\": field is immutable",
        ]
    );
}
