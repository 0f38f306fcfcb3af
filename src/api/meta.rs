//! Reading and writing `metadata` of an object that is a [`Value`].

use serde_json::{Map, Value};

/// Accessors for the well-known fields of any object. Readers answer an empty string where a field is absent.
pub trait Meta {
    /// The string at a path of field names.
    fn text(&self, path: &[&str]) -> &str;
    fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }
    fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }
    fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }
    fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }
    fn is_deleting(&self) -> bool {
        !self.text(&["metadata", "deletionTimestamp"]).is_empty()
    }
    /// The map at `metadata.labels`, if any.
    fn labels(&self) -> Option<&Map<String, Value>>;
    /// `metadata` as a map, made where it is absent or not a map.
    fn meta_mut(&mut self) -> &mut Map<String, Value>;
}

impl Meta for Value {
    fn text(&self, path: &[&str]) -> &str {
        path.iter().try_fold(self, |v, name| v.get(name)).and_then(Value::as_str).unwrap_or_default()
    }

    fn labels(&self) -> Option<&Map<String, Value>> {
        self.get("metadata")?.get("labels")?.as_object()
    }

    fn meta_mut(&mut self) -> &mut Map<String, Value> {
        child_mut(object_mut(self), "metadata")
    }
}

/// `value` as a map; anything else becomes an empty one first.
pub fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The map below `name`, made where it is absent or not a map.
pub fn child_mut<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    object_mut(map.entry(name.to_owned()).or_insert(Value::Null))
}
