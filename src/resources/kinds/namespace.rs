//! Namespace: its phase, its finalizers, and the label that carries its name.

use crate::check::At;
use crate::columns::{self, AGE, Column, NAME};
use crate::defaults::{self, Default};
use crate::resource::{Hooks, set_or_remove};
use mini_api::meta::{child_mut, object_mut};
use mini_api::{FieldError, Meta, names};
use serde_json::Value;

/// Keeps a namespace until its contents are gone.
const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) const HOOKS: Hooks = Hooks {
    default: |v| {
        let name = v.name().to_owned();
        if !name.is_empty() {
            child_mut(v.meta_mut(), "labels").insert(NAME_LABEL.to_owned(), name.into());
        }
        defaults::apply(&[("spec", Default::Map)], v);
    },
    status: &[("status", Default::Map), ("status.phase", Default::Str("Active"))],
    prepare_create: |v| {
        let name = v.name().to_owned();
        // A generated name is known only now.
        child_mut(v.meta_mut(), "labels").insert(NAME_LABEL.to_owned(), name.into());
        let spec = child_mut(object_mut(v), "spec");
        let mut finalizers = spec.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        spec.insert("finalizers".to_owned(), finalizers.into());
    },
    prepare_update: |new, old, subresource| match subresource {
        None => {
            let old_spec = old.get("spec").cloned();
            set_or_remove(object_mut(new), "spec", old_spec);
        }
        Some("finalize") => {
            let old_status = old.get("status").cloned();
            set_or_remove(object_mut(new), "status", old_status);
        }
        Some(_) => {}
    },
    name: names::is_dns1123_label,
    validate_update: |new, old, subresource, errors| match subresource {
        Some("status") => {
            let phase = At::root(new).get("status").get("phase");
            if !old.is_deleting() && phase.text() != "Active" {
                errors.push(FieldError::invalid(
                    &phase.path,
                    phase.text(),
                    "may only be 'Active' if `deletionTimestamp` is empty",
                ));
            } else if old.is_deleting() && phase.text() != "Terminating" {
                errors.push(FieldError::invalid(
                    &phase.path,
                    phase.text(),
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                ));
            }
        }
        Some("finalize") => {
            for finalizer in At::root(new).get("spec").get("finalizers").items() {
                let name = finalizer.text();
                finalizer.messages(names::is_qualified_name(name), errors);
                if !name.contains('/') && !matches!(name, FINALIZER | "orphan" | "foregroundDeletion") {
                    errors
                        .push(finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified"));
                }
            }
        }
        _ => {}
    },
    columns: &[NAME, Column::text("Status", "Phase of the namespace."), AGE],
    cells: |v, now| vec![columns::name(v), v.text(&["status", "phase"]).into(), columns::age(v, now)],
    ..Hooks::NONE
};
