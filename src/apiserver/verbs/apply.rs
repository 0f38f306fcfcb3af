//! `patch` with `application/apply-patch+yaml`: server-side apply, which makes what is not there.

use super::patch::APPLY;
use super::update::{Changed, MODIFIED, Write, change_object};
use super::{create, get};
use crate::Call;
use crate::body::Body;
use crate::decode::{self, Warnings};
use crate::handler::authorize_also;
use crate::managed_fields::{self, Owners};
use crate::negotiate::{self, Media, Output};
use crate::options::{FieldValidation, WriteOptions};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{Meta, Reason, Status, Value};

/// How often an object may come or go between the look whether it is there and the write.
const ATTEMPTS: usize = 5;

/// Whether a request applies.
pub(super) fn asked(call: &Call) -> bool {
    negotiate::content_type(&call.headers) == APPLY
}

/// A configuration that has been read.
pub(super) struct Config {
    pub(super) value: Value,
    /// A field that it has twice.
    duplicate: Option<String>,
}

impl Config {
    /// # Errors
    /// 400 if it is broken, no map, of another kind than `group/version` and `kind`, or owned by someone.
    pub(super) fn parse(body: &[u8], api_version: &str, kind: &str) -> Result<Self, Status> {
        let media = if body.trim_ascii_start().starts_with(b"{") { Media::Json } else { Media::Yaml };
        let decoding = |why: &str| Status::bad_request(format!("error decoding patch: {why}"));
        let value = negotiate::parse(media, body)
            // What begins as JSON may be YAML all the same.
            .or_else(|_| negotiate::parse(Media::Yaml, body))
            .map_err(|e| decoding(&e.message))?;
        if !value.is_object() {
            return Err(decoding("it must be a map"));
        }
        if (value.text(&["apiVersion"]), value.text(&["kind"])) != (api_version, kind) {
            return Err(Status::bad_request(format!("invalid object type: {}", managed_fields::kind_of(&value))));
        }
        if value.pointer("/metadata/managedFields").is_some_and(Value::is_array) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        // What has none as JSON need not be read as YAML, which takes its time.
        let may_have = media == Media::Yaml || !mini_resources::duplicate_fields(body).is_empty();
        let duplicate = if may_have { negotiate::yaml_duplicate(body) } else { None };
        Ok(Self { value, duplicate })
    }

    /// What is odd about it, as far as the client wants to know.
    ///
    /// # Errors
    /// 400 where it wants nothing odd.
    pub(super) fn warnings(&self, fields: FieldValidation) -> Result<Warnings, Status> {
        match (fields, &self.duplicate) {
            (FieldValidation::Strict, Some(duplicate)) => Err(Status::bad_request(format!(
                "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  {duplicate}"
            ))),
            (FieldValidation::Warn, Some(duplicate)) => Ok(vec![duplicate.clone()]),
            _ => Ok(Warnings::new()),
        }
    }
}

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, "PatchOptions")?;
    let resource = &*call.resource;
    let config = Config::parse(&body, &resource.api_version(), &resource.kind)?;
    let subresource = call.info.subresource.as_str();
    let make = |old: Option<&Value>| -> Result<(Value, Warnings), Status> {
        let mut new = managed_fields::apply(call, subresource, old, &config.value, options.force)?;
        let mut warnings = config.warnings(options.fields)?;
        warnings.extend(decode::settle(resource, &mut new, |unknown| unknown, FieldValidation::Ignore)?);
        check_name(call, old, &new)?;
        Ok((new, warnings))
    };
    for _ in 0..ATTEMPTS {
        if !subresource.is_empty() || call.server.store.snapshot().get(&call.key(&call.info.name)).is_some() {
            let write = Write { owners: Owners::Given, ..Write::new(subresource, options.dry_run) };
            match change_object(call, write, |old| make(Some(old))).await {
                // It went in the meantime.
                Err(status) if status.reason == Reason::NotFound && subresource.is_empty() => continue,
                changed => return answer(call, output, StatusCode::OK, &changed?),
            }
        }
        let (new, warnings) = make(None)?;
        authorize_also(call, "create")?;
        match create::object(call, new, options.dry_run, Owners::Given).await {
            // It came in the meantime.
            Err(status) if status.reason == Reason::AlreadyExists => {}
            bytes => return answer(call, output, StatusCode::CREATED, &Changed { bytes: bytes?, warnings }),
        }
    }
    Err(Status::conflict(&resource.group, &resource.plural, &call.info.name, MODIFIED))
}

fn answer(call: &Call, output: Output, code: StatusCode, changed: &Changed) -> Result<Response<Body>, Status> {
    let mut response = get::answer(call, output, code, &changed.bytes)?;
    super::warn(&mut response, &changed.warnings);
    Ok(response)
}

/// The name and the uid of what was made must be those of what was asked for.
pub(super) fn check_name(call: &Call, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let asked = &call.info.name;
    if old.is_none() && !new.uid().is_empty() {
        let why =
            format!("uid mismatch: the provided object specified uid {}, and no existing object was found", new.uid());
        return Err(Status::conflict(&call.resource.group, &call.resource.plural, asked, &why));
    }
    match new.name() {
        name if name == asked => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
        ))),
        name => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({asked})"
        ))),
    }
}
