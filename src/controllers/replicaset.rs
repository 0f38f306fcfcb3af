//! ReplicaSet and ReplicationController: one engine that keeps the wished number of pods.

mod owner_kinds;
mod scale;
mod status;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::Selector;
use mini_client::cache::Kind;
use mini_client::{Cache, Caches, Client, Recorder};
use serde::Serialize;

use crate::driver::{Error, Key, Outcome, Source, Writes};
use crate::owner;
use crate::pod_control::PodControl;
use crate::pods;
use status::Counts;

/// A kind that owns interchangeable pods.
pub(crate) trait ReplicaOwner:
    Kind + Serialize + Resource<DynamicType = (), Scope = NamespaceResourceScope>
{
    const CONTROLLER: &'static str;
    /// Whether its status tells of terminating pods.
    const TELLS_TERMINATING: bool;
    /// `None` for an object that selects nothing or everything, which the server refuses to store anyway.
    fn wish(&self) -> Option<Wish<'_>>;
    /// The counts its status now shows.
    fn counts(&self) -> Counts;
    /// The conditions its status now shows, as JSON.
    fn conditions(&self) -> serde_json::Value;
}

/// What an owner asks for.
pub(crate) struct Wish<'a> {
    pub(crate) selector: Selector,
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) replicas: usize,
    pub(crate) min_ready_seconds: i32,
}

pub(crate) struct Controller<O> {
    client: Client,
    owners: Cache<O>,
    pods: Cache<Pod>,
    control: PodControl,
}

pub(crate) fn sets(client: &Client, caches: &Caches, recorder: Recorder) -> Controller<ReplicaSet> {
    controller(client, caches, recorder)
}

pub(crate) fn replication(client: &Client, caches: &Caches, recorder: Recorder) -> Controller<ReplicationController> {
    controller(client, caches, recorder)
}

fn controller<O: ReplicaOwner>(client: &Client, caches: &Caches, recorder: Recorder) -> Controller<O> {
    let control = PodControl::new(client, caches, recorder);
    Controller { client: client.clone(), owners: caches.of(), pods: caches.of(), control }
}

impl<O: ReplicaOwner> crate::driver::Controller for Controller<O> {
    fn name(&self) -> &'static str {
        O::CONTROLLER
    }

    fn sources(&self) -> Vec<Source> {
        let pods = owner::claimable(&self.pods, &self.owners, |owner: &O| owner.wish().map(|wish| wish.selector));
        vec![Source::own(&self.owners), pods]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(owner) = self.owners.get(&key.namespace, &key.name) else { return Ok(None) };
        let Some(wish) = owner.wish() else { return Ok(None) };
        let (active, rest): (Vec<_>, Vec<_>) =
            self.pods.list_in(&key.namespace).into_iter().partition(|pod| pods::is_active(pod));
        let active = owner::claim(&self.client, owner.as_ref(), &wish.selector, active, &self.pods, writes).await?;
        let terminating =
            rest.iter().filter(|pod| !pods::is_finished(pod) && owner::controls(owner.as_ref(), &pod.metadata)).count();
        let scaled: Result<(), Error> = if owner.meta().deletion_timestamp.is_none() {
            self.scale(owner.as_ref(), &wish, &active, writes).await
        } else {
            Ok(())
        };
        let again =
            self.write_status(owner.as_ref(), &wish, &active, terminating, &scaled, writes, Timestamp::now()).await;
        scaled?;
        again
    }
}

#[cfg(test)]
mod tests;
