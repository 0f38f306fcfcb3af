//! From the body of a create or an update to an object of the resource, and what was odd about it.

use crate::Call;
use crate::negotiate::{self, Media};
use crate::options::FieldValidation;
use bytes::Bytes;
use mini_api::apply::managers;
use mini_api::{Meta, Status, Value, meta::object_mut};
use mini_resources::Resource;

/// Warnings for the client, sent in `Warning` headers.
pub(crate) type Warnings = Vec<String>;

/// Parses and normalizes an object of `resource`.
///
/// # Errors
/// 400 or 415 if it is none.
pub(crate) fn object(
    call: &Call,
    resource: &Resource,
    body: &Bytes,
    fields: FieldValidation,
) -> Result<(Value, Warnings), Status> {
    let media = negotiate::media(&call.headers)?;
    let wrong = |why: String| cannot_be_handled(resource, &why);
    let mut value = negotiate::parse(media, body).map_err(|status| {
        let start = format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; ",
            resource.kind
        );
        Status::bad_request(format!("{start}{}", status.message))
    })?;
    if !value.is_object() {
        return Err(wrong("json: cannot unmarshal into Go value of an object".to_owned()));
    }
    if resource.custom.is_some() && value.text(&["kind"]).is_empty() {
        let body = String::from_utf8_lossy(body);
        return Err(Status::bad_request(format!("Object 'Kind' is missing in '{}'", body.trim_end())));
    }
    let expected = resource.api_version();
    let (api_version, kind) = (value.text(&["apiVersion"]).to_owned(), value.text(&["kind"]).to_owned());
    if !api_version.is_empty() && api_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {}: converting ({}.{kind}) to ({}.{}): unknown conversion",
            resource.version,
            resource.kind,
            resource.version,
            internal_package(&resource.group),
            resource.kind
        )));
    }
    // Upstream's decoder of its own kinds comes upon what is odd in the order of the text; else the parser comes first.
    let odd = |unknown: Warnings| -> Warnings {
        let twice = match (fields, media) {
            (FieldValidation::Ignore, _) | (_, Media::Protobuf) => return unknown,
            (_, Media::Json) if resource.custom.is_none() => return mini_resources::odd_fields(body, &unknown),
            (_, Media::Json) => mini_resources::duplicate_fields(body),
            (FieldValidation::Warn, Media::Yaml) => negotiate::yaml_duplicate(body).into_iter().collect(),
            (FieldValidation::Strict, Media::Yaml) => {
                let twice = negotiate::yaml_duplicate(body);
                twice.map(|d| format!("yaml: unmarshal errors:\n  {d}")).into_iter().collect()
            }
        };
        [twice, unknown].concat()
    };
    let warnings = settle(resource, &mut value, odd, fields)?;
    Ok((value, warnings))
}

/// Names the kind, normalizes, and does with odd fields what was asked: `odd` makes them of those that are unknown.
pub(crate) fn settle(
    resource: &Resource,
    value: &mut Value,
    odd: impl FnOnce(Warnings) -> Warnings,
    fields: FieldValidation,
) -> Result<Warnings, Status> {
    let mut odd = odd(normalize(resource, value)?);
    match fields {
        FieldValidation::Ignore => odd.clear(),
        FieldValidation::Strict if !odd.is_empty() => {
            return Err(cannot_be_handled(resource, &format!("strict decoding error: {}", odd.join(", "))));
        }
        FieldValidation::Strict | FieldValidation::Warn => {}
    }
    odd.extend((resource.hooks.warnings)(value));
    Ok(odd)
}

/// Names the kind and normalizes; answers the fields that are unknown.
pub(crate) fn normalize(resource: &Resource, value: &mut Value) -> Result<Warnings, Status> {
    let object = object_mut(value);
    object.insert("apiVersion".to_owned(), resource.api_version().into());
    object.insert("kind".to_owned(), resource.kind.clone().into());
    // An empty list says something here, which normalizing would take away.
    let reset = value.meta_mut().get("managedFields").filter(|entries| managers::is_reset(entries)).cloned();
    let unknown = resource.normalize(value)?;
    if let Some(reset) = reset {
        value.meta_mut().insert("managedFields".to_owned(), reset);
    }
    Ok(unknown)
}

/// Where upstream keeps the internal form of a group's kinds.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or_default(),
    }
}

fn cannot_be_handled(resource: &Resource, why: &str) -> Status {
    let Resource { kind, version, .. } = resource;
    Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
}

/// Checks the namespace of an object against the path's, and fills or clears it.
pub(crate) fn settle_namespace(call: &Call, namespaced: bool, object: &mut Value) -> Result<(), Status> {
    let requested = &call.info.namespace;
    let meta = object.meta_mut();
    if !namespaced {
        meta.remove("namespace");
        return Ok(());
    }
    match meta.get("namespace").and_then(Value::as_str).unwrap_or_default() {
        "" => {
            meta.insert("namespace".to_owned(), requested.clone().into());
            Ok(())
        }
        given if given == requested => Ok(()),
        _ => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}
