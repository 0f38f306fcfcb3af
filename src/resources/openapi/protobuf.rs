//! The version 2 document as gnostic's protobuf message `openapi.v2.Document`, which is the only form in which
//! client-go reads it.
//!
//! Written by hand: the message has 60 types, of which our documents use a dozen, and none is read.

use serde_json::Value;

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        self.0.push(n.to_le_bytes()[0]);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Leaves out what is empty, as proto3 does.
    fn text(&mut self, field: u64, text: Option<&Value>) {
        if let Some(text) = text.and_then(Value::as_str).filter(|t| !t.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, texts: Option<&Value>) {
        for text in texts.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, flag: Option<&Value>) {
        if flag.and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn double(&mut self, field: u64, number: Option<&Value>) {
        if let Some(number) = number.and_then(Value::as_f64) {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn count(&mut self, field: u64, number: Option<&Value>) {
        if let Some(number) = number.and_then(Value::as_u64) {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    /// A value of any type, as YAML, which JSON is.
    fn any(&mut self, field: u64, value: &Value) {
        let mut any = Self::default();
        any.bytes(2, format!("{value}\n").as_bytes());
        self.message(field, &any);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// A map entry: name 1, value 2.
    fn named(&mut self, field: u64, name: &str, value: &Self) {
        let mut entry = Self::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, &entry);
    }

    /// Members whose name begins with `x-`, as YAML in `NamedAny`.
    fn extensions(&mut self, field: u64, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Self::default();
            // JSON is YAML.
            any.bytes(2, format!("{value}\n").as_bytes());
            self.named(field, name, &any);
        }
    }
}

/// Wraps a message in another one that has it as one of several fields.
fn one_of(field: u64, message: &Message) -> Message {
    let mut out = Message::default();
    out.message(field, message);
    out
}

/// The document under construction: its parts in the order of their fields.
pub(super) struct Document(Message);

impl Document {
    pub(super) fn start(info: &Value) -> Self {
        let mut out = Message::default();
        out.bytes(1, b"2.0");
        let mut message = Message::default();
        message.text(1, info.get("title"));
        message.text(2, info.get("version"));
        out.message(2, &message);
        Self(out)
    }

    pub(super) fn paths(&mut self, paths: impl IntoIterator<Item = (String, Value)>) {
        let mut message = Message::default();
        for (path, item) in paths {
            message.named(2, &path, &path_item(&item));
        }
        self.0.message(8, &message);
    }

    pub(super) fn definitions(&mut self, definitions: impl IntoIterator<Item = (String, Value)>) {
        let mut message = Message::default();
        for (name, definition) in definitions {
            message.named(1, &name, &schema(&definition));
        }
        self.0.message(9, &message);
    }

    pub(super) fn end(self, bearer_token: &Value) -> Vec<u8> {
        let Self(mut out) = self;
        let mut requirement = Message::default();
        requirement.named(1, "BearerToken", &Message::default());
        out.message(12, &requirement);
        let mut key = Message::default();
        for (field, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
            key.text(field, bearer_token.get(name));
        }
        let mut message = Message::default();
        message.named(1, "BearerToken", &one_of(2, &key));
        out.message(13, &message);
        out.0
    }
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            out.message(field, &operation(value));
        }
    }
    parameters(&mut out, 9, item);
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, value.get("tags"));
    out.text(3, value.get("description"));
    out.text(5, value.get("operationId"));
    out.texts(6, value.get("produces"));
    out.texts(7, value.get("consumes"));
    parameters(&mut out, 8, value);
    let mut responses = Message::default();
    for (code, value) in value.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, value.get("description"));
        if let Some(value) = value.get("schema") {
            response.message(2, &one_of(1, &schema(value)));
        }
        responses.named(1, code, &one_of(1, &response));
    }
    out.message(9, &responses);
    out.texts(10, value.get("schemes"));
    out.extensions(13, value);
    out
}

/// The `parameters` of a path or operation, each a `ParametersItem`.
fn parameters(out: &mut Message, field: u64, owner: &Value) {
    for value in owner.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut parameter = Message::default();
        let place = value.get("in").and_then(Value::as_str).unwrap_or_default();
        let parameter = if place == "body" {
            parameter.text(1, value.get("description"));
            parameter.text(2, value.get("name"));
            parameter.text(3, value.get("in"));
            parameter.flag(4, value.get("required"));
            if let Some(value) = value.get("schema") {
                parameter.message(5, &schema(value));
            }
            one_of(1, &parameter)
        } else {
            // A query parameter has one field more than a path parameter, and the later ones follow it.
            let (kind, later) = if place == "query" { (3, 1) } else { (4, 0) };
            parameter.flag(1, value.get("required"));
            parameter.text(2, value.get("in"));
            parameter.text(3, value.get("description"));
            parameter.text(4, value.get("name"));
            parameter.text(5 + later, value.get("type"));
            parameter.flag(19 + later, value.get("uniqueItems"));
            one_of(2, &one_of(kind, &parameter))
        };
        out.message(field, &one_of(1, &parameter));
    }
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value.get("$ref"));
    out.text(2, value.get("format"));
    out.text(3, value.get("title"));
    out.text(4, value.get("description"));
    if let Some(default) = value.get("default") {
        out.any(5, default);
    }
    for (field, name) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        out.double(field, value.get(name));
    }
    for (field, name) in [(8, "exclusiveMaximum"), (10, "exclusiveMinimum"), (16, "uniqueItems")] {
        out.flag(field, value.get(name));
    }
    for (field, name) in [
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
        (17, "maxProperties"),
        (18, "minProperties"),
    ] {
        out.count(field, value.get(name));
    }
    out.text(13, value.get("pattern"));
    out.texts(19, value.get("required"));
    for member in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
        out.any(20, member);
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.flag(2, Some(&Value::Bool(*allowed)));
            out.message(21, &item);
        }
        Some(value) => out.message(21, &one_of(1, &schema(value))),
        None => {}
    }
    if let Some(kind) = value.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.bytes(1, kind.as_bytes());
        out.message(22, &item);
    }
    if let Some(value) = value.get("items") {
        out.message(23, &one_of(1, &schema(value)));
    }
    if let Some(properties) = value.get("properties").and_then(Value::as_object) {
        let mut message = Message::default();
        for (name, value) in properties {
            message.named(1, name, &schema(value));
        }
        out.message(25, &message);
    }
    out.extensions(31, value);
    out
}
