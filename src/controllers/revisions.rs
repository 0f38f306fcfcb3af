//! ControllerRevisions: the templates that a DaemonSet or StatefulSet had, by which it can go back.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Selector;
use kube::{Api, Resource};
use mini_client::cache::Kind;
use mini_client::{Cache, Caches, Client};
use serde_json::{Value, json};

use crate::driver::{Error, Writes, code, optional};
use crate::owner::{self, controller_reference, controls};

/// Pods carry the revision they were made of.
pub(crate) const POD_LABEL: &str = "controller-revision-hash";

pub(crate) struct Revisions {
    client: Client,
    pub(crate) cache: Cache<ControllerRevision>,
    /// The label by which a revision tells its hash.
    label: &'static str,
}

/// The history of one owner.
pub(crate) struct History {
    /// That of the present template.
    pub(crate) update: Arc<ControllerRevision>,
    /// All of them, oldest first, the present one included.
    pub(crate) all: Vec<Arc<ControllerRevision>>,
}

/// A short name: 32-bit FNV-1a in letters that spell no words.
pub(crate) fn hash(data: &[u8], collisions: Option<i32>) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = 0x811c_9dc5_u32;
    for byte in data.iter().copied().chain(collisions.into_iter().flat_map(i32::to_le_bytes)) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let letter = |digit: u8| char::from(ALPHABET.get(usize::from(digit) % ALPHABET.len()).copied().unwrap_or(b'x'));
    hash.to_string().bytes().map(letter).collect()
}

/// What is kept of a template: the patch that brings it back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    if let Some(meta) = template["metadata"].as_object_mut() {
        meta.remove("creationTimestamp");
    }
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

pub(crate) fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or_default()
}

impl Revisions {
    pub(crate) fn new(client: &Client, caches: &Caches, label: &'static str) -> Self {
        Self { client: client.clone(), cache: caches.of(), label }
    }

    /// The value of the label by which pods tell their revision's hash.
    pub(crate) fn hash_of<'a>(&self, revision: &'a ControllerRevision) -> &'a str {
        revision.metadata.labels.as_ref().and_then(|labels| labels.get(self.label)).map_or("", String::as_str)
    }

    fn api<O: Resource>(&self, owner: &O) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), owner.meta().namespace.as_deref().unwrap_or_default())
    }

    /// The owner's history with a revision for its present template as the newest one.
    pub(crate) async fn history<O>(
        &self,
        owner: &O,
        selector: &Selector,
        present: &PodTemplateSpec,
        collisions: &mut Option<i32>,
        writes: &mut Writes,
    ) -> Result<History, Error>
    where
        O: Kind + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        let candidates = self.cache.list_in(namespace);
        let mut all = owner::claim(&self.client, owner, selector, candidates, &self.cache, writes).await?;
        all.sort_by_key(|revision| (number(revision), revision.metadata.name.clone()));
        let newest = all.last().map_or(0, |revision| number(revision));
        let wanted = data(present);
        let update = match all.iter().rposition(|revision| revision.data.0 == wanted) {
            Some(at) if at + 1 == all.len() => all.remove(at),
            Some(at) => {
                // An older template again: its revision becomes the newest.
                let patch = Patch::Merge(json!({"revision": newest + 1}));
                let old = all.remove(at);
                let written = self.api(owner).patch(name(&old), &PatchParams::default(), &patch).await?;
                writes.wrote(&self.cache, &written);
                Arc::new(written)
            }
            None => self.create(owner, present, wanted, newest + 1, collisions, writes).await?,
        };
        all.push(update.clone());
        Ok(History { update, all })
    }

    async fn create<O>(
        &self,
        owner: &O,
        template: &PodTemplateSpec,
        data: Value,
        revision: i64,
        collisions: &mut Option<i32>,
        writes: &mut Writes,
    ) -> Result<Arc<ControllerRevision>, Error>
    where
        O: Kind + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api = self.api(owner);
        let bytes = serde_json::to_vec(&data).unwrap_or_default();
        loop {
            let hash = hash(&bytes, *collisions);
            let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
            labels.insert(self.label.to_owned(), hash.clone());
            let made = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{hash}", owner.meta().name.as_deref().unwrap_or_default())),
                    namespace: owner.meta().namespace.clone(),
                    labels: Some(labels),
                    annotations: owner.meta().annotations.clone(),
                    owner_references: Some(vec![controller_reference(owner)]),
                    ..ObjectMeta::default()
                },
                data: RawExtension(data.clone()),
                revision: Some(revision),
            };
            match api.create(&PostParams::default(), &made).await {
                Ok(written) => {
                    writes.wrote(&self.cache, &written);
                    return Ok(Arc::new(written));
                }
                Err(error) if code(&error) == 409 => {
                    let present = api.get(name(&made)).await?;
                    if controls(owner, &present.metadata) && present.data.0 == data {
                        return Ok(Arc::new(present));
                    }
                    // Another template of the same short name.
                    *collisions = Some(collisions.unwrap_or_default().saturating_add(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes the oldest revisions beyond the limit that no pod is of.
    pub(crate) async fn truncate<O: Resource>(
        &self,
        owner: &O,
        all: &[Arc<ControllerRevision>],
        in_use: impl Fn(&ControllerRevision) -> bool,
        limit: Option<i32>,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let idle: Vec<_> = all.iter().filter(|revision| !in_use(revision)).collect();
        let excess = idle.len().saturating_sub(usize::try_from(limit.unwrap_or(10)).unwrap_or_default());
        for revision in idle.into_iter().take(excess) {
            self.delete(owner, revision, writes).await?;
        }
        Ok(())
    }

    pub(crate) async fn delete<O: Resource>(
        &self,
        owner: &O,
        revision: &ControllerRevision,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        if optional(self.api(owner).delete(name(revision), &DeleteParams::default()).await)?.is_some() {
            writes.deleted(&self.cache, revision);
        }
        Ok(())
    }
}
