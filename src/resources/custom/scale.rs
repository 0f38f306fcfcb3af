//! The `scale` subresource of a custom kind: where in the object the numbers are.

use crate::check::Errors;
use mini_api::meta::{child_mut, object_mut};
use mini_api::{FieldError, FieldPath, Meta, go};
use serde_json::Value;

/// The paths of `spec.versions[].subresources.scale`, dotted, with their leading dot.
#[derive(Clone, Debug)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Empty where there is none.
    pub selector: String,
}

impl Scale {
    pub(super) fn read(scale: &Value) -> Self {
        let path = |name: &str| scale.text(&[name]).to_owned();
        Self {
            spec_replicas: path("specReplicasPath"),
            status_replicas: path("statusReplicasPath"),
            selector: path("labelSelectorPath"),
        }
    }

    /// The names on the way to the desired replicas.
    pub fn desired_path(&self) -> impl Iterator<Item = &str> {
        names(&self.spec_replicas)
    }

    /// What stands where the desired replicas do.
    #[must_use]
    pub fn asked<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        at(object, &self.spec_replicas)
    }

    /// The replicas that are desired; `None` where the object does not say.
    #[must_use]
    pub fn desired(&self, object: &Value) -> Option<i64> {
        self.asked(object).and_then(Value::as_i64)
    }

    #[must_use]
    pub fn observed(&self, object: &Value) -> i64 {
        at(object, &self.status_replicas).and_then(Value::as_i64).unwrap_or(0)
    }

    #[must_use]
    pub fn selector<'a>(&self, object: &'a Value) -> &'a str {
        at(object, &self.selector).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn set_desired(&self, object: &mut Value, replicas: Value) {
        let mut names = self.desired_path().peekable();
        let mut map = object_mut(object);
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                map.insert(name.to_owned(), replicas);
                return;
            }
            map = child_mut(map, name);
        }
    }

    pub(super) fn validate(&self, object: &Value, status_only: bool, errors: &mut Errors) {
        if !status_only {
            count(object, &self.spec_replicas, errors);
        }
        count(object, &self.status_replicas, errors);
        if let Some(selector) = at(object, &self.selector).filter(|s| !s.is_string()) {
            let path = self.selector.trim_start_matches('.');
            let detail = format!(
                ".{path} accessor error: {selector} is of the type {}, expected string",
                go::type_name(selector)
            );
            errors.push(FieldError::invalid(&FieldPath::new(&self.selector), "", detail));
        }
    }
}

fn count(object: &Value, path: &str, errors: &mut Errors) {
    let Some(value) = at(object, path) else { return };
    let place = FieldPath::new(path);
    match value.as_i64() {
        None => {
            let dotted = path.trim_start_matches('.');
            let detail =
                format!(".{dotted} accessor error: {value} is of the type {}, expected int64", go::type_name(value));
            errors.push(FieldError::invalid(&place, 0, detail));
        }
        Some(n) if n < 0 => errors.push(FieldError::invalid(&place, n, "should be a non-negative integer")),
        Some(n) if n > i64::from(i32::MAX) => {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(&place, n, detail));
        }
        Some(_) => {}
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|name| !name.is_empty())
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return None;
    }
    names(path).try_fold(object, |v, name| v.get(name))
}
