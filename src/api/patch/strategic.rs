//! Strategic merge patch: a merge patch that knows from the schema which lists merge, and by which key.
//!
//! Directives: `$patch: delete|replace|merge`, `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`. The result never contains one.

use super::does_not_apply;
use crate::status::Status;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// What the schema says about a field for patching (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchMeta<S> {
    /// Strategy `merge`: a list merges instead of being replaced.
    pub merge: bool,
    /// Strategy `replace`: a map is replaced instead of merging.
    pub replace: bool,
    /// Which field of its elements identifies them, for a list of maps.
    pub merge_key: Option<&'static str>,
    /// The schema of the map, or of the elements of the list.
    pub schema: S,
}

/// A schema as far as patching must know it. Cheap to copy: an id or a reference.
pub trait PatchSchema: Copy {
    /// The field `name` of a map of this schema. Unknown fields answer the default: maps merge, lists are replaced.
    fn field(self, name: &str) -> PatchMeta<Self>;
}

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// `current` as `patch` changes it.
///
/// # Errors
/// 400 when `patch` or one of its directives is malformed, 422 when the patch does not fit what it patches.
pub fn apply<S: PatchSchema>(current: &Value, patch: &Value, schema: S) -> Result<Value, Status> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(bad("invalid JSON document"));
    };
    merge_maps(current.clone(), patch.clone(), schema).map(Value::Object)
}

fn bad(message: &str) -> Status {
    Status::bad_request(message)
}

type Object = Map<String, Value>;

fn merge_maps<S: PatchSchema>(mut current: Object, mut patch: Object, schema: S) -> Result<Object, Status> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(clean_map(patch)),
            Some("delete") => Ok(Object::new()),
            _ => Err(bad(&format!("unknown patch type: {} in map", shown(&directive)))),
        };
    }
    retain_keys(&mut current, &mut patch)?;
    set_orders(&mut current, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut current, list, &value)?;
            continue;
        }
        if value.is_null() {
            current.remove(&key);
            continue;
        }
        let meta = schema.field(&key);
        let merged = match (current.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !meta.replace => {
                Some(Value::Object(merge_maps(old, new, meta.schema)?))
            }
            (Some(Value::Array(old)), Value::Array(new)) if meta.merge => Some(merge_lists(old, new, &meta)?),
            (_, new) => clean(new),
        };
        if let Some(merged) = merged {
            current.insert(key, merged);
        }
    }
    Ok(current)
}

/// `$retainKeys: [a, b]`: all other keys of the current map go; the patch may not set any of those.
fn retain_keys(current: &mut Object, patch: &mut Object) -> Result<(), Status> {
    const MESSAGE: &str = "invalid patch format of retainKeys";
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| bad(MESSAGE))?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let retained = |key: &str| keys.contains(key);
    for (key, value) in patch.iter() {
        if !(value.is_null() || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER) || retained(key)) {
            return Err(bad(MESSAGE));
        }
    }
    current.retain(|key, _| retained(key));
    Ok(())
}

fn delete_primitives(current: &mut Object, list: &str, unwanted: &Value) -> Result<(), Status> {
    let unwanted = unwanted.as_array().ok_or_else(|| bad("invalid patch format of primitive list"))?;
    let unwanted: HashSet<&Value> = unwanted.iter().collect();
    if let Some(Value::Array(items)) = current.get_mut(list) {
        items.retain(|item| !unwanted.contains(item));
    }
    Ok(())
}

/// Merges each list that a `$setElementOrder/` names, in the order it gives, and takes both out of the patch.
fn set_orders<S: PatchSchema>(current: &mut Object, patch: &mut Object, schema: S) -> Result<(), Status> {
    const MESSAGE: &str = "invalid patch format of setElementOrder list";
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(bad(MESSAGE)) };
        let name = directive.strip_prefix(SET_ORDER).unwrap_or_default();
        let meta = schema.field(name);
        let list = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(bad(MESSAGE)),
        };
        // A parallel deletion list applies before the order does.
        if let Some(unwanted) = patch.remove(&format!("{DELETE_FROM}{name}")) {
            delete_primitives(current, name, &unwanted)?;
        }
        // `list: null` beside an order deletes the list.
        if patch.get(name).is_some_and(Value::is_null) {
            continue;
        }
        let (old, new) = (list(current.get(name).cloned())?, list(patch.remove(name))?);
        if let Some(new) = &new {
            check_order(new, &order, meta.merge_key)?;
        }
        let merged = match (&old, new) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => without_directives(new),
            (Some(old), Some(new)) if meta.merge => match merge_lists(old.clone(), new, &meta)? {
                Value::Array(merged) => merged,
                _ => return Err(bad(MESSAGE)),
            },
            (Some(_), Some(new)) => without_directives(new),
        };
        let live = known_order(old.unwrap_or_default(), &merged, &order, meta.merge_key);
        let ordered = in_order(merged, &order, &live, meta.merge_key)?;
        current.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// The order of a list before it was ordered, as upstream knows it: Go's slices let new elements take the places that
/// deleted ones leave at the end, so these count as known. Clients see that in the order of their containers.
fn known_order(old: Vec<Value>, merged: &[Value], order: &[Value], key: Option<&str>) -> Vec<Value> {
    let Some(key) = key else { return old };
    let length = old.len();
    let after = places(merged, Some(key));
    let before = places(&old, Some(key));
    let of = |item: &Value| item.get(key).and_then(|k| after.get(k)).and_then(|at| merged.get(*at));
    let added: Vec<Value> = order
        .iter()
        .filter(|item| item.get(key).is_some_and(|k| !before.contains_key(k)))
        .filter_map(of)
        .cloned()
        .collect();
    let mut known: Vec<Value> = old.iter().filter(|item| of(item).is_some()).cloned().collect();
    known.extend(added.into_iter().take(length - known.len()));
    known
}

/// The elements of the patch must be a subsequence of the order, deletions apart.
fn check_order(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), Status> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(item, merge_key)?;
        let mut found = false;
        for place in places.by_ref() {
            if identity(place, merge_key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            return Err(does_not_apply("The order in patch list doesn't match $setElementOrder list"));
        }
    }
    Ok(())
}

/// What tells an element of a merging list from its neighbours: its merge key's value, or itself.
fn identity<'a>(item: &'a Value, merge_key: Option<&str>) -> Result<&'a Value, Status> {
    let Some(key) = merge_key else { return Ok(item) };
    match item {
        Value::Object(map) => map
            .get(key)
            .ok_or_else(|| does_not_apply(format!("map: {item} does not contain declared merge key: {key}"))),
        other => Err(does_not_apply(format!("expected a map, but received {other}"))),
    }
}

/// Where each element of a list is first. Elements without the merge key are nowhere.
fn places<'a>(list: &'a [Value], key: Option<&str>) -> HashMap<&'a Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        if let Some(identity) = key.map_or(Some(item), |key| item.get(key)) {
            places.entry(identity).or_insert(i);
        }
    }
    places
}

fn merge_lists<S: PatchSchema>(old: Vec<Value>, patch: Vec<Value>, meta: &PatchMeta<S>) -> Result<Value, Status> {
    if old.iter().chain(&patch).any(Value::is_array) {
        return Err(does_not_apply("lists of lists are not supported"));
    }
    let maps = old.iter().chain(&patch).filter(|v| v.is_object()).count();
    if maps != 0 && maps != old.len() + patch.len() {
        return Err(does_not_apply("list element types are not identical"));
    }
    if maps == 0 {
        let mut seen = HashSet::new();
        let merged = old.iter().chain(&patch).filter(|item| seen.insert(*item)).cloned().collect();
        return in_order(merged, &patch, &old, None).map(Value::Array);
    }
    let Some(key) = meta.merge_key else {
        return Err(does_not_apply("cannot merge lists without merge key"));
    };
    let (mut merged, patch) = apply_deletions(old, patch, key)?;
    let live = merged.clone();
    let mut at = places(&live, Some(key));
    for item in &patch {
        let wanted = identity(item, Some(key))?;
        match (at.get(wanted).and_then(|at| merged.get_mut(*at)), item) {
            (Some(Value::Object(found)), Value::Object(item)) => {
                *found = merge_maps(std::mem::take(found), item.clone(), meta.schema)?;
            }
            _ => {
                at.insert(wanted, merged.len());
                merged.extend(clean(item.clone()));
            }
        }
    }
    in_order(merged, &patch, &live, Some(key)).map(Value::Array)
}

/// Carries out the elements that are directives. Answers what is left of the list and of the patch.
fn apply_deletions(mut old: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut items = Vec::with_capacity(patch.len());
    let (mut unwanted, mut replace) = (HashSet::new(), false);
    for item in patch {
        match item.get(DIRECTIVE) {
            None => items.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => drop(unwanted.insert(identity(&item, Some(key))?.clone())),
                Some("replace") => replace = true,
                Some("merge") => return Err(does_not_apply("merging lists cannot yet be specified in the patch")),
                _ => return Err(bad(&format!("unknown patch type: {} in map", shown(directive)))),
            },
        }
    }
    old.retain(|item| item.get(key).is_none_or(|k| !unwanted.contains(k)));
    Ok(if replace { (without_directives(items), Vec::new()) } else { (old, items) })
}

/// Orders a merged list: elements named by `order` follow it, the others keep the order of `live`, and the two
/// interleave as they did in `live` where both are known there.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Result<Vec<Value>, Status> {
    let (ordered, known) = (places(order, key), places(live, key));
    let place = |places: &HashMap<&Value, usize>, item: &Value| places.get(identity(item, key).ok()?).copied();
    for item in &merged {
        identity(item, key)?;
    }
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| place(&ordered, item).is_some());
    named.sort_by_key(|item| place(&ordered, item));
    others.sort_by_key(|item| place(&known, item).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        if let Some(at) = place(&known, &item) {
            while let Some(other) = others.next_if(|other| place(&known, other).is_some_and(|p| p < at)) {
                result.push(other);
            }
        }
        result.push(item);
    }
    result.extend(others);
    Ok(result)
}

/// A value of the patch where there was none to merge with: without nulls and directives; `None` when it is itself a
/// directive.
fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(clean_map(map))),
        Value::Array(list) => Some(Value::Array(without_directives(list))),
        other => Some(other),
    }
}

fn clean_map(map: Object) -> Object {
    let directive = |key: &str| key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM);
    map.into_iter()
        .filter(|(key, value)| !value.is_null() && !directive(key))
        .filter_map(|(key, value)| Some((key, clean(value)?)))
        .collect()
}

fn without_directives(list: Vec<Value>) -> Vec<Value> {
    list.into_iter().filter_map(clean).collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
