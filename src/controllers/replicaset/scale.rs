//! Creating what is missing and deleting what is too much.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use mini_client::{EventType, reference};

use super::{Controller, ReplicaOwner, Wish};
use crate::driver::{Error, Writes, code, message};
use crate::owner::controller_reference;
use crate::pods;

/// Pods created or deleted by one reconcile.
const BURST: usize = 500;

impl<O: ReplicaOwner> Controller<O> {
    pub(super) async fn scale(
        &self,
        owner: &O,
        wish: &Wish<'_>,
        active: &[Arc<Pod>],
        writes: &mut Writes,
    ) -> Result<(), Error> {
        if active.len() < wish.replicas {
            self.create(owner, wish, (wish.replicas - active.len()).min(BURST), writes).await
        } else if active.len() > wish.replicas {
            self.delete(owner, active, (active.len() - wish.replicas).min(BURST), writes).await
        } else {
            Ok(())
        }
    }

    /// Creates pods in batches of 1, 2, 4 …: if the server refuses one, it is not asked hundreds of times.
    async fn create(&self, owner: &O, wish: &Wish<'_>, count: usize, writes: &mut Writes) -> Result<(), Error> {
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let pod = pod_of(owner, wish);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = left.min(batch);
            let params = PostParams::default();
            let created = futures::future::join_all((0..size).map(|_| api.create(&params, &pod))).await;
            let mut failure = None;
            for result in created {
                match result {
                    Ok(pod) => {
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        let said = format!("Created pod: {name}");
                        self.recorder.event(&reference(owner), EventType::Normal, "SuccessfulCreate", said);
                        writes.wrote(&self.pods, &pod);
                    }
                    Err(error) if namespace_is_leaving(&error) => return Ok(()),
                    Err(error) => {
                        let said = format!("Error creating: {}", message(&error));
                        self.recorder.event(&reference(owner), EventType::Warning, "FailedCreate", said);
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                return Err(error.into());
            }
            left -= size;
            batch = size * 2;
        }
        Ok(())
    }

    async fn delete(&self, owner: &O, active: &[Arc<Pod>], count: usize, writes: &mut Writes) -> Result<(), Error> {
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let mut ranked = active.to_vec();
        pods::sort_for_deletion(&mut ranked);
        ranked.truncate(count);
        let deletions = ranked.iter().map(|pod| {
            let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let (api, name) = (&api, pod.metadata.name.clone().unwrap_or_default());
            async move { api.delete(&name, &params).await.map(|_| ()) }
        });
        let mut failure = None;
        for (result, pod) in futures::future::join_all(deletions).await.into_iter().zip(&ranked) {
            match result {
                Ok(()) => {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    let said = format!("Deleted pod: {name}");
                    self.recorder.event(&reference(owner), EventType::Normal, "SuccessfulDelete", said);
                    writes.deleted(&self.pods, pod.as_ref());
                }
                Err(error) if code(&error) == 404 => writes.deleted(&self.pods, pod.as_ref()),
                Err(error) => {
                    let said = format!("Error deleting: {}", message(&error));
                    self.recorder.event(&reference(owner), EventType::Warning, "FailedDelete", said);
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn pod_of<O: ReplicaOwner>(owner: &O, wish: &Wish<'_>) -> Pod {
    let template = wish.template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.meta().name.as_deref().unwrap_or_default())),
            namespace: owner.meta().namespace.clone(),
            labels: template.labels,
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: wish.template.spec.clone(),
        status: None,
    }
}

/// Creations in a namespace that is being deleted all fail, and need not be told.
fn namespace_is_leaving(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
