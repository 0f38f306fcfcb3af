//! Binds claims to volumes, one to one, and keeps the phases of both (upstream's `persistentvolume-binder`).
//!
//! Keys with a namespace are claims, those without are volumes. Invariant: a binding is written on the volume first, so
//! that two claims can never have one volume: the second writer meets a conflict.

mod claim;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use mini_client::volumes;
use mini_client::{Cache, Caches, Change, Client, EventType, Recorder, reference};

use crate::driver::{Key, Outcome, Source, Writes};

pub(crate) struct Controller {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    pods: Cache<Pod>,
    recorder: Recorder,
}

type Done = Result<(), kube::Error>;

fn name<K: kube::Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        let (claims, volumes, classes, pods) = (caches.of(), caches.of(), caches.of(), caches.of());
        Self { client: client.clone(), claims, volumes, classes, pods, recorder }
    }

    fn tell<K: kube::Resource<DynamicType = ()>>(&self, about: &K, kind: EventType, reason: &str, said: String) {
        self.recorder.event(&reference(about), kind, reason, said);
    }

    /// Claims that a new or freed volume, or a new class, may serve.
    fn unbound(claims: &Cache<PersistentVolumeClaim>, class: Option<&str>) -> Vec<Key> {
        let waits = |claim: &&Arc<PersistentVolumeClaim>| {
            !volumes::is_bound(claim)
                && class.is_none_or(|class| volumes::claim_class(claim).is_none_or(|own| own == class))
        };
        claims.list().iter().filter(waits).map(|claim| Key::of(claim.as_ref())).collect()
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn sources(&self) -> Vec<Source> {
        let known = self.volumes.clone();
        let claims = Source::of(&self.claims, move |change| {
            let claim = change.object();
            let mut keys = vec![Key::of(claim.as_ref())];
            // A claim that comes or goes concerns the volumes promised to it.
            if !matches!(change, Change::Updated { .. }) {
                let named = known.list().into_iter().filter(|volume| {
                    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                    reference.is_some_and(|r| r.name == claim.metadata.name && r.namespace == claim.metadata.namespace)
                });
                keys.extend(named.map(|volume| Key::of(volume.as_ref())));
            }
            keys.extend(volumes::volume_name(claim).map(|bound| Key::new("", bound)));
            keys
        });
        let all = self.claims.clone();
        let volumes = Source::of(&self.volumes, move |change| {
            let volume = change.object();
            let mut keys = vec![Key::of(volume.as_ref())];
            match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
                Some(held) => keys
                    .push(Key::new(held.namespace.clone().unwrap_or_default(), held.name.clone().unwrap_or_default())),
                None if !matches!(change, Change::Deleted(_)) => keys.extend(Self::unbound(&all, None)),
                None => {}
            }
            keys
        });
        let all = self.claims.clone();
        let classes =
            Source::of(&self.classes, move |change| Self::unbound(&all, change.object().metadata.name.as_deref()));
        vec![claims, volumes, classes]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        if key.namespace.is_empty() {
            if let Some(volume) = self.volumes.get("", &key.name) {
                self.volume(&volume, writes).await?;
            }
        } else if let Some(claim) = self.claims.get(&key.namespace, &key.name) {
            self.claim(&claim, writes).await?;
        }
        Ok(None)
    }
}
