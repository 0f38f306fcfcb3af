//! What a Kubernetes object is, before any kind: JSON, metadata, selectors, quantities, patches, server-side apply and `Status`.
//!
//! No IO, no tokio, no kind. Everything here is a pure function of its arguments.

pub mod apply;
pub mod cron;
pub mod duplicates;
pub mod field;
#[cfg(test)]
mod fuzz;
pub mod go;
pub mod meta;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod text;
pub mod time;

/// The Kubernetes release that is served and whose behaviour is followed.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

pub use field::{FieldError, FieldErrorType, FieldPath};
pub use meta::Meta;
pub use quantity::Quantity;
pub use selector::{FieldSelector, FieldTerm, LabelSelector};
pub use serde_json::Value;
pub use status::{Reason, Status, StatusCause};
