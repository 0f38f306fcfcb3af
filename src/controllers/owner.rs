//! Who owns what: controller references, adoption of orphans and release of what no longer matches.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Client, Resource};
use mini_client::Cache;
use mini_client::cache::Kind;
use serde_json::json;

use crate::driver::{Error, Key, Source, Writes, code};

/// The reference to the one owner that controls an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// The name of the controlling owner if it is a `K`.
pub(crate) fn controller_named<K: Resource<DynamicType = ()>>(meta: &ObjectMeta) -> Option<&str> {
    let reference = controller_of(meta)?;
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    (reference.kind == K::kind(&()) && group == K::group(&())).then_some(reference.name.as_str())
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn controls<K: Resource>(owner: &K, meta: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|reference| Some(&reference.uid) == owner.meta().uid.as_ref())
}

pub(crate) fn matches(selector: &Selector, meta: &ObjectMeta) -> bool {
    static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// Changes of what an `O` controls concern that `O`.
pub(crate) fn controlled<O: Resource<DynamicType = ()>, K: Kind>(cache: &Cache<K>) -> Source {
    Source::of(cache, |change| {
        let meta = change.object().meta();
        let owner = controller_named::<O>(meta);
        owner.map(|name| Key::new(meta.namespace.clone().unwrap_or_default(), name)).into_iter().collect()
    })
}

/// Changes of what an `O` controls, or did, concern that `O`; those of an orphan whoever selects it and may adopt it.
pub(crate) fn claimable<O: Kind + Resource<DynamicType = ()>, K: Kind>(
    cache: &Cache<K>,
    owners: &Cache<O>,
    selector: impl Fn(&O) -> Option<Selector> + Send + Sync + 'static,
) -> Source {
    let owners = owners.clone();
    Source::both(cache, move |object| {
        let meta = object.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        if let Some(name) = controller_named::<O>(meta) {
            return vec![Key::new(namespace, name)];
        }
        if controller_of(meta).is_some() {
            return Vec::new();
        }
        let selects = |owner: &Arc<O>| selector(owner).is_some_and(|selector| matches(&selector, meta));
        owners.list_in(namespace).iter().filter(|owner| selects(owner)).map(|owner| Key::of(owner.as_ref())).collect()
    })
}

/// Those of `candidates` that `owner` controls; on the way, orphans that match are adopted and what no longer
/// matches is released.
pub(crate) async fn claim<O, K>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
    cache: &Cache<K>,
    writes: &mut Writes,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Kind + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Kind + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    claim_with(client, owner, selector, candidates, (cache, None), writes).await
}

/// As `claim`; what is adopted also gets a finalizer, which what is released loses.
pub(crate) async fn claim_with<O, K>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
    (cache, finalizer): (&Cache<K>, Option<&str>),
    writes: &mut Writes,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Kind + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Kind + Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let leaving = owner.meta().deletion_timestamp.is_some();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let mut may_adopt: Option<bool> = None;
    let mut claimed = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let meta = candidate.meta();
        let name = meta.name.as_deref().unwrap_or_default();
        let fits = matches(selector, meta);
        if controls(owner, meta) {
            if fits || leaving {
                claimed.push(candidate);
                continue;
            }
            let reference = json!({"$patch": "delete", "uid": owner.meta().uid});
            let mut patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": [reference]}});
            if let Some(finalizer) = finalizer {
                patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
            }
            match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(released) => writes.wrote(cache, &released),
                // Gone, or another object by now.
                Err(error) if matches!(code(&error), 404 | 409 | 422) => {}
                Err(error) => return Err(error.into()),
            }
        } else if fits && controller_of(meta).is_none() && meta.deletion_timestamp.is_none() && !leaving {
            // The cache may be older than the owner's deletion: ask the server once before adopting anything.
            if may_adopt.is_none() {
                let owners: Api<O> = Api::namespaced(client.clone(), &namespace);
                let fresh = owners.get(owner.meta().name.as_deref().unwrap_or_default()).await?;
                let fresh = fresh.meta();
                may_adopt = Some(fresh.uid == owner.meta().uid && fresh.deletion_timestamp.is_none());
            }
            if may_adopt != Some(true) {
                return Err(Error::NotYet("the owner is being deleted".to_owned()));
            }
            let mut patch = json!({"metadata": {"uid": meta.uid, "ownerReferences": [controller_reference(owner)]}});
            if let Some(finalizer) = finalizer {
                patch["metadata"]["finalizers"] = json!([finalizer]);
            }
            match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(adopted) => {
                    writes.wrote(cache, &adopted);
                    claimed.push(Arc::new(adopted));
                }
                Err(error) if code(&error) == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(claimed)
}
