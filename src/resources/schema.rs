//! What the types of the Kubernetes API look like: fields, types, lists that merge and by what.
//!
//! The facts are one text in the executable (`data/schema.txt`, made by `data/facts.py`); a definition is read when it
//! is first asked for, and all names are slices of that text, so an idle server keeps next to nothing in memory.

mod apply;

pub use apply::ApplyNode;
use mini_api::patch::strategic::{PatchMeta, PatchSchema};
use std::sync::{LazyLock, OnceLock};

static FACTS: &str = include_str!("data/schema.txt");

/// Abbreviations of `data/schema.txt`, the longest first.
const PREFIXES: [(&str, &str); 5] = [
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.", "apiextensions."),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.", "apiregistration."),
    ("io.k8s.metrics.pkg.apis.metrics.", "metrics."),
    ("io.k8s.api.", ""),
];

/// The type of a field, of a list's elements or of a map's values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// base64 in JSON.
    Bytes,
    /// A map with anything in it: `RawExtension`.
    Raw,
    /// A map with anything in it: `FieldsV1`.
    FieldsV1,
    /// Anything at all.
    Any,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Ref(&'static Definition),
    List(Box<Type>),
    Map(Box<Type>),
}

impl Type {
    fn parse(text: &'static str) -> Self {
        let inside = |open, close| text.strip_prefix(open).and_then(|t: &str| t.strip_suffix(close));
        if let Some(element) = inside('[', ']') {
            return Self::List(Box::new(Self::parse(element)));
        }
        if let Some(value) = inside('{', '}') {
            return Self::Map(Box::new(Self::parse(value)));
        }
        match text {
            "string" => Self::String,
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "byte" => Self::Bytes,
            "raw" => Self::Raw,
            "fieldsV1" => Self::FieldsV1,
            "quantity" => Self::Quantity,
            "intOrString" => Self::IntOrString,
            "time" => Self::Time,
            "microTime" => Self::MicroTime,
            name => SCHEMA.find(name).map_or(Self::Any, Self::Ref),
        }
    }

    /// The Go type that messages name.
    pub(crate) fn go_name(&self) -> String {
        match self {
            Self::String => "string".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int32 | Self::IntOrString => "int32".to_owned(),
            Self::Int64 => "int64".to_owned(),
            Self::Double => "float64".to_owned(),
            Self::Bytes => "[]uint8".to_owned(),
            Self::Raw | Self::Any => "runtime.RawExtension".to_owned(),
            Self::FieldsV1 => "v1.FieldsV1".to_owned(),
            Self::Quantity => "resource.Quantity".to_owned(),
            Self::Time => "v1.Time".to_owned(),
            Self::MicroTime => "v1.MicroTime".to_owned(),
            Self::Ref(definition) => format!("{}.{}", definition.version(), definition.kind()),
            Self::List(element) => format!("[]{}", element.go_name()),
            Self::Map(value) => format!("map[string]{}", value.go_name()),
        }
    }

    /// The type of the elements of a list; any other type itself.
    fn element(&self) -> &Self {
        if let Self::List(element) = self { element } else { self }
    }
}

/// One field of a definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) kind: Type,
    marks: &'static str,
}

impl Field {
    fn parse(line: &'static str) -> Option<Self> {
        let (name, rest) = line.trim_start().split_once(' ')?;
        let (kind, marks) = rest.split_once(' ').unwrap_or((rest, ""));
        let (name, required) = name.strip_prefix('!').map_or((name, false), |name| (name, true));
        Some(Self { name, required, kind: Type::parse(kind), marks })
    }

    fn mark(&self, name: &str) -> Option<&'static str> {
        mark(self.marks, name)
    }

    /// `atomic`, `set` or `map`, and the keys of a `map`.
    pub(crate) fn list_type(&self) -> Option<(&'static str, impl Iterator<Item = &'static str> + use<>)> {
        let (kind, keys) = self.mark("list").map(|m| m.split_once(':').unwrap_or((m, "")))?;
        Some((kind, keys.split(',').filter(|k| !k.is_empty())))
    }

    /// `atomic` or `granular`.
    pub(crate) fn map_type(&self) -> Option<&'static str> {
        self.mark("map")
    }

    /// Patch strategies as upstream writes them (`merge,retainKeys`), and the merge key.
    pub(crate) fn patch(&self) -> Option<(&'static str, Option<&'static str>)> {
        let mark = self.mark("patch")?;
        Some(mark.split_once(':').map_or((mark, None), |(strategy, key)| (strategy, Some(key))))
    }
}

fn mark(marks: &'static str, name: &str) -> Option<&'static str> {
    marks.split(' ').find_map(|m| m.strip_prefix(name)?.strip_prefix('='))
}

/// One type of the API.
#[derive(Debug)]
pub(crate) struct Definition {
    /// As in the text: `core.v1.Pod`.
    name: &'static str,
    marks: &'static str,
    body: &'static str,
    fields: OnceLock<Box<[Field]>>,
}

/// Two definitions are equal when they are the same one.
impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Definition {
    /// `io.k8s.api.core.v1.Pod`.
    pub(crate) fn full_name(&self) -> String {
        let (long, short) = PREFIXES.iter().find(|(_, s)| self.name.starts_with(s)).unwrap_or(&("", ""));
        format!("{long}{}", self.name.strip_prefix(short).unwrap_or(self.name))
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    pub(crate) fn version(&self) -> &'static str {
        self.name.rsplit('.').nth(1).unwrap_or_default()
    }

    /// Sorted by name.
    pub(crate) fn fields(&'static self) -> &'static [Field] {
        self.fields.get_or_init(|| self.body.lines().filter_map(Field::parse).collect())
    }

    pub(crate) fn field(&'static self, name: &str) -> Option<&'static Field> {
        let fields = self.fields();
        fields.get(fields.binary_search_by(|f| f.name.cmp(name)).ok()?)
    }

    pub(crate) fn map_type(&self) -> Option<&'static str> {
        mark(self.marks, "map")
    }
}

/// All definitions, sorted by name.
struct Schema(Vec<Definition>);

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::read(FACTS));

impl Schema {
    fn read(text: &'static str) -> Self {
        let mut definitions = Vec::new();
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once('\n') {
            let end = tail.bytes().zip(tail.bytes().skip(1)).position(|(a, b)| a == b'\n' && b != b' ');
            // A definition without fields is followed by the next one at once.
            let end = if tail.starts_with(' ') { end.map_or(tail.len(), |e| e + 1) } else { 0 };
            let (body, after) = tail.split_at_checked(end).unwrap_or((tail, ""));
            let (name, marks) = head.split_once(' ').unwrap_or((head, ""));
            definitions.push(Definition { name, marks, body, fields: OnceLock::new() });
            rest = after;
        }
        Self(definitions)
    }

    fn find(&'static self, name: &str) -> Option<&'static Definition> {
        self.0.get(self.0.binary_search_by(|d| d.name.cmp(name)).ok()?)
    }
}

/// The definition of a full name such as `io.k8s.api.core.v1.Pod`.
pub(crate) fn definition(full_name: &str) -> Option<&'static Definition> {
    let (rest, short) = PREFIXES.iter().find_map(|(long, short)| Some((full_name.strip_prefix(long)?, *short)))?;
    if short.is_empty() { SCHEMA.find(rest) } else { SCHEMA.find(&format!("{short}{rest}")) }
}

/// The definition of a body by its group, version and kind: `authentication.k8s.io`, `v1`, `TokenRequest`.
pub(crate) fn body(group: &str, version: &str, kind: &str) -> Option<&'static Definition> {
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    SCHEMA.find(&format!("{package}.{version}.{kind}"))
}

pub(crate) fn hash_facts(hasher: &mut impl std::hash::Hasher) {
    hasher.write(FACTS.as_bytes());
}

/// Where a strategic merge patch is in the schema.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PatchNode {
    /// No facts: maps merge, lists are replaced.
    Unknown,
    Of(&'static Type),
    Definition(&'static Definition),
}

impl PatchSchema for PatchNode {
    fn field(self, name: &str) -> PatchMeta<Self> {
        let unknown = PatchMeta { merge: false, replace: false, merge_key: None, schema: Self::Unknown };
        let definition = match self {
            Self::Definition(definition) => definition,
            Self::Of(Type::Ref(definition)) => *definition,
            Self::Of(Type::Map(value)) => return PatchMeta { schema: Self::Of(value.element()), ..unknown },
            _ => return unknown,
        };
        let Some(field) = definition.field(name) else { return unknown };
        let (strategies, merge_key) = field.patch().unwrap_or_default();
        let has = |strategy| strategies.split(',').any(|s| s == strategy);
        PatchMeta { merge: has("merge"), replace: has("replace"), merge_key, schema: Self::Of(field.kind.element()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_whole_and_sorted() {
        let definitions = &SCHEMA.0;
        assert!(definitions.len() > 600, "{}", definitions.len());
        assert!(definitions.is_sorted_by(|a, b| a.name < b.name));
        let mut fields = 0;
        for d in definitions {
            assert_eq!(d.fields().len(), d.body.lines().count(), "{}", d.name);
            assert!(d.fields().is_sorted_by(|a, b| a.name < b.name), "{}", d.name);
            assert_eq!(definition(&d.full_name()), Some(d));
            fields += d.fields().len();
        }
        assert_eq!(definitions.len() + fields, FACTS.lines().count());
    }

    /// `Type::parse` takes an unknown word for `any`: only those that say so may be.
    #[test]
    fn every_reference_is_defined() {
        let any = SCHEMA.0.iter().flat_map(|d| d.fields()).filter(|f| f.kind.element() == &Type::Any).count();
        assert_eq!(any, FACTS.matches(" any").count());
        assert!(SCHEMA.find("meta.v1.ObjectMeta").is_some());
    }

    #[test]
    fn facts_of_a_field() {
        let spec = definition("io.k8s.api.core.v1.PodSpec").expect("PodSpec");
        assert_eq!(
            (spec.kind(), spec.version(), spec.full_name().as_str()),
            ("PodSpec", "v1", "io.k8s.api.core.v1.PodSpec")
        );
        let containers = spec.field("containers").expect("containers");
        assert!(containers.required);
        assert_eq!(containers.patch(), Some(("merge", Some("name"))));
        let (kind, keys) = containers.list_type().expect("list type");
        assert_eq!((kind, keys.collect::<Vec<_>>()), ("map", vec!["name"]));
        assert_eq!(containers.kind.go_name(), "[]v1.Container");
        let volumes = spec.field("volumes").expect("volumes");
        assert_eq!(volumes.patch(), Some(("merge,retainKeys", Some("name"))));
        assert!(spec.field("nothing").is_none());
        let meta = definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").expect("ObjectMeta");
        assert_eq!(meta.field("creationTimestamp").map(|f| &f.kind), Some(&Type::Time));
        let selector = definition("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").expect("LabelSelector");
        assert_eq!(selector.map_type(), Some("atomic"));
    }
}
