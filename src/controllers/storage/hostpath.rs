//! Makes volumes of this node's own disk for classes with the provisioner `mini.local/hostpath`, and removes them.
//!
//! A volume is a folder that outlives its pods. It speaks the protocol of external provisioners, so it is idle until
//! there is such a class. Keys with a namespace are claims, those without are volumes.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use mini_client::volumes::{self, annotation};
use mini_client::{Cache, Caches, Client, EventType, Recorder, reference};
use serde_json::json;

use super::{change, directory, finalize, has_finalizer};
use crate::driver::{Error, Key, Outcome, Source, Writes, code, optional};

/// The name by which classes ask for this provisioner.
pub(crate) const NAME: &str = "mini.local/hostpath";
/// Bytes in the name of a file.
const NAME_MAX: usize = 255;
/// Keeps a volume until its folder is gone, also when somebody deletes the volume before its claim.
const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

pub(crate) struct Controller {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    recorder: Recorder,
    node: String,
    root: PathBuf,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, node: &crate::Node, recorder: Recorder) -> Self {
        let (claims, volumes, classes) = (caches.of(), caches.of(), caches.of());
        let (client, root) = (client.clone(), node.volumes.clone());
        Self { client, claims, volumes, classes, recorder, node: node.name.clone(), root }
    }

    /// What the claim asks for, once it is this provisioner's turn.
    fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<std::sync::Arc<StorageClass>> {
        let asked = annotation(&claim.metadata, volumes::PROVISIONER) == Some(NAME)
            && volumes::volume_name(claim).is_none()
            && claim.metadata.deletion_timestamp.is_none();
        let class = self.classes.get("", volumes::claim_class(claim).filter(|_| asked)?)?;
        let here = match annotation(&claim.metadata, volumes::SELECTED_NODE) {
            Some(node) => node == self.node,
            None => !volumes::waits_for_consumer(&class),
        };
        (class.provisioner == NAME && here).then_some(class)
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Error> {
        let spec = claim.spec.clone().unwrap_or_default();
        let class_name = class.metadata.name.as_deref().unwrap_or_default();
        let fail = |why: &str| {
            let said = format!("failed to provision volume with StorageClass {class_name:?}: {why}");
            self.recorder.event(&reference(claim), EventType::Warning, "ProvisioningFailed", said);
        };
        if spec.volume_mode.as_deref() == Some("Block") {
            fail("block volumes are not supported");
            return Ok(());
        }
        if spec.selector.is_some() {
            fail("claim Selector is not supported");
            return Ok(());
        }
        if spec.data_source.is_some() || spec.data_source_ref.is_some() {
            fail("volumes made from a data source are not supported");
            return Ok(());
        }
        let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
        if self.volumes.get("", &name).is_some() {
            return Ok(());
        }
        let key = Key::of(claim);
        let said = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.recorder.event(&reference(claim), EventType::Normal, "Provisioning", said);
        let folder = folder(&key, &name);
        let (root, made) = (self.root.clone(), folder.clone());
        if let Err(error) = blocking(move || directory::make(&root, &made)).await {
            fail(&format!("cannot make {}: {error}", self.root.join(&folder).display()));
            return Err(Error::NotYet(error.to_string()));
        }
        let mut promise = reference(claim);
        promise.api_version = Some("v1".to_owned());
        let reclaim = class.reclaim_policy.as_deref().unwrap_or("Delete");
        let hostname = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}]);
        let finalizers = if reclaim == "Delete" { vec![FINALIZER] } else { Vec::new() };
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {volumes::PROVISIONED_BY: NAME}, "finalizers": finalizers},
            "spec": {
                "capacity": {"storage": spec.resources.and_then(|r| r.requests?.get("storage").cloned())},
                "accessModes": spec.access_modes, "volumeMode": "Filesystem", "claimRef": promise,
                "persistentVolumeReclaimPolicy": reclaim, "storageClassName": class_name,
                "hostPath": {"path": self.root.join(&folder), "type": "Directory"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": hostname}]}},
            },
        });
        let volume = serde_json::from_value(volume).map_err(|error| Error::NotYet(error.to_string()))?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &volume).await {
            Err(error) if code(&error) != 409 => {
                fail(&crate::driver::message(&error));
                return Err(error.into());
            }
            _ => {}
        }
        let said = format!("Successfully provisioned volume {name}");
        self.recorder.event(&reference(claim), EventType::Normal, "ProvisioningSucceeded", said);
        Ok(())
    }

    async fn reclaim(&self, volume: &PersistentVolume, writes: &mut Writes) -> Result<(), Error> {
        let spec = volume.spec.clone().unwrap_or_default();
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let ours = annotation(&volume.metadata, volumes::PROVISIONED_BY) == Some(NAME);
        if !ours || phase != "Released" || spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete") {
            return Ok(());
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let claim = spec.claim_ref.unwrap_or_default();
        let folder = folder(&Key::new(claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default()), name);
        let path = self.root.join(&folder);
        // Only what this provisioner would have made: the object may be anybody's.
        if spec.host_path.is_none_or(|source| path != source.path) {
            let said = format!("the volume is not the folder {} of its claim", path.display());
            self.recorder.event(&reference(volume), EventType::Warning, "VolumeFailedDelete", said);
            return Ok(());
        }
        let root = self.root.clone();
        if let Err(error) = blocking(move || directory::remove(&root, &folder)).await {
            let said = format!("cannot remove {}: {error}", path.display());
            self.recorder.event(&reference(volume), EventType::Warning, "VolumeFailedDelete", said.clone());
            return Err(Error::NotYet(said));
        }
        if has_finalizer(volume, FINALIZER) {
            change(&self.client, volume, false, |live| finalize(live, FINALIZER, false)).await?;
        }
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let preconditions = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        if optional(api.delete(name, &params).await)?.is_some() {
            writes.deleted(&self.volumes, volume);
        }
        Ok(())
    }
}

/// A name that tells a person whose it is, as far as a file's name reaches; the volume's own name makes it unique.
fn folder(claim: &Key, volume: &str) -> String {
    let mut owner = format!("{}-{}", claim.namespace, claim.name);
    owner.truncate(NAME_MAX.saturating_sub(volume.len() + 1));
    format!("{owner}-{volume}")
}

async fn blocking(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> std::io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "hostpath-storage"
    }

    fn sources(&self) -> Vec<Source> {
        let claims = self.claims.clone();
        let classes = Source::of(&self.classes, move |change| {
            let name = change.object().metadata.name.clone();
            let asks = |claim: &PersistentVolumeClaim| volumes::claim_class(claim).map(str::to_owned) == name;
            claims.list().iter().filter(|claim| asks(claim)).map(|claim| Key::of(claim.as_ref())).collect()
        });
        vec![Source::own(&self.claims), Source::own(&self.volumes), classes]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        if key.namespace.is_empty() {
            if let Some(volume) = self.volumes.get("", &key.name) {
                self.reclaim(&volume, writes).await?;
            }
        } else if let Some(claim) = self.claims.get(&key.namespace, &key.name)
            && let Some(class) = self.class_of(&claim)
        {
            self.provision(&claim, &class).await?;
        }
        Ok(None)
    }
}
