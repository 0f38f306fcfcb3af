//! `create`: decode, fill system fields, mutate, prepare, validate, store.

use super::get;
use crate::admission::{self, Operation, Request};
use crate::body::Body;
use crate::call::object_key;
use crate::managed_fields::{self, Owners};
use crate::negotiate::Output;
use crate::options::WriteOptions;
use crate::{Call, allocate, decode, object, quota};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{Meta, Reason, Status, Value};
use mini_resources::Resource;
use mini_store::{Error, Expect, Op};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's alphabet of generated names: no vowels, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest base of a generated name.
const MAX_BASE: usize = 58;
/// How often a generated name or an allocated address may collide.
const ATTEMPTS: usize = 8;

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    if !call.info.name.is_empty() {
        return Err(super::method_not_allowed());
    }
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = WriteOptions::parse(call, "CreateOptions")?;
    let (decoded, warnings) = decode::object(call, &call.resource, &body, options.fields)?;
    let bytes = object(call, decoded, options.dry_run, Owners::Update("")).await?;
    let mut response = get::answer(call, output, StatusCode::CREATED, &bytes)?;
    super::warn(&mut response, &warnings);
    Ok(response)
}

/// Whether the kind still takes new objects: that of now, not of when the request came.
fn check_kind(call: &Call, name: &str) -> Result<(), Status> {
    let Resource { group, version, plural, .. } = &*call.resource;
    if call.resource.custom.is_none() {
        return Ok(());
    }
    let now = call.server.registry.get(group, version, plural).and_then(|row| row.custom.clone());
    if now.is_some_and(|kind| !kind.terminating) {
        return Ok(());
    }
    let why = "create not allowed while custom resource definition is terminating";
    Err(Status::forbidden(group, plural, name, why))
}

/// Makes a normalized object; answers its bytes.
pub(crate) async fn object(call: &Call, mut object: Value, dry_run: bool, owners: Owners<'_>) -> Result<Bytes, Status> {
    let resource = &*call.resource;
    check_kind(call, object.name())?;
    decode::settle_namespace(call, resource.namespaced, &mut object)?;
    if !object.resource_version().is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    object.meta_mut().remove("resourceVersion");
    let generate = object.name().is_empty().then(|| object.text(&["metadata", "generateName"]).to_owned());
    let generate = generate.filter(|base| !base.is_empty());
    resource.default(&mut object);
    let meta = object.meta_mut();
    meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".to_owned(), mini_api::time::now().into());
    if let Some(base) = &generate {
        meta.insert("name".to_owned(), generated(base).into());
    }
    let apart = match owners {
        Owners::Update(_) => managed_fields::on_create(call, &mut object),
        Owners::Given => None,
    };
    let name = object.name().to_owned();
    let mut request = Request { dry_run, ..Request::new(call, Operation::Create, &name, &mut object) };
    admission::mutate(&mut request).await?;
    resource.prepare_create(&mut object);
    let errors = resource.validate(&object);
    if !errors.is_empty() {
        return Err(super::invalid(resource, object.name(), &errors));
    }
    let mut request = Request { dry_run, ..Request::new(call, Operation::Create, &name, &mut object) };
    admission::validate(&mut request).await?;
    let _turn = quota::admit(call, &object, None, "").await?;
    // Admission may have taken its time.
    check_kind(call, object.name())?;
    let fitting = |object: &mut Value| object::fitting(resource, object, owners, apart.as_deref());
    store(call, object, generate.as_deref(), dry_run, fitting).await
}

/// Puts the object, and what is allocated with it, in one transaction.
async fn store(
    call: &Call,
    mut object: Value,
    generate: Option<&str>,
    dry_run: bool,
    fitting: impl Fn(&mut Value) -> Result<object::Template, Status>,
) -> Result<Bytes, Status> {
    let resource = &*call.resource;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut allocated = None;
        let mut ops = Vec::new();
        if allocate::applies(resource) {
            let mut copy = object.clone();
            ops = allocate::plan(&call.server, &mut copy, None)?;
            allocated = Some(copy);
        }
        let template = fitting(allocated.as_mut().unwrap_or(&mut object))?;
        let key: Arc<str> = object_key(resource, &call.info.namespace, object.name()).into();
        if dry_run {
            if call.server.store.snapshot().get(&key).is_some() {
                return Err(exists(resource, object.name()));
            }
            let mut value: Value = serde_json::from_slice(&template.at("")).map_err(Status::internal)?;
            if resource.converts() {
                resource.read_stored(&mut value)?;
            }
            value.meta_mut().remove("resourceVersion");
            return Ok(Bytes::from(value.to_string()));
        }
        // The object first: its entry is the first of the answer.
        ops.insert(0, Op::Put { key: key.clone(), expect: Expect::Absent, finish: template.finish() });
        match call.server.store.write(ops).await {
            Ok(entries) => {
                let entry = entries.first().ok_or_else(|| Status::internal("the store answered nothing"))?;
                return object::bytes(resource, entry);
            }
            Err(Error::Exists { key: taken }) if taken != key && attempt < ATTEMPTS * 4 => {
                // Someone else's allocation that is not committed yet: look again when it is.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(Error::Exists { key: taken }) if taken != key => {
                return Err(Status::internal(format!("could not allocate {taken}")));
            }
            Err(Error::Exists { .. }) => match generate {
                Some(base) if attempt < ATTEMPTS => {
                    object.meta_mut().insert("name".to_owned(), generated(base).into());
                }
                _ => return Err(refused(call, &key, object.name(), generate.is_some())),
            },
            Err(error) => return Err(store_failed(&error)),
        }
    }
}

fn exists(resource: &Resource, name: &str) -> Status {
    Status::already_exists(&resource.group, &resource.plural, name)
}

fn refused(call: &Call, key: &str, name: &str, generated: bool) -> Status {
    let resource = &*call.resource;
    let mut status = exists(resource, name);
    if generated {
        status.retry_after_seconds = Some(1);
    }
    let deleting = call.server.store.snapshot().get(key).and_then(|entry| object::read(resource, &entry).ok());
    if deleting.is_some_and(|old| old.is_deleting()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

fn generated(base: &str) -> String {
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut rng = rand::rng();
    name.extend((0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

/// The store's failure as a client sees it.
pub(crate) fn store_failed(error: &Error) -> Status {
    match error {
        Error::Closed => Status::new(Reason::ServiceUnavailable, "the server is shutting down"),
        other => Status::internal(other),
    }
}
