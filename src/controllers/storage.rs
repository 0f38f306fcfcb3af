//! Claims and volumes: who binds them, who keeps them while they are used, and who makes them on this node.

pub(crate) mod binder;
mod directory;
pub(crate) mod hostpath;
pub(crate) mod protection;

use http::Request;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Resource;
use mini_client::Client;
use mini_client::cache::Kind;
use serde_json::Value;

use crate::driver::optional;

/// Kinds of this room, and where their objects are.
pub(crate) trait Stored: Kind + Resource<DynamicType = ()> {
    fn path(&self) -> String {
        let meta = self.meta();
        format!("{}/{}", Self::url_path(&(), meta.namespace.as_deref()), meta.name.as_deref().unwrap_or_default())
    }
}

impl Stored for PersistentVolume {}
impl Stored for PersistentVolumeClaim {}

/// Changes an object as the server has it, whole: an update, because that is what upstream's roles allow, and of JSON, so
/// that fields this program does not know stay. `None` where it is gone, is another by now, or needs no change.
pub(crate) async fn change<K: Stored>(
    client: &Client,
    object: &K,
    status: bool,
    edit: impl FnOnce(&mut Value),
) -> Result<Option<K>, kube::Error> {
    let path = object.path();
    let get = Request::get(&path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    let Some(mut live) = optional(client.request::<Value>(get).await)? else { return Ok(None) };
    if live["metadata"]["uid"].as_str() != object.meta().uid.as_deref() {
        return Ok(None);
    }
    let before = live.clone();
    edit(&mut live);
    if live == before {
        return Ok(None);
    }
    let path = if status { format!("{path}/status") } else { path };
    let body = serde_json::to_vec(&live).map_err(kube::Error::SerdeError)?;
    let put =
        Request::put(path).header("content-type", "application/json").body(body).map_err(kube::Error::HttpError)?;
    optional(client.request::<K>(put).await)
}

/// Sets a field, or takes it away with null.
pub(crate) fn put(object: &mut Value, field: &str, value: Value) {
    if !value.is_null() {
        object[field] = value;
    } else if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Sets or takes away an annotation.
pub(crate) fn annotate(object: &mut Value, name: &str, value: Option<&str>) {
    put(&mut object["metadata"]["annotations"], name, value.map_or(Value::Null, Value::from));
    if object["metadata"]["annotations"].is_null() {
        put(&mut object["metadata"], "annotations", Value::Null);
    }
}

/// Adds or takes away a finalizer.
pub(crate) fn finalize(object: &mut Value, name: &str, present: bool) {
    let mut list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    list.retain(|finalizer| finalizer != name);
    if present {
        list.push(name.into());
    }
    object["metadata"]["finalizers"] = list.into();
}

pub(crate) fn has_finalizer<K: Resource>(object: &K, name: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

#[cfg(test)]
mod tests;
