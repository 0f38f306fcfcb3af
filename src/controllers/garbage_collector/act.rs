//! What is done about a suspicious object.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use mini_client::EventType;
use serde_json::json;

use super::graph::{FOREGROUND, Node, ORPHAN};
use super::{Collector, Uid};
use crate::driver::{Error, optional};
use crate::served::Served;

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// There to stay, or to be deleted in the background.
    Solid,
    Absent,
    /// Being deleted, after its dependents.
    Waiting,
    /// Of a kind that lives in namespaces, while the dependent lives in none: nobody can say whether it is there.
    Beyond,
}

impl Collector {
    pub(super) async fn process(&self, uid: &Uid) -> Result<(), Error> {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        if node.deleting {
            if node.orphan {
                return self.orphan(uid, &node).await;
            }
            if node.foreground {
                return self.finish_foreground(uid, &node).await;
            }
            return Ok(());
        }
        if node.owners.is_empty() {
            return Ok(());
        }
        let Some(object) = self.live(uid, &node).await? else { return Ok(()) };
        let references = object.metadata.owner_references.clone().unwrap_or_default();
        if references.is_empty() || object.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let (mut solid, mut waiting, mut unsound) = (false, false, Vec::new());
        for reference in &references {
            let owner = self.owner(uid, &node, reference).await?;
            if owner == Owner::Beyond {
                return Ok(());
            }
            solid |= owner == Owner::Solid;
            waiting |= owner == Owner::Waiting;
            if owner != Owner::Solid {
                unsound.push(reference.uid.clone());
            }
        }
        if solid {
            return if unsound.is_empty() { Ok(()) } else { self.drop_references(&node, &object, &unsound).await };
        }
        let has = |wanted: &str| object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
        let (has_dependents, in_circle) = {
            let graph = self.graph.lock();
            let dependents = graph.dependents(uid);
            (!dependents.is_empty(), waiting && dependents.iter().any(|(_, dependent)| dependent.waits()))
        };
        if in_circle && references.iter().any(|reference| reference.block_owner_deletion == Some(true)) {
            // Each waits for the next: this one stops blocking its owners.
            let free = references
                .iter()
                .map(|reference| OwnerReference { block_owner_deletion: Some(false), ..reference.clone() });
            let free: Vec<_> = free.collect();
            let revision = &object.metadata.resource_version;
            self.patch_metadata(&node, json!({"resourceVersion": revision, "ownerReferences": free})).await?;
            return Err(Error::NotYet("a circle of owners was opened".to_owned()));
        }
        let policy = if has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if has(FOREGROUND) || (waiting && has_dependents) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        let preconditions = Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        optional(self.api(&node).delete(&node.name, &params).await)?;
        Ok(())
    }

    /// Lets the dependents of a deleted owner go free, and then the owner.
    async fn orphan(&self, uid: &Uid, node: &Node) -> Result<(), Error> {
        let dependents: Vec<_> =
            self.graph.lock().dependents(uid).into_iter().map(|(uid, node)| (uid, node.clone())).collect();
        for (dependent, its) in dependents {
            if let Some(object) = self.live(&dependent, &its).await? {
                self.drop_references(&its, &object, &[uid.to_string()]).await?;
            }
        }
        self.drop_finalizer(uid, node, ORPHAN).await
    }

    /// Lets an owner go once nothing that blocks it is left; looks at its dependents until then.
    async fn finish_foreground(&self, uid: &Uid, node: &Node) -> Result<(), Error> {
        let blocks = |dependent: &Node| dependent.owners.iter().any(|(owner, block)| owner == uid && *block);
        let (blocked, dependents) = {
            let graph = self.graph.lock();
            let dependents = graph.dependents(uid);
            let blocked = dependents.iter().any(|(_, dependent)| blocks(dependent));
            (blocked, dependents.into_iter().map(|(uid, _)| uid).collect::<Vec<_>>())
        };
        dependents.into_iter().for_each(|dependent| self.queue.add(dependent));
        if blocked { Ok(()) } else { self.drop_finalizer(uid, node, FOREGROUND).await }
    }

    async fn owner(&self, uid: &Uid, dependent: &Node, reference: &OwnerReference) -> Result<Owner, Error> {
        let stands = |node: &Node| if node.waits() { Owner::Waiting } else { Owner::Solid };
        let known = self.graph.lock().get(&Uid::from(reference.uid.as_str())).cloned();
        if let Some(owner) = known {
            if owner.namespace.is_empty() || owner.namespace == dependent.namespace {
                return Ok(stands(&owner));
            }
            // An owner in another namespace is none.
            self.tell_invalid(uid, dependent, reference);
            return Ok(if dependent.namespace.is_empty() { Owner::Beyond } else { Owner::Absent });
        }
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        let is_kind =
            |row: &&std::sync::Arc<Served>| row.resource.kind == reference.kind && row.resource.group == group;
        let Some(row) = self.rows.lock().iter().find(is_kind).cloned() else {
            // A kind nobody serves (yet): nothing is known about its absence.
            return Ok(Owner::Solid);
        };
        if row.namespaced && dependent.namespace.is_empty() {
            self.tell_invalid(uid, dependent, reference);
            return Ok(Owner::Beyond);
        }
        let namespace = if row.namespaced { dependent.namespace.as_str() } else { "" };
        let found = optional(api(&self.client, &row, namespace).get(&reference.name).await)?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_ref() == Some(&reference.uid)) else {
            return Ok(Owner::Absent);
        };
        Ok(stands(&Node::of(&row, &found.metadata)))
    }

    fn tell_invalid(&self, uid: &Uid, dependent: &Node, reference: &OwnerReference) {
        let resource = &dependent.row.resource;
        let about = ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            namespace: Some(dependent.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(dependent.name.clone()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let namespace = &dependent.namespace;
        let said = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace {namespace:?}"
        );
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", said);
    }

    /// The object as the server has it, if it is still the same one.
    async fn live(&self, uid: &Uid, node: &Node) -> Result<Option<DynamicObject>, Error> {
        let found = optional(self.api(node).get(&node.name).await)?;
        Ok(found.filter(|found| found.metadata.uid.as_deref() == Some(uid)))
    }

    fn api(&self, node: &Node) -> Api<DynamicObject> {
        api(&self.client, &node.row, &node.namespace)
    }

    async fn drop_references(&self, node: &Node, object: &DynamicObject, uids: &[String]) -> Result<(), Error> {
        let references = object.metadata.owner_references.iter().flatten();
        let left: Vec<_> = references.filter(|reference| !uids.contains(&reference.uid)).collect();
        let meta = json!({"resourceVersion": object.metadata.resource_version, "ownerReferences": left});
        self.patch_metadata(node, meta).await
    }

    async fn drop_finalizer(&self, uid: &Uid, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(object) = self.live(uid, node).await? else { return Ok(()) };
        let finalizers = object.metadata.finalizers.iter().flatten();
        let left: Vec<_> = finalizers.filter(|present| *present != finalizer).collect();
        let meta = json!({"resourceVersion": object.metadata.resource_version, "finalizers": left});
        self.patch_metadata(node, meta).await
    }

    async fn patch_metadata(&self, node: &Node, meta: serde_json::Value) -> Result<(), Error> {
        // Merge patch, because custom kinds know no strategic one; the revision guards the whole list.
        let patch = Patch::Merge(json!({"metadata": meta}));
        optional(self.api(node).patch(&node.name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }
}

fn api(client: &kube::Client, row: &Served, namespace: &str) -> Api<DynamicObject> {
    if row.namespaced {
        Api::namespaced_with(client.clone(), namespace, &row.resource)
    } else {
        Api::all_with(client.clone(), &row.resource)
    }
}
