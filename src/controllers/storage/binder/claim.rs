//! The claim's side: it finds a volume, waits for its first consumer or asks a provisioner, and stays bound or is lost.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use mini_client::volumes::{self, annotation};
use mini_client::{EventType, reference};
use serde_json::{Value, json};

use super::{Controller, Done, name};
use crate::driver::Writes;
use crate::storage::{annotate, change, put};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The default class: the newest where several say so.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let marked =
        |class: &&Arc<StorageClass>| DEFAULT_CLASS.iter().any(|name| annotation(&class.metadata, name) == Some("true"));
    classes.iter().filter(marked).max_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, std::cmp::Reverse(class.metadata.name.clone()))
    })
}

impl Controller {
    pub(super) async fn claim(&self, claim: &PersistentVolumeClaim, writes: &mut Writes) -> Done {
        if annotation(&claim.metadata, volumes::BIND_COMPLETED).is_some() {
            return self.bound_claim(claim, writes).await;
        }
        match volumes::volume_name(claim) {
            None => self.unbound_claim(claim, writes).await,
            Some(wanted) => self.choosy_claim(claim, wanted, writes).await,
        }
    }

    /// The claim leaves the choice to us.
    async fn unbound_claim(&self, claim: &PersistentVolumeClaim, writes: &mut Writes) -> Done {
        let classes = self.classes.list();
        if volumes::claim_class(claim).is_none()
            && let Some(default) = default_class(&classes)
        {
            // Made before there was a default class: it gets it now, and comes back.
            let edit = |live: &mut Value| live["spec"]["storageClassName"] = name(default.as_ref()).into();
            if let Some(written) = change(&self.client, claim, false, edit).await? {
                writes.wrote(&self.claims, &written);
            }
            return Ok(());
        }
        let class_name = volumes::claim_class(claim).unwrap_or_default();
        let class = self.classes.get("", class_name);
        let placed = annotation(&claim.metadata, volumes::SELECTED_NODE).is_some();
        let delayed = class.as_deref().is_some_and(volumes::waits_for_consumer);
        let all = self.volumes.list();
        if let Some(volume) = volumes::find(claim, &all, delayed, None, &HashSet::new()) {
            return self.bind(volume, claim, writes).await;
        }
        if delayed && !placed {
            self.tell_waiting(claim);
        } else if class_name.is_empty() {
            let said = "no persistent volumes available for this claim and no storage class is set";
            self.tell(claim, EventType::Normal, "FailedBinding", said.to_owned());
        } else if let Some(class) = class {
            self.provision(claim, &class, writes).await?;
        } else {
            let said = format!("storageclass.storage.k8s.io {class_name:?} not found");
            self.tell(claim, EventType::Warning, "ProvisioningFailed", said);
        }
        self.claim_phase(claim, "Pending", None, writes).await
    }

    fn tell_waiting(&self, claim: &PersistentVolumeClaim) {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let waiting = self.pods.list_in(namespace).into_iter().find(|pod| {
            let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            !placed && crate::pods::is_active(pod) && crate::pods::claims(pod).any(|used| used == name(claim))
        });
        let (reason, said) = match waiting {
            Some(pod) => ("WaitForPodScheduled", format!("waiting for pod {} to be scheduled", name(pod.as_ref()))),
            None => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        };
        self.tell(claim, EventType::Normal, reason, said);
    }

    /// Asks the class's provisioner for a volume.
    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass, writes: &mut Writes) -> Done {
        let provisioner = class.provisioner.as_str();
        if provisioner.starts_with("kubernetes.io/") {
            let said = format!("no volume plugin matched name: {provisioner}");
            self.tell(claim, EventType::Warning, "ProvisioningFailed", said);
            return Ok(());
        }
        let edit = |live: &mut Value| {
            annotate(live, volumes::PROVISIONER, Some(provisioner));
            annotate(live, volumes::OLD_PROVISIONER, Some(provisioner));
        };
        if annotation(&claim.metadata, volumes::PROVISIONER) != Some(provisioner)
            && let Some(written) = change(&self.client, claim, false, edit).await?
        {
            writes.wrote(&self.claims, &written);
        }
        let said = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.tell(claim, EventType::Normal, "ExternalProvisioning", said);
        Ok(())
    }

    /// The claim names its volume.
    async fn choosy_claim(&self, claim: &PersistentVolumeClaim, wanted: &str, writes: &mut Writes) -> Done {
        let Some(volume) = self.volumes.get("", wanted) else {
            return self.claim_phase(claim, "Pending", None, writes).await;
        };
        let free = volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
        if !free && !volumes::is_promised_to(&volume, claim) {
            let said = format!("volume {wanted:?} already bound to a different claim.");
            self.tell(claim, EventType::Warning, "FailedBinding", said);
            return self.claim_phase(claim, "Pending", None, writes).await;
        }
        if free && let Some(why) = volumes::mismatch(&volume, claim) {
            let said = format!("Cannot bind to requested volume {wanted:?}: {why}");
            self.tell(claim, EventType::Warning, "VolumeMismatch", said);
            return self.claim_phase(claim, "Pending", None, writes).await;
        }
        self.bind(&volume, claim, writes).await
    }

    /// The claim was bound once; it can only stay so or be lost.
    async fn bound_claim(&self, claim: &PersistentVolumeClaim, writes: &mut Writes) -> Done {
        let lost = |why: &'static str, reason: &'static str| (why, reason);
        let (why, reason) = match volumes::volume_name(claim) {
            None => {
                lost("Bound claim has lost reference to PersistentVolume. Data on the volume is lost!", "ClaimLost")
            }
            Some(bound) => match self.volumes.get("", bound) {
                None => lost("Bound claim has lost its PersistentVolume. Data on the volume is lost!", "ClaimLost"),
                Some(volume) => {
                    let free = volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
                    if free || volumes::is_promised_to(&volume, claim) {
                        return self.bind(&volume, claim, writes).await;
                    }
                    let why = "Two claims are bound to the same volume, this one is bound incorrectly";
                    lost(why, "ClaimMisbound")
                }
            },
        };
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Lost") {
            self.claim_phase(claim, "Lost", None, writes).await?;
            self.tell(claim, EventType::Warning, reason, why.to_owned());
        }
        Ok(())
    }

    /// Writes what is missing of: the volume's promise, its phase, the claim's volume, its phase.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim, writes: &mut Writes) -> Done {
        let mut volume = volume.clone();
        let held = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone());
        if held.as_ref().is_none_or(|held| held.uid != claim.metadata.uid) {
            let revision = volume.metadata.resource_version.clone();
            let edit = |live: &mut Value| {
                // Chosen as it was seen: if it changed since, the server refuses.
                live["metadata"]["resourceVersion"] = json!(revision);
                let mut promise = reference(claim);
                promise.api_version = Some("v1".to_owned());
                live["spec"]["claimRef"] = json!(promise);
                if held.is_none() {
                    annotate(live, volumes::BOUND_BY_CONTROLLER, Some("yes"));
                }
            };
            let Some(written) = change(&self.client, &volume, false, edit).await? else { return Ok(()) };
            writes.wrote(&self.volumes, &written);
            volume = written;
        }
        self.volume_phase(&volume, "Bound", "", "", writes).await?;
        let mut claim = claim.clone();
        let named = volumes::volume_name(&claim).is_some();
        if !volumes::is_bound(&claim) {
            let edit = |live: &mut Value| {
                live["spec"]["volumeName"] = name(&volume).into();
                annotate(live, volumes::BIND_COMPLETED, Some("yes"));
                if !named {
                    annotate(live, volumes::BOUND_BY_CONTROLLER, Some("yes"));
                }
            };
            let Some(written) = change(&self.client, &claim, false, edit).await? else { return Ok(()) };
            writes.wrote(&self.claims, &written);
            claim = written;
        }
        self.claim_phase(&claim, "Bound", Some(&volume), writes).await
    }

    async fn claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
        writes: &mut Writes,
    ) -> Done {
        let spec = volume.and_then(|volume| volume.spec.as_ref());
        let (modes, capacity) =
            (spec.and_then(|spec| spec.access_modes.clone()), spec.and_then(|spec| spec.capacity.clone()));
        let status = claim.status.clone().unwrap_or_default();
        let first = status.phase.as_deref() != Some("Bound");
        // The capacity of a bound claim is its resizer's to change.
        let same = status.phase.as_deref() == Some(phase) && (!first || volume.is_none() || status.capacity.is_some());
        if same {
            return Ok(());
        }
        let edit = |live: &mut Value| {
            let status = &mut live["status"];
            status["phase"] = phase.into();
            put(status, "accessModes", json!(modes));
            put(status, "capacity", json!(capacity));
        };
        if let Some(written) = change(&self.client, claim, true, edit).await? {
            writes.wrote(&self.claims, &written);
        }
        Ok(())
    }
}
