//! A structural schema as server-side apply sees it.

use super::prune::OBJECT_META;
use super::schema::{Additional, List, Schema};
use crate::ApplyNode;
use mini_api::apply::{Child, Node, Scalar};
use serde_json::Value;
use std::sync::Arc;

/// A place in the schema of a custom kind.
#[derive(Clone, Debug)]
pub(crate) struct CustomNode {
    schema: Arc<Schema>,
    /// An object with metadata: the custom object, or one that is embedded in it.
    resource: bool,
}

impl PartialEq for CustomNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.schema, &other.schema)
    }
}

impl CustomNode {
    pub(crate) fn root(schema: &Arc<Schema>) -> Self {
        Self { schema: schema.clone(), resource: true }
    }

    fn inside(schema: &Arc<Schema>) -> ApplyNode {
        ApplyNode::custom(Self { schema: schema.clone(), resource: schema.embedded })
    }

    pub(crate) fn node(&self) -> Node {
        let schema = &*self.schema;
        // Without a word about its fields the value tells.
        let open = schema.properties.is_empty() && matches!(schema.additional, Additional::Unset);
        match schema.kind.as_str() {
            _ if self.resource => Node::Map { atomic: schema.atomic_map },
            _ if schema.int_or_string => Node::Scalar(Scalar::Untyped),
            "string" => Node::Scalar(Scalar::String),
            "boolean" => Node::Scalar(Scalar::Bool),
            "integer" | "number" => Node::Scalar(Scalar::Number),
            "object" if open && !schema.atomic_map => Node::Any,
            "object" => Node::Map { atomic: schema.atomic_map },
            "array" => match schema.list {
                List::Atomic => Node::AtomicList,
                List::Set => Node::Set,
                List::Map(_) => Node::KeyedList,
            },
            _ => Node::Any,
        }
    }

    pub(crate) fn child(&self, name: &str) -> Child<ApplyNode> {
        match name {
            "metadata" if self.resource => return Child::Field(ApplyNode::of(OBJECT_META)),
            "apiVersion" | "kind" if self.resource => return Child::Field(ApplyNode::string()),
            _ => {}
        }
        match (self.schema.properties.get(name), &self.schema.additional) {
            (Some(field), _) => Child::Field(Self::inside(field)),
            (None, Additional::Of(entry)) => Child::Item(Self::inside(entry)),
            (None, Additional::Allowed(true)) => Child::Item(ApplyNode::any()),
            (None, _) if self.schema.preserve_unknown => Child::Item(ApplyNode::any()),
            (None, _) => Child::Unknown,
        }
    }

    pub(crate) fn element(&self) -> ApplyNode {
        self.schema.items.as_ref().map_or_else(ApplyNode::any, Self::inside)
    }

    pub(crate) fn keys(&self) -> &[String] {
        if let List::Map(keys) = &self.schema.list { keys } else { &[] }
    }

    pub(crate) fn default(&self, name: &str) -> Option<Value> {
        self.schema.properties.get(name)?.default.clone()
    }
}
