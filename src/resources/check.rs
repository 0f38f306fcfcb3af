//! A cursor for validation: a value together with where it is, so that an error always names the right field.

use mini_api::names;
use mini_api::quantity::Quantity;
use mini_api::{FieldError, FieldPath};
use serde_json::Value;

static ABSENT: Value = Value::Null;

pub(crate) type Errors = Vec<FieldError>;

/// `spec: Forbidden`, `field is immutable`: words that many kinds share.
pub(crate) const IMMUTABLE: &str = "field is immutable";
pub(crate) const NON_NEGATIVE: &str = "must be greater than or equal to 0";

/// A value and its path. An absent field is a cursor on null.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: FieldPath,
}

impl<'a> At<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, path: FieldPath::default() }
    }

    pub(crate) fn get(&self, name: &str) -> Self {
        Self { value: self.value.get(name).unwrap_or(&ABSENT), path: self.path.child(name) }
    }

    /// The elements of a list; none where this is no list.
    pub(crate) fn items(&self) -> Vec<Self> {
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(i, value)| Self { value, path: self.path.index(i) }).collect()
    }

    /// The entries of a map with bracketed keys in their paths; none where this is no map.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Self)> {
        let map = self.value.as_object();
        map.into_iter().flatten().map(|(k, value)| (k.as_str(), Self { value, path: self.path.key(k) })).collect()
    }

    pub(crate) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub(crate) fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub(crate) fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, or an empty string, list or map.
    pub(crate) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            _ => false,
        }
    }

    pub(crate) fn required(&self, detail: &str) -> FieldError {
        FieldError::required(&self.path, detail)
    }

    pub(crate) fn invalid(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path, self.value.clone(), detail)
    }

    pub(crate) fn duplicate(&self) -> FieldError {
        FieldError::duplicate(&self.path, self.value.clone())
    }

    pub(crate) fn forbidden(&self, detail: &str) -> FieldError {
        FieldError::forbidden(&self.path, detail)
    }

    pub(crate) fn not_supported(&self, supported: &[&str]) -> FieldError {
        FieldError::not_supported(&self.path, self.value.clone(), supported)
    }

    /// Attaches messages of a name check to this field.
    pub(crate) fn messages(&self, messages: Vec<String>, errors: &mut Errors) {
        errors.extend(messages.into_iter().map(|m| self.invalid(m)));
    }

    /// Refuses an empty value.
    pub(crate) fn must_be_set(&self, errors: &mut Errors) {
        if self.is_empty() {
            errors.push(self.required(""));
        }
    }

    /// Refuses a value outside `supported`; an absent one is left to others.
    pub(crate) fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.is_set() && !supported.contains(&self.text()) {
            errors.push(self.not_supported(supported));
        }
    }

    /// Refuses an absent value and one outside `supported`.
    pub(crate) fn required_one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.is_empty() { errors.push(self.required("")) } else { self.one_of(supported, errors) }
    }

    pub(crate) fn non_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < 0) {
            errors.push(self.invalid(NON_NEGATIVE));
        }
    }

    pub(crate) fn in_range(&self, low: i64, high: i64, errors: &mut Errors) {
        if self.int().is_some_and(|n| !(low..=high).contains(&n)) {
            errors.push(self.invalid(between(low, high)));
        }
    }

    /// A port number.
    pub(crate) fn port(&self, errors: &mut Errors) {
        if !self.int().is_some_and(|n| (1..=65535).contains(&n)) {
            errors.push(FieldError::invalid(&self.path, self.int().unwrap_or(0), between(1, 65535)));
        }
    }

    /// A port number or a port's name.
    pub(crate) fn port_or_name(&self, errors: &mut Errors) {
        match self.value {
            Value::String(name) => self.messages(names::is_port_name(name), errors),
            Value::Number(_) => self.port(errors),
            _ => errors.push(self.required("")),
        }
    }

    /// Refuses a field that differs from the old one.
    pub(crate) fn immutable(&self, old: &Self, errors: &mut Errors) {
        if self.value != old.value && !(self.is_empty() && old.is_empty()) {
            errors.push(self.invalid(IMMUTABLE));
        }
    }

    pub(crate) fn quantity(&self) -> Option<Quantity> {
        match self.value {
            Value::String(s) => Quantity::parse(s).ok(),
            Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
            _ => None,
        }
    }
}

pub(crate) fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}
