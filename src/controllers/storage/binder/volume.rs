//! The volume's side: its phase follows its claim, and what has lost its claim is released or made available again.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use mini_client::EventType;
use mini_client::volumes::{self, annotation};
use serde_json::{Value, json};

use super::{Controller, Done, name};
use crate::driver::Writes;
use crate::storage::{annotate, change, put};

fn phase_of(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

impl Controller {
    pub(super) async fn volume(&self, volume: &PersistentVolume, writes: &mut Writes) -> Done {
        let Some(wanted) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
            return self.volume_phase(volume, "Available", "", "", writes).await;
        };
        let uid = wanted.uid.as_deref().unwrap_or_default();
        if uid.is_empty() {
            // Kept by the user for a claim that is still to come.
            return self.volume_phase(volume, "Available", "", "", writes).await;
        }
        let namespace = wanted.namespace.as_deref().unwrap_or_default();
        let found = self.claims.get(namespace, wanted.name.as_deref().unwrap_or_default());
        let Some(claim) = found.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else {
            return self.released(volume, writes).await;
        };
        match volumes::volume_name(&claim) {
            // The claim's own turn completes what this volume began.
            None => Ok(()),
            Some(bound) if bound == name(volume) => self.volume_phase(volume, "Bound", "", "", writes).await,
            Some(_)
                if annotation(&volume.metadata, volumes::PROVISIONED_BY).is_some() && policy(volume) == "Delete" =>
            {
                // Made for a claim that took another one meanwhile.
                self.volume_phase(volume, "Released", "", "", writes).await
            }
            Some(_) => self.unbind(volume, writes).await,
        }
    }

    /// The claim is gone for good: a hint of the cache is not enough for that.
    async fn released(&self, volume: &PersistentVolume, writes: &mut Writes) -> Done {
        let Some(wanted) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return Ok(()) };
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), wanted.namespace.as_deref().unwrap_or_default());
        let live = api.get_opt(wanted.name.as_deref().unwrap_or_default()).await?;
        if live.is_some_and(|claim| claim.metadata.uid == wanted.uid) {
            return Ok(());
        }
        if !matches!(phase_of(volume), "Released" | "Failed") {
            self.volume_phase(volume, "Released", "", "", writes).await?;
        }
        let said = match policy(volume) {
            // A provisioner deletes what it made.
            "Delete" if annotation(&volume.metadata, volumes::PROVISIONED_BY).is_none() => format!(
                "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                name(volume)
            ),
            "Recycle" => "no volume plugin can recycle this volume".to_owned(),
            _ => return Ok(()),
        };
        let reason = if policy(volume) == "Delete" { "VolumeFailedDelete" } else { "VolumeFailedRecycle" };
        if phase_of(volume) != "Failed" {
            self.volume_phase(volume, "Failed", reason, &said, writes).await?;
            self.tell(volume, EventType::Warning, reason, said);
        }
        Ok(())
    }

    pub(super) async fn volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        reason: &str,
        message: &str,
        writes: &mut Writes,
    ) -> Done {
        let edit = |live: &mut Value| {
            let status = &mut live["status"];
            if status["phase"] != phase {
                status["phase"] = phase.into();
                status["lastPhaseTransitionTime"] = json!(Time(Timestamp::now()));
            }
            for (field, value) in [("reason", reason), ("message", message)] {
                put(status, field, if value.is_empty() { Value::Null } else { value.into() });
            }
        };
        let told = volume.status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
        if phase_of(volume) == phase && told == message {
            return Ok(());
        }
        if let Some(written) = change(&self.client, volume, true, edit).await? {
            writes.wrote(&self.volumes, &written);
        }
        Ok(())
    }

    async fn unbind(&self, volume: &PersistentVolume, writes: &mut Writes) -> Done {
        let ours = annotation(&volume.metadata, volumes::BOUND_BY_CONTROLLER).is_some();
        let edit = |live: &mut Value| {
            if ours {
                annotate(live, volumes::BOUND_BY_CONTROLLER, None);
            }
            let target = if ours { live.get_mut("spec") } else { live.pointer_mut("/spec/claimRef") };
            let fields: &[&str] = if ours { &["claimRef"] } else { &["uid", "resourceVersion"] };
            if let Some(map) = target.and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(map.remove(*field)));
            }
        };
        if let Some(written) = change(&self.client, volume, false, edit).await? {
            writes.wrote(&self.volumes, &written);
            self.volume_phase(&written, "Available", "", "", writes).await?;
        }
        Ok(())
    }
}
