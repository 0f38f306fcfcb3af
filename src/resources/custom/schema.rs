//! [`Schema`]: the structural schema of a custom kind, read once from the definition's JSON and walked for every object.

use super::pattern;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What holds of one field, element or entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    /// `object`, `array`, `string`...; empty: anything.
    pub(crate) kind: String,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) items: Option<Arc<Schema>>,
    pub(crate) properties: BTreeMap<String, Arc<Schema>>,
    pub(crate) additional: Additional,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    pub(crate) list: List,
    /// `x-kubernetes-map-type: atomic`.
    pub(crate) atomic_map: bool,
    /// Rules in CEL are kept in the definition; nothing evaluates them yet.
    pub(crate) checks: Checks,
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default)]
pub(crate) enum Additional {
    #[default]
    Unset,
    Allowed(bool),
    Of(Arc<Schema>),
}

/// `x-kubernetes-list-type`, and the keys of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum List {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What values must satisfy besides their type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    /// Empty where it is none that is known for the type.
    pub(crate) format: String,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) pattern: Option<(String, Option<Regex>)>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) max_properties: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) values: Vec<Value>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Arc<Schema>>,
}

impl Schema {
    /// Reads a `JSONSchemaProps`. What is wrong with one was said when its definition was written.
    pub(crate) fn read(v: &Value) -> Self {
        let flag = |name: &str| v.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = |name: &str| v.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = text("type").to_owned();
        let properties = v.get("properties").and_then(Value::as_object).into_iter().flatten();
        let list = match text("x-kubernetes-list-type") {
            "set" => List::Set,
            "map" => List::Map(strings(v.get("x-kubernetes-list-map-keys"))),
            _ => List::Atomic,
        };
        Self {
            nullable: flag("nullable"),
            default: v.get("default").filter(|d| !d.is_null()).cloned(),
            items: v.get("items").filter(|i| i.is_object()).map(|i| Arc::new(Self::read(i))),
            properties: properties.map(|(name, p)| (name.clone(), Arc::new(Self::read(p)))).collect(),
            additional: match v.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
                Some(of @ Value::Object(_)) => Additional::Of(Arc::new(Self::read(of))),
                _ => Additional::Unset,
            },
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list,
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            checks: Checks::read(v, &kind),
            kind,
        }
    }

    /// The schema of the field `name`; `None` where nothing is said of it.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).map(|s| &**s).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether a field that is not named in `properties` may be there.
    pub(crate) fn admits_any_field(&self) -> bool {
        !matches!(self.additional, Additional::Unset)
    }

    /// Whether `found` holds of this schema or of one that it is made of, value checks aside.
    pub(crate) fn any(&self, found: &dyn Fn(&Self) -> bool) -> bool {
        found(self)
            || self.items.as_ref().is_some_and(|s| s.any(found))
            || self.properties.values().any(|s| s.any(found))
            || matches!(&self.additional, Additional::Of(s) if s.any(found))
    }
}

impl Checks {
    fn read(v: &Value, kind: &str) -> Self {
        let flag = |name: &str| v.get(name).and_then(Value::as_bool).unwrap_or(false);
        let number = |name: &str| v.get(name).and_then(Value::as_f64);
        let count = |name: &str| v.get(name).and_then(Value::as_i64).map(|n| u64::try_from(n).unwrap_or(0));
        let schemas = |name: &str| {
            let list = v.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            list.iter().map(Schema::read).collect::<Vec<_>>()
        };
        let pattern = v.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty());
        let format = v.get("format").and_then(Value::as_str).unwrap_or_default();
        Self {
            format: if super::format::is_known(kind, format) { format.to_owned() } else { String::new() },
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: pattern.map(|p| (p.to_owned(), pattern::compile(p).ok())),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag("uniqueItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: strings(v.get("required")),
            values: v.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: v.get("not").filter(|n| n.is_object()).map(|n| Arc::new(Schema::read(n))),
        }
    }
}

pub(super) fn strings(v: Option<&Value>) -> Vec<String> {
    v.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
