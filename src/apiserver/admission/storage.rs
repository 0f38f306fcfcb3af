//! `DefaultStorageClass`, `StorageObjectInUseProtection` and `PersistentVolumeClaimResize`: what claims and volumes get
//! at their creation, and which claims may grow.

use super::{Operation, Request};
use mini_api::{Meta, Status, Value, meta, quantity::Quantity};

const CLASSES: &str = "/registry/storageclasses.storage.k8s.io/";
const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn is(request: &Request<'_>, plural: &str, operation: Operation) -> bool {
    let resource = request.resource;
    resource.group.is_empty()
        && resource.plural == plural
        && request.subresource.is_empty()
        && request.operation == operation
}

/// A claim that names no class gets the default one; the newest, where several say they are it.
pub(super) fn default_class(request: &mut Request<'_>) -> Result<(), Status> {
    if !is(request, "persistentvolumeclaims", Operation::Create)
        || request.object.pointer("/spec/storageClassName").is_some_and(|class| !class.is_null())
        || !request.object.text(&["metadata", "annotations", OLD_CLASS]).is_empty()
    {
        return Ok(());
    }
    let snapshot = request.server.store.snapshot();
    let classes = snapshot.range(CLASSES, None);
    let classes = classes.filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    let marked = classes.filter(|class| MARKS.iter().any(|m| class.text(&["metadata", "annotations", m]) == "true"));
    let newest = marked.max_by_key(|class| {
        (class.text(&["metadata", "creationTimestamp"]).to_owned(), std::cmp::Reverse(class.name().to_owned()))
    });
    if let Some(class) = newest {
        let spec = meta::child_mut(meta::object_mut(request.object), "spec");
        spec.insert("storageClassName".to_owned(), class.name().into());
    }
    Ok(())
}

/// Claims and volumes are kept while something uses them, from the start.
pub(super) fn protect(request: &mut Request<'_>) -> Result<(), Status> {
    let finalizer = if is(request, "persistentvolumeclaims", Operation::Create) {
        "kubernetes.io/pvc-protection"
    } else if is(request, "persistentvolumes", Operation::Create) {
        "kubernetes.io/pv-protection"
    } else {
        return Ok(());
    };
    let meta = request.object.meta_mut();
    let mut list = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !list.iter().any(|present| present == finalizer) {
        list.push(finalizer.into());
        meta.insert("finalizers".to_owned(), list.into());
    }
    Ok(())
}

/// A claim grows only where its class lets it.
pub(super) fn resize(request: &mut Request<'_>) -> Result<(), Status> {
    if !is(request, "persistentvolumeclaims", Operation::Update) {
        return Ok(());
    }
    let size = |claim: &Value| Quantity::parse(claim.text(&["spec", "resources", "requests", "storage"])).ok();
    let Some(old) = request.old else { return Ok(()) };
    if size(request.object) <= size(old) {
        return Ok(());
    }
    let refused = |why: &str| {
        let (group, plural) = (&request.resource.group, &request.resource.plural);
        Err(Status::forbidden(group, plural, request.name, why))
    };
    if old.text(&["status", "phase"]) != "Bound" {
        return refused("Only bound persistent volume claims can be expanded");
    }
    let named = match old.text(&["metadata", "annotations", OLD_CLASS]) {
        "" => old.text(&["spec", "storageClassName"]),
        class => class,
    };
    let class = request.server.store.snapshot().get(&format!("{CLASSES}{named}"));
    let class = class.and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    if class.is_some_and(|class| class.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true)) {
        return Ok(());
    }
    refused(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}
