//! Takes fields away from an object.

use super::element::Element;
use super::schema::{ApplySchema, Node};
use super::set::Set;
use super::typed::{child_of, element_of, node_of};
use serde_json::{Map, Value};

/// `value` without the fields in `fields`. A map or list of which nothing is left is null.
#[must_use]
pub fn remove<S: ApplySchema>(schema: &S, value: &Value, fields: &Set) -> Value {
    match (node_of(schema, Some(value)), value) {
        (Node::Map { atomic: false }, Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let kept = match (fields.get(&Element::field(name)), child_of(schema, name).schema()) {
                    (Some(branch), _) if branch.member => continue,
                    (Some(branch), Some(child)) => remove(&child, value, &branch.below),
                    _ => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Node::Set | Node::KeyedList, Value::Array(items)) => {
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let branch = element_of(schema, item).ok().and_then(|element| fields.get(&element));
                match branch {
                    Some(branch) if branch.member => {}
                    Some(branch) => out.push(remove(&schema.element(), item, &branch.below)),
                    None => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        (Node::Scalar(_), _) => value.clone(),
        // It is owned as a whole: something below it was asked for.
        _ => Value::Null,
    }
}
