//! What upstream's decoder does to an object by decoding it into a struct and encoding it again, done to JSON: unknown
//! fields go (and are reported), nulls and empty optional lists and maps go, types are checked, and quantities, times
//! and base64 get their canonical form. Also [`strategic_merge`], which needs the same schema.

use crate::schema::{self, Definition, PatchNode, Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mini_api::patch::strategic;
use mini_api::{Quantity, Status, time};
use serde_json::{Map, Number, Value};
use std::fmt;

/// No more unknown fields than this are reported.
const REPORTED_MAX: usize = 100;

/// Normalises an object of the definition named (`io.k8s.api.core.v1.Pod`) and answers its unknown fields, each as
/// `unknown field "spec.x"`. An object of a definition that is not known is left as it is.
///
/// # Errors
/// 400 with upstream's message where a value has not the type its schema asks for.
pub(crate) fn normalize(definition: &str, object: &mut Value) -> Result<Vec<String>, Status> {
    let Some(definition) = schema::definition(definition) else { return Ok(Vec::new()) };
    let mut walk = Walk { unknown: Vec::new() };
    let refused = |why: String| {
        let (kind, version) = (definition.kind(), definition.version());
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let Value::Object(map) = object else {
        let (got, version, kind) = (go_kind(object), definition.version(), definition.kind());
        return Err(refused(format!("json: cannot unmarshal {got} into Go value of type {version}.{kind}")));
    };
    walk.object(definition, map, None).map_err(refused)?;
    Ok(walk.unknown)
}

/// Normalises a value inside an object, at `path`, as one of the definition named. The error is what Go's decoder would
/// say of it.
pub(crate) fn part(definition: &str, value: &mut Value, path: &str) -> Result<Vec<String>, String> {
    let Some(definition) = schema::definition(definition) else { return Ok(Vec::new()) };
    let Value::Object(map) = value else {
        let (got, version, kind) = (go_kind(value), definition.version(), definition.kind());
        return Err(format!("json: cannot unmarshal {got} into Go value of type {version}.{kind}"));
    };
    let mut walk = Walk { unknown: Vec::new() };
    walk.object(definition, map, Some(&Path { parent: None, step: Step::Key(path) }))?;
    Ok(walk.unknown)
}

/// `current` as a strategic merge patch changes it, by the schema of the definition named.
///
/// # Errors
/// 400 for a malformed patch, 422 for one that does not fit the object.
pub(crate) fn strategic_merge(definition: &str, current: &Value, patch: &Value) -> Result<Value, Status> {
    let node = schema::definition(definition).map_or(PatchNode::Unknown, PatchNode::Definition);
    strategic::apply(current, patch, node)
}

/// Where the walk is; a list linked through the stack, read only when there is something to report.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// A field of a struct, and the struct.
    Field(&'static Definition, &'a str),
    /// A key of a map.
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Field(_, name) | Step::Key(name) => {
                if self.parent.is_some() {
                    f.write_str(".")?;
                }
                f.write_str(name)
            }
        }
    }
}

impl Path<'_> {
    /// `DeploymentSpec.spec.replicas`: the struct of the last field, and the names of all fields on the way.
    fn go(&self) -> String {
        let mut names = Vec::new();
        let mut owner = None;
        let mut at = Some(self);
        while let Some(path) = at {
            if let Step::Field(definition, name) = path.step {
                owner.get_or_insert(definition);
                names.push(name);
            }
            at = path.parent;
        }
        names.reverse();
        format!("{}.{}", owner.map_or("", Definition::kind), names.join("."))
    }
}

/// A value's kind in the words of Go's `encoding/json`.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Walk {
    unknown: Vec<String>,
}

impl Walk {
    fn object(
        &mut self,
        definition: &'static Definition,
        map: &mut Map<String, Value>,
        parent: Option<&Path<'_>>,
    ) -> Result<(), String> {
        let mut result = Ok(());
        map.retain(|name, value| {
            if result.is_err() {
                return true;
            }
            let path = Path { parent, step: Step::Field(definition, name) };
            let Some(field) = definition.field(name) else {
                if self.unknown.len() < REPORTED_MAX {
                    self.unknown.push(format!("unknown field \"{path}\""));
                }
                return false;
            };
            if value.is_null() {
                return false;
            }
            result = self.value(&field.kind, value, &path);
            field.required || !is_empty(&field.kind, value)
        });
        result
    }

    fn value(&mut self, kind: &'static Type, value: &mut Value, path: &Path<'_>) -> Result<(), String> {
        match (kind, value) {
            (Type::String, Value::String(_))
            | (Type::Bool, Value::Bool(_))
            | (Type::Double, Value::Number(_))
            | (Type::Raw | Type::FieldsV1, Value::Object(_))
            | (Type::IntOrString, Value::String(_))
            | (Type::Any, _) => Ok(()),
            (Type::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
            (Type::Int32 | Type::IntOrString, Value::Number(n)) if fits_int32(n) => Ok(()),
            (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(n)) => {
                Err(mismatch(&format!("number {n}"), kind, path))
            }
            (Type::Bytes, Value::String(text)) => canonical_base64(text),
            (Type::Quantity, value @ (Value::String(_) | Value::Number(_))) => canonical_quantity(value),
            (Type::Time, Value::String(text)) => {
                *text = time::seconds(time::parse(text)?);
                Ok(())
            }
            (Type::MicroTime, Value::String(text)) => {
                *text = time::micro(time::parse(text)?);
                Ok(())
            }
            (Type::Ref(definition), Value::Object(map)) => self.object(definition, map, Some(path)),
            (Type::List(element), Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.inside(element, item, &Path { parent: Some(path), step: Step::Index(i) })?;
                }
                Ok(())
            }
            (Type::Map(inside), Value::Object(map)) => {
                for (key, item) in map.iter_mut() {
                    self.inside(inside, item, &Path { parent: Some(path), step: Step::Key(key) })?;
                }
                Ok(())
            }
            (_, value) => Err(mismatch(go_kind(value), kind, path)),
        }
    }

    /// An element of a list or map: `null` there is the zero of its type.
    fn inside(&mut self, kind: &'static Type, value: &mut Value, path: &Path<'_>) -> Result<(), String> {
        if !value.is_null() {
            return self.value(kind, value, path);
        }
        *value = match kind {
            Type::String | Type::Bytes => Value::from(""),
            Type::Bool => Value::from(false),
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => Value::from(0),
            Type::Quantity => Value::from("0"),
            Type::Ref(_) | Type::Raw | Type::FieldsV1 => Value::Object(Map::new()),
            Type::Any | Type::Time | Type::MicroTime | Type::List(_) | Type::Map(_) => Value::Null,
        };
        Ok(())
    }
}

/// An empty list or map, which upstream's structs leave out. An empty struct is kept: `emptyDir: {}`.
fn is_empty(kind: &Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn fits_int32(n: &Number) -> bool {
    n.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

fn mismatch(got: &str, kind: &Type, path: &Path<'_>) -> String {
    format!("json: cannot unmarshal {got} into Go struct field {} of type {}", path.go(), kind.go_name())
}

fn canonical_quantity(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    *value = Value::from(Quantity::parse(&text).map_err(|e| e.to_string())?.to_string());
    Ok(())
}

/// Line breaks in base64 are allowed, and go.
fn canonical_base64(text: &mut String) -> Result<(), String> {
    if text.contains(['\r', '\n']) {
        text.retain(|c| c != '\r' && c != '\n');
    }
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len() / 4 * 4)),
    }
}

#[cfg(test)]
mod tests;
