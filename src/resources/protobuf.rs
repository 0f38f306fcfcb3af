//! Kubernetes' protobuf form of built-in kinds, in which kubectl and client-go send and take them: from it into JSON here,
//! and in [`encode`] the other way.
//!
//! The field numbers are one text in the executable (`data/protobuf.txt`, made by `data/protobuf.py`); a message is read
//! from it when it is first met. Knows the wire format and nothing of what a kind means: what comes out is normalized,
//! defaulted and validated as JSON is.

mod encode;

pub use encode::{encode, encodes, watch_frame};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

static FACTS: &str = include_str!("data/protobuf.txt");
/// What every object starts with.
const MAGIC: &[u8] = b"k8s\0";
/// No kind nests deeper; whoever does wants the stack.
const MAX_DEPTH: usize = 64;

/// The media type of this form.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

type Result<T> = std::result::Result<T, String>;

/// Decodes an object with its envelope.
///
/// # Errors
/// What is wrong with the bytes, or that the kind is not known here.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    let body = bytes.strip_prefix(MAGIC).ok_or("the bytes do not start with the prefix of Kubernetes' protobuf")?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(body) {
        match field? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(format!("the encoding {} is not supported", String::from_utf8_lossy(encoding)));
            }
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields(type_meta) {
        match field? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", &api_version));
    let package = group.split('.').next().unwrap_or_default();
    // Options such as DeleteOptions are sent as kinds of whichever group they are for.
    let message = MESSAGES
        .get(format!("{package}.{version}.{kind}").as_str())
        .or_else(|| MESSAGES.get(format!("meta.v1.{kind}").as_str()))
        .ok_or_else(|| format!("no kind \"{kind}\" is registered for version \"{api_version}\""))?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    message.decode(raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut messages = HashMap::new();
    let mut rest = FACTS;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let length = after.split_inclusive('\n').take_while(|line| line.starts_with(' ')).map(str::len).sum();
        let (lines, next) = after.split_at(length);
        messages.insert(name, Message { name, lines, fields: OnceLock::new() });
        rest = next;
    }
    messages
});

struct Message {
    /// `core.v1.Pod`.
    name: &'static str,
    lines: &'static str,
    fields: OnceLock<Vec<Field>>,
}

struct Field {
    number: u64,
    /// None: the fields of the message stand in the JSON of the one around it.
    name: Option<&'static str>,
    /// A zero is said in JSON too.
    zero: bool,
    shape: Shape,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Clone, Copy)]
enum Kind {
    String,
    Bool,
    Integer,
    Double,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Raw,
    Duration,
    /// A message that is nothing but a list of strings.
    Strings,
    Message(&'static str, &'static str),
}

impl Message {
    fn fields(&self) -> &[Field] {
        self.fields.get_or_init(|| self.lines.lines().filter_map(|line| self.field(line)).collect())
    }

    fn field(&self, line: &'static str) -> Option<Field> {
        let mut words = line.trim_start().split(' ');
        let number = words.next()?;
        let (number, name) = match number.strip_prefix('^') {
            Some(number) => (number, None),
            None => (number, Some(words.next()?)),
        };
        let zero = name.is_some_and(|name| name.starts_with('!'));
        let kind = words.next()?;
        let (shape, kind) = match (kind.strip_prefix('['), kind.strip_prefix('{')) {
            (Some(kind), _) => (Shape::List, kind),
            (_, Some(kind)) => (Shape::Map, kind),
            _ => (Shape::One, kind),
        };
        let package = self.name.rsplit_once('.').map_or("", |(package, _)| package);
        let kind = match kind {
            "s" => Kind::String,
            "b" => Kind::Bool,
            "i" => Kind::Integer,
            "d" => Kind::Double,
            "x" => Kind::Bytes,
            "q" => Kind::Quantity,
            "o" => Kind::IntOrString,
            "t" => Kind::Time,
            "u" => Kind::MicroTime,
            "r" => Kind::Raw,
            "D" => Kind::Duration,
            "L" => Kind::Strings,
            name if name.contains('.') => Kind::Message("", name),
            name => Kind::Message(package, name),
        };
        Some(Field { number: number.parse().ok()?, name: name.map(|n| n.trim_start_matches('!')), zero, shape, kind })
    }

    fn decode(&self, bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(format!("{} nests too deep", self.name));
        }
        for field in Fields(bytes) {
            let (number, wire) = field?;
            let Some(field) = self.fields().iter().find(|f| f.number == number) else { continue };
            let Some(name) = field.name else {
                if let (Kind::Message(package, name), Wire::Bytes(bytes)) = (field.kind, wire) {
                    find(package, name)?.decode(bytes, object, depth + 1)?;
                }
                continue;
            };
            match field.shape {
                Shape::One => {
                    let value = field.kind.decode(wire, depth)?;
                    if !value.is_null() && (field.zero || !is_zero(&value)) {
                        object.insert(name.to_owned(), value);
                    }
                }
                Shape::List => {
                    let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                    let Value::Array(list) = list else { continue };
                    match (field.kind, wire) {
                        (Kind::Integer, Wire::Bytes(mut packed)) => {
                            while !packed.is_empty() {
                                list.push(signed(varint(&mut packed)?).into());
                            }
                        }
                        (kind, wire) => list.push(kind.decode(wire, depth)?),
                    }
                }
                Shape::Map => {
                    let Wire::Bytes(entry) = wire else { return Err(wrong(name)) };
                    let (key, value) = map_entry(entry, field.kind, depth)?;
                    let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(map) = map {
                        map.insert(key, value);
                    }
                }
            }
        }
        Ok(())
    }
}

fn find(package: &str, name: &str) -> Result<&'static Message> {
    let found =
        if package.is_empty() { MESSAGES.get(name) } else { MESSAGES.get(format!("{package}.{name}").as_str()) };
    found.ok_or_else(|| format!("the message {package}.{name} is not known"))
}

fn map_entry(bytes: &[u8], kind: Kind, depth: usize) -> Result<(String, Value)> {
    let (mut key, mut value) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => value = Some(kind.decode(wire, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => kind.decode(Wire::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

/// What Go's omitempty leaves out. Structs are never left out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null | Value::Object(_) => false,
    }
}

impl Kind {
    fn decode(self, wire: Wire<'_>, depth: usize) -> Result<Value> {
        Ok(match (self, wire) {
            (Self::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
            (Self::Bool, Wire::Varint(n)) => (n != 0).into(),
            (Self::Integer, Wire::Varint(n)) => signed(n).into(),
            (Self::Double, Wire::Fixed64(n)) => Number::from_f64(f64::from_bits(n)).map_or(Value::Null, Value::Number),
            (Self::Bytes, Wire::Bytes(bytes)) => BASE64.encode(bytes).into(),
            (Self::Quantity, Wire::Bytes(bytes)) => {
                let text = strings(bytes)?.pop().unwrap_or_default();
                if text.is_empty() { "0".into() } else { text.into() }
            }
            (Self::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
            (Self::Time, Wire::Bytes(bytes)) => time(bytes)?.map_or(Value::Null, |t| mini_api::time::seconds(t).into()),
            (Self::MicroTime, Wire::Bytes(bytes)) => {
                time(bytes)?.map_or(Value::Null, |t| mini_api::time::micro(t).into())
            }
            (Self::Raw, Wire::Bytes(bytes)) => raw(bytes)?,
            (Self::Duration, Wire::Bytes(bytes)) => duration(bytes)?,
            (Self::Strings, Wire::Bytes(bytes)) => strings(bytes)?.into(),
            (Self::Message(package, name), Wire::Bytes(bytes)) => {
                let mut object = Map::new();
                find(package, name)?.decode(bytes, &mut object, depth + 1)?;
                Value::Object(object)
            }
            // Maps leave an empty value out.
            (Self::Bool, Wire::Bytes([])) => false.into(),
            (Self::Integer, Wire::Bytes([])) => 0.into(),
            _ => return Err(wrong("a field")),
        })
    }
}

fn wrong(name: &str) -> String {
    format!("{name} has a wrong wire type")
}

/// The strings of field 1.
fn strings(bytes: &[u8]) -> Result<Vec<String>> {
    let mut list = Vec::new();
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            list.push(text(bytes)?);
        }
    }
    Ok(list)
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_string, mut int, mut string) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => is_string = n == 1,
            (2, Wire::Varint(n)) => int = signed(n),
            (3, Wire::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_string { string.into() } else { int.into() })
}

/// None is the zero time.
fn time(bytes: &[u8]) -> Result<Option<jiff::Timestamp>> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => seconds = signed(n),
            (2, Wire::Varint(n)) => nanos = signed(n),
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let nanos = i32::try_from(nanos).map_err(|e| e.to_string())?;
    jiff::Timestamp::new(seconds, nanos).map(Some).map_err(|e| e.to_string())
}

fn raw(bytes: &[u8]) -> Result<Value> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            return serde_json::from_slice(bytes).map_err(|e| e.to_string());
        }
    }
    Ok(Value::Null)
}

/// In the words of Go: `1m30s` is written as `90s`, which reads the same.
fn duration(bytes: &[u8]) -> Result<Value> {
    for field in Fields(bytes) {
        if let (1, Wire::Varint(n)) = field? {
            let nanos = signed(n);
            return Ok(if nanos % 1_000_000_000 == 0 {
                format!("{}s", nanos / 1_000_000_000).into()
            } else {
                format!("{nanos}ns").into()
            });
        }
    }
    Ok("0s".into())
}

fn text(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| e.to_string())
}

fn signed(n: u64) -> i64 {
    i64::from_ne_bytes(n.to_ne_bytes())
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("the message breaks off")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length).ok_or("the message breaks off")?;
    *bytes = rest;
    Ok(head)
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message: number and value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Wire<'a>)> {
        let key = varint(&mut self.0)?;
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => {
                let bytes = take(&mut self.0, 8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|e| e.to_string())?;
                Wire::Bytes(take(&mut self.0, length)?)
            }
            5 => {
                take(&mut self.0, 4)?;
                Wire::Fixed32
            }
            other => return Err(format!("the wire type {other} is not supported")),
        };
        Ok((key >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn object(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
    }

    #[test]
    fn a_secret_with_maps_times_and_pointers() {
        let metadata =
            [bytes(1, b"a"), bytes(2, b""), bytes(8, b""), bytes(11, &[bytes(1, b"k"), bytes(2, b"v")].concat())];
        let data = [bytes(1, b"pass"), bytes(2, b"\x00\x01")].concat();
        let raw = [bytes(1, &metadata.concat()), bytes(2, &data), vec![5 << 3, 0], bytes(3, b"Opaque")].concat();
        assert_eq!(
            decode(&object("v1", "Secret", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"k": "v"}},
                   "data": {"pass": "AAE="}, "immutable": false, "type": "Opaque"})
        );
    }

    #[test]
    fn managed_fields_are_json_inside() {
        let fields = bytes(7, &bytes(1, br#"{"f:data":{"f:k":{}}}"#));
        let entry = [bytes(1, b"m"), bytes(2, b"Update"), bytes(3, b"v1"), bytes(6, b"FieldsV1"), fields].concat();
        // Field 17, whose key takes two bytes.
        let managed = [vec![0x8a, 0x01, u8::try_from(entry.len()).unwrap()], entry].concat();
        let map = decode(&object("v1", "ConfigMap", &bytes(1, &managed))).unwrap();
        let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                           "fieldsV1": {"f:data": {"f:k": {}}}});
        assert_eq!(map["metadata"]["managedFields"], json!([entry]));
    }

    #[test]
    fn inline_messages_and_options_of_any_group() {
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
        let spec = bytes(1, &volume);
        let pod = decode(&object("v1", "Pod", &bytes(2, &spec))).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
        let options = decode(&object("apps/v1", "DeleteOptions", &[8, 0])).unwrap();
        assert_eq!(options["gracePeriodSeconds"], 0);
    }

    #[test]
    fn what_is_broken_is_refused() {
        let good = object("v1", "Secret", &bytes(1, &bytes(1, b"a")));
        for end in 0..good.len() {
            let _ = decode(&good[..end]);
        }
        assert!(decode(&good[..good.len() - 5]).is_err());
        assert!(decode(b"{}").is_err());
        assert!(decode(&object("v1", "Nothing", b"")).unwrap_err().contains("no kind"));
    }

    #[test]
    fn every_message_that_is_named_is_there() {
        for message in MESSAGES.values() {
            assert_eq!(message.fields().len(), message.lines.lines().count(), "{}", message.name);
            for field in message.fields() {
                if let Kind::Message(package, name) = field.kind {
                    assert!(find(package, name).is_ok(), "{} has {package}.{name}", message.name);
                }
            }
        }
    }
}
