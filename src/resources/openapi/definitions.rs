//! The definitions a document needs, found by following references from the bodies of its paths.

use super::Dialect;
use crate::custom;
use crate::schema::{self, Definition, Field, Type};
use crate::{Registry, Resource};
use flate2::read::DeflateDecoder;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::io::Read;
use std::sync::Arc;

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
pub(crate) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(crate) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(crate) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Definition name → field → description; the empty field is the type itself. Made by `build.rs`.
static DESCRIPTIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));

type Descriptions = BTreeMap<String, BTreeMap<String, String>>;

/// Unpacked for one document and dropped with it.
fn descriptions() -> Descriptions {
    let mut text = Vec::new();
    // The bytes are our own: were they damaged, documents without descriptions are what is left to serve.
    let read = DeflateDecoder::new(DESCRIPTIONS).read_to_end(&mut text);
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

pub(crate) fn hash_facts(hasher: &mut impl Hasher) {
    schema::hash_facts(hasher);
    hasher.write(DESCRIPTIONS);
}

/// The definitions of one document: names are collected while its paths are written, then rendered.
pub(crate) struct Definitions {
    pub(crate) dialect: Dialect,
    wanted: BTreeSet<String>,
    /// Rendered already.
    done: BTreeSet<String>,
    /// Definition name → group, version, kind.
    kinds: BTreeMap<String, Vec<[String; 3]>>,
    /// Custom kinds by the names of their objects' and lists' definitions.
    custom: BTreeMap<String, Arc<Resource>>,
}

impl Definitions {
    pub(crate) fn new(dialect: Dialect, registry: &Registry) -> Self {
        let mut kinds: BTreeMap<String, Vec<[String; 3]>> = BTreeMap::new();
        let mut custom = BTreeMap::new();
        let mut add = |definition: String, group: &str, version: &str, kind: &str| {
            let of = kinds.entry(definition).or_default();
            let kind = [group.to_owned(), version.to_owned(), kind.to_owned()];
            if !of.contains(&kind) {
                of.push(kind);
            }
        };
        add(STATUS.to_owned(), "", "v1", "Status");
        for row in registry.iter() {
            add(row.definition.clone(), &row.group, &row.version, &row.kind);
            add(list(row), &row.group, &row.version, &row.list_kind());
            if row.custom.is_some() {
                custom.insert(row.definition.clone(), row.clone());
                custom.insert(list(row), row.clone());
            }
            add(DELETE_OPTIONS.to_owned(), &row.group, &row.version, "DeleteOptions");
            for sub in &row.subresources {
                if let Some(definition) = row.body_of(sub) {
                    add(definition, &sub.group, &sub.version, &sub.kind);
                }
            }
        }
        Self { dialect, wanted: BTreeSet::new(), done: BTreeSet::new(), kinds, custom }
    }

    /// A reference to a definition, which the document then contains.
    pub(crate) fn reference(&mut self, name: &str) -> Value {
        if !self.wanted.contains(name) && !self.done.contains(name) {
            self.wanted.insert(name.to_owned());
        }
        self.dialect.reference(name)
    }

    /// All definitions referred to, and those that they refer to, one after the other.
    pub(crate) fn render(mut self) -> impl Iterator<Item = (String, Value)> {
        let descriptions = descriptions();
        std::iter::from_fn(move || {
            let name = self.wanted.pop_first()?;
            self.done.insert(name.clone());
            let mut rendered = match (self.custom.get(&name).cloned(), schema::definition(&name)) {
                (Some(row), _) => self.custom(&name, &row),
                (None, Some(definition)) => self.definition(definition, descriptions.get(&name)),
                (None, None) => self.scalar(&name, descriptions.get(&name)),
            };
            if let Some(kinds) = self.kinds.get(&name) {
                let kinds = kinds.iter().map(|[g, v, k]| json!({"group": g, "version": v, "kind": k}));
                rendered.insert("x-kubernetes-group-version-kind".to_owned(), kinds.collect());
            }
            Some((name, Value::Object(rendered)))
        })
    }

    fn definition(
        &mut self,
        definition: &'static Definition,
        described: Option<&BTreeMap<String, String>>,
    ) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("type".to_owned(), "object".into());
        let describe = |field: &str| match described {
            Some(described) => described.get(field).cloned(),
            None => describe_list(definition, field).or_else(|| describe_metrics(definition, field)),
        };
        out.extend(describe("").map(|d| ("description".to_owned(), d.into())));
        let mut required = Vec::new();
        let mut properties = Map::new();
        for field in definition.fields() {
            if field.required {
                required.push(Value::from(field.name));
            }
            properties.insert(field.name.to_owned(), self.field(field, describe(field.name)));
        }
        if !required.is_empty() {
            out.insert("required".to_owned(), required.into());
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), properties.into());
        }
        out.extend(definition.map_type().map(|t| ("x-kubernetes-map-type".to_owned(), t.into())));
        out
    }

    fn field(&mut self, field: &'static Field, description: Option<String>) -> Value {
        let mut out = self.kind(&field.kind);
        // In version 3 a reference may have no siblings.
        if self.dialect == Dialect::V3 && out.contains_key("$ref") {
            out = Map::from_iter([("allOf".to_owned(), json!([out]))]);
        }
        let mut set = |name: &str, value: Value| out.insert(name.to_owned(), value);
        if let Some(description) = description {
            set("description", description.into());
        }
        if let Some((kind, keys)) = field.list_type() {
            set("x-kubernetes-list-type", kind.into());
            let keys: Vec<Value> = keys.map(Value::from).collect();
            if !keys.is_empty() {
                set("x-kubernetes-list-map-keys", keys.into());
            }
        }
        if let Some((strategy, key)) = field.patch() {
            set("x-kubernetes-patch-strategy", strategy.into());
            if let Some(key) = key {
                set("x-kubernetes-patch-merge-key", key.into());
            }
        }
        if let Some(kind) = field.map_type() {
            set("x-kubernetes-map-type", kind.into());
        }
        Value::Object(out)
    }

    fn kind(&mut self, kind: &'static Type) -> Map<String, Value> {
        let of = |kind: &str, format: &str| {
            let mut out = Map::from_iter([("type".to_owned(), Value::from(kind))]);
            if !format.is_empty() {
                out.insert("format".to_owned(), format.into());
            }
            out
        };
        let mut reference = |name: &str| match self.reference(name) {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        match kind {
            Type::String => of("string", ""),
            Type::Bool => of("boolean", ""),
            Type::Int32 => of("integer", "int32"),
            Type::Int64 => of("integer", "int64"),
            Type::Double => of("number", "double"),
            Type::Bytes => of("string", "byte"),
            Type::Any => Map::new(),
            Type::Raw => reference(RAW),
            Type::FieldsV1 => reference(FIELDS),
            Type::Quantity => reference(QUANTITY),
            Type::IntOrString => reference(INT_OR_STRING),
            Type::Time => reference(TIME),
            Type::MicroTime => reference(MICRO_TIME),
            Type::Ref(definition) => reference(&definition.full_name()),
            Type::List(element) => {
                let mut out = of("array", "");
                out.insert("items".to_owned(), self.element(element));
                out
            }
            Type::Map(value) => {
                let mut out = of("object", "");
                out.insert("additionalProperties".to_owned(), self.element(value));
                out
            }
        }
    }

    fn element(&mut self, kind: &'static Type) -> Value {
        let out = self.kind(kind);
        if self.dialect == Dialect::V3 && out.contains_key("$ref") { json!({"allOf": [out]}) } else { out.into() }
    }

    /// The objects or the lists of a custom kind.
    fn custom(&mut self, name: &str, row: &Resource) -> Map<String, Value> {
        let v2 = self.dialect == Dialect::V2;
        let Some(kind) = &row.custom else { return Map::new() };
        if name == row.definition {
            let meta = self.dialect.reference(OBJECT_META);
            let out = custom::openapi::definition(kind, v2, &meta);
            if out.contains_key("properties") {
                self.reference(OBJECT_META);
            }
            return out;
        }
        let (item, meta) = (self.reference(&row.definition), self.reference(LIST_META));
        custom::openapi::list(&kind.list_kind, &row.kind, &item, &meta, v2)
    }

    /// A type that is no struct.
    fn scalar(&self, name: &str, described: Option<&BTreeMap<String, String>>) -> Map<String, Value> {
        let v3 = self.dialect == Dialect::V3;
        let shape = match name {
            QUANTITY if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            QUANTITY => json!({"type": "string"}),
            INT_OR_STRING if v3 => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
            INT_OR_STRING => json!({"type": "string", "format": "int-or-string"}),
            TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
            _ => json!({"type": "object"}),
        };
        let Value::Object(mut out) = shape else { return Map::new() };
        let description = described.and_then(|d| d.get("")).cloned();
        out.extend(description.map(|d| ("description".to_owned(), d.into())));
        out
    }
}

/// `k8s-openapi` has no list types: what is to be said of them is the same for all.
fn describe_list(definition: &Definition, field: &str) -> Option<String> {
    let kind = definition.kind().strip_suffix("List")?;
    let text = match field {
        "" => format!("{kind}List is a list of {kind} objects."),
        "items" => format!("The {kind} objects of this list."),
        "metadata" => "Standard list metadata, among it the resource version of the list.".to_owned(),
        "apiVersion" => "The group and version that defines this representation of the list.".to_owned(),
        "kind" => format!("Always {kind}List."),
        _ => return None,
    };
    Some(text)
}

/// Nor has it `metrics.k8s.io`.
fn describe_metrics(definition: &Definition, field: &str) -> Option<String> {
    let text = match (definition.kind(), field) {
        ("NodeMetrics", "") => "What a node uses.",
        ("PodMetrics", "") => "What the containers of a pod use.",
        ("ContainerMetrics", "") => "What a container uses.",
        ("NodeMetrics" | "PodMetrics", "timestamp") => "When it was measured: the end of the window.",
        ("NodeMetrics" | "PodMetrics", "window") => "The time over which the use of cores is an average.",
        ("NodeMetrics" | "ContainerMetrics", "usage") => {
            "Cores, and bytes of memory that could not be taken back at once."
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The name of the definition of a row's lists.
pub(crate) fn list(row: &Resource) -> String {
    let package = row.definition.strip_suffix(row.kind.as_str()).unwrap_or_default();
    format!("{package}{}", row.list_kind())
}
