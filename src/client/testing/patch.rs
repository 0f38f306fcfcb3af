//! Merge patch, and as much of strategic merge as reconcilers write.

use serde_json::Value;

/// Lists that strategic merge joins by a key; `""` is a set of scalars.
const JOINED: &[(&str, &str)] =
    &[("conditions", "type"), ("ownerReferences", "uid"), ("finalizers", ""), ("taints", "key")];

pub(super) fn merge(target: &mut Value, patch: Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (name, value) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
                let gone = value.as_array().cloned().unwrap_or_default();
                items.retain(|item| !gone.contains(item));
            }
        } else if value.is_null() {
            map.remove(&name);
        } else if let (true, Value::Array(items), Some((_, key))) =
            (strategic, &value, JOINED.iter().find(|(list, _)| *list == name))
        {
            join(map.entry(name).or_insert_with(|| Value::Array(Vec::new())), items, key);
        } else {
            merge(map.entry(name).or_insert(Value::Null), value, strategic);
        }
    }
}

fn join(target: &mut Value, items: &[Value], key: &str) {
    let Some(list) = target.as_array_mut() else { return };
    for item in items {
        let same = |other: &Value| if key.is_empty() { other == item } else { other[key] == item[key] };
        if item["$patch"] == "delete" {
            list.retain(|other| !same(other));
        } else if let Some(at) = list.iter().position(same) {
            merge(&mut list[at], item.clone(), true);
        } else {
            list.push(item.clone());
        }
    }
}
