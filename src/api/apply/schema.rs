//! What server-side apply must know of a type.

use serde_json::Value;

/// A node of a schema, as apply walks it from the object's root. Cheap to clone: an id, a reference, or an `Arc` and a
/// place in it.
///
/// A walk asks [`node`](Self::node) what is here and then only what belongs to that kind of node.
pub trait ApplySchema: Clone {
    fn node(&self) -> Node;

    /// Of a [`Node::Map`], granular or atomic: what `name` is.
    fn child(&self, name: &str) -> Child<Self>;

    /// Of a list, of whatever kind: the schema of its elements.
    fn element(&self) -> Self;

    /// Of a [`Node::KeyedList`]: the fields that together identify an element, in any order.
    fn keys(&self) -> impl Iterator<Item = &str>;

    /// Of a map that is the element of a [`Node::KeyedList`]: what the key `name` is where an element leaves it out.
    fn default(&self, name: &str) -> Option<Value>;
}

/// What is at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// One value, owned as a whole.
    Scalar(Scalar),
    /// A struct or a map. Granular: each field has its own owners. `x-kubernetes-map-type: atomic`: owned as a whole.
    Map { atomic: bool },
    /// A list that is owned and replaced as a whole: no list type, or `atomic`.
    AtomicList,
    /// A list of scalars, each of which has its own owners: `x-kubernetes-list-type: set`.
    Set,
    /// A list of maps that are known by their keys: `x-kubernetes-list-type: map`.
    KeyedList,
    /// Anything (no schema, or unknown fields preserved): the value tells. Maps are granular, lists atomic.
    Any,
}

/// The values a scalar takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    Number,
    Bool,
    /// Any of them: int-or-string, quantities, times.
    Untyped,
}

/// What a name is in a map.
#[derive(Clone, Debug, PartialEq)]
pub enum Child<S> {
    /// A field that the schema names: a property.
    Field(S),
    /// A field that is there, empty, also where it is left out, as the `spec` of most built-in kinds: giving it a first
    /// value does not make one its owner. Custom resources have none.
    Always(S),
    /// A key of a map: `additionalProperties`, or what `x-kubernetes-preserve-unknown-fields` lets through.
    Item(S),
    /// Nothing the schema knows.
    Unknown,
}

impl<S> Child<S> {
    /// The schema below.
    pub fn schema(self) -> Option<S> {
        match self {
            Self::Field(schema) | Self::Always(schema) | Self::Item(schema) => Some(schema),
            Self::Unknown => None,
        }
    }
}
