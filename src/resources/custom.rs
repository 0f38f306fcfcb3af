//! Custom kinds: what a CustomResourceDefinition says of a kind, made into rows of the table that serve as any other.
//!
//! Owns structural schemas (pruning, defaults, validation), printer columns, scale paths and the definition's own status;
//! knows nothing of storage. Its one invariant: a row holds all that its requests need, so that a change of the
//! definition is a new row and never a changed one.

pub(crate) mod apply;
mod default;
pub(crate) mod format;
pub(crate) mod json_path;
mod lists;
pub(crate) mod metadata;
pub mod names;
pub(crate) mod openapi;
pub(crate) mod pattern;
mod print;
pub(crate) mod prune;
mod rows;
mod scale;
pub(crate) mod schema;
pub(crate) mod validate;
pub(crate) mod version;

pub use rows::{identity, rows, stored_row};
pub use scale::Scale;

use crate::check::Errors;
use crate::resource::{Resource, bump_generation, set_or_remove};
use jiff::Timestamp;
use mini_api::meta::object_mut;
use mini_api::{FieldPath, Meta, Status};
use print::Printed;
use schema::Schema;
use serde_json::Value;
use std::sync::Arc;

/// What a custom row knows beyond what every row has.
#[derive(Debug)]
pub struct Kind {
    /// That of its definition: see [`identity`].
    pub identity: u64,
    pub list_kind: String,
    pub scale: Option<Scale>,
    /// Its definition is being deleted: nothing new may be made.
    pub terminating: bool,
    /// What clients of a deprecated version are told.
    pub warning: Option<String>,
    /// Objects of this version could only be converted by a webhook, and none is called.
    pub unconvertible: bool,
    /// The schema in JSON, as it is published.
    pub(crate) published: Value,
    /// Selectable fields, as they are published.
    pub(crate) selectable: Vec<String>,
    pub(crate) schema: Arc<Schema>,
    /// The `apiVersion` and schema of what is stored.
    stored: (String, Arc<Schema>),
    /// Nothing but a webhook converts between versions.
    webhook: bool,
    /// Whether what is stored is what is served, byte for byte.
    as_stored: bool,
    has_status: bool,
    printed: Vec<Printed>,
}

impl Kind {
    /// Prunes, and answers the unknown fields.
    pub(crate) fn normalize(&self, row: &Resource, object: &mut Value) -> Result<Vec<String>, Status> {
        prune::normalize(&self.schema, object).map_err(|why| {
            let (kind, version) = (&row.kind, &row.version);
            Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        })
    }

    pub(crate) fn default(&self, object: &mut Value) {
        default::apply(&self.schema, object);
    }

    pub(crate) fn prepare_create(&self, object: &mut Value) {
        if self.has_status {
            object_mut(object).remove("status");
        }
        object.meta_mut().insert("generation".to_owned(), 1.into());
    }

    pub(crate) fn prepare_update(&self, new: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource == Some("status") {
            // Of a status nothing else is taken, not even metadata, but for who manages which field.
            let status = new.get("status").cloned();
            let kept: Vec<_> = ["managedFields", "resourceVersion"]
                .map(|name| (name, new.get("metadata").and_then(|m| m.get(name)).cloned()))
                .into();
            new.clone_from(old);
            set_or_remove(object_mut(new), "status", status);
            for (name, value) in kept {
                set_or_remove(new.meta_mut(), name, value);
            }
            return;
        }
        if self.has_status {
            set_or_remove(object_mut(new), "status", old.get("status").cloned());
        }
        let differs = |name: &str| name != "metadata" && new.get(name) != old.get(name);
        let names = |v: &Value| v.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect::<Vec<_>>();
        if names(new).iter().chain(&names(old)).any(|name| differs(name)) {
            bump_generation(new, old);
        }
    }

    pub(crate) fn validate(&self, object: &Value, errors: &mut Errors) {
        let root = FieldPath::default();
        errors.extend(validate::validate(&self.schema, object, None, &root));
        if let Some(scale) = &self.scale {
            scale.validate(object, false, errors);
        }
        metadata::validate(&self.schema, object, &root, errors);
        errors.extend(lists::validate(&self.schema, object, &root));
    }

    pub(crate) fn validate_update(&self, new: &Value, old: &Value, subresource: Option<&str>, errors: &mut Errors) {
        let root = FieldPath::default();
        let status_only = subresource == Some("status");
        if !status_only {
            errors.extend(validate::validate(&self.schema, new, Some(old), &root));
        } else if let (Some(schema), Some(status)) = (self.schema.field("status"), new.get("status")) {
            let path = FieldPath::new("status");
            errors.extend(validate::validate(schema, status, old.get("status"), &path));
        }
        if let Some(scale) = &self.scale {
            scale.validate(new, status_only, errors);
        }
        if !status_only {
            metadata::validate(&self.schema, new, &root, errors);
        }
        // What was in a list twice before may stay.
        if lists::validate(&self.schema, old, &root).is_empty() {
            errors.extend(lists::validate(&self.schema, new, &root));
        }
    }

    /// Whether stored bytes are not yet what this version serves.
    pub(crate) fn converts(&self) -> bool {
        !self.as_stored
    }

    pub(crate) fn to_stored(&self, object: &mut Value) {
        let (api_version, schema) = &self.stored;
        if object.text(&["apiVersion"]) != api_version {
            object_mut(object).insert("apiVersion".to_owned(), api_version.clone().into());
            prune::prune(schema, object);
        }
    }

    /// Brings a stored object into this version, as if it were written now: pruned and defaulted.
    ///
    /// # Errors
    /// 500 where only a webhook could convert it: under another version's schema it would lose what it holds.
    pub(crate) fn read_stored(&self, row: &Resource, object: &mut Value) -> Result<(), Status> {
        let (stored_version, stored_schema) = &self.stored;
        let api_version = row.api_version();
        if self.webhook && object.text(&["apiVersion"]) != api_version {
            let (kind, stored) = (&row.kind, object.text(&["apiVersion"]));
            return Err(Status::internal(format!(
                "conversion webhooks are not called: a {kind} stored in {stored} cannot be served in {api_version}"
            )));
        }
        if *stored_version != api_version {
            default::apply(stored_schema, object);
        }
        object_mut(object).insert("apiVersion".to_owned(), api_version.into());
        prune::repair(&self.schema, object);
        default::apply(&self.schema, object);
        Ok(())
    }

    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        print::cells(&self.printed, object, now)
    }
}

#[cfg(test)]
mod tests;
