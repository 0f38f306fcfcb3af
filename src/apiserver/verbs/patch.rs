//! `patch`: JSON patch, merge patch and strategic merge patch (apply is `apply.rs`), tried again when others write in between.

use super::apply;
use super::get;
use super::update::{Write, change_object};
use crate::Call;
use crate::body::Body;
use crate::decode::{self, Warnings};
use crate::negotiate::{self, Media, Output};
use crate::options::{FieldValidation, WriteOptions};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{FieldError, FieldPath, Meta, Status, Value, go, patch};
use mini_resources::Resource;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// A patch that has been read.
pub(super) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// # Errors
    /// 415 for an unknown kind of patch, 400 for a broken one.
    pub(super) fn parse(call: &Call, body: &[u8]) -> Result<Self, Status> {
        let kind = negotiate::content_type(&call.headers);
        let make = match kind {
            JSON => Self::Json,
            MERGE => Self::Merge,
            STRATEGIC => Self::Strategic,
            other => return Err(negotiate::unsupported(other, &[JSON, MERGE, STRATEGIC, APPLY])),
        };
        // Only types that are compiled in say how their lists merge.
        if call.resource.custom.is_some() && call.info.subresource != "scale" && kind == STRATEGIC {
            return Err(negotiate::unsupported(kind, &[JSON, MERGE, APPLY]));
        }
        let value = negotiate::parse(Media::Json, body)
            .map_err(|e| Status::bad_request(format!("error decoding patch: {}", e.message)))?;
        if !value.is_object() && kind != JSON {
            return Err(Status::bad_request("error decoding patch: it must be a JSON object"));
        }
        Ok(make(value))
    }

    /// Whether it comes to the same if it does not see the `managedFields` of the object.
    fn is_blind(&self) -> bool {
        match self {
            Self::Json(_) => false,
            Self::Merge(patch) | Self::Strategic(patch) => {
                patch.get("metadata").is_none_or(|meta| meta.get("managedFields").is_none())
            }
        }
    }

    /// What its text has twice, and what an operation has no field for.
    fn odd(&self, body: &[u8]) -> Warnings {
        let twice = mini_resources::duplicate_fields(body);
        let Self::Json(operations) = self else { return twice };
        let mut odd = twice;
        for (i, operation) in operations.as_array().into_iter().flatten().enumerate() {
            let names = operation.as_object().into_iter().flatten().map(|(name, _)| name);
            let unknown = names.filter(|name| !matches!(name.as_str(), "op" | "path" | "from" | "value"));
            odd.extend(unknown.map(|name| format!("unknown field \"[{i}].{name}\"")));
        }
        odd.into_iter().map(|why| format!("json patch {why}")).collect()
    }

    /// The object that the patch makes of `old`.
    pub(super) fn apply(&self, resource: &Resource, old: &Value) -> Result<Value, Status> {
        match self {
            Self::Json(operations) => patch::json::apply(old, operations),
            Self::Merge(merge) => {
                let mut new = old.clone();
                patch::merge::apply(&mut new, merge.clone());
                Ok(new)
            }
            Self::Strategic(merge) => resource.strategic_merge(old, merge),
        }
    }
}

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    if apply::asked(call) {
        return apply::run(call, body).await;
    }
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, "PatchOptions")?;
    let patch = Patch::parse(call, &body)?;
    let odd = if options.fields == FieldValidation::Ignore { Vec::new() } else { patch.odd(&body) };
    let resource = &*call.resource;
    let change = |old: &Value| -> Result<(Value, Warnings), Status> {
        let mut new = patch.apply(resource, old)?;
        check_type(resource, &new)?;
        let warnings = settle(resource, (&patch, old), &mut new, &odd, options.fields)?;
        if new.name() != old.name() {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                new.name(),
                old.name()
            )));
        }
        Ok((new, warnings))
    };
    let write = Write { apart: patch.is_blind(), ..Write::new(&call.info.subresource, options.dry_run) };
    let changed = change_object(call, write, change).await?;
    let mut response = get::answer(call, output, StatusCode::OK, &changed.bytes)?;
    super::warn(&mut response, &changed.warnings);
    Ok(response)
}

/// Normalizes what a patch has made, and does with odd fields what was asked.
fn settle(
    resource: &Resource,
    (patch, old): (&Patch, &Value),
    new: &mut Value,
    odd: &[String],
    fields: FieldValidation,
) -> Result<Warnings, Status> {
    let refused = |why: String| {
        // Upstream shows what it could not read: the object, or of a strategic patch the patch as Go prints it.
        let shown = match patch {
            Patch::Json(_) | Patch::Merge(_) => patch.apply(resource, old).unwrap_or_default().to_string(),
            Patch::Strategic(patch) => go::text(patch),
        };
        Status::invalid("", "", "", &[FieldError::invalid(&FieldPath::new("patch"), shown, why)])
    };
    let unknown = decode::normalize(resource, new).map_err(|status| {
        let (kind, version) = (&resource.kind, &resource.version);
        let prefix = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: ");
        refused(status.message.strip_prefix(&prefix).unwrap_or(&status.message).to_owned())
    })?;
    let mut odd = [odd, &unknown].concat();
    match fields {
        FieldValidation::Ignore => odd.clear(),
        FieldValidation::Strict if !odd.is_empty() => {
            return Err(refused(format!("strict decoding error: {}", odd.join(", "))));
        }
        FieldValidation::Strict | FieldValidation::Warn => {}
    }
    odd.extend((resource.hooks.warnings)(new));
    Ok(odd)
}

/// A patch may name the kind, not change it.
fn check_type(resource: &Resource, new: &Value) -> Result<(), Status> {
    let (api_version, kind) = (new.text(&["apiVersion"]), new.text(&["kind"]));
    if kind == resource.kind && api_version == resource.api_version() {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the patch makes a {kind} of {api_version} out of a {} of {}",
        resource.kind,
        resource.api_version()
    )))
}
