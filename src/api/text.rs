//! JSON texts: read, written, and their members found and cut out without reading the rest.
//!
//! What looks for members is for texts that are JSON: what is none is not refused here, it just has no members.

use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;

/// Reads a text. Here and not where it is needed, so that it is compiled once, to be fast.
///
/// # Errors
/// It is no JSON.
pub fn read(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text)
}

/// Appends a value as text; compiled here as [`read`] is.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

/// Appends a string as text.
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, text);
}

/// Where the owners of an object's fields stand: what nearly every object has, as long as the rest of it, and few read.
pub const MANAGED_FIELDS: &[&str] = &["metadata", "managedFields"];

/// `object` without its member at `path`; the text itself where there is none.
#[must_use]
pub fn without<'a>(object: &'a [u8], path: &[&str]) -> Cow<'a, [u8]> {
    match member(object, path) {
        Some(member) => Cow::Owned(member.cut(object)),
        None => Cow::Borrowed(object),
    }
}

/// Where a member stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Key and value, and the comma that goes with them.
    pub whole: Range<usize>,
    pub value: Range<usize>,
}

impl Member {
    /// The text that it was found in, without it.
    #[must_use]
    pub fn cut(&self, object: &[u8]) -> Vec<u8> {
        let parts = [object.get(..self.whole.start), object.get(self.whole.end..)];
        parts.map(Option::unwrap_or_default).concat()
    }
}

/// The member of an object at a path of keys. One whose key is written with escapes is not found.
#[must_use]
pub fn member(object: &[u8], path: &[&str]) -> Option<Member> {
    let mut scan = Scan { text: object, at: 0 };
    let (last, above) = path.split_last()?;
    for name in above {
        scan.find(name)?;
    }
    let (start, after_comma) = scan.find(last)?;
    let value = scan.at;
    scan.skip()?;
    let end = scan.at;
    scan.space();
    let whole = match (scan.peek()?, after_comma) {
        (b',', _) => start..scan.at + 1,
        (_, Some(comma)) => comma..end,
        (_, None) => start..end,
    };
    Some(Member { whole, value: value..end })
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Stops at the value of the member `name` of the object that begins here. Answers where its key begins, and the
    /// comma before that.
    fn find(&mut self, name: &str) -> Option<(usize, Option<usize>)> {
        self.take(b'{')?;
        let mut comma = None;
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let key = self.text.get(start + 1..self.at - 1)?;
            self.take(b':')?;
            self.space();
            if key == name.as_bytes() {
                return Some((start, comma));
            }
            self.skip()?;
            self.space();
            comma = Some(self.at);
            self.take(b',')?;
        }
    }

    /// Goes behind the string that begins here.
    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            let rest = self.text.get(self.at..)?;
            self.at += rest.iter().position(|b| matches!(b, b'"' | b'\\'))? + 1;
            match self.text.get(self.at - 1) {
                Some(b'"') => return Some(()),
                _ => self.at += 1,
            }
        }
    }

    /// Goes behind the value that begins here.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    // One that closes what is around the value ends it.
                    let Some(less) = depth.checked_sub(1) else { return Some(()) };
                    depth = less;
                    self.at += 1;
                }
                b',' if depth == 0 => return Some(()),
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn cut(text: &str) -> String {
        String::from_utf8(without(text.as_bytes(), MANAGED_FIELDS).into_owned()).unwrap()
    }

    #[test]
    fn the_member_goes_with_one_comma() {
        for (text, wanted) in [
            (r#"{"metadata":{"managedFields":[{"a":"]}\"{"}],"name":"x"}}"#, r#"{"metadata":{"name":"x"}}"#),
            (r#"{"metadata":{"name":"x","managedFields":[]},"b":1}"#, r#"{"metadata":{"name":"x"},"b":1}"#),
            (r#"{"metadata":{"managedFields":null}}"#, r#"{"metadata":{}}"#),
            (r#"{ "metadata" : { "a" : 1 , "managedFields" : 5 } }"#, r#"{ "metadata" : { "a" : 1 } }"#),
            (r#"{"a":{"managedFields":1},"metadata":{"b":1}}"#, r#"{"a":{"managedFields":1},"metadata":{"b":1}}"#),
            (r#"{"metadata":7}"#, r#"{"metadata":7}"#),
            (r#"{"metadata":{"managedFields":[}"#, r#"{"metadata":{"managedFields":[}"#),
            ("", ""),
        ] {
            assert_eq!(cut(text), wanted, "{text}");
        }
        let text = br#"{"type":"ADDED","object":{"metadata":{"uid":"u\\\"","x":"y"}}}"#;
        let found = member(text, &["object", "metadata", "uid"]).unwrap();
        assert_eq!(&text[found.value], br#""u\\\"""#);
    }

    fn any() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), Just(json!(1.5)), "[\\[\\]{}:,\"\\\\a\u{e4}]{0,6}".prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-c\"\\\\]{0,2}|metadata|managedFields", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_object_without_the_member(mut object in any(), pretty: bool) {
            let text = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) }.unwrap();
            let left: Value = serde_json::from_slice(&without(&text, MANAGED_FIELDS)).unwrap();
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            prop_assert_eq!(left, object);
        }

        #[test]
        fn any_text_is_answered(text in "[\\[\\]{}:,\"\\\\a ]{0,40}|\\{\"metadata\":\\{\"managedFields\":[\\[\\]{}:,\"\\\\a ]{0,20}") {
            let _ = without(text.as_bytes(), MANAGED_FIELDS);
        }
    }
}
