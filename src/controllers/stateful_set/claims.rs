//! The claims of a set's pods: made from its templates, and owned as its retention policy says.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mini_client::{Cache, EventType, reference};
use serde_json::json;

use super::{Controller, Round, pod_name};
use crate::driver::{Error, Key, Source, Writes, code, message};
use crate::owner::{controller_of, controller_reference};

/// Claims concern the sets after whose pods they are named.
pub(super) fn source(claims: &Cache<PersistentVolumeClaim>, sets: &Cache<StatefulSet>) -> Source {
    let sets = sets.clone();
    Source::of(claims, move |change| {
        let meta = &change.object().metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let is_of = |set: &StatefulSet| {
            let templates = set.spec.volume_claim_templates.iter().flatten();
            let set = set.metadata.name.as_deref().unwrap_or_default();
            let mut names = templates.filter_map(|template| template.metadata.name.as_deref());
            names.any(|template| {
                let rest = name.strip_prefix(template).and_then(|rest| rest.strip_prefix('-')?.strip_prefix(set));
                rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(|ordinal| ordinal.parse::<u32>().is_ok())
            })
        };
        sets.list_in(namespace).iter().filter(|set| is_of(set)).map(|set| Key::of(set.as_ref())).collect()
    })
}

impl Controller {
    fn claims_api(&self, set: &StatefulSet) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// Makes the claims of a pod that are not there.
    pub(super) async fn make_claims(&self, round: &Round<'_>, pod: &Pod, writes: &mut Writes) -> Result<(), Error> {
        let namespace = round.set.metadata.namespace.as_deref().unwrap_or_default();
        let names = round.claim_names(pod_name(pod));
        for ((_, name), template) in names.iter().zip(round.spec.volume_claim_templates.iter().flatten()) {
            if let Some(present) = self.claims.get(namespace, name) {
                if present.metadata.deletion_timestamp.is_some() {
                    return Err(Error::NotYet(format!("pvc {name} is being deleted")));
                }
                continue;
            }
            let mut claim = template.clone();
            claim.metadata.name = Some(name.clone());
            claim.metadata.namespace = Some(namespace.to_owned());
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(round.spec.selector.match_labels.clone().unwrap_or_default());
            claim.metadata.owner_references = round.claim_owner(None).map(|owner| vec![owner]);
            claim.status = None;
            let (set, pod) = (round.name(), pod_name(pod));
            match self.claims_api(round.set).create(&PostParams::default(), &claim).await {
                Ok(made) => {
                    let said = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                    self.recorder.event(&reference(round.set), EventType::Normal, "SuccessfulCreate", said);
                    writes.wrote(&self.claims, &made);
                }
                Err(error) if code(&error) == 409 => {}
                Err(error) => {
                    let why = message(&error);
                    let said = format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {why}");
                    self.recorder.event(&reference(round.set), EventType::Warning, "FailedCreate", said);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Whether a claim of this pod still belongs to a former pod of the same name, and will go with it.
    pub(super) fn claims_are_stale(&self, round: &Round<'_>, pod: &str) -> bool {
        let namespace = round.set.metadata.namespace.as_deref().unwrap_or_default();
        let owned = |name: &String| {
            let claim = self.claims.get(namespace, name);
            let owners =
                claim.as_ref().and_then(|claim| claim.metadata.owner_references.as_deref()).unwrap_or_default();
            owners.iter().any(|owner| owner.kind == "Pod" && owner.name == pod)
        };
        round.claim_names(pod).iter().any(|(_, claim)| owned(claim))
    }

    /// Gives a pod's claims the owner that the retention policy asks for.
    pub(super) async fn own_claims(
        &self,
        round: &Round<'_>,
        pod: &Pod,
        condemned: bool,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let namespace = round.set.metadata.namespace.as_deref().unwrap_or_default();
        let wanted = round.claim_owner(condemned.then_some(pod));
        for (_, name) in round.claim_names(pod_name(pod)) {
            let Some(claim) = self.claims.get(namespace, &name) else { continue };
            let owners = claim.metadata.owner_references.clone().unwrap_or_default();
            let (set, ours) = (&round.set.metadata.uid, &pod.metadata.uid);
            let is_ours =
                |owner: &OwnerReference| Some(&owner.uid) == set.as_ref() || Some(&owner.uid) == ours.as_ref();
            // Another controller's claim is its own affair.
            if controller_of(&claim.metadata).is_some_and(|owner| !is_ours(owner)) {
                continue;
            }
            let mut next: Vec<_> = owners.iter().filter(|owner| !is_ours(owner)).cloned().collect();
            next.extend(wanted.clone());
            if next == owners {
                continue;
            }
            let meta = json!({"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
                "ownerReferences": next});
            let patch = Patch::Merge(json!({"metadata": meta}));
            let written = self.claims_api(round.set).patch(&name, &PatchParams::default(), &patch).await?;
            writes.wrote(&self.claims, &written);
        }
        Ok(())
    }
}

impl Round<'_> {
    /// Who is to own the claims of a pod, which may be condemned: its set, the pod, or nobody.
    fn claim_owner(&self, condemned: Option<&Pod>) -> Option<OwnerReference> {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
        let scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
        let deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
        match condemned {
            Some(pod) if scaled => Some(controller_reference(pod)),
            _ if deleted => Some(controller_reference(self.set)),
            _ => None,
        }
    }
}
