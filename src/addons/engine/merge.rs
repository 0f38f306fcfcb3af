//! Three-way merge: what an object becomes by a manifest, given the manifest that was applied last.
//!
//! Fields that no manifest names are left as they are: defaults, and what controllers and users set. Invariant: merging
//! twice changes nothing more.

use serde_json::{Map, Value};

/// What tells the items of a list apart, the first that all items have and none shares.
const IDENTITIES: &[&str] = &["mountPath", "name", "containerPort", "port", "ip", "type"];

/// `live` as it should be; `last` is the manifest applied before, null when there was none.
pub(super) fn merged(live: &Value, last: &Value, want: &Value) -> Value {
    match (live, want) {
        (Value::Object(live), Value::Object(want)) => {
            let mut out = live.clone();
            for key in last.as_object().into_iter().flat_map(Map::keys).filter(|key| !want.contains_key(*key)) {
                out.remove(key);
            }
            for (key, want) in want {
                let value = match live.get(key) {
                    Some(live) => merged(live, &last[key], want),
                    None => want.clone(),
                };
                out.insert(key.clone(), value);
            }
            Value::Object(out)
        }
        (Value::Array(live), Value::Array(want)) => Value::Array(list(live, last.as_array(), want)),
        _ => want.clone(),
    }
}

fn list(live: &[Value], last: Option<&Vec<Value>>, want: &[Value]) -> Vec<Value> {
    let last = last.map(Vec::as_slice).unwrap_or_default();
    let Some(key) = IDENTITIES.iter().find(|key| tells_apart(want, key) && tells_apart(live, key)) else {
        // By place, where both are equally long and hold the same kinds of things.
        let alike = live.len() == want.len() && live.iter().zip(want).all(|(a, b)| a.is_object() == b.is_object());
        let at = |items: &[Value], place: usize| items.get(place).cloned().unwrap_or(Value::Null);
        return want
            .iter()
            .enumerate()
            .map(|(place, want)| if alike { merged(&at(live, place), &at(last, place), want) } else { want.clone() })
            .collect();
    };
    let same = |items: &[Value], want: &Value| items.iter().find(|item| item[*key] == want[*key]).cloned();
    want.iter()
        .map(|item| match same(live, item) {
            Some(live) => merged(&live, &same(last, item).unwrap_or(Value::Null), item),
            None => item.clone(),
        })
        .collect()
}

fn tells_apart(items: &[Value], key: &str) -> bool {
    let values: Vec<&Value> = items.iter().filter_map(|item| item.get(key)).collect();
    values.len() == items.len() && values.iter().enumerate().all(|(place, value)| !values[..place].contains(value))
}

/// Without fields that are null: they say nothing.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_and_the_users_fields_stay() {
        let last = json!({"spec": {"replicas": 1, "ports": [{"port": 53}], "gone": 1}});
        let live = json!({"spec": {"replicas": 3, "ports": [{"port": 53, "nodePort": 30001, "protocol": "TCP"}], "gone": 1,
                                   "clusterIP": "10.0.0.1"}, "status": {"a": 1}});
        let want = json!({"spec": {"replicas": 1, "ports": [{"port": 53}, {"port": 54}]}});
        let after = merged(&live, &last, &want);
        assert_eq!(
            after,
            json!({"spec": {"replicas": 1, "ports": [{"port": 53, "nodePort": 30001, "protocol": "TCP"}, {"port": 54}],
                            "clusterIP": "10.0.0.1"}, "status": {"a": 1}})
        );
        assert_eq!(merged(&after, &want, &want), after);
    }

    #[test]
    fn lists_are_matched_by_what_tells_items_apart() {
        let live = json!([{"name": "b", "image": "old", "policy": "Always"}, {"name": "a", "x": 1}]);
        let last = json!([{"name": "b", "image": "old", "env": 1}, {"name": "a"}]);
        let want = json!([{"name": "b", "image": "new"}]);
        assert_eq!(merged(&live, &last, &want), json!([{"name": "b", "image": "new", "policy": "Always"}]));
        // Two ports of one number: by place.
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
        assert_eq!(merged(&ports, &ports, &ports), ports);
        assert_eq!(merged(&json!(["a", "b"]), &Value::Null, &json!(["b"])), json!(["b"]));
        assert_eq!(merged(&json!([{"a": 1}]), &Value::Null, &json!(["b"])), json!(["b"]));
    }
}
