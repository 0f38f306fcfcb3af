//! Claims in use by pods, and volumes bound to claims, are kept until they are not (upstream's `pvc-protection` and
//! `pv-protection` controllers).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::ListParams;
use mini_client::{Cache, Caches, Client};

use super::{change, finalize, has_finalizer};
use crate::driver::{Key, Outcome, Source, Writes};
use crate::pods;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

pub(crate) struct Controller {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    pods: Cache<Pod>,
}

/// Placed pods count, also finished ones; those without a node are not let start with a claim that is leaving.
fn uses(pod: &Pod, claim: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()))
        && pods::claims(pod).any(|used| used == claim)
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), claims: caches.of(), volumes: caches.of(), pods: caches.of() }
    }

    async fn claim(&self, claim: &PersistentVolumeClaim, key: &Key, writes: &mut Writes) -> Result<(), kube::Error> {
        match (claim.metadata.deletion_timestamp.is_some(), has_finalizer(claim, CLAIM)) {
            (false, false) => return self.protect_claim(claim, true, writes).await,
            (true, true) => {}
            _ => return Ok(()),
        }
        if self.pods.list_in(&key.namespace).iter().any(|pod| uses(pod, &key.name)) {
            return Ok(());
        }
        // The caches may not have heard of a pod that has just started.
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        if api.list(&ListParams::default()).await?.iter().any(|pod| uses(pod, &key.name)) {
            return Ok(());
        }
        self.protect_claim(claim, false, writes).await
    }

    async fn protect_claim(
        &self,
        claim: &PersistentVolumeClaim,
        present: bool,
        writes: &mut Writes,
    ) -> Result<(), kube::Error> {
        let written = change(&self.client, claim, false, |live| finalize(live, CLAIM, present)).await?;
        if present && let Some(written) = written {
            writes.wrote(&self.claims, &written);
        }
        Ok(())
    }

    async fn volume(&self, volume: &PersistentVolume, writes: &mut Writes) -> Result<(), kube::Error> {
        let (leaving, kept) = (volume.metadata.deletion_timestamp.is_some(), has_finalizer(volume, VOLUME));
        let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let present = match (leaving, kept) {
            (false, false) => true,
            (true, true) if !bound => false,
            _ => return Ok(()),
        };
        let written = change(&self.client, volume, false, |live| finalize(live, VOLUME, present)).await?;
        if present && let Some(written) = written {
            writes.wrote(&self.volumes, &written);
        }
        Ok(())
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "volume-protection"
    }

    fn sources(&self) -> Vec<Source> {
        let pods = Source::of(&self.pods, |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            pods::claims(pod).map(|claim| Key::new(namespace, claim)).collect()
        });
        vec![Source::own(&self.claims), Source::own(&self.volumes), pods]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        if key.namespace.is_empty() {
            if let Some(volume) = self.volumes.get("", &key.name) {
                self.volume(&volume, writes).await?;
            }
        } else if let Some(claim) = self.claims.get(&key.namespace, &key.name) {
            self.claim(&claim, key, writes).await?;
        }
        Ok(None)
    }
}
