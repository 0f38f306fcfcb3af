//! Validation against a structural schema, in the words of kube-openapi's validator.

use super::format;
use super::schema::{Additional, List, Schema};
use mini_api::{FieldError, FieldErrorType, FieldPath};
use serde_json::{Number, Value};
use std::collections::HashMap;

/// Everything wrong with `value`, which is at `path`. What is wrong with a part that an update leaves as it was in `old`
/// is tolerated.
pub(crate) fn validate(schema: &Schema, value: &Value, old: Option<&Value>, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = check(schema, value, old, "").errors;
    for error in &mut errors {
        let name = error.path.as_str().trim_start_matches('.');
        error.path = if name.is_empty() { path.clone() } else { path.child(name) };
    }
    errors
}

/// What came of a check: of several alternatives the one with the most matches explains best what is wrong.
#[derive(Default)]
struct Outcome {
    errors: Vec<FieldError>,
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.matches += other.matches;
    }

    fn fail(&mut self, name: &str, kind: FieldErrorType, value: impl Into<Value>, detail: impl Into<String>) {
        let (path, value) = (FieldPath::new(name), Some(value.into()));
        self.errors.push(FieldError { kind, path, value, detail: detail.into() });
    }

    fn invalid(&mut self, name: &str, value: impl Into<Value>, what: &str) {
        self.fail(name, FieldErrorType::Invalid, value, format!("{name} in body {what}"));
    }

    fn mistyped(&mut self, name: &str, wanted: &str, got: &str) {
        let detail = format!("{name} in body must be of type {wanted}: {got:?}");
        self.fail(name, FieldErrorType::TypeInvalid, got, detail);
    }

    /// An error of the object as a whole.
    fn general(&mut self, detail: String) {
        self.fail("", FieldErrorType::Invalid, "", detail);
    }
}

fn check(schema: &Schema, value: &Value, old: Option<&Value>, name: &str) -> Outcome {
    let mut out = Outcome::default();
    check_type(schema, value, name, &mut out);
    if !value.is_null() {
        junctors(schema, value, name, &mut out);
        match value {
            Value::String(text) => string(schema, text, name, &mut out),
            Value::Number(n) => number(schema, n, name, &mut out),
            Value::Array(items) => list(schema, items, old, name, &mut out),
            _ => {}
        }
    }
    one_of_values(schema, value, name, &mut out);
    if let Value::Object(map) = value {
        object(schema, map, old, name, &mut out);
    }
    out.matches += 1;
    if old == Some(value) {
        out.errors.clear();
    }
    out
}

/// A value's type and format as Go's JSON gives it.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(n) if n.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

fn check_type(schema: &Schema, value: &Value, name: &str, out: &mut Outcome) {
    let types: &[&str] = match schema.kind.as_str() {
        _ if schema.int_or_string => &["integer", "string"],
        "" => &[],
        kind => &[kind],
    };
    let format = schema.checks.format.as_str();
    if types.is_empty() && format.is_empty() {
        return;
    }
    let (kind, own_format) = type_of(value);
    if value.is_null() {
        if !types.is_empty() && !schema.nullable {
            out.mistyped(name, &types.join(","), kind);
        } else {
            out.matches += 2;
        }
        return;
    }
    let whole = value.as_f64().is_some_and(|f| f.fract() == 0.0);
    let fits = types.contains(&kind)
        || kind == "number" && whole && types.contains(&"integer")
        || kind == "integer" && types.contains(&"number");
    let text = matches!(value, Value::String(_) | Value::Array(_));
    if !text && !format.is_empty() && !fits && own_format != format {
        out.mistyped(name, format, own_format);
        return;
    }
    // Texts with a format are left to the format, whatever their type.
    let formatted = text && !format.is_empty() && !types.iter().any(|t| matches!(*t, "number" | "integer"));
    if formatted || fits {
        out.matches += 2;
    } else {
        out.mistyped(name, &types.join(","), kind);
    }
}

fn junctors(schema: &Schema, value: &Value, name: &str, out: &mut Outcome) {
    let checks = &schema.checks;
    let valid = |o: &Outcome| o.errors.is_empty();
    if !checks.any_of.is_empty() {
        let (best, successes) = alternatives(&checks.any_of, value, name, true);
        if successes == 0 {
            out.general(format!("{name:?} must validate at least one schema (anyOf)"));
        }
        out.merge(best);
    }
    if !checks.one_of.is_empty() {
        let (best, successes) = alternatives(&checks.one_of, value, name, false);
        match successes {
            1 => out.merge(best),
            0 => {
                out.general(format!("{name:?} must validate one and only one schema (oneOf). Found none valid"));
                out.merge(best);
            }
            n => out.general(format!(
                "{name:?} must validate one and only one schema (oneOf). Found {n} valid alternatives"
            )),
        }
    }
    if !checks.all_of.is_empty() {
        let outcomes: Vec<Outcome> = checks.all_of.iter().map(|s| check(s, value, None, name)).collect();
        let (valid, all) = (outcomes.iter().filter(|o| valid(o)).count(), outcomes.len());
        outcomes.into_iter().for_each(|o| out.merge(o));
        if valid != all {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.general(format!("{name:?} must validate all the schemas (allOf){none}"));
        }
    }
    if let Some(not) = &checks.not
        && valid(&check(not, value, None, name))
    {
        out.general(format!("{name:?} must not validate the schema (not)"));
    }
    out.matches += 2;
}

/// The first success, or the failure with the most matches; and how many succeed (one at most if that is `enough`).
fn alternatives(schemas: &[Schema], value: &Value, name: &str, enough: bool) -> (Outcome, usize) {
    let (mut best, mut successes): (Option<Outcome>, usize) = (None, 0);
    for schema in schemas {
        let outcome = check(schema, value, None, name);
        if outcome.errors.is_empty() {
            successes += 1;
            if successes == 1 {
                best = Some(outcome);
            }
            if enough {
                break;
            }
        } else if successes == 0 && best.as_ref().is_none_or(|b| outcome.matches > b.matches) {
            best = Some(outcome);
        }
    }
    (best.unwrap_or_default(), successes)
}

fn string(schema: &Schema, text: &str, name: &str, out: &mut Outcome) {
    let checks = &schema.checks;
    let length = text.chars().count() as u64;
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        let detail = format!("may not be more than {max} bytes");
        out.errors.push(FieldError { kind: FieldErrorType::TooLong, path: FieldPath::new(name), value: None, detail });
    } else if let Some(min) = checks.min_length.filter(|min| length < *min) {
        out.invalid(name, text, &format!("should be at least {min} chars long"));
    } else if let Some((pattern, regex)) = &checks.pattern
        && !regex.as_ref().is_some_and(|r| r.is_match(text))
    {
        out.invalid(name, text, &format!("should match '{pattern}'"));
    }
    let format = checks.format.as_str();
    if !format.is_empty() && !format::holds(format, text) {
        out.mistyped(name, format, text);
    }
    out.matches += 1;
}

fn number(schema: &Schema, n: &Number, name: &str, out: &mut Outcome) {
    let checks = &schema.checks;
    let kind = if schema.int_or_string { "integer" } else { schema.kind.as_str() };
    let value = n.as_f64().unwrap_or_default();
    let fits = match (kind, checks.format.as_str()) {
        ("integer", "int32") => value.fract() == 0.0 && value >= f64::from(i32::MIN) && value <= f64::from(i32::MAX),
        ("integer", _) => value.fract() == 0.0 && n.as_u64().is_none_or(|u| i64::try_from(u).is_ok()),
        (_, "float") => value.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if !fits {
        let of = match checks.format.as_str() {
            "" => "(default format)".to_owned(),
            format => format!("with format {format}"),
        };
        out.general(format!("Checked value must be of type {kind} {of} in {name}"));
    }
    let given = || Value::Number(n.clone());
    if let Some(factor) = checks.multiple_of {
        // As the validator does it: a small factor would lose digits in a division.
        let times = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
        if factor <= 0.0 {
            let detail = format!("factor MultipleOf declared for {name} must be positive: {}", go_float(factor));
            out.fail(name, FieldErrorType::Invalid, factor, detail);
        } else if (times - times.round()).abs() > 1e-9 {
            out.invalid(name, given(), &format!("should be a multiple of {}", go_float(factor)));
        }
    }
    if let Some(min) = checks.minimum
        && (value < min || checks.exclusive_minimum && value <= min)
    {
        let than = if checks.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        out.invalid(name, given(), &format!("should be {than} {}", go_float(min)));
    }
    if let Some(max) = checks.maximum
        && (value > max || checks.exclusive_maximum && value >= max)
    {
        let than = if checks.exclusive_maximum { "less than" } else { "less than or equal to" };
        out.invalid(name, given(), &format!("should be {than} {}", go_float(max)));
    }
    out.matches += 2;
}

fn list(schema: &Schema, items: &[Value], old: Option<&Value>, name: &str, out: &mut Outcome) {
    let checks = &schema.checks;
    if let Some(element) = &schema.items {
        let before = Counterparts::of(schema, old);
        for (i, item) in items.iter().enumerate() {
            out.merge(check(element, item, before.get(item), &format!("{name}[{i}]")));
        }
    }
    let size = items.len() as u64;
    if let Some(min) = checks.min_items.filter(|min| size < *min) {
        out.invalid(name, size, &format!("should have at least {min} items"));
    }
    if let Some(max) = checks.max_items.filter(|max| size > *max) {
        out.fail(name, FieldErrorType::TooMany, size, format!("must have at most {max} items"));
    }
    if checks.unique_items && items.iter().enumerate().any(|(i, a)| items.iter().take(i).any(|b| a == b)) {
        out.invalid(name, "", "shouldn't contain duplicates");
    }
    out.matches += 2;
}

/// The elements of a list as it was before, by the values of their keys: only lists that are maps know them.
struct Counterparts<'a> {
    keys: &'a [String],
    elements: HashMap<Vec<Option<&'a Value>>, &'a Value>,
}

impl<'a> Counterparts<'a> {
    fn of(schema: &'a Schema, old: Option<&'a Value>) -> Self {
        let (List::Map(keys), Some(Value::Array(old))) = (&schema.list, old) else {
            return Self { keys: &[], elements: HashMap::new() };
        };
        let mut elements = HashMap::with_capacity(old.len());
        for element in old {
            // Of two with the same keys the first counts.
            elements.entry(key_values(keys, element)).or_insert(element);
        }
        Self { keys, elements }
    }

    fn get(&self, item: &Value) -> Option<&'a Value> {
        if self.elements.is_empty() {
            return None;
        }
        self.elements.get(&key_values(self.keys, item)).copied()
    }
}

fn key_values<'a>(keys: &[String], element: &'a Value) -> Vec<Option<&'a Value>> {
    keys.iter().map(|key| element.get(key)).collect()
}

fn one_of_values(schema: &Schema, value: &Value, name: &str, out: &mut Outcome) {
    let values = &schema.checks.values;
    if values.is_empty() || values.iter().any(|v| same(v, value)) {
        return;
    }
    let known: Vec<String> = values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let given = if value.is_null() { "null".into() } else { value.clone() };
    out.errors.push(FieldError::not_supported(&FieldPath::new(name), given, &known));
}

/// Equal, whether a number is written as 1 or as 1.0.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

fn object(schema: &Schema, map: &serde_json::Map<String, Value>, old: Option<&Value>, name: &str, out: &mut Outcome) {
    let checks = &schema.checks;
    let size = map.len() as u64;
    if let Some(min) = checks.min_properties.filter(|min| size < *min) {
        out.invalid(name, size, &format!("should have at least {min} properties"));
    }
    if let Some(max) = checks.max_properties.filter(|max| size > *max) {
        out.fail(name, FieldErrorType::TooMany, size, format!("must have at most {max} items"));
    }
    for (key, value) in map {
        let before = old.and_then(|o| o.get(key));
        if let Some(field) = schema.properties.get(key) {
            let child = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            out.merge(check(field, value, before, &child));
            continue;
        }
        match &schema.additional {
            Additional::Of(entry) => out.merge(check(entry, value, before, &format!("{name}.{key}"))),
            Additional::Allowed(false) => {
                let detail = format!("{name}.{key} in body is a forbidden property");
                out.fail(name, FieldErrorType::Invalid, key.as_str(), detail);
            }
            _ => {}
        }
    }
    for key in checks.required.iter().filter(|key| !map.contains_key(*key)) {
        out.errors.push(FieldError::required(&FieldPath::new(&format!("{name}.{key}")), ""));
    }
    out.matches += 1;
}

/// A number as Go's `%v` writes it.
fn go_float(f: f64) -> String {
    let exponent = if f == 0.0 { 0.0 } else { f.abs().log10().floor() };
    if (-4.0..21.0).contains(&exponent) {
        return f.to_string();
    }
    let text = format!("{f:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = exponent.strip_prefix('-').map_or(("+", exponent), |p| ("-", p));
    format!("{digits}e{sign}{power:0>2}")
}

#[cfg(test)]
mod tests;
