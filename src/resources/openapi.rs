//! The OpenAPI documents of the served kinds: `/openapi/v2` in JSON and protobuf, the index at `/openapi/v3` and its
//! document for each group and version.
//!
//! A document is made when asked for and not kept: its text is written piece by piece, so that a request costs little
//! more memory than its answer. Callers that want it cheaper keep the (compressed) bytes. What kubectl
//! needs of them: paths that tell the kind (`x-kubernetes-group-version-kind`) and the query parameters of `patch`,
//! and definitions with patch strategies under upstream's names.

mod definitions;
mod paths;
mod protobuf;

use crate::{Registry, Resource};
use definitions::Definitions;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

/// Which of the two forms a piece is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// A reference to a definition.
    fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// The media types under which clients ask for the document that [`v2_protobuf`] makes. It is answered as the first:
/// the second, which client-go still asks for, is not a well-formed media type, and client-go refuses it.
pub const V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// The document for all kinds, in JSON.
#[must_use]
pub fn v2(registry: &Registry) -> Vec<u8> {
    let mut definitions = Definitions::new(Dialect::V2, registry);
    let mut out = Document::start(&json!({"swagger": "2.0", "info": info()}));
    out.map("paths", registry.iter().flat_map(|row| paths::paths(row, &mut definitions)));
    out.map("definitions", definitions.render());
    out.member("securityDefinitions", &json!({"BearerToken": bearer_token()}));
    out.member("security", &json!([{"BearerToken": []}]));
    out.end()
}

/// The document for all kinds, as the `openapi.v2.Document` message of gnostic.
#[must_use]
pub fn v2_protobuf(registry: &Registry) -> Vec<u8> {
    let mut definitions = Definitions::new(Dialect::V2, registry);
    let mut out = protobuf::Document::start(&info());
    out.paths(registry.iter().flat_map(|row| paths::paths(row, &mut definitions)));
    out.definitions(definitions.render());
    out.end(&bearer_token())
}

/// The index: where the document of each group and version is.
#[must_use]
pub fn v3_index(registry: &Registry) -> Value {
    let mut documents: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
    for row in registry.iter() {
        documents.entry(paths::prefix(&row.group, &row.version)).or_default().push(row);
    }
    let entry = |(path, rows): (String, Vec<&Resource>)| {
        let path = path.trim_start_matches('/');
        let url = format!("/openapi/v3/{path}?hash={}", hash(&rows));
        (path.to_owned(), json!({"serverRelativeURL": url}))
    };
    json!({"paths": documents.into_iter().map(entry).collect::<Map<String, Value>>()})
}

/// The document of one group and version, in JSON; `None` where nothing of it is served.
#[must_use]
pub fn v3(registry: &Registry, group: &str, version: &str) -> Option<Vec<u8>> {
    let rows: Vec<&Resource> =
        registry.iter().map(AsRef::as_ref).filter(|r| r.group == group && r.version == version).collect();
    if rows.is_empty() {
        return None;
    }
    let mut definitions = Definitions::new(Dialect::V3, registry);
    let mut out = Document::start(&json!({"openapi": "3.0.0", "info": info()}));
    out.map("paths", rows.iter().flat_map(|row| paths::paths(row, &mut definitions)));
    out.open("components");
    out.map("schemas", definitions.render());
    out.member("securitySchemes", &json!({"BearerToken": bearer_token()}));
    out.close();
    Some(out.end())
}

/// Changes whenever the document of these rows may have changed.
fn hash(rows: &[&Resource]) -> String {
    static FACTS: LazyLock<u64> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        definitions::hash_facts(&mut hasher);
        hasher.finish()
    });
    let mut hasher = DefaultHasher::new();
    FACTS.hash(&mut hasher);
    for row in rows {
        (&row.group, &row.version, &row.kind, &row.plural, &row.definition).hash(&mut hasher);
        (row.namespaced, &row.verbs).hash(&mut hasher);
        for sub in &row.subresources {
            (sub.name, &sub.kind, &sub.group, &sub.version, sub.verbs).hash(&mut hasher);
        }
        if let Some(kind) = &row.custom {
            (&kind.list_kind, kind.published.to_string(), &kind.selectable).hash(&mut hasher);
        }
    }
    format!("{:016X}", hasher.finish())
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": mini_api::KUBERNETES_VERSION})
}

fn bearer_token() -> Value {
    json!({"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"})
}

/// JSON text that grows member by member.
struct Document {
    text: Vec<u8>,
}

impl Document {
    /// Starts with the members of a map.
    fn start(members: &Value) -> Self {
        let mut text = members.to_string().into_bytes();
        text.pop();
        Self { text }
    }

    fn name(&mut self, name: &str) {
        if self.text.last() != Some(&b'{') {
            self.text.push(b',');
        }
        self.text.extend_from_slice(Value::from(name).to_string().as_bytes());
        self.text.push(b':');
    }

    fn member(&mut self, name: &str, value: &Value) {
        self.name(name);
        self.text.extend_from_slice(value.to_string().as_bytes());
    }

    fn open(&mut self, name: &str) {
        self.name(name);
        self.text.push(b'{');
    }

    fn close(&mut self) {
        self.text.push(b'}');
    }

    fn map(&mut self, name: &str, members: impl IntoIterator<Item = (String, Value)>) {
        self.open(name);
        for (name, value) in members {
            self.member(&name, &value);
        }
        self.close();
    }

    fn end(mut self) -> Vec<u8> {
        self.close();
        self.text
    }
}

#[cfg(test)]
mod tests;
