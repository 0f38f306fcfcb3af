//! Finding keys that one JSON object has twice: a parser that takes the last one hides them. And the order in which
//! upstream's decoder comes upon these and upon unknown fields.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// No more duplicates than this are reported.
const REPORTED_MAX: usize = 100;

/// The duplicate keys of a JSON text in their order, each once as `duplicate field "spec.replicas"`. A text that is no
/// JSON has those found before the error.
#[must_use]
pub fn duplicate_fields(body: &[u8]) -> Vec<String> {
    odd_fields(body, &[])
}

/// The duplicate keys of a JSON text among its unknown fields, which `unknown` names as `unknown field "spec.x"`, in
/// the order of the text. What is unknown is not looked into, nor is it told that it is there twice.
#[must_use]
pub fn odd_fields(body: &[u8], unknown: &[String]) -> Vec<String> {
    let unknown: BTreeSet<&str> = unknown.iter().map(String::as_str).collect();
    let mut found = Found { unknown: &unknown, odd: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let _ = Walk { path: None, found: &mut found }.deserialize(&mut deserializer);
    let Found { mut odd, .. } = found;
    // What the text writes another way is told last.
    let untold: Vec<String> =
        unknown.into_iter().filter(|field| !odd.iter().any(|told| told == field)).map(str::to_owned).collect();
    odd.extend(untold);
    odd
}

struct Found<'u> {
    unknown: &'u BTreeSet<&'u str>,
    odd: Vec<String>,
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

struct Walk<'a, 'u> {
    path: Option<&'a Path<'a>>,
    found: &'a mut Found<'u>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys: BTreeMap<Cow<'de, str>, usize> = BTreeMap::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let path = Path { parent: self.path, step: Step::Key(&key) };
            let seen = keys.get(&key).copied().unwrap_or(0);
            let unknown = !self.found.unknown.is_empty()
                && self.found.unknown.contains(format!("unknown field \"{path}\"").as_str());
            if self.found.odd.len() < REPORTED_MAX {
                match (unknown, seen) {
                    (true, 0) => self.found.odd.push(format!("unknown field \"{path}\"")),
                    (false, 1) => self.found.odd.push(format!("duplicate field \"{path}\"")),
                    _ => {}
                }
            }
            if unknown {
                map.next_value::<serde::de::IgnoredAny>()?;
            } else {
                map.next_value_seed(Walk { path: Some(&path), found: &mut *self.found })?;
            }
            keys.insert(key, seen + 1);
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
                "duplicate field \"spec.replicas\"",
                "duplicate field \"spec.list[1].b\"",
                "duplicate field \"spec.list[1].b.c\"",
                "duplicate field \"kind\"",
            ]
        );
        let unknown = ["unknown field \"spec.list[1].b\"".to_owned(), "unknown field \"spec.z\"".to_owned()];
        assert_eq!(
            odd_fields(body, &unknown),
            [
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.list[1].b\"",
                "duplicate field \"kind\"",
                "unknown field \"spec.z\"",
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
            let mut found = duplicate_fields(body.as_bytes());
            found.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
