//! Which ReplicaSet is the new one, its making, and the numbering of revisions.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mini_client::{EventType, reference};
use serde_json::json;

use super::{Controller, Rollout, annotations, conditions, numbers};
use crate::driver::{Error, Writes, code, message};
use crate::owner::{controller_reference, controls};
use crate::revisions;

const HASH_LABEL: &str = "pod-template-hash";

impl<'a> Rollout<'a> {
    pub(super) fn of(deployment: &'a Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by_key(|set| age_key(set));
        let template = Some(without_hash(&deployment.spec.template));
        let is_new = |set: &Arc<ReplicaSet>| {
            let of_set = set.spec.template.as_ref().map(without_hash);
            of_set.is_some() && of_set == template
        };
        let new = sets.iter().find(|set| is_new(set)).cloned();
        let uid = new.as_ref().map(|set| set.metadata.uid.clone());
        let old = sets.into_iter().filter(|set| Some(&set.metadata.uid) != uid.as_ref()).collect();
        let status = deployment.status.clone().unwrap_or_default();
        Self {
            deployment,
            conditions: status.conditions.unwrap_or_default(),
            collisions: status.collision_count,
            new,
            old,
            now: Timestamp::now(),
        }
    }
}

/// Oldest first.
pub(super) fn age_key(set: &ReplicaSet) -> (Option<Timestamp>, Option<String>) {
    (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    // The server stores neither an empty map nor this time, but a client may send both.
    meta.labels.take_if(|labels| labels.is_empty());
    meta.annotations.take_if(|annotations| annotations.is_empty());
    meta.creation_timestamp = None;
    template
}

fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    revisions::hash(&serde_json::to_vec(template).unwrap_or_default(), collisions)
}

impl Controller {
    /// Keeps the revision annotations of the new ReplicaSet and of the Deployment; makes the set if it is to be made.
    pub(super) async fn number_revision(
        &self,
        rollout: &mut Rollout<'_>,
        create: bool,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let revision = rollout.old.iter().map(|set| annotations::revision(set)).max().unwrap_or_default() + 1;
        if let Some(set) = rollout.new.clone() {
            let set = self.refresh_new(rollout.deployment, &set, revision, writes).await?;
            rollout.replace(&set);
            let name = set.metadata.name.clone().unwrap_or_default();
            if conditions::get(&rollout.conditions, conditions::PROGRESSING).is_none() {
                let found = format!("Found new replica set {name:?}");
                conditions::progressing(rollout, "True", "FoundNewReplicaSet", found);
            }
            let revision = annotations::revision(&set);
            return self.write_revision(rollout, revision, writes).await;
        }
        if create {
            self.create_new(rollout, revision, writes).await?;
            self.write_revision(rollout, revision, writes).await?;
        }
        Ok(())
    }

    async fn refresh_new(
        &self,
        deployment: &Deployment,
        set: &Arc<ReplicaSet>,
        revision: i64,
        writes: &mut Writes,
    ) -> Result<Arc<ReplicaSet>, Error> {
        let missing = annotations::missing(deployment, set.metadata.annotations.as_ref(), revision);
        let wished = deployment.spec.min_ready_seconds.unwrap_or_default();
        let present = set.spec.min_ready_seconds.unwrap_or_default();
        if missing.is_empty() && wished == present {
            return Ok(set.clone());
        }
        let mut patch = json!({"metadata": {"uid": set.metadata.uid, "annotations": missing}});
        if wished != present {
            patch["spec"]["minReadySeconds"] = json!(wished);
        }
        let api = self.sets_api(deployment);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        writes.wrote(&self.sets, &written);
        Ok(Arc::new(written))
    }

    async fn create_new(&self, rollout: &mut Rollout<'_>, revision: i64, writes: &mut Writes) -> Result<(), Error> {
        let set = new_set(rollout, revision);
        let name = set.metadata.name.clone().unwrap_or_default();
        let api = self.sets_api(rollout.deployment);
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                writes.wrote(&self.sets, &created);
                let size = numbers::size(&created);
                if size > 0 {
                    self.tell_scaled(rollout.deployment, &name, 0, size);
                }
                let said = format!("Created new replica set {name:?}");
                conditions::progressing(rollout, "True", "NewReplicaSetCreated", said);
                rollout.new = Some(Arc::new(created));
                Ok(())
            }
            Err(error) if code(&error) == 409 => {
                let present = api.get(&name).await?;
                let ours = controls(rollout.deployment, &present.metadata);
                let of_set = present.spec.template.as_ref().map(without_hash);
                let wished = Some(without_hash(&rollout.deployment.spec.template));
                if ours && of_set == wished {
                    rollout.new = Some(Arc::new(present));
                    return Ok(());
                }
                // Another template with the same short name: take the next one, from the status on.
                rollout.collisions = Some(rollout.collisions.unwrap_or_default().saturating_add(1));
                Err(error.into())
            }
            Err(error) => {
                let said = format!("Failed to create new replica set {name:?}: {}", message(&error));
                conditions::progressing(rollout, "False", "ReplicaSetCreateError", said.clone());
                let subject = reference(rollout.deployment);
                self.recorder.event(&subject, EventType::Warning, "ReplicaSetCreateError", said);
                Err(error.into())
            }
        }
    }

    async fn write_revision(&self, rollout: &Rollout<'_>, revision: i64, writes: &mut Writes) -> Result<(), Error> {
        let text = revision.to_string();
        if annotations::get(&rollout.deployment.metadata, annotations::REVISION) == Some(&text) {
            return Ok(());
        }
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), rollout.namespace());
        let meta = json!({"uid": rollout.deployment.metadata.uid, "annotations": {annotations::REVISION: text}});
        let patch = Patch::Merge(json!({"metadata": meta}));
        let written = api.patch(rollout.name(), &PatchParams::default(), &patch).await?;
        writes.wrote(&self.deployments, &written);
        Ok(())
    }

    pub(super) fn sets_api(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), deployment.metadata.namespace.as_deref().unwrap_or_default())
    }
}

fn new_set(rollout: &Rollout<'_>, revision: i64) -> ReplicaSet {
    let deployment = rollout.deployment;
    let spec = deployment.spec.clone();
    let hash = hash(&spec.template, rollout.collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut notes = annotations::missing(deployment, None, revision);
    notes.extend(annotations::sizes(deployment, None));
    let size = numbers::new_size(deployment, numbers::sum(&rollout.old, numbers::size), 0);
    ReplicaSet {
        metadata: ObjectMeta {
            // Of the template alone, so that a second attempt makes no second set.
            name: Some(format!("{}-{hash}", rollout.name())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(notes),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}
