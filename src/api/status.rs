//! `meta/v1.Status`: how every failure is told to a client.

use crate::field::FieldError;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;

/// `StatusReason`: the machine-readable word of a failure, with its HTTP code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    /// The word on the wire; `Unknown` is sent as an empty one.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::Unknown | Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// `StatusCause`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusCause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A failure as a client sees it. Successes (a deletion's answer) are made with [`Status::success`].
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    /// `details`: group, kind (the plural where upstream has the resource), name and uid; empty ones are left out.
    pub group: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub causes: Vec<StatusCause>,
    pub retry_after_seconds: Option<u32>,
    /// `metadata.continue`, for the fresh token of an expired list.
    pub continue_token: Option<String>,
}

impl Status {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            reason,
            message: message.into(),
            group: String::new(),
            kind: String::new(),
            name: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            continue_token: None,
        }
    }

    /// Fills `details`.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        (self.group, self.kind, self.name) = (group.to_owned(), kind.to_owned(), name.to_owned());
        self
    }

    #[must_use]
    pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
               "details": details(group, resource, name, uid, &[], None)})
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", qualified(group, resource)))
            .about(group, resource, name)
    }

    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::new(Reason::Conflict, message).about(group, resource, name)
    }

    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, resource))
        } else {
            format!("{} \"{name}\" is forbidden: {why}", qualified(group, resource))
        };
        Self::new(Reason::Forbidden, message).about(group, resource, name)
    }

    /// 422 with one cause for each error; `kind` is the Kind, not the resource.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        // What is said twice is a cause twice, but told once.
        let mut told: Vec<String> = Vec::new();
        for text in errors.iter().map(ToString::to_string) {
            if !told.contains(&text) {
                told.push(text);
            }
        }
        let list = match told.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let mut status = Self::new(Reason::Invalid, format!("{} \"{name}\" is invalid{list}", qualified(group, kind)))
            .about(group, kind, name);
        status.causes = errors
            .iter()
            .map(|e| StatusCause { reason: e.kind.as_str().to_owned(), message: e.body(), field: e.path.to_string() })
            .collect();
        status
    }

    #[must_use]
    pub fn internal(message: impl fmt::Display) -> Self {
        let mut status = Self::new(Reason::InternalError, format!("Internal error occurred: {message}"));
        status.causes = vec![StatusCause { reason: String::new(), message: message.to_string(), field: String::new() }];
        status
    }

    /// 410 `Expired`.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// The JSON on the wire.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = Value::from(token.as_str());
        }
        let mut v = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
                           "message": self.message, "code": self.code});
        if !self.reason.as_str().is_empty() {
            v["reason"] = Value::from(self.reason.as_str());
        }
        let details = details(&self.group, &self.kind, &self.name, &self.uid, &self.causes, self.retry_after_seconds);
        if details.as_object().is_some_and(|d| !d.is_empty()) {
            v["details"] = details;
        }
        v
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn details(
    group: &str,
    kind: &str,
    name: &str,
    uid: &str,
    causes: &[StatusCause],
    retry_after_seconds: Option<u32>,
) -> Value {
    let mut d = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind), ("uid", uid)] {
        if !value.is_empty() {
            d[key] = Value::from(value);
        }
    }
    if !causes.is_empty() {
        d["causes"] = causes
            .iter()
            .map(|c| {
                let mut cause = json!({"message": c.message});
                if !c.reason.is_empty() {
                    cause["reason"] = Value::from(c.reason.as_str());
                }
                if !c.field.is_empty() {
                    cause["field"] = Value::from(c.field.as_str());
                }
                cause
            })
            .collect();
    }
    if let Some(seconds) = retry_after_seconds {
        d["retryAfterSeconds"] = Value::from(seconds);
    }
    d
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
