//! A pod's volumes: which nodes they can be used on, and what must be written before it can be bound to one.
//!
//! Claims of classes that wait for their first consumer are bound or provisioned for the node that is chosen: the choice
//! is written on the claim (or on a volume that serves it), and the pod comes back once all its claims are bound.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mini_client::volumes::{self, annotation};
use mini_client::{Cache, Caches, reference};
use serde_json::json;

use crate::cluster::NodeState;
use crate::filter::holds;

const CONFLICT: &str = "node(s) had volume node affinity conflict";
const NONE_AVAILABLE: &str = "node(s) didn't find available persistent volumes to bind";

/// What is known of claims, volumes and classes.
pub(crate) struct Claims {
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) volumes: Cache<PersistentVolume>,
    pub(crate) classes: Cache<StorageClass>,
}

/// A claim that waits for its pod's node.
struct Delayed {
    claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
}

/// The volumes of one pod.
#[derive(Default)]
pub(crate) struct PodVolumes {
    bound: Vec<Arc<PersistentVolume>>,
    delayed: Vec<Delayed>,
    /// All volumes there are, for `delayed`.
    all: Vec<Arc<PersistentVolume>>,
}

/// What is to be written before the pod can be bound.
pub(crate) enum Choice {
    /// This volume serves the claim.
    Volume(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>),
    /// A volume is to be made on this node.
    Provision(Arc<PersistentVolumeClaim>, String),
}

impl Claims {
    pub(crate) fn new(caches: &Caches) -> Self {
        Self { claims: caches.of(), volumes: caches.of(), classes: caches.of() }
    }

    pub(crate) async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.volumes.synced(), self.classes.synced());
    }

    /// The pod's volumes, or why no node can take it.
    pub(crate) fn of(&self, pod: &Pod) -> Result<PodVolumes, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut found = PodVolumes::default();
        for name in names(pod) {
            let Some(claim) = self.claims.get(namespace, &name) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let volume = volumes::volume_name(&claim).unwrap_or_default();
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if volumes::is_bound(&claim) {
                match self.volumes.get("", volume) {
                    Some(volume) => found.bound.push(volume),
                    None => return Err(format!("persistentvolume {volume:?} not found")),
                }
                continue;
            }
            let class = volumes::claim_class(&claim).and_then(|class| self.classes.get("", class));
            match class.filter(|class| volume.is_empty() && volumes::waits_for_consumer(class)) {
                Some(class) => found.delayed.push(Delayed { claim, class }),
                None => return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            }
        }
        if !found.delayed.is_empty() {
            found.all = self.volumes.list();
        }
        Ok(found)
    }
}

impl PodVolumes {
    pub(crate) fn refuses(&self, state: &NodeState) -> Option<String> {
        if !self.bound.iter().all(|volume| usable(volume, state)) {
            return Some(CONFLICT.to_owned());
        }
        self.choose(state).err().map(str::to_owned)
    }

    /// What this node means for the claims that wait for it; nothing where all are bound.
    pub(crate) fn choose(&self, state: &NodeState) -> Result<Vec<Choice>, &'static str> {
        let (mut choices, mut taken) = (Vec::new(), HashSet::new());
        for Delayed { claim, class } in &self.delayed {
            // A node is chosen once; its provisioner may be at work.
            match annotation(&claim.metadata, volumes::SELECTED_NODE) {
                Some(node) if node == state.name() => {
                    choices.push(Choice::Provision(claim.clone(), node.to_owned()));
                    continue;
                }
                Some(_) => return Err(CONFLICT),
                None => {}
            }
            let here = |volume: &PersistentVolume| usable(volume, state);
            if let Some(volume) = volumes::find(claim, &self.all, true, Some(&here), &taken) {
                taken.insert(volume.metadata.name.clone().unwrap_or_default());
                choices.push(Choice::Volume(volume.clone(), claim.clone()));
            } else if can_provision(class, state) {
                choices.push(Choice::Provision(claim.clone(), state.name().to_owned()));
            } else {
                return Err(NONE_AVAILABLE);
            }
        }
        Ok(choices)
    }
}

fn can_provision(class: &StorageClass, state: &NodeState) -> bool {
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    let allowed = topologies.iter().any(|term| {
        term.match_label_expressions.iter().flatten().all(|expression| {
            state.label(&expression.key).is_some_and(|found| expression.values.iter().any(|value| value == found))
        })
    });
    class.provisioner != volumes::NO_PROVISIONER && (topologies.is_empty() || allowed)
}

fn usable(volume: &PersistentVolume, state: &NodeState) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let terms = affinity.and_then(|affinity| affinity.required.as_ref()).map(|required| &required.node_selector_terms);
    terms.is_none_or(|terms: &Vec<NodeSelectorTerm>| terms.iter().any(|term| holds(term, state)))
}

/// The names of the claims that a pod uses.
fn names(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(pod, volume))
}

/// Whether a change of claims, volumes or classes can matter to a pod.
pub(crate) fn uses_claims(pod: &Pod) -> bool {
    names(pod).next().is_some()
}

fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
}

/// Writes a choice, unless it is written already. The revision guards against what changed since it was made.
pub(crate) async fn write(client: &Client, choice: &Choice) -> Result<(), kube::Error> {
    match choice {
        Choice::Volume(volume, claim) => {
            let mut promise = reference(claim.as_ref());
            promise.api_version = Some("v1".to_owned());
            let known = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
            let annotations = (!known).then(|| json!({volumes::BOUND_BY_CONTROLLER: "yes"}));
            let mut meta = json!({"resourceVersion": volume.metadata.resource_version});
            if let Some(annotations) = annotations {
                meta["annotations"] = annotations;
            }
            let patch = Patch::Merge(json!({"metadata": meta, "spec": {"claimRef": promise}}));
            let api: Api<PersistentVolume> = Api::all(client.clone());
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            api.patch(name, &PatchParams::default(), &patch).await.map(drop)
        }
        Choice::Provision(claim, node) => {
            if annotation(&claim.metadata, volumes::SELECTED_NODE) == Some(node) {
                return Ok(());
            }
            let annotations = json!({volumes::SELECTED_NODE: node});
            let meta = json!({"resourceVersion": claim.metadata.resource_version, "annotations": annotations});
            let api: Api<PersistentVolumeClaim> =
                Api::namespaced(client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default());
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let patch = Patch::Merge(json!({"metadata": meta}));
            api.patch(name, &PatchParams::default(), &patch).await.map(drop)
        }
    }
}
