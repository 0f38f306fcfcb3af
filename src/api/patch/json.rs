//! JSON patch (RFC 6902), with the two liberties upstream's library takes: indices below zero count from the end, and
//! `test` for `null` holds where the path is absent.

use super::does_not_apply;
use crate::status::{Reason, Status};
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// Upstream's bound on the number of operations.
const OPERATIONS_MAX: usize = 10_000;
/// A patch whose copies grow the document beyond this is refused (upstream: `AccumulatedCopySizeLimit`).
const COPIED_MAX: usize = 3 * 1024 * 1024;

/// `target` as the operations of `patch` change it, all of them or none.
///
/// # Errors
/// 400 when `patch` is no JSON patch, 413 when it has too many operations, 422 when an operation does not apply.
pub fn apply(target: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_array() {
        return Err(Status::bad_request("error decoding patch: a JSON patch is a list of operations"));
    }
    let Patch(operations) =
        serde_json::from_value(patch.clone()).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if operations.len() > OPERATIONS_MAX {
        let got = operations.len();
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {got}");
        return Err(Status::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {message}")));
    }
    let mut document = target.clone();
    let mut copied = 0;
    for mut operation in operations {
        from_the_end(&document, &mut operation);
        if let PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && test.path.resolve(&document).is_err()
        {
            continue;
        }
        if let PatchOperation::Copy(copy) = &operation
            && let Ok(value) = copy.from.resolve(&document)
        {
            copied += size(value);
            if copied > COPIED_MAX {
                return Err(does_not_apply("the copies of the patch are too large"));
            }
        }
        let shown = operation.path().to_string();
        json_patch::patch(&mut document, &[operation])
            .map_err(|e| does_not_apply(format!("operation at path \"{shown}\" does not apply: {}", e.kind)))?;
    }
    Ok(document)
}

/// Replaces a last path segment such as `-1` by the index it means in `document`.
fn from_the_end(document: &Value, operation: &mut PatchOperation) {
    let (path, inserts) = match operation {
        PatchOperation::Add(o) => (&mut o.path, true),
        PatchOperation::Remove(o) => (&mut o.path, false),
        PatchOperation::Replace(o) => (&mut o.path, false),
        PatchOperation::Test(o) => (&mut o.path, false),
        PatchOperation::Move(o) => (&mut o.path, true),
        PatchOperation::Copy(o) => (&mut o.path, true),
    };
    let Some((parent, last)) = path.split_back() else { return };
    let Some(back) = last.decoded().strip_prefix('-').and_then(|n| n.parse::<usize>().ok()) else { return };
    let Ok(Value::Array(list)) = parent.resolve(document) else { return };
    let end = list.len() + usize::from(inserts);
    if let Some(index) = end.checked_sub(back) {
        let mut resolved = parent.to_buf();
        resolved.push_back(index);
        *path = resolved;
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(list) => list.iter().map(size).sum::<usize>() + list.len() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>() + 2,
        _ => 4,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Any JSON document without `null`, with few and repeating keys.
    pub(crate) fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4_i64).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    #[test]
    fn operations_apply() {
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "x"}, {"name": "y"}]}});
        let patch = json!([
            {"op": "test", "path": "/metadata/labels/a", "value": "1"},
            {"op": "test", "path": "/metadata/annotations", "value": null},
            {"op": "add", "path": "/metadata/labels/b~1c", "value": "2"},
            {"op": "remove", "path": "/spec/containers/-1"},
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "z"}},
            {"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/name"},
            {"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/d"},
            {"op": "replace", "path": "/spec/containers/0/name", "value": "w"},
        ]);
        let result = json!({"metadata": {"name": "1", "labels": {"b/c": "2", "d": "1"}},
                            "spec": {"containers": [{"name": "w"}, {"name": "z"}]}});
        assert_eq!(apply(&pod, &patch).expect("applies"), result);
    }

    #[test]
    fn failures_have_upstreams_codes() {
        let doc = json!({"a": 1, "l": []});
        for (patch, code) in [
            (json!({}), 400),
            (json!([{"op": "grow", "path": "/a"}]), 400),
            (json!([{"op": "add", "path": "a", "value": 1}]), 400),
            (json!([{"op": "test", "path": "/a", "value": 2}]), 422),
            (json!([{"op": "remove", "path": "/b"}]), 422),
            (json!([{"op": "replace", "path": "/b", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/b/c", "value": 1}]), 422),
            (json!([{"op": "add", "path": "/l/7", "value": 1}]), 422),
            (json!([{"op": "remove", "path": "/l/-1"}]), 422),
            (json!(vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001]), 413),
        ] {
            assert_eq!(apply(&doc, &patch).expect_err("refused").code, code, "{patch}");
        }
        let status = apply(&doc, &json!([{"op": "test", "path": "/a", "value": 2}])).expect_err("refused");
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
        assert_eq!(status.causes[0].message, "operation at path \"/a\" does not apply: value did not match");
    }

    #[test]
    fn copies_do_not_explode() {
        let doc = json!({"a": ["x".repeat(1000)]});
        let patch: Vec<Value> = (0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
        assert_eq!(apply(&doc, &Value::from(patch)).expect_err("refused").code, 422);
    }

    proptest! {
        #[test]
        fn any_patch_is_answered(doc in document(), ops in prop::collection::vec(
            (prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]),
             "(/([a-d]|-|-?[0-3])){0,3}", "(/([a-d]|-|-?[0-3])){0,3}", document()), 0..6)) {
            let patch: Vec<Value> = ops.into_iter()
                .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value})).collect();
            if let Err(status) = apply(&doc, &Value::from(patch)) {
                prop_assert_eq!(status.code, 422);
            }
        }

        #[test]
        fn adding_and_removing_cancel(doc in document(), value in document()) {
            prop_assume!(doc.is_object());
            let patch = json!([{"op": "add", "path": "/new", "value": value}, {"op": "remove", "path": "/new"}]);
            prop_assert_eq!(apply(&doc, &patch).expect("applies"), doc);
        }
    }
}
