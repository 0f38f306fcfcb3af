//! What a Kubernetes object is, before any kind: JSON, metadata, selectors, quantities, patches and `Status`.
//!
//! No IO, no tokio, no kind. Everything here is a pure function of its arguments.

pub mod field;
pub mod meta;
pub mod status;

pub use field::{FieldError, FieldErrorType, FieldPath};
pub use meta::Meta;
pub use serde_json::Value;
pub use status::{Reason, Status, StatusCause};
