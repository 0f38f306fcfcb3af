//! Between stored bytes and parsed objects.
//!
//! An object is serialized once, before its revision is known: everything but `metadata.resourceVersion`, which is put in
//! when the store has it. Rows that share the storage of another version are converted here, on the way in and out.

use crate::managed_fields::Owners;
use bytes::{BufMut, Bytes, BytesMut};
use mini_api::{Meta, Reason, Status, Value};
use mini_resources::Resource;
use mini_store::{Entry, Finish};
use serde_json::Map;

/// The largest request that etcd takes, as upstream runs it.
const MAX_STORED: usize = 3 << 19;
/// How deep an object may nest: less than readers of JSON take, which see it in lists and events too.
const MAX_DEPTH: usize = 100;

/// An object in its final form but for the revision.
pub(crate) struct Template {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Template {
    /// Serializes `value`, kind and metadata first. Whatever revision it has is left out.
    pub(crate) fn new(value: &Value) -> Self {
        let mut head = Vec::with_capacity(1024);
        let empty = Map::new();
        let object = value.as_object().unwrap_or(&empty);
        head.push(b'{');
        for name in ["kind", "apiVersion"] {
            if let Some(value) = object.get(name) {
                field(&mut head, name, value);
                head.push(b',');
            }
        }
        head.extend_from_slice(b"\"metadata\":{");
        for (name, value) in object.get("metadata").and_then(Value::as_object).into_iter().flatten() {
            if name != "resourceVersion" {
                field(&mut head, name, value);
                head.push(b',');
            }
        }
        head.extend_from_slice(b"\"resourceVersion\":\"");
        let mut tail = Vec::with_capacity(1024);
        tail.extend_from_slice(b"\"}");
        for (name, value) in object {
            if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
                tail.push(b',');
                field(&mut tail, name, value);
            }
        }
        tail.push(b'}');
        Self { head, tail }
    }

    /// Whether an object of this size may be stored: `value` is what it was made of.
    ///
    /// # Errors
    /// 500 with etcd's words if it is larger than what etcd takes, as upstream passes them on.
    pub(crate) fn check_size(&self, value: &Value) -> Result<(), Status> {
        // What JSON escapes and encodes is smaller upstream, where a ConfigMap full of quotes must fit as it does here.
        if self.head.len() + self.tail.len() <= MAX_STORED || weight(value, encoded(value)) <= MAX_STORED {
            return Ok(());
        }
        Err(Status::new(Reason::Unknown, "etcdserver: request is too large"))
    }

    /// The final bytes.
    pub(crate) fn at(&self, revision: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(self.head.len() + revision.len() + self.tail.len());
        out.put_slice(&self.head);
        out.put_slice(revision.as_bytes());
        out.put_slice(&self.tail);
        out.freeze()
    }

    /// What the store calls once it knows the revision.
    pub(crate) fn finish(self) -> Finish {
        Box::new(move |revision| self.at(&revision.to_string()))
    }
}

/// Nobody could read what nests deeper, nor the list that it is in.
fn check_depth(value: &Value) -> Result<(), Status> {
    fn fits(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left > 0 && items.iter().all(|item| fits(item, left - 1)),
            Value::Object(map) => left > 0 && map.values().all(|inner| fits(inner, left - 1)),
            _ => true,
        }
    }
    if fits(value, MAX_DEPTH) {
        return Ok(());
    }
    Err(Status::bad_request(format!("the object nests too deep: at most {MAX_DEPTH} levels are stored")))
}

/// The field of a kind whose values are base64 here and bytes upstream.
fn encoded(value: &Value) -> &'static str {
    match value.text(&["kind"]) {
        "Secret" => "data",
        "ConfigMap" => "binaryData",
        _ => "",
    }
}

/// About as many bytes as upstream stores: without quotes, escapes and base64.
fn weight(value: &Value, encoded: &str) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| weight(item, "")).sum(),
        Value::Object(map) => map
            .iter()
            .map(|(name, inner)| {
                let own = weight(inner, "");
                name.len() + 2 + if !encoded.is_empty() && name == encoded { own / 4 * 3 } else { own }
            })
            .sum(),
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &Value) {
    // Writing JSON values into memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
    let _ = serde_json::to_writer(&mut *out, value);
}

/// The template of `value`, an object of `resource`, as it is stored.
pub(crate) fn stored(resource: &Resource, value: &Value) -> Template {
    if !resource.converts() {
        return Template::new(value);
    }
    let mut value = value.clone();
    resource.to_stored(&mut value);
    Template::new(&value)
}

/// The template of `value` as it is stored. An update that is too large with `managedFields` goes without; an apply
/// is nothing without them.
///
/// # Errors
/// As [`Template::check_size`], and 400 if it nests too deep to be read again.
pub(crate) fn fitting(resource: &Resource, value: &mut Value, owners: Owners<'_>) -> Result<Template, Status> {
    check_depth(value)?;
    let template = stored(resource, value);
    match template.check_size(value) {
        Err(_) if owners != Owners::Given && value.meta_mut().remove("managedFields").is_some() => {
            fitting(resource, value, owners)
        }
        checked => checked.map(|()| template),
    }
}

/// The object of an entry, in the version of `resource`.
pub(crate) fn read(resource: &Resource, entry: &Entry) -> Result<Value, Status> {
    let mut value: Value = serde_json::from_slice(&entry.bytes)
        .map_err(|e| Status::internal(format!("the stored object {} cannot be read: {e}", entry.key)))?;
    if resource.converts() {
        resource.read_stored(&mut value)?;
    }
    Ok(value)
}

/// The bytes of an entry as a client of `resource` gets them: the stored ones wherever the versions agree.
pub(crate) fn bytes(resource: &Resource, entry: &Entry) -> Result<Bytes, Status> {
    if !resource.converts() {
        return Ok(entry.bytes.clone());
    }
    let value = read(resource, entry)?;
    Ok(Template::new(&value).at(&entry.revision.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_goes_in_last_whatever_the_object_holds() {
        let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"metadata": "{\"resourceVersion\":\"\"}"},
                           "metadata": {"name": "a", "resourceVersion": "3", "uid": "u"}});
        let template = Template::new(&value);
        for revision in ["7", ""] {
            let mut want = value.clone();
            want["metadata"]["resourceVersion"] = revision.into();
            assert_eq!(serde_json::from_slice::<Value>(&template.at(revision)).unwrap(), want);
        }
        assert!(template.at("7").starts_with(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","#));
    }

    #[test]
    fn an_object_without_metadata_is_still_json() {
        let bytes = Template::new(&json!({"a": 1})).at("9");
        assert_eq!(
            serde_json::from_slice::<Value>(&bytes).unwrap(),
            json!({"a": 1, "metadata": {"resourceVersion": "9"}})
        );
    }

    #[test]
    fn what_nobody_could_read_is_refused() {
        let nested = |levels: usize| {
            (0..levels).fold(json!({}), |inside, i| if i % 2 == 0 { json!([inside]) } else { json!({"a": inside}) })
        };
        assert!(check_depth(&nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(check_depth(&nested(MAX_DEPTH)).unwrap_err().code, 400);
    }

    #[test]
    fn what_etcd_would_not_take_is_refused() {
        let check = |value: &Value| Template::new(value).check_size(value);
        let map = |text: String| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}, "data": {"k": text}});
        assert!(check(&map("x".repeat(1 << 20))).is_ok());
        assert!(check(&map("\"".repeat(1 << 20))).is_ok());
        let refused = check(&map("x".repeat(MAX_STORED))).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (500, "etcdserver: request is too large"));
        // A mebibyte of bytes in base64.
        let secret = json!({"kind": "Secret", "data": {"k": "A".repeat((1 << 20) / 3 * 4)}});
        assert!(check(&secret).is_ok());
    }
}
