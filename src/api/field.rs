//! Field errors of validation, worded as `k8s.io/apimachinery/pkg/util/validation/field` words them.

use serde_json::Value;
use std::fmt;

/// Where in an object an error is: `spec.containers[0].name`, `metadata.labels[a]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path that starts at `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The list element `i` of this field.
    #[must_use]
    pub fn index(&self, i: usize) -> Self {
        Self(format!("{}[{i}]", self.0))
    }

    /// The map entry `key` of this field.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// Why a field is refused. `as_str` is the `reason` of a `StatusCause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorType {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
    Internal,
}

impl FieldErrorType {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One refused field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorType,
    pub path: FieldPath,
    pub value: Option<Value>,
    pub detail: String,
}

impl FieldError {
    #[must_use]
    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorType::Required, path: path.clone(), value: None, detail: detail.into() }
    }

    #[must_use]
    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorType::Invalid, path: path.clone(), value: Some(value.into()), detail: detail.into() }
    }

    /// `supported` in the order in which the message shall list them.
    #[must_use]
    pub fn not_supported(path: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        let detail = if supported.is_empty() { String::new() } else { format!("supported values: {list}") };
        Self { kind: FieldErrorType::NotSupported, path: path.clone(), value: Some(value.into()), detail }
    }

    #[must_use]
    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorType::Duplicate, path: path.clone(), value: Some(value.into()), detail: String::new() }
    }

    #[must_use]
    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorType::Forbidden, path: path.clone(), value: None, detail: detail.into() }
    }

    #[must_use]
    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorType::NotFound, path: path.clone(), value: Some(value.into()), detail: String::new() }
    }

    #[must_use]
    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: FieldErrorType::TooLong, path: path.clone(), value: None, detail }
    }

    #[must_use]
    pub fn too_many(path: &FieldPath, count: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} items");
        Self { kind: FieldErrorType::TooMany, path: path.clone(), value: Some(count.into()), detail }
    }

    /// The message without the path, as a `StatusCause` carries it.
    #[must_use]
    pub fn body(&self) -> String {
        let mut s = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            s.push_str(": ");
            s.push_str(&match value {
                Value::String(v) => format!("{v:?}"),
                other => other.to_string(),
            });
        }
        if !self.detail.is_empty() {
            s.push_str(": ");
            s.push_str(&self.detail);
        }
        s
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}
