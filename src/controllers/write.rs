//! Writing a status: what differs from the one that was read, and nothing else.

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use mini_client::cache::Kind;
use mini_client::{Cache, Client};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::driver::{Error, Writes};

/// The merge patch that turns `old` into `new`; `None` if they are the same.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for (name, value) in after {
        if let Some(changed) = difference(before.get(name).unwrap_or(&Value::Null), value) {
            patch.insert(name.clone(), changed);
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// Writes the status of an object whose status was `old` when it had its present revision. Tells what the server
/// answered; `None` where nothing differs. Whoever wrote the object meanwhile wins, and the reconcile runs again.
pub(crate) async fn status<K, S>(
    client: &Client,
    cache: &Cache<K>,
    object: &K,
    (old, new): (&Option<S>, &S),
    writes: &mut Writes,
) -> Result<Option<K>, Error>
where
    K: Kind + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    S: Serialize + Sync,
{
    let before = old.as_ref().map_or_else(|| json!({}), |old| json!(old));
    let Some(patch) = difference(&before, &json!(new)) else { return Ok(None) };
    let meta = object.meta();
    let api: Api<K> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": patch});
    let name = meta.name.as_deref().unwrap_or_default();
    let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    writes.wrote(cache, &written);
    Ok(Some(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_differs_and_nulls_what_went() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": 3});
        let new = json!({"a": 1, "b": {"c": [2]}, "f": {"g": 4}});
        let patch = json!({"b": {"c": [2], "d": null}, "e": null, "f": {"g": 4}});
        assert_eq!(difference(&old, &new), Some(patch));
        assert_eq!(difference(&old, &old), None);
    }
}
