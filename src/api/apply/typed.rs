//! Values along a schema: whether they fit, which fields they have, how two of them differ.

use super::element::{Element, same};
use super::schema::{ApplySchema, Child, Node, Scalar};
use super::set::{Branch, Filter, Set};
use crate::go;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

static EMPTY_MAP: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NULL: Value = Value::Null;

/// What is at a node, once the value tells where the schema leaves it open.
pub(crate) fn node_of<S: ApplySchema>(schema: &S, value: Option<&Value>) -> Node {
    match (schema.node(), value) {
        (Node::Any, Some(Value::Array(_))) => Node::AtomicList,
        (Node::Any, Some(Value::Object(_) | Value::Null)) => Node::Map { atomic: false },
        (Node::Any, Some(_)) => Node::Scalar(Scalar::Untyped),
        (node, _) => node,
    }
}

/// The child of a map, where `Any` has no names of its own.
pub(crate) fn child_of<S: ApplySchema>(schema: &S, name: &str) -> Child<S> {
    if schema.node() == Node::Any { Child::Item(schema.clone()) } else { schema.child(name) }
}

/// How an element of a list that is no atomic one is known; `list` is the schema of the list.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn element_of<S: ApplySchema>(list: &S, item: &Value) -> Result<Element, String> {
    if list.node() == Node::Set {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(Element::Value(scalar.clone())),
        };
    }
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut keys: Vec<(String, Value)> = list
        .keys()
        .filter_map(|key| Some((key.to_owned(), map.get(key).cloned().or_else(|| list.element().default(key))?)))
        .collect();
    if keys.is_empty() {
        let names: Vec<String> = list.keys().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Element::Key(keys))
}

/// Everything about `value` that does not fit its schema, as `.spec.replicas: expected ...`; keyed elements that are
/// there twice among it.
#[must_use]
pub fn validate<S: ApplySchema>(schema: &S, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    check(schema, value, "", &mut errors);
    errors
}

fn check<S: ApplySchema>(schema: &S, value: &Value, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut wrong = |why: String| errors.push(if path.is_empty() { why } else { format!("{path}: {why}") });
    match (node_of(schema, Some(value)), value) {
        (Node::Scalar(scalar), _) => match (scalar, value) {
            (Scalar::String | Scalar::Untyped, Value::String(_))
            | (Scalar::Number | Scalar::Untyped, Value::Number(_))
            | (Scalar::Bool | Scalar::Untyped, Value::Bool(_)) => {}
            (Scalar::String, _) => {
                wrong(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go::source(value)));
            }
            (Scalar::Number, _) => wrong(format!("expected numeric (int or float), got {}", go::type_name(value))),
            (Scalar::Bool, _) => wrong(format!("expected boolean, got &{{{}}}", go::text(value))),
            (Scalar::Untyped, _) => wrong(format!("expected any scalar, got &{{{}}}", go::text(value))),
        },
        (Node::Map { .. }, Value::Object(map)) => {
            for (name, value) in map {
                let inside = format!("{path}.{name}");
                match child_of(schema, name).schema() {
                    Some(child) => check(&child, value, &inside, errors),
                    None => errors.push(format!("{inside}: field not declared in schema")),
                }
            }
        }
        (Node::Map { .. }, _) => wrong(format!("expected map, got &{{{}}}", go::text(value))),
        (Node::AtomicList, Value::Array(items)) => {
            // Nothing is said about the elements of what may be anything.
            if schema.node() == Node::AtomicList {
                for (i, item) in items.iter().enumerate() {
                    check(&schema.element(), item, &format!("{path}[{i}]"), errors);
                }
            }
        }
        (Node::Set | Node::KeyedList, Value::Array(items)) => {
            let mut seen: BTreeSet<Element> = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                match element_of(schema, item) {
                    Ok(element) => {
                        if seen.contains(&element) {
                            errors.push(format!("{path}: duplicate entries for key {element}"));
                        }
                        check(&schema.element(), item, &format!("{path}{element}"), errors);
                        seen.insert(element);
                    }
                    Err(why) => return errors.push(format!("{path}: element {i}: {why}")),
                }
            }
        }
        (Node::AtomicList | Node::Set | Node::KeyedList, _) => {
            wrong(format!("expected list, got &{{{}}}", go::text(value)));
        }
        (Node::Any, _) => {}
    }
}

/// The fields that a configuration says something about. Elements of lists, and keys of maps, are members besides
/// what is in them; the structs on the way are not.
#[must_use]
pub fn field_set<S: ApplySchema>(schema: &S, value: &Value) -> Set {
    fields(schema, value).below
}

fn fields<S: ApplySchema>(schema: &S, value: &Value) -> Branch {
    let mut out = Branch::default();
    match (node_of(schema, Some(value)), value) {
        (Node::Scalar(_) | Node::AtomicList | Node::Map { atomic: true }, _) => return Branch::MEMBER,
        (Node::Map { .. }, Value::Object(map)) => {
            for (name, value) in map {
                let child = child_of(schema, name);
                let is_item = matches!(child, Child::Item(_) | Child::Unknown);
                let mut inside = child.schema().map_or(Branch::MEMBER, |child| fields(&child, value));
                inside.member |= is_item || value.is_null() || value.as_object().is_some_and(Map::is_empty);
                out.below.put(Element::field(name), inside);
            }
        }
        (Node::Set | Node::KeyedList, Value::Array(items)) => {
            for (element, items) in by_element(schema, items) {
                let mut inside = match items.as_slice() {
                    [one] => fields(&schema.element(), one),
                    // What is there several times is owned as a whole.
                    _ => Branch::default(),
                };
                inside.member = true;
                out.below.put(element, inside);
            }
        }
        _ => {}
    }
    out
}

/// The elements of a list by what they are known by; those that cannot be known are left out.
fn by_element<'a, S: ApplySchema>(list: &S, items: &'a [Value]) -> BTreeMap<Element, Vec<&'a Value>> {
    let mut out: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = element_of(list, item) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}

/// How an object differs from an older one. No field is in two of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    /// What the newer object has and the older has not so.
    #[must_use]
    pub fn changed(self) -> Set {
        if self.modified.is_empty() { self.added } else { self.modified.union(&self.added) }
    }

    pub(crate) fn filtered(self, filter: Filter<'_>) -> Self {
        Self {
            removed: filter.apply(self.removed),
            modified: filter.apply(self.modified),
            added: filter.apply(self.added),
        }
    }
}

/// Compares an object with an older one.
#[must_use]
pub fn compare<S: ApplySchema>(schema: &S, old: &Value, new: &Value) -> Comparison {
    let diff = differ(schema, Some(old), Some(new));
    Comparison { removed: diff.removed.below, modified: diff.modified.below, added: diff.added.below }
}

#[derive(Default)]
struct Diff {
    removed: Branch,
    modified: Branch,
    added: Branch,
}

impl Diff {
    /// What differs at an element. In most nothing does, in the others mostly in one way.
    fn put(&mut self, element: impl FnOnce() -> Element, inside: Self) {
        let Self { removed, modified, added } = self;
        let ways = [(removed, inside.removed), (modified, inside.modified), (added, inside.added)];
        let mut ways = ways.into_iter().filter(|(_, branch)| !branch.is_empty());
        let Some((first, branch)) = ways.next() else { return };
        let element = element();
        for (other, branch) in ways {
            other.below.put(element.clone(), branch);
        }
        first.below.put(element, branch);
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.added.member = true,
            (_, None) => self.removed.member = true,
            (Some(old), Some(new)) => self.modified.member |= !same(old, new),
        }
    }
}

/// One side may be absent.
fn differ<S: ApplySchema>(schema: &S, old: Option<&Value>, new: Option<&Value>) -> Diff {
    let mut out = Diff::default();
    // Most of an object is as it was.
    if old.is_some() && old == new {
        return out;
    }
    let (was, is) = (node_of(schema, old), node_of(schema, new));
    if old.is_some() && new.is_some() && was != is {
        // It turned from one sort of thing into another.
        walk(schema, was, old, new, &mut out);
    }
    let is_leaf = walk(schema, if new.is_some() { is } else { was }, old, new, &mut out);
    if !is_leaf {
        out.added.member |= old.is_none();
        out.removed.member |= new.is_none();
    }
    out
}

/// Answers whether it was taken as a whole.
fn walk<S: ApplySchema>(schema: &S, node: Node, old: Option<&Value>, new: Option<&Value>, out: &mut Diff) -> bool {
    match node {
        Node::Map { atomic: false } => {
            let (was, is) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if was.is_none_or(Map::is_empty) && is.is_none_or(Map::is_empty) {
                out.leaf(old, new);
                return true;
            }
            let added = is.into_iter().flatten().filter(|(name, _)| was.is_none_or(|was| !was.contains_key(*name)));
            for (name, _) in was.into_iter().flatten().chain(added) {
                out.put(|| Element::field(name), field(schema, name, was, is));
            }
            false
        }
        Node::Set | Node::KeyedList => {
            let (was, is) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if was.is_none_or(Vec::is_empty) && is.is_none_or(Vec::is_empty) {
                out.leaf(old, new);
                return true;
            }
            let was = by_element(schema, was.map_or(&[], Vec::as_slice));
            let is = by_element(schema, is.map_or(&[], Vec::as_slice));
            for element in was.keys().chain(is.keys().filter(|element| !was.contains_key(element))) {
                let (was, is) =
                    (was.get(element).map_or(&[][..], Vec::as_slice), is.get(element).map_or(&[][..], Vec::as_slice));
                out.put(|| element.clone(), elements(schema, was, is));
            }
            false
        }
        Node::Scalar(_) | Node::AtomicList | Node::Map { atomic: true } | Node::Any => {
            out.leaf(old, new);
            true
        }
    }
}

/// The field `name` of two maps, one of which may be absent.
fn field<S: ApplySchema>(
    schema: &S,
    name: &str,
    was: Option<&Map<String, Value>>,
    is: Option<&Map<String, Value>>,
) -> Diff {
    let child = child_of(schema, name);
    let is_always = matches!(child, Child::Always(_));
    let (mut old, mut new) = (was.and_then(|m| m.get(name)), is.and_then(|m| m.get(name)));
    let Some(child) = child.schema() else {
        let mut out = Diff::default();
        out.leaf(old, new);
        return out;
    };
    if is_always {
        let blank = if matches!(child.node(), Node::Map { .. }) { &*EMPTY_MAP } else { &NULL };
        old = old.or(was.map(|_| blank));
        new = new.or(is.map(|_| blank));
    }
    differ(&child, old, new)
}

/// What is known by one element in both lists: once, or several times, which is owned as a whole.
fn elements<S: ApplySchema>(list: &S, was: &[&Value], is: &[&Value]) -> Diff {
    let schema = list.element();
    match (was, is) {
        ([] | [_], [] | [_]) => differ(&schema, was.first().copied(), is.first().copied()),
        ([_, _, ..], [_, _, ..]) => {
            let mut out = Diff::default();
            out.modified.member = was.len() != is.len() || !was.iter().zip(is).all(|(a, b)| same(a, b));
            out
        }
        ([_, _, ..], _) => {
            let mut out = is.first().map_or_else(Diff::default, |one| differ(&schema, None, Some(one)));
            out.removed.member = true;
            out
        }
        _ => {
            let mut out = was.first().map_or_else(Diff::default, |one| differ(&schema, Some(one), None));
            out.added.member = true;
            out
        }
    }
}
