//! Finding keys that one JSON object has twice: a parser that takes the last one hides them.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// No more duplicates than this are reported.
const REPORTED_MAX: usize = 100;

/// The duplicate keys of a JSON text, each as `duplicate field "spec.replicas"`. A text that is no JSON has those found
/// before the error.
#[must_use]
pub fn duplicate_fields(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let _ = Walk { path: None, found: &mut found }.deserialize(&mut deserializer);
    found
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
        }
    }
}

struct Walk<'a> {
    path: Option<&'a Path<'a>>,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys: Vec<Cow<'de, str>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let path = Path { parent: self.path, step: Step::Key(&key) };
            map.next_value_seed(Walk { path: Some(&path), found: &mut *self.found })?;
            keys.push(key);
        }
        keys.sort_unstable();
        for pair in keys.chunk_by(|a, b| a == b).filter(|same| same.len() > 1) {
            if let (Some(key), true) = (pair.first(), self.found.len() < REPORTED_MAX) {
                let path = Path { parent: self.path, step: Step::Key(key) };
                self.found.push(format!("duplicate field \"{path}\""));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut i = 0;
        loop {
            let path = Path { parent: self.path, step: Step::Index(i) };
            if list.next_element_seed(Walk { path: Some(&path), found: &mut *self.found })?.is_none() {
                return Ok(());
            }
            i += 1;
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, borrowed from the text unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn duplicates_are_found_where_they_are() {
        let body = br#"{"spec":{"replicas":1,"replicas":2,"list":[{"a":1},{"b":1,"b":{"c":1,"\u0063":2}}]},"kind":"","kind":""}"#;
        assert_eq!(
            duplicate_fields(body),
            [
                "duplicate field \"spec.list[1].b.c\"",
                "duplicate field \"spec.list[1].b\"",
                "duplicate field \"spec.replicas\"",
                "duplicate field \"kind\"",
            ]
        );
        assert!(duplicate_fields(br#"{"a":{"a":[{"a":null},{"a":1.5}]}}"#).is_empty());
        assert_eq!(duplicate_fields(br#"[{"a":1,"a":2},"#), ["duplicate field \"[0].a\""]);
        assert!(duplicate_fields("[".repeat(10_000).as_bytes()).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[\\[\\]{}:,\"ab10 ]{0,40}") {
            let _ = duplicate_fields(text.as_bytes());
        }

        #[test]
        fn a_repeated_key_is_reported(keys in prop::collection::vec("[a-e]", 0..6)) {
            let body = format!("{{{}}}", keys.iter().map(|k| format!("\"{k}\":{{}}")).collect::<Vec<_>>().join(","));
            let mut wanted: Vec<_> = keys.iter().filter(|k| keys.iter().filter(|o| o == k).count() > 1)
                .map(|k| format!("duplicate field \"{k}\"")).collect();
            wanted.sort();
            wanted.dedup();
            prop_assert_eq!(duplicate_fields(body.as_bytes()), wanted);
        }
    }
}
