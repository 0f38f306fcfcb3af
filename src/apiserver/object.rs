//! Between stored bytes and parsed objects.
//!
//! An object is serialized once, before its revision is known: everything but `metadata.resourceVersion`, which is put in
//! when the store has it. Rows that share the storage of another version are converted here, on the way in and out.

use crate::managed_fields::Owners;
use bytes::{BufMut, Bytes, BytesMut};
use mini_api::{Meta, Reason, Status, Value, text};
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
    /// How much of it the owners of its fields take that came apart from it.
    owners: usize,
}

impl Template {
    /// Serializes `value`, kind and metadata first. Whatever revision it has is left out.
    pub(crate) fn new(value: &Value) -> Self {
        Self::with(value, None)
    }

    /// As [`Self::new`], with `managedFields` that are text already.
    pub(crate) fn with(value: &Value, owners: Option<&[u8]>) -> Self {
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
        if let Some(owners) = owners {
            head.extend_from_slice(b"\"managedFields\":");
            head.extend_from_slice(owners);
            head.push(b',');
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
        Self { head, tail, owners: owners.map_or(0, <[u8]>::len) }
    }

    /// Whether an object of this size may be stored: `value` is what it was made of.
    ///
    /// # Errors
    /// 500 with etcd's words if it is larger than what etcd takes, as upstream passes them on.
    pub(crate) fn check_size(&self, value: &Value) -> Result<(), Status> {
        // What JSON escapes and encodes is smaller upstream, where a ConfigMap full of quotes must fit as it does here.
        if self.head.len() + self.tail.len() <= MAX_STORED || weight(value, encoded(value)) + self.owners <= MAX_STORED
        {
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
    text::write_str(name, out);
    out.push(b':');
    text::write(value, out);
}

/// The template of `value`, an object of `resource`, as it is stored.
pub(crate) fn stored(resource: &Resource, value: &Value, owners: Option<&[u8]>) -> Template {
    if !resource.converts() {
        return Template::with(value, owners);
    }
    let mut value = value.clone();
    resource.to_stored(&mut value);
    Template::with(&value, owners)
}

/// The template of `value` as it is stored, with the owners of its fields if they are apart from it. An update that is
/// too large with `managedFields` goes without; an apply is nothing without them.
///
/// # Errors
/// As [`Template::check_size`], and 400 if it nests too deep to be read again.
pub(crate) fn fitting(
    resource: &Resource,
    value: &mut Value,
    owners: Owners<'_>,
    apart: Option<&[u8]>,
) -> Result<Template, Status> {
    check_depth(value)?;
    let template = stored(resource, value, apart);
    match template.check_size(value) {
        Err(_)
            if owners != Owners::Given && (apart.is_some() || value.meta_mut().remove("managedFields").is_some()) =>
        {
            fitting(resource, value, owners, None)
        }
        checked => checked.map(|()| template),
    }
}

/// The object of an entry, in the version of `resource`.
pub(crate) fn read(resource: &Resource, entry: &Entry) -> Result<Value, Status> {
    let mut value = text::read(&entry.bytes).map_err(|error| unreadable(entry, &error))?;
    if resource.converts() {
        resource.read_stored(&mut value)?;
    }
    Ok(value)
}

/// As [`read`] of what needs no conversion, with `managedFields` apart, as text. To read them takes as long as all the
/// rest, and few writes have to.
pub(crate) fn read_apart(entry: &Entry) -> Result<(Value, Option<Bytes>), Status> {
    let read = |text: &[u8]| text::read(text).map_err(|error| unreadable(entry, &error));
    match text::member(&entry.bytes, text::MANAGED_FIELDS) {
        None => Ok((read(&entry.bytes)?, None)),
        Some(member) => Ok((read(&member.cut(&entry.bytes))?, Some(entry.bytes.slice(member.value)))),
    }
}

fn unreadable(entry: &Entry, error: &serde_json::Error) -> Status {
    Status::internal(format!("the stored object {} cannot be read: {error}", entry.key))
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
