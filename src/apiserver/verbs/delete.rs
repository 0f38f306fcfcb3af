//! `delete`: at once, gracefully, or when the finalizers are gone.

use super::create::store_failed;
use super::get;
use crate::admission::{self, Operation, Request};
use crate::body::Body;
use crate::call::object_key;
use crate::negotiate::Output;
use crate::options::{DeleteOptions, Propagation};
use crate::{Call, allocate, definitions, object};
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use mini_api::{Meta, Status, Value};
use mini_resources::Resource;
use mini_resources::custom::names;
use mini_store::{Entry, Error, Expect, Op};
use std::sync::Arc;

const ATTEMPTS: usize = 32;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let options = DeleteOptions::parse(call, &body)?;
    let deleted = object(call, &call.info.name, &options).await?;
    let resource = &*call.resource;
    if deleted.gone && !returns_object(resource) {
        let status = Status::success(&resource.group, &resource.plural, deleted.object.name(), deleted.object.uid());
        return output.respond(StatusCode::OK, Bytes::from(status.to_string()));
    }
    let code = match (deleted.gone, options.orphan_dependents) {
        (false, Some(false)) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    get::answer(call, output, code, &deleted.bytes)
}

/// Kinds whose deletion answers the object itself and not a Status.
fn returns_object(resource: &Resource) -> bool {
    match resource.group.as_str() {
        "" => matches!(
            resource.plural.as_str(),
            "namespaces"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "serviceaccounts"
                | "services"
        ),
        "storage.k8s.io" => resource.plural != "csistoragecapacities",
        _ => false,
    }
}

/// What a deletion left.
pub(crate) struct Deleted {
    /// False: it waits for its grace period or its finalizers.
    pub(crate) gone: bool,
    pub(crate) object: Value,
    pub(crate) bytes: Bytes,
}

/// What shall be done to an object.
enum Step {
    /// It is going already, and nothing changes.
    Nothing,
    Put(Value),
    Remove(Value),
}

/// Deletes `name` in the path's namespace.
pub(crate) async fn object(call: &Call, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
    let resource = &*call.resource;
    let key: Arc<str> = object_key(resource, &call.info.namespace, name).into();
    let not_found = || Status::not_found(&resource.group, &resource.plural, name);
    let mut current = call.server.store.snapshot().get(&key);
    for _ in 0..ATTEMPTS {
        let entry = current.ok_or_else(not_found)?;
        let old = object::read(resource, &entry)?;
        check_preconditions(resource, &old, &entry, options)?;
        admit(call, name, &old, options.dry_run).await?;
        let (value, gone) = match step(resource, &old, options)? {
            Step::Nothing => {
                return Ok(Deleted { gone: false, bytes: object::bytes(resource, &entry)?, object: old });
            }
            Step::Put(value) => (value, false),
            Step::Remove(value) => (value, true),
        };
        let template = object::stored(resource, &value, None);
        if options.dry_run {
            let bytes = template.at(&entry.revision.to_string());
            return Ok(Deleted { gone, object: value, bytes });
        }
        let (expect, finish) = (Expect::Revision(entry.revision), template.finish());
        let mut ops = vec![if gone {
            Op::Delete { key: key.clone(), expect, finish }
        } else {
            Op::Put { key: key.clone(), expect, finish }
        }];
        if gone {
            ops.extend(allocate::release(&call.server, resource, &old));
        }
        match call.server.store.write(ops).await {
            Ok(entries) => {
                let entry = entries.first().ok_or_else(|| Status::internal("the store answered nothing"))?;
                return Ok(Deleted { gone, bytes: object::bytes(resource, entry)?, object: value });
            }
            Err(Error::Changed { current: newer, .. }) => current = newer,
            Err(error) => return Err(store_failed(&error)),
        }
    }
    Err(Status::conflict(&resource.group, &resource.plural, name, "it changes too fast; please try again"))
}

pub(super) fn check_preconditions(
    resource: &Resource,
    old: &Value,
    entry: &Entry,
    options: &DeleteOptions,
) -> Result<(), Status> {
    // Upstream names the kind here, where it names the resource everywhere else.
    let conflict = |why: String| Err(Status::conflict(&resource.group, &resource.kind, old.name(), &why));
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != old.uid()) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            old.uid()
        ));
    }
    let revision = entry.revision.to_string();
    if let Some(version) = options.resource_version.as_deref().filter(|version| *version != revision) {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record \
             ({revision}). The object might have been modified"
        ));
    }
    Ok(())
}

async fn admit(call: &Call, name: &str, old: &Value, dry_run: bool) -> Result<(), Status> {
    let mut nothing = Value::Null;
    let request = Request::new(call, Operation::Delete, name, &mut nothing);
    let mut request = Request { old: Some(old), dry_run, ..request };
    admission::mutate(&mut request).await?;
    admission::validate(&mut request).await
}

fn step(resource: &Resource, old: &Value, options: &DeleteOptions) -> Result<Step, Status> {
    if resource.group == definitions::GROUP && resource.plural == definitions::PLURAL && !old.is_deleting() {
        return Ok(Step::Put(definition_step(old)));
    }
    if resource.kind == "Namespace" && resource.group.is_empty() {
        return namespace_step(old, options);
    }
    let mut new = old.clone();
    if resource.kind == "Pod" && resource.group.is_empty() {
        match graceful(&mut new, old, options) {
            Grace::Pending => return Ok(Step::Nothing),
            Grace::Until => {
                set_finalizers(&mut new, &finalizers(old, options));
                return Ok(Step::Put(new));
            }
            Grace::Over => {}
        }
    }
    let finalizers = finalizers(old, options);
    if finalizers.is_empty() {
        return Ok(Step::Remove(new));
    }
    mark(&mut new);
    set_finalizers(&mut new, &finalizers);
    Ok(if new == *old { Step::Nothing } else { Step::Put(new) })
}

/// A namespace only begins to go: the namespace controller empties it and then takes its finalizer away.
fn namespace_step(old: &Value, options: &DeleteOptions) -> Result<Step, Status> {
    let waiting = old
        .get("spec")
        .and_then(|s| s.get("finalizers"))
        .and_then(Value::as_array)
        .is_some_and(|finalizers| !finalizers.is_empty());
    let mut new = old.clone();
    if old.is_deleting() {
        if waiting {
            let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this \
                       namespace will automatically be purged by the system.";
            return Err(Status::conflict("", "namespaces", old.name(), why));
        }
        return Ok(if finalizers(old, options).is_empty() { Step::Remove(new) } else { Step::Nothing });
    }
    let finalizers = finalizers(old, options);
    if !waiting && finalizers.is_empty() {
        return Ok(Step::Remove(new));
    }
    mark(&mut new);
    new.meta_mut().remove("deletionGracePeriodSeconds");
    set_finalizers(&mut new, &finalizers);
    new["status"]["phase"] = "Terminating".into();
    Ok(Step::Put(new))
}

/// A definition waits until its objects are gone.
fn definition_step(old: &Value) -> Value {
    let mut new = old.clone();
    let now = mini_api::time::now();
    let mut finalizers = old.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == definitions::FINALIZER) {
        finalizers.push(definitions::FINALIZER.into());
    }
    let meta = new.meta_mut();
    meta.insert("deletionTimestamp".to_owned(), now.clone().into());
    meta.insert("finalizers".to_owned(), finalizers.into());
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    names::set_condition(&mut new, "Terminating", true, "InstanceDeletionPending", message, &now);
    new
}

enum Grace {
    /// The kubelet is at it, and this request does not shorten its time.
    Pending,
    /// The pod stays until the kubelet is done.
    Until,
    Over,
}

/// Upstream's `CheckGracefulDelete` and `BeforeDelete` of pods.
fn graceful(new: &mut Value, old: &Value, options: &DeleteOptions) -> Grace {
    let number = |path: [&str; 2]| old.get(path[0]).and_then(|v| v.get(path[1])).and_then(Value::as_i64);
    let now = Timestamp::now();
    if old.is_deleting() {
        let Some(granted) = number(["metadata", "deletionGracePeriodSeconds"]).filter(|g| *g != 0) else {
            return Grace::Over;
        };
        let Some(asked) = options.grace.filter(|asked| *asked < granted) else { return Grace::Pending };
        if asked == 0 {
            grant(new, now, 0);
            return Grace::Over;
        }
        let end = mini_api::time::parse(old.text(&["metadata", "deletionTimestamp"])).unwrap_or(now);
        let until = end.checked_sub(SignedDuration::from_secs(granted.saturating_sub(asked))).unwrap_or(now);
        grant(new, until, asked);
        return Grace::Until;
    }
    let scheduled = !old.text(&["spec", "nodeName"]).is_empty();
    let finished = matches!(old.text(&["status", "phase"]), "Failed" | "Succeeded");
    let period = match options.grace.or_else(|| number(["spec", "terminationGracePeriodSeconds"])) {
        Some(period) if scheduled && !finished => period.max(0),
        _ => 0,
    };
    let until = now.checked_add(SignedDuration::from_secs(period)).unwrap_or(Timestamp::MAX);
    grant(new, until, period);
    bump_generation(new);
    if period > 0 { Grace::Until } else { Grace::Over }
}

fn grant(new: &mut Value, until: Timestamp, seconds: i64) {
    let meta = new.meta_mut();
    meta.insert("deletionTimestamp".to_owned(), mini_api::time::seconds(until).into());
    meta.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
}

/// Upstream's `markAsDeleting`: it goes as soon as its finalizers let it.
fn mark(new: &mut Value) {
    if !new.is_deleting() {
        new.meta_mut().insert("deletionTimestamp".to_owned(), mini_api::time::now().into());
        bump_generation(new);
    }
    new.meta_mut().insert("deletionGracePeriodSeconds".to_owned(), 0.into());
}

fn bump_generation(new: &mut Value) {
    let meta = new.meta_mut();
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        meta.insert("generation".to_owned(), (generation + 1).into());
    }
}

/// The finalizers of the object once the options had their say.
fn finalizers(old: &Value, options: &DeleteOptions) -> Vec<String> {
    let existing: Vec<String> = old
        .get("metadata")
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let wanted = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) | (None, Some(Propagation::Orphan)) => Some(ORPHAN),
        (None, Some(Propagation::Foreground)) => Some(FOREGROUND),
        (Some(false), _) | (None, Some(Propagation::Background)) => None,
        // Nothing asked: what was set on the object before stays.
        (None, None) => return existing,
    };
    let own = existing.into_iter().filter(|f| f != ORPHAN && f != FOREGROUND);
    own.chain(wanted.map(str::to_owned)).collect()
}

fn set_finalizers(new: &mut Value, finalizers: &[String]) {
    let meta = new.meta_mut();
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".to_owned(), finalizers.into());
    }
}
