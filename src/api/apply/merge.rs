//! What a configuration makes of an object: its fields win, and lists keep the order of both as far as they agree.

use super::element::Element;
use super::schema::{ApplySchema, Node};
use super::typed::{child_of, element_of, node_of};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// `live` with what `config` says. Nothing is removed.
#[must_use]
pub fn merge<S: ApplySchema>(schema: &S, live: &Value, config: &Value) -> Value {
    of_both(schema, live, config)
}

fn either<S: ApplySchema>(schema: &S, live: Option<&Value>, config: Option<&Value>) -> Value {
    match (live, config) {
        (Some(live), Some(config)) => of_both(schema, live, config),
        (one, other) => one.or(other).cloned().unwrap_or_default(),
    }
}

fn of_both<S: ApplySchema>(schema: &S, live: &Value, config: &Value) -> Value {
    match node_of(schema, Some(config)) {
        Node::Map { atomic: false } => {
            let (old, new) = (live.as_object(), config.as_object());
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return config.clone();
            }
            let mut out = old.cloned().unwrap_or_default();
            for (name, value) in new.into_iter().flatten() {
                let merged = match (child_of(schema, name).schema(), out.get(name)) {
                    (Some(child), Some(old)) => of_both(&child, old, value),
                    _ => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        Node::Set | Node::KeyedList => {
            let (old, new) = (live.as_array(), config.as_array());
            let (old, new) = (old.map_or(&[][..], Vec::as_slice), new.map_or(&[][..], Vec::as_slice));
            if old.is_empty() && new.is_empty() {
                return config.clone();
            }
            Value::Array(lists(schema, old, new))
        }
        Node::Scalar(_) | Node::AtomicList | Node::Map { atomic: true } | Node::Any => config.clone(),
    }
}

/// Elements of both lists merge where the configuration has them; those of the live list alone stay where they are
/// between the others.
fn lists<S: ApplySchema>(schema: &S, live: &[Value], config: &[Value]) -> Vec<Value> {
    let known = |items: &[Value]| items.iter().filter_map(|v| element_of(schema, v).ok()).collect::<Vec<Element>>();
    let items =
        |items: &'_ [Value]| items.iter().filter(|v| element_of(schema, v).is_ok()).cloned().collect::<Vec<_>>();
    let (left, right) = (known(live), known(config));
    let (left_items, right_items) = (items(live), items(config));
    // What the live list has several times is replaced, not merged.
    let mut by_left: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in left.iter().zip(&left_items) {
        by_left.entry(element).and_modify(|item| *item = &Value::Null).or_insert(item);
    }
    let in_right: BTreeSet<&Element> = right.iter().collect();
    let mut shared = right.iter().filter(|e| by_left.contains_key(e));
    let mut next_shared = shared.next();
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    let element = schema.element();
    let both = |at: &Element, item: &Value| either(&element, by_left.get(at).copied(), Some(item));
    let (mut l, mut r) = (0, 0);
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    loop {
        let (at_left, at_right) = (left.get(l), right.get(r).zip(right_items.get(r)));
        match (at_left, at_right) {
            (None, None) => return out,
            (Some(a), Some((b, item))) if a == b => {
                merged.insert(b);
                out.push(both(b, item));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            // A shared element, but not the one whose turn it is.
            (Some(a), Some(_)) if in_right.contains(a) && next_shared.is_some_and(|next| next != a) => {
                l += 1;
                continue;
            }
            _ => {}
        }
        if let Some(a) = at_left {
            if !in_right.contains(a) {
                out.extend(left_items.get(l).cloned());
                l += 1;
                continue;
            }
            if merged.contains(a) {
                l += 1;
            }
        }
        if let Some((b, item)) = at_right {
            merged.insert(b);
            out.push(both(b, item));
            r += 1;
            if next_shared == Some(b) {
                next_shared = shared.next();
            }
        }
    }
}
