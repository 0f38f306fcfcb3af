use super::*;
use serde_json::json;

fn errors_since(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
    let schema = Schema::read(&schema);
    validate(&schema, &value, old.as_ref(), &FieldPath::default()).iter().map(ToString::to_string).collect()
}

fn of_spec(schema: &Value, value: &Value) -> Vec<String> {
    let root = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}});
    errors_since(root, json!({"spec": {"x": value}}), None)
}

/// The words are upstream's, as its apiserver sends them.
#[test]
fn messages() {
    for (schema, value, want) in [
        (
            json!({"type": "integer"}),
            json!("a"),
            r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(true),
            r#"spec.x: Invalid value: "": spec.x in body must be of type int32: """#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "string"}),
            json!(null),
            r#"spec.x: Invalid value: "null": spec.x in body must be of type string: "null""#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"spec.x: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            r#"spec.x: Invalid value: "b": spec.x in body should match '^a$'"#,
        ),
        (json!({"type": "string", "maxLength": 1}), json!("ab"), "spec.x: Too long: may not be more than 1 bytes"),
        (
            json!({"type": "string", "minLength": 2}),
            json!("é"),
            r#"spec.x: Invalid value: "é": spec.x in body should be at least 2 chars long"#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
            json!(1.5),
            "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "spec.x: Invalid value: 4: spec.x in body should be a multiple of 3",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            r#"spec.x[1]: Invalid value: "integer": spec.x[1] in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"k": 1}),
            r#"spec.x.k: Invalid value: "integer": spec.x.k in body must be of type string: "integer""#,
        ),
        (json!({"type": "object", "required": ["k"]}), json!({}), "spec.x.k: Required value"),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("x"),
            r#"spec.x: Invalid value: "x": spec.x in body must be of type ipv4: "x""#,
        ),
        (
            json!({"type": "integer", "not": {"enum": [3]}}),
            json!(3),
            r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#,
        ),
    ] {
        assert_eq!(of_spec(&schema, &value), [want], "{schema} {value}");
    }
}

#[test]
fn what_holds() {
    for (schema, value) in [
        (json!({"type": "integer"}), json!(2.0)),
        (json!({"type": "number"}), json!(2)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (json!({"type": "integer", "enum": [1, 2]}), json!(1.0)),
        (json!({"type": "string", "format": "made-up"}), json!("x")),
        (json!({"type": "number", "multipleOf": 0.1}), json!(0.3)),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!({"any": ["thing"]})),
        (json!({"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 2}]}), json!(7)),
    ] {
        assert_eq!(of_spec(&schema, &value), [""; 0], "{schema} {value}");
    }
}

#[test]
fn the_alternative_that_comes_nearest_is_explained() {
    let schema = json!({"type": "integer", "oneOf": [{"minimum": 5}, {"minimum": 7}], "anyOf": [{"maximum": 1}]});
    let found = of_spec(&schema, &json!(8));
    let nil = |detail: &str| format!("<nil>: Invalid value: \"\": \"spec.x\" must validate {detail}");
    assert!(found.contains(&nil("at least one schema (anyOf)")), "{found:?}");
    assert!(found.contains(&"spec.x: Invalid value: 8: spec.x in body should be less than or equal to 1".to_owned()));
    assert!(found.contains(&nil("one and only one schema (oneOf). Found 2 valid alternatives")), "{found:?}");
    let none = of_spec(&schema, &json!(1));
    assert!(none.contains(&nil("one and only one schema (oneOf). Found none valid")), "{none:?}");
}

#[test]
fn required_at_the_root() {
    assert_eq!(
        errors_since(json!({"type": "object", "required": ["spec"]}), json!({}), None),
        ["spec: Required value"]
    );
}

/// An update may keep what a newer schema forbids.
#[test]
fn what_was_wrong_before_may_stay() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
              "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}}}});
    let old = json!({"a": "old", "b": "b", "l": [{"k": "1", "v": "old"}]});
    let new = json!({"a": "old", "b": "new", "l": [{"k": "0", "v": "n"}, {"k": "1", "v": "old"}]});
    let found = errors_since(schema, new, Some(old));
    assert_eq!(found, ["b: Too long: may not be more than 1 bytes"]);
}

#[test]
fn numbers_read_as_go_writes_them() {
    for (f, text) in
        [(1.0, "1"), (1.5, "1.5"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (0.00001, "1e-05"), (-2.0, "-2")]
    {
        assert_eq!(go_float(f), text);
    }
}

#[test]
fn long_lists_are_compared_in_no_time() {
    let schema = Schema::read(&json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer", "maximum": 1}}}}));
    let items = |size: u64| (0..10_000).rev().map(|i| json!({"name": i.to_string(), "size": size})).collect::<Value>();
    let (old, mut new) = (items(2), items(2));
    new[9_999]["size"] = 3.into();
    let begun = std::time::Instant::now();
    // What was wrong before and is the same now stays.
    let errors = validate(&schema, &new, Some(&old), &FieldPath::new("spec"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(errors.iter().map(|e| e.path.as_str()).collect::<Vec<_>>().len(), 1, "{errors:?}");
}
