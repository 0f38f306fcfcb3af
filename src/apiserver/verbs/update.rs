//! `update`, and the change that update, patch and the subresources share: read, change, admit, validate, compare, write.

use super::create::{self, store_failed};
use super::get;
use crate::admission::{self, Operation, Request};
use crate::body::Body;
use crate::decode::{self, Warnings};
use crate::handler::authorize_also;
use crate::managed_fields::{self, Owners};
use crate::negotiate::Output;
use crate::options::WriteOptions;
use crate::{Call, allocate, object, quota};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{FieldError, FieldPath, Meta, Status, Value};
use mini_resources::Resource;
use mini_store::{Entry, Error, Expect, Op};
use std::sync::Arc;
use std::time::Duration;

/// How often a change is tried again when others write between its read and its write.
const ATTEMPTS: usize = 32;
pub(super) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, "UpdateOptions")?;
    let (object, warnings) = decode::object(call, &call.resource, &body, options.fields)?;
    let name = &call.info.name;
    if object.name().is_empty() {
        let why = "was undeterminable: name must be provided";
        return Err(Status::bad_request(format!("the name of the object ({name} based on URL) {why}")));
    }
    if object.name() != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            object.name()
        )));
    }
    let creates = call.info.subresource.is_empty() && creates_on_update(&call.resource);
    if creates && call.server.store.snapshot().get(&call.key(name)).is_none() && object.resource_version().is_empty() {
        authorize_also(call, "create")?;
        let bytes = create::object(call, object, options.dry_run, Owners::Update("")).await?;
        let mut response = get::answer(call, output, StatusCode::CREATED, &bytes)?;
        super::warn(&mut response, &warnings);
        return Ok(response);
    }
    let change = |_: &Value| Ok((object.clone(), Warnings::new()));
    let write = Write { apart: true, ..Write::new(&call.info.subresource, options.dry_run) };
    let changed = change_object(call, write, change).await?;
    let mut response = get::answer(call, output, StatusCode::OK, &changed.bytes)?;
    super::warn(&mut response, &warnings);
    Ok(response)
}

/// Kinds whose PUT makes what is absent.
fn creates_on_update(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(resource.plural.as_str(), "endpoints" | "events" | "limitranges" | "podtemplates" | "services"),
        "coordination.k8s.io" | "rbac.authorization.k8s.io" => true,
        _ => false,
    }
}

/// Kinds whose PUT must say which revision it replaces.
fn needs_revision(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "coordination.k8s.io" | "node.k8s.io" | "admissionregistration.k8s.io" | "apiextensions.k8s.io" => true,
        "policy" => resource.plural == "poddisruptionbudgets",
        "storage.k8s.io" => resource.plural != "storageclasses",
        _ => resource.custom.is_some(),
    }
}

/// What a change left.
pub(crate) struct Changed {
    pub(crate) bytes: Bytes,
    pub(crate) warnings: Warnings,
}

/// How a change is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    /// Whose rules hold.
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) owners: Owners<'a>,
    /// What changes the object does not look at `managedFields`, though it may bring some.
    pub(crate) apart: bool,
}

impl<'a> Write<'a> {
    /// A client's update through a subresource.
    pub(crate) fn new(subresource: &'a str, dry_run: bool) -> Self {
        Self { subresource, dry_run, owners: Owners::Update(subresource), apart: false }
    }
}

/// Changes the object that the path names. `change` makes the new object from the old one, normalized; it may be called
/// again with a newer one.
pub(crate) async fn change_object(
    call: &Call,
    write: Write<'_>,
    change: impl Fn(&Value) -> Result<(Value, Warnings), Status>,
) -> Result<Changed, Status> {
    let resource = &*call.resource;
    let Write { subresource, dry_run, .. } = write;
    let key: Arc<str> = call.key(&call.info.name).into();
    let mut current = call.server.store.snapshot().get(&key);
    for attempt in 0..ATTEMPTS {
        let entry = current.ok_or_else(|| call.not_found())?;
        let (mut old, mut kept) = if write.apart && !resource.converts() {
            object::read_apart(&entry)?
        } else {
            (object::read(resource, &entry)?, None)
        };
        let (mut new, warnings) = change(&old)?;
        if new.get("metadata").is_some_and(|meta| meta.get("managedFields").is_some()) {
            managed_fields::join(&mut old, kept.take());
        }
        decode::settle_namespace(call, resource.namespaced, &mut new)?;
        check_preconditions(resource, &mut new, &old, &entry)?;
        let apart = admit_and_validate(call, write, &mut new, &mut old, kept.as_ref()).await?;
        let _turn = quota::admit(call, &new, Some(&old), subresource).await?;
        new.meta_mut().insert("resourceVersion".to_owned(), entry.revision.to_string().into());

        let mut ops = Vec::new();
        if allocate::applies(resource) && subresource.is_empty() {
            ops = allocate::plan(&call.server, &mut new, Some(&old))?;
        }
        managed_fields::keep_times(&mut new, &old);
        let remove = ready_to_go(resource, &new, &old);
        if !remove && new == old && managed_fields::same_but_times(apart.as_ref(), kept.as_ref()) {
            return Ok(Changed { bytes: object::bytes(resource, &entry)?, warnings });
        }
        let template = if remove {
            object::stored(resource, &new, apart.as_deref())
        } else {
            object::fitting(resource, &mut new, write.owners, apart.as_deref())?
        };
        if dry_run {
            return Ok(Changed { bytes: as_dry_run(resource, &template.at(&entry.revision.to_string()))?, warnings });
        }
        let expect = Expect::Revision(entry.revision);
        let (key, finish) = (key.clone(), template.finish());
        let op = if remove {
            ops.extend(allocate::release(&call.server, resource, &old));
            Op::Delete { key: key.clone(), expect, finish }
        } else {
            Op::Put { key: key.clone(), expect, finish }
        };
        ops.insert(0, op);
        match call.server.store.write(ops).await {
            Ok(entries) => {
                let entry = entries.first().ok_or_else(|| Status::internal("the store answered nothing"))?;
                return Ok(Changed { bytes: object::bytes(resource, entry)?, warnings });
            }
            Err(Error::Changed { key: at, current: newer }) if at == key => current = newer,
            Err(Error::Exists { .. } | Error::Changed { .. }) => {
                tokio::time::sleep(Duration::from_millis(1 + attempt as u64)).await;
                current = call.server.store.snapshot().get(&key);
            }
            Err(error) => return Err(store_failed(&error)),
        }
    }
    Err(Status::conflict(&resource.group, &resource.plural, &call.info.name, MODIFIED))
}

fn as_dry_run(resource: &Resource, bytes: &Bytes) -> Result<Bytes, Status> {
    if !resource.converts() {
        return Ok(bytes.clone());
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(Status::internal)?;
    resource.read_stored(&mut value)?;
    Ok(Bytes::from(value.to_string()))
}

/// Compares the revision and uid the client gave with what is stored.
fn check_preconditions(resource: &Resource, new: &mut Value, old: &Value, entry: &Entry) -> Result<(), Status> {
    let name = old.name();
    match new.resource_version() {
        "" | "0" => {
            if needs_revision(resource) {
                let path = FieldPath::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, 0, "must be specified for an update");
                return Err(super::invalid(resource, name, &[error]));
            }
        }
        given if given == entry.revision.to_string() => {}
        _ => return Err(Status::conflict(&resource.group, &resource.plural, name, MODIFIED)),
    }
    match new.uid() {
        "" => {
            let uid = old.uid().to_owned();
            new.meta_mut().insert("uid".to_owned(), uid.into());
            Ok(())
        }
        given if given == old.uid() => Ok(()),
        given => {
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {}", old.uid());
            Err(Status::conflict(&resource.group, &resource.plural, name, &why))
        }
    }
}

/// Answers the new owners, if they are `kept` apart.
async fn admit_and_validate(
    call: &Call,
    write: Write<'_>,
    new: &mut Value,
    old: &mut Value,
    kept: Option<&Bytes>,
) -> Result<Option<Bytes>, Status> {
    let resource = &*call.resource;
    let Write { subresource, dry_run, .. } = write;
    if subresource == "binding" {
        // A binding writes what no user may; there is nothing of a user's in it to check.
        return Ok(None);
    }
    resource.default(new);
    let mut apart = None;
    if let Owners::Update(through) = write.owners {
        match kept {
            Some(kept) => apart = managed_fields::on_update_apart(call, through, new, old, kept),
            None => managed_fields::on_update(call, through, new, old),
        }
    }
    let old = &*old;
    let name = &call.info.name;
    let mut request =
        Request { subresource, old: Some(old), dry_run, ..Request::new(call, Operation::Update, name, new) };
    admission::mutate(&mut request).await?;
    let sub = (!subresource.is_empty()).then_some(subresource);
    resource.prepare_update(new, old, sub);
    let errors = resource.validate_update(new, old, sub);
    if !errors.is_empty() {
        return Err(super::invalid(resource, old.name(), &errors));
    }
    let mut request =
        Request { subresource, old: Some(old), dry_run, ..Request::new(call, Operation::Update, name, new) };
    admission::validate(&mut request).await?;
    Ok(apart)
}

/// True if this change took the last reason why a deleted object is still there.
fn ready_to_go(resource: &Resource, new: &Value, old: &Value) -> bool {
    let none = |path: &[&str]| {
        path.iter().try_fold(new, |v, name| v.get(name)).and_then(Value::as_array).is_none_or(Vec::is_empty)
    };
    let grace = old.get("metadata").and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64);
    old.is_deleting()
        && grace.unwrap_or(0) == 0
        && none(&["metadata", "finalizers"])
        && (resource.kind != "Namespace" || !resource.group.is_empty() || none(&["spec", "finalizers"]))
}
