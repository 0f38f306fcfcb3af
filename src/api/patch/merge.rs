//! JSON merge patch (RFC 7396).

use serde_json::{Map, Value};

/// `target` as `patch` changes it: maps merge, `null` deletes, all else replaces.
pub fn apply(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(map) = target else { return };
            for (key, value) in patch {
                if value.is_null() {
                    map.remove(&key);
                } else {
                    apply(map.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *target = other,
    }
}

/// The smallest merge patch that turns `from` into `to`. A `null` inside `to` cannot be said by a merge patch.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for (key, value) in b {
        match a.get(key) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), diff(old, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch.extend(a.keys().filter(|k| !b.contains_key(*k)).map(|k| (k.clone(), Value::Null)));
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::json::tests::document;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn examples_of_the_rfc() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!(["a", "b"]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        ] {
            let mut changed = target;
            apply(&mut changed, patch);
            assert_eq!(changed, result);
        }
    }

    proptest! {
        #[test]
        fn a_diff_applies(from in document(), to in document()) {
            let mut changed = from.clone();
            apply(&mut changed, diff(&from, &to));
            prop_assert_eq!(changed, to);
            prop_assert!(diff(&from, &from).as_object().is_none_or(Map::is_empty));
        }

        #[test]
        fn applying_twice_changes_nothing_more(target in document(), patch in document()) {
            let mut once = target;
            apply(&mut once, patch.clone());
            let mut twice = once.clone();
            apply(&mut twice, patch);
            prop_assert_eq!(once, twice);
        }
    }
}
