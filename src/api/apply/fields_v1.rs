//! `FieldsV1`: a field set in JSON.
//!
//! An object whose keys are `f:<name>`, `k:<keys as JSON>`, `v:<value as JSON>` and `i:<index>`. An empty object is a
//! member; `.` in an object makes what the object stands for a member besides what is in it.

use super::element::Element;
use super::set::{Branch, Set};
use crate::text;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

const SELF: &str = ".";
/// What nests deeper is none: no object does.
const MAX_DEPTH: usize = 100;

/// The set as `fieldsV1`.
#[must_use]
pub fn encode(set: &Set) -> Value {
    Value::Object(encode_below(set))
}

fn encode_below(set: &Set) -> Map<String, Value> {
    let mut out = Map::new();
    for (element, branch) in set.iter() {
        let mut inside = encode_below(&branch.below);
        if branch.member && !inside.is_empty() {
            inside.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        out.insert(name(element), Value::Object(inside));
    }
    out
}

fn name(element: &Element) -> String {
    match element {
        Element::Field(name) => ["f:", name].concat(),
        Element::Key(keys) => {
            let keys: Map<String, Value> = keys.iter().cloned().collect();
            format!("k:{}", Value::Object(keys))
        }
        Element::Value(value) => format!("v:{value}"),
        Element::Index(i) => format!("i:{i}"),
    }
}

/// Appends the set as the text of a `fieldsV1`.
pub fn write(set: &Set, out: &mut Vec<u8>) {
    write_branch(false, set, out);
}

fn write_branch(member: bool, below: &Set, out: &mut Vec<u8>) {
    out.push(b'{');
    if member && !below.is_empty() {
        out.extend_from_slice(b"\".\":{},");
    }
    for (element, branch) in below.iter() {
        match element {
            Element::Field(name) => {
                out.extend_from_slice(b"\"f:");
                let quote = out.len();
                text::write_str(name, out);
                out.remove(quote);
            }
            other => text::write_str(&name(other), out),
        }
        out.push(b':');
        write_branch(branch.member, &branch.below, out);
        out.push(b',');
    }
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'}');
}

/// Reads as [`decode`] does, without a value in between.
impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Level(0).deserialize(deserializer)?.below)
    }
}

/// A branch, so deep.
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Branch;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Branch, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Branch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fieldsV1")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Branch, A::Error> {
        if self.0 > MAX_DEPTH {
            return Err(A::Error::custom("fieldsV1 nests too deep"));
        }
        let mut out = Branch::default();
        while let Some(Key(key)) = map.next_key()? {
            let inside = map.next_value_seed(Self(self.0 + 1))?;
            match key {
                Some(Some(element)) => out.below.put(element, inside),
                Some(None) => {}
                None => out.member = true,
            }
        }
        out.member |= out.below.is_empty();
        Ok(out)
    }
}

/// What a key stands for: none is what it is a key of, none inside is not known.
struct Key(Option<Option<Element>>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                if key == SELF { Ok(Key(None)) } else { parse(key).map(Some).map(Key).map_err(E::custom) }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The set of a `fieldsV1`.
///
/// # Errors
/// What is wrong with it.
pub fn decode(fields: &Value) -> Result<Set, String> {
    match fields {
        Value::Null => Ok(Set::default()),
        Value::Object(map) => Ok(decode_branch(map, 0)?.below),
        _ => Err("fieldsV1 must be an object".to_owned()),
    }
}

fn decode_branch(map: &Map<String, Value>, depth: usize) -> Result<Branch, String> {
    if depth > MAX_DEPTH {
        return Err("fieldsV1 nests too deep".to_owned());
    }
    let mut out = Branch { member: map.contains_key(SELF), below: Set::default() };
    for (key, value) in map.iter().filter(|(key, _)| *key != SELF) {
        let Some(element) = parse(key)? else { continue };
        let inside = match value {
            Value::Object(inside) => decode_branch(inside, depth + 1)?,
            _ => return Err(format!("{key}: not an object")),
        };
        out.below.put(element, inside);
    }
    out.member |= out.below.is_empty();
    Ok(out)
}

/// The element of a key; none where a later version may know what it is.
fn parse(key: &str) -> Result<Option<Element>, String> {
    let Some((kind, content)) = key.split_at_checked(2) else {
        return Err(format!("key must be 2 characters long: {key}"));
    };
    if !kind.ends_with(':') {
        return Err(format!("missing colon: {key}"));
    }
    let json = || serde_json::from_str::<Value>(content).map_err(|e| format!("{key}: {e}"));
    Ok(Some(match kind {
        "f:" => Element::field(content),
        "v:" => Element::Value(json()?),
        "k:" => match json()? {
            Value::Object(keys) => {
                let mut keys: Vec<(String, Value)> = keys.into_iter().collect();
                keys.sort_by(|(a, _), (b, _)| a.cmp(b));
                Element::Key(keys)
            }
            _ => return Err(format!("{key}: not an object")),
        },
        "i:" => Element::Index(content.parse().map_err(|e| format!("{key}: {e}"))?),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let fields = json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}, "v:1": {}}},
            "f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "i:3": {}},
        });
        let set = decode(&fields).unwrap();
        assert_eq!(encode(&set), fields);
        let mut text = Vec::new();
        write(&set, &mut text);
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), fields);
        assert_eq!(serde_json::from_slice::<Set>(&text).unwrap(), set);
        assert_eq!(
            set.to_string(),
            [
                ".metadata.finalizers",
                ".metadata.finalizers[=1]",
                ".metadata.finalizers[=\"a\"]",
                ".spec.ports",
                ".spec[3]",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port"
            ]
            .join("\n")
        );
    }

    #[test]
    fn keys_of_other_versions_are_dropped_and_broken_ones_refused() {
        assert!(decode(&json!({"x:what": {}})).unwrap().is_empty());
        assert_eq!(decode(&json!({"f:a": {"x:what": {}}})).unwrap(), Set::of(&[&["a"]]));
        assert!(decode(&Value::Null).unwrap().is_empty());
        for broken in [
            json!([]),
            json!({"f": {}}),
            json!({"fx": {}}),
            json!({"k:[1]": {}}),
            json!({"v:{": {}}),
            json!({"i:x": {}}),
            json!({"f:a": 1}),
            json!({"f:a": {"f:b": null}}),
        ] {
            assert!(decode(&broken).is_err(), "{broken}");
            assert!(serde_json::from_value::<Set>(broken.clone()).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_nests_deeper_than_any_object_is_refused() {
        let nested = |levels: usize| (0..levels).fold(json!({}), |inside, _| json!({"f:a": inside}));
        assert!(decode(&nested(90)).is_ok());
        assert!(decode(&nested(110)).unwrap_err().contains("too deep"));
        assert!(serde_json::from_value::<Set>(nested(110)).is_err());
    }
}
