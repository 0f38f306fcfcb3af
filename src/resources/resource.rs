//! [`Resource`], a row of the table, with the rules that all kinds share.

use crate::columns::{self, Column};
use crate::custom::Kind;
use crate::defaults::{self, Table};
use crate::metadata;
use crate::schema::ApplyNode;
use jiff::Timestamp;
use mini_api::{FieldError, Meta, Status, names};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One served kind in one version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<&'static str>,
    pub subresources: Vec<Subresource>,
    pub columns: Vec<Column>,
    /// Selectable fields besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<String>,
    /// Segment of the storage key: `pods`, `deployments.apps`. Two rows with one segment share their objects.
    pub storage: String,
    /// Name of the schema: `io.k8s.api.core.v1.Pod`.
    pub definition: String,
    pub hooks: &'static Hooks,
    /// What a definition says of a custom kind; built-in kinds have none.
    pub custom: Option<Arc<Kind>>,
}

/// A path below an object: `pods/log`. `kind`, `group` and `version` are those of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    pub kind: Cow<'static, str>,
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub verbs: &'static [&'static str],
}

/// Where a kind differs. A kind that does not differ uses [`Hooks::NONE`].
pub struct Hooks {
    /// Fills what the author of an object left out.
    pub default: fn(&mut Value),
    /// The status of an object of which nobody has reported anything yet.
    pub status: Table,
    /// Runs after the generic part of [`Resource::prepare_create`].
    pub prepare_create: fn(&mut Value),
    /// Runs after the generic part of [`Resource::prepare_update`]: new, old, subresource.
    pub prepare_update: fn(&mut Value, &Value, Option<&str>),
    /// Whether `name` may be a name of this kind; answers what is wrong with it.
    pub name: fn(&str) -> Vec<String>,
    /// Checks everything but metadata.
    pub validate: fn(&Value, &mut Vec<FieldError>),
    /// Checks what only a new object must satisfy. Runs after `validate`.
    pub validate_create: fn(&Value, &mut Vec<FieldError>),
    /// Checks what may change: new, old, subresource. Runs after `validate`.
    pub validate_update: fn(&Value, &Value, Option<&str>, &mut Vec<FieldError>),
    /// What whoever writes such an object should know.
    pub warnings: fn(&Value) -> Vec<String>,
    pub columns: &'static [Column],
    /// One cell for each of `columns`.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// Where this object's row stands in a Table of several; those of one rank stand as they are listed.
    pub rank: fn(&Value) -> i64,
    /// Reason and message of an object that has run to its end.
    pub completed: fn(&Value) -> Option<(&'static str, &'static str)>,
    /// The value of a selectable field where it is not simply the field of that path; `None` leaves it to the path.
    pub field: fn(&Value, &str) -> Option<String>,
    /// Whether objects count changes of what is desired in `metadata.generation`.
    pub generation: bool,
    /// Whether a status given at creation is dropped (kinds with a status subresource only).
    pub status_reset: bool,
    /// Whether the kind is served only while there is an APIService of its group and version.
    pub optional: bool,
    /// Converts between this version and the version that is stored, where two rows share storage.
    pub to_stored: Option<fn(&mut Value)>,
    pub from_stored: Option<fn(&mut Value)>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    /// The generic kind: nothing to default, nothing to check but metadata, columns NAME and AGE.
    pub const NONE: Self = Self {
        default: |_| {},
        status: &[],
        prepare_create: |_| {},
        prepare_update: |_, _, _| {},
        // A name is a segment of paths and of storage keys, whatever else it may be.
        name: names::is_path_segment,
        validate: |_, _| {},
        validate_create: |_, _| {},
        validate_update: |_, _, _, _| {},
        warnings: |_| Vec::new(),
        columns: &[columns::NAME, columns::AGE],
        cells: |v, now| vec![columns::name(v), columns::age(v, now)],
        rank: |_| 0,
        completed: |_| None,
        field: |_, _| None,
        generation: false,
        status_reset: true,
        optional: false,
        to_stored: None,
        from_stored: None,
    };
}

impl Resource {
    /// `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, `pods`: how messages name the resource.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects of this kind are kept, and so watched; reviews are only answered, metrics only read.
    #[must_use]
    pub fn stored(&self) -> bool {
        self.has_verb("watch")
    }

    /// Prunes unknown fields (and answers them as `unknown field "spec.x"`), drops nulls, checks types, and writes
    /// quantities and times canonically.
    ///
    /// # Errors
    /// 400 where a value has not the type its schema asks for.
    pub fn normalize(&self, v: &mut Value) -> Result<Vec<String>, Status> {
        if let Some(custom) = &self.custom {
            return custom.normalize(self, v);
        }
        crate::normalize::normalize(&self.definition, v)
    }

    /// Applies a strategic merge patch.
    ///
    /// # Errors
    /// 400 where the patch does not fit the schema.
    pub fn strategic_merge(&self, current: &Value, patch: &Value) -> Result<Value, Status> {
        crate::normalize::strategic_merge(&self.definition, current, patch)
    }

    /// What server-side apply must know of the type of these objects.
    #[must_use]
    pub fn apply_schema(&self) -> ApplyNode {
        if let Some(custom) = &self.custom {
            return ApplyNode::of_custom(&custom.schema);
        }
        ApplyNode::of(&self.definition)
    }

    /// Fills what the author left out, as upstream's decoder does. Idempotent.
    pub fn default(&self, v: &mut Value) {
        if let Some(custom) = &self.custom {
            return custom.default(v);
        }
        (self.hooks.default)(v);
        defaults::apply(self.hooks.status, v);
    }

    /// What a create sets after mutating admission and before validation: no status of the author's, generation 1.
    pub fn prepare_create(&self, v: &mut Value) {
        if self.hooks.status_reset && self.subresource("status").is_some() {
            mini_api::meta::object_mut(v).remove("status");
            defaults::apply(self.hooks.status, v);
        }
        let meta = v.meta_mut();
        for system in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            meta.remove(system);
        }
        if self.hooks.generation {
            meta.insert("generation".to_owned(), 1.into());
        }
        match &self.custom {
            Some(custom) => custom.prepare_create(v),
            None => (self.hooks.prepare_create)(v),
        }
    }

    /// Keeps from `old` what a request to this (sub)resource may not change, and counts the generation.
    pub fn prepare_update(&self, new: &mut Value, old: &Value, subresource: Option<&str>) {
        let meta = new.meta_mut();
        let old_meta = old.get("metadata");
        let from_old = |field: &str| old_meta.and_then(|m| m.get(field)).cloned();
        for field in ["creationTimestamp", "generation", "selfLink"] {
            set_or_remove(meta, field, from_old(field));
        }
        if meta.get("uid").and_then(Value::as_str).unwrap_or_default().is_empty() {
            set_or_remove(meta, "uid", from_old("uid"));
        }
        if old.is_deleting() {
            for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
                set_or_remove(meta, field, from_old(field));
            }
        }
        if let Some(custom) = &self.custom {
            return custom.prepare_update(new, old, subresource);
        }
        let has_status = self.subresource("status").is_some();
        let body = mini_api::meta::object_mut(new);
        match subresource {
            // An approval is a condition of the status that only approvers may write.
            Some("status" | "approval") => {
                body.retain(|k, _| matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
                for (k, v) in old.as_object().into_iter().flatten() {
                    if !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind") {
                        body.insert(k.clone(), v.clone());
                    }
                }
            }
            _ if has_status => set_or_remove(body, "status", old.get("status").cloned()),
            _ => {}
        }
        (self.hooks.prepare_update)(new, old, subresource);
        if self.hooks.generation && desired_differs(new, old) {
            bump_generation(new, old);
        }
    }

    /// Everything wrong with a new object, in upstream's words.
    #[must_use]
    pub fn validate(&self, v: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.stored() {
            metadata::validate(self, v, &mut errors);
        }
        if let Some(custom) = &self.custom {
            custom.validate(v, &mut errors);
            return errors;
        }
        (self.hooks.validate)(v, &mut errors);
        (self.hooks.validate_create)(v, &mut errors);
        errors
    }

    /// Everything wrong with an update, what is wrong with the new object included.
    #[must_use]
    pub fn validate_update(&self, new: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(self, new, &mut errors);
        metadata::validate_update(new, old, &mut errors);
        if let Some(custom) = &self.custom {
            custom.validate_update(new, old, subresource, &mut errors);
            return errors;
        }
        // A status is written often, and by components; what it may not touch was checked when it was written.
        if subresource != Some("status") {
            (self.hooks.validate)(new, &mut errors);
        }
        (self.hooks.validate_update)(new, old, subresource, &mut errors);
        errors
    }

    /// The value a field selector compares; `None` where the field is not selectable.
    #[must_use]
    pub fn field(&self, v: &Value, path: &str) -> Option<String> {
        match path {
            "metadata.name" => return Some(v.name().to_owned()),
            "metadata.namespace" if self.namespaced => return Some(v.namespace().to_owned()),
            _ => {}
        }
        if !self.fields.iter().any(|f| f == path) {
            return None;
        }
        if let Some(special) = (self.hooks.field)(v, path) {
            return Some(special);
        }
        let value = path.split('.').try_fold(v, |v, name| v.get(name));
        Some(match value {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Null) | None if self.custom.is_some() => String::new(),
            Some(Value::Null) | None => match path {
                "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
                "status.replicas" | "status.successful" => "0".to_owned(),
                _ => String::new(),
            },
            Some(other) => other.to_string(),
        })
    }

    /// Turns an object of this version into the one that is stored; see [`crate::Registry::stored_as`].
    pub fn to_stored(&self, v: &mut Value) {
        match (&self.custom, self.hooks.to_stored) {
            (Some(custom), _) => custom.to_stored(v),
            (None, Some(convert)) => convert(v),
            (None, None) => {}
        }
    }

    /// Turns a stored object into one of this version.
    ///
    /// # Errors
    /// 500 if it cannot be converted.
    pub fn read_stored(&self, v: &mut Value) -> Result<(), Status> {
        if let Some(custom) = &self.custom {
            custom.read_stored(self, v)?;
        } else if let Some(convert) = self.hooks.from_stored {
            convert(v);
            let object = mini_api::meta::object_mut(v);
            object.insert("apiVersion".to_owned(), self.api_version().into());
            object.insert("kind".to_owned(), self.kind.clone().into());
        }
        Ok(())
    }

    /// Whether stored bytes are not yet what this version serves.
    #[must_use]
    pub fn converts(&self) -> bool {
        self.custom.as_ref().map_or(self.hooks.from_stored.is_some(), |custom| custom.converts())
    }

    /// The kind of lists: `PodList`.
    #[must_use]
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.kind), |custom| custom.list_kind.clone())
    }

    /// The cells of this object's row, one for each of `columns`.
    #[must_use]
    pub fn cells(&self, v: &Value, now: Timestamp) -> Vec<Value> {
        self.custom.as_ref().map_or_else(|| (self.hooks.cells)(v, now), |custom| custom.cells(v, now))
    }

    /// Where this object's row stands in a Table; see [`Hooks::rank`].
    #[must_use]
    pub fn rank(&self, v: &Value) -> i64 {
        (self.hooks.rank)(v)
    }

    /// Reason and message of an object that has run to its end: the condition of its row.
    #[must_use]
    pub fn completed(&self, v: &Value) -> Option<(&'static str, &'static str)> {
        (self.hooks.completed)(v)
    }

    /// The definition of a subresource's body; `None` where it is the options of a connection.
    pub(crate) fn body_of(&self, sub: &Subresource) -> Option<String> {
        if (&*sub.group, &*sub.version, &*sub.kind) == (&*self.group, &*self.version, &*self.kind) {
            return Some(self.definition.clone());
        }
        crate::schema::body(&sub.group, &sub.version, &sub.kind).map(|d| d.full_name())
    }
}

pub(crate) fn set_or_remove(map: &mut serde_json::Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
}

/// Whether anything but metadata and status differs.
fn desired_differs(new: &Value, old: &Value) -> bool {
    let desired = |v: &Value| {
        v.as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    desired(new) != desired(old)
}

pub(crate) fn bump_generation(new: &mut Value, old: &Value) {
    let next = columns::int(old, &["metadata", "generation"]) + 1;
    new.meta_mut().insert("generation".to_owned(), next.into());
}
